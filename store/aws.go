package store

import (
	"bufio"
	"cmp"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// credentials are those of the variables, else of the user's file (docs.aws.amazon.com, "Configuration and credential file settings"), else, where the variables or the
// location say so, of the service that the container or instance has for that; none otherwise. No program is run for them.
func (o *Options) credentials(b bucket, t http.RoundTripper) (*credentials.Credentials, error) {
	for _, names := range [][3]string{{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}, {"MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", ""}, {"MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", ""}} {
		if id, secret := o.Env(names[0]), o.Env(names[1]); id != "" && secret != "" {
			return o.static(id, secret, o.Env(names[2])), nil
		}
	}
	if file := cmp.Or(o.Env("AWS_SHARED_CREDENTIALS_FILE"), filepath.Join(o.Home, ".aws/credentials")); o.Home != "" || filepath.IsAbs(file) {
		if keys := profile(file, cmp.Or(o.Env("AWS_PROFILE"), "default")); keys["aws_access_key_id"] != "" {
			return o.static(keys["aws_access_key_id"], keys["aws_secret_access_key"], keys["aws_session_token"]), nil
		}
	}
	asked := b.iam
	for _, name := range []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		asked = asked || o.Env(name) != ""
	}
	u := &url.URL{Scheme: "https", Host: b.endpoint}
	if b.plain {
		u.Scheme = "http"
	}
	for _, l := range o.Logins {
		if l.HTTP = true; !asked && l.fits(u) { // a signature shows nothing of the secret
			return o.static(l.User, l.Secret, ""), nil
		}
	}
	if !asked {
		return credentials.NewStaticV4("", "", ""), nil // anonymous
	}
	// It reads these variables by itself.
	return credentials.New(&credentials.IAM{Client: &http.Client{Transport: t, Timeout: 10 * time.Second}}), nil
}

func (o *Options) static(id, secret, token string) *credentials.Credentials {
	o.Log.Mask(secret)
	if token != "" {
		o.Log.Mask(token)
	}
	return credentials.NewStaticV4(id, secret, token)
}

// profile reads a section of an ini file: [name], then key = value lines. A file that cannot be read has none.
func profile(name, section string) map[string]string {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	keys := map[string]string{}
	in := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if title, ok := strings.CutPrefix(line, "["); ok {
			in = strings.TrimSpace(strings.TrimSuffix(title, "]")) == section
			continue
		}
		if key, value, ok := strings.Cut(line, "="); ok && in && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ";") {
			keys[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(value)
		}
	}
	return keys
}
