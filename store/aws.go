package store

import (
	"cmp"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/mask"
)

// credentials are those of the variables, else of the user's file (docs.aws.amazon.com, "Configuration and credential file settings"), else, where the variables or the
// location say so, of the service that the container or instance has for that; none otherwise. No program is run for them.
func (o *Options) credentials(b bucket, t *http.Transport) (*credentials.Credentials, error) {
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
	for _, name := range []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"} { // a FIFO would be waited for
		if file := o.Env(name); file != "" {
			if _, err := fsx.ReadFile(file, mostFile); err != nil {
				return nil, fail.Errorf(fail.Usage, "the token that %s names: %w", name, err).WithHint("name a file with a token, or unset the variable")
			}
		}
	}
	t = t.Clone()
	t.Proxy = o.proxyForRoles
	// It reads these variables by itself.
	return credentials.New(&credentials.IAM{Client: &http.Client{Transport: guard{t, false}, CheckRedirect: refuseRedirect, Timeout: 10 * time.Second}}), nil
}

// refuseRedirect keeps the token that the service was shown from others.
func refuseRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// proxyForRoles is the proxy for the services that have a role's credentials. Those of the instance and of the container are only what they are from
// here, without one: a proxy would be asked for its own role, or learn ours.
func (o *Options) proxyForRoles(r *http.Request) (*url.URL, error) {
	if o.Proxy == nil || near(r.URL.Hostname()) {
		return nil, nil
	}
	return o.Proxy(r)
}

var instance6 = netip.MustParsePrefix("fd00:ec2::/32") // the services' addresses of EC2 and EKS in IPv6

// near tells whether a host is this one, or a service that only this one reaches.
func near(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && (ip.IsLoopback() || ip.IsLinkLocalUnicast() || instance6.Contains(ip))
}

func (o *Options) static(id, secret, token string) *credentials.Credentials {
	o.Log.Mask(append(mask.Forms(secret), mask.Forms(token)...)...)
	return credentials.NewStaticV4(id, secret, token)
}

// profile reads a section of an ini file: [name], then key = value lines. A file that cannot be read has none.
func profile(name, section string) map[string]string {
	text, err := fsx.ReadFile(name, mostFile)
	if err != nil {
		return nil
	}
	keys := map[string]string{}
	in := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
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
