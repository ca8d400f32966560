//go:build linux

package tests

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// keeper is a web server and an S3 server with TLS, for one store. It answers as its case says, and repeats whatever it was shown.
type keeper struct {
	*httptest.Server
	mu       sync.Mutex
	files    map[string][]byte
	shown    []string // all header fields of all requests, and their queries
	status   int      // for all requests, 0 for those of a store
	repeats  string   // is what it says
	redirect string   // where all requests are sent, but for the key
}

func newKeeper(t *testing.T) *keeper {
	t.Helper()
	k := &keeper{files: map[string][]byte{}}
	k.Server = httptest.NewTLSServer(k)
	t.Cleanup(k.Close)
	return k
}

func (k *keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.shown = append(k.shown, "?"+r.URL.RawQuery)
	for name, values := range r.Header {
		k.shown = append(k.shown, name+": "+strings.Join(values, ", "))
	}
	repeats := k.repeats + " " + r.Header.Get("Authorization")
	body, _ := io.ReadAll(r.Body)
	have, ok := k.files[r.URL.Path]
	w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
	switch {
	case k.redirect != "":
		http.Redirect(w, r, k.redirect+r.URL.Path, http.StatusTemporaryRedirect)
	case k.status > 0 && strings.HasPrefix(r.Header.Get("Authorization"), "AWS4"):
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(k.status)
		fmt.Fprintf(w, "<Error><Code>Odd</Code><Message>you said %s</Message></Error>", strings.ReplaceAll(repeats, "&", "&amp;"))
	case k.status > 0:
		w.Header().Set("WWW-Authenticate", "Basic realm="+repeats)
		w.WriteHeader(k.status)
		fmt.Fprintf(w, "you said %s", repeats)
	case r.Method == http.MethodPut:
		w.Header().Set("ETag", `"put"`)
		k.files[r.URL.Path] = body
	case !ok:
		w.WriteHeader(404)
	default:
		w.Header().Set("ETag", `"put"`)
		w.Write(have)
	}
}

// all is what it was shown.
func (k *keeper) all() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.shown, "\n")
}

// storeSecret is one way to give a store's secret to run-task.
type storeSecret struct {
	name  string
	user  string // it is shown with
	store func(addr string) string
	args  func(addr string) []string
	env   func(addr string) []string
	stays string   // a variable that the command gets all the same: it is not run-task's alone
	gone  []string // variables that it does not get
	shown bool     // to the server, as it is or as a header
}

func noEnv(string) []string { return nil }

func webStore(addr string) string { return "https://" + addr + "/x" }

var storeSecrets = []storeSecret{
	{name: "userinfo", user: "job", args: noArgs, env: noEnv, shown: true, store: func(addr string) string {
		return (&url.URL{Scheme: "https", User: url.UserPassword("job", secret), Host: addr, Path: "/x"}).String()
	}},
	{name: "query", args: noArgs, env: noEnv, shown: true, store: func(addr string) string { return webStore(addr) + "?signature=" + url.QueryEscape(secret) }},
	{name: "token-env", gone: []string{"STORE_TOKEN"}, shown: true, store: webStore,
		args: func(addr string) []string {
			return []string{"--store-auth", "host=" + addr + ",header=PRIVATE-TOKEN,token-env=STORE_TOKEN"}
		},
		env: func(string) []string { return []string{"STORE_TOKEN=" + secret} }},
	{name: "password-env", user: "job", gone: []string{"STORE_PASSWORD"}, shown: true, store: webStore,
		args: func(addr string) []string {
			return []string{"--store-auth", "host=" + addr + ",user=job,password-env=STORE_PASSWORD"}
		},
		env: func(string) []string { return []string{"STORE_PASSWORD=" + secret} }},
	{name: "CI_JOB_TOKEN", stays: "CI_JOB_TOKEN", shown: true, store: webStore, args: noArgs, env: func(addr string) []string {
		host, port, _ := net.SplitHostPort(addr)
		return []string{"CI_SERVER_HOST=" + host, "CI_SERVER_PORT=" + port, "CI_SERVER_PROTOCOL=https", "CI_JOB_TOKEN=" + secret}
	}},
	{name: "AWS_SECRET_ACCESS_KEY", user: "job", stays: "AWS_SECRET_ACCESS_KEY", args: noArgs, store: func(addr string) string { return "s3://bucket/x?endpoint=https://" + addr },
		env: func(string) []string { return []string{"AWS_ACCESS_KEY_ID=job", "AWS_SECRET_ACCESS_KEY=" + secret} }},
	{name: "AWS_SESSION_TOKEN", user: "job", stays: "AWS_SESSION_TOKEN", shown: true, args: noArgs, store: func(addr string) string { return "s3://bucket/x?endpoint=https://" + addr },
		env: func(string) []string {
			return []string{"AWS_ACCESS_KEY_ID=job", "AWS_SECRET_ACCESS_KEY=another-one", "AWS_SESSION_TOKEN=" + secret}
		}},
}

// environs prints the command's environment, and its parent's if the command may read that, which is the same user's.
const environs = `probe cat /proc/self/environ | tr '\0' '\n'; tr '\0' '\n' </proc/$PPID/environ || true`

// However a store's secret is given to run-task, it is in nothing that it says or writes, whatever the server does with it; no other server sees it; and the command gets none that is
// for run-task alone.
func TestStoreSecretsStaySecret(t *testing.T) {
	t.Parallel()
	for _, c := range storeSecrets {
		for name, code := range map[string]int{"takes": 0, "401": 77, "403": 77, "500": 69, "418": 69, "closed port": 69, "redirects": 0} {
			t.Run(c.name+", "+name, func(t *testing.T) {
				t.Parallel()
				storeLeaks(t, c, name, code)
			})
		}
	}
}

func storeLeaks(t *testing.T, c storeSecret, server string, strict int) {
	secrets := forms(c.user, secret)
	k, other := newKeeper(t), newKeeper(t)
	k.repeats = strings.Join(secrets[:4], " ")
	fmt.Sscan(server, &k.status)
	addr := k.Listener.Addr().String()
	ca := authority(t, addr)
	switch server {
	case "closed port":
		addr = "127.0.0.1:1"
	case "redirects":
		k.redirect = other.URL
	}
	dir := tempDir(t)
	plant(t, dir+"/some", "file")
	own(t, dir)
	flags := slices.Concat(asUser(), []string{"--ca", ca, "--cache-budget", "300ms", "--verbose"}, c.args(addr))
	archive := []string{"--cache-archive", "path=tree,key=key,policy=pull-push,store=" + c.store(addr)}
	run := func(args ...string) (code int, stdout, said string) {
		t.Helper()
		code, stdout, stderr := (&command{dir: dir, env: append(c.env(addr), "TMPDIR="+dir), args: append([]string{"run-task"}, args...)}).run(t)
		return code, stdout, stdout + stderr
	}
	said := map[string]string{}
	script := `mkdir -p tree; echo x >tree/file; ` + environs
	code, environ, log := run(slices.Concat(flags, archive, []string{"--status-file", "status.json", "--", "/bin/sh", "-c", script})...)
	said["log"] = strings.TrimPrefix(log, environ)
	if c.stays == "" {
		said["command's environment"] = environ
	} else if !strings.Contains(environ, c.stays+"="+secret+"\n") || strings.Count(environ, secret) != 1 {
		t.Errorf("the command's environment and its parent's:\n%s", environ)
	}
	for _, name := range c.gone {
		if strings.Contains(environ, name+"=") {
			t.Errorf("%s reached the command:\n%s", name, environ)
		}
	}
	if code != 0 || strings.Count("\n"+environ, "\nHOME=") != 1 {
		t.Errorf("exit %d: this test sees nothing, or the parent's environment:\n%s", code, environ)
	}
	web := !strings.HasPrefix(c.name, "AWS")
	if server == "redirects" && !web { // S3's client follows none
		strict = 69
	}
	restored, out, both := run(slices.Concat([]string{"cache", "restore"}, flags, archive, []string{"--json", "--cache-strict"})...)
	if said["restore --json"] = both; restored != strict || !json.Valid([]byte(out)) {
		t.Errorf("exit %d\n%s", restored, both)
	}
	if server == "takes" || server == "418" {
		_, _, said["verify --json"] = run(slices.Concat([]string{"cache", "verify"}, flags, []string{"--cache-store", c.store(addr), "--json", "key"})...)
		_, _, said["plan"] = run(slices.Concat(flags, archive, []string{"--plan", "--", "true"})...)
	}
	sweep(t, secrets, dir, nil, said)
	shown := func(to *keeper) bool {
		return slices.ContainsFunc(secrets, func(s string) bool { return strings.Contains(to.all(), s) })
	}
	if shown(other) || (other.all() == "") == (web && server == "redirects") {
		t.Errorf("whoever it redirects to was shown\n%s", other.all())
	}
	if server != "closed port" && shown(k) != c.shown {
		t.Errorf("it was shown\n%s", k.all())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if server == "takes" && len(k.files) != 1 {
		t.Errorf("it has %q\n%s", slices.Collect(maps.Keys(k.files)), log)
	}
}

// Who can publish commits for others must not be the command: it gets none of S3's keys, whether run-task stays with it or is gone.
func TestPublishersKeysStaySecret(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	k, _, bucket := newBucketTrunk(t)
	location := strings.Replace(k.store, "/caches", "/commits", 1)
	given := []string{"MINIO_ROOT_USER=x", "MINIO_ROOT_PASSWORD=" + secret, "AWS_WEB_IDENTITY_TOKEN_FILE=/" + secret, "AWS_CONTAINER_AUTHORIZATION_TOKEN=" + secret}
	for _, flags := range [][]string{nil, {"--init"}} {
		cmd := &command{dir: k.dir, env: append(given, k.env...), args: slices.Concat([]string{"run-task"}, asUser(), flags,
			[]string{"--git-publish", location, "--checkout", "src", "--repo", r.Path, "--sha", r.SHA["tip"], "--", "/bin/sh", "-c", environs})}
		_, out, stderr := cmd.run(t)
		if strings.Contains(out, "AWS_") || strings.Contains(out, "MINIO_") || !strings.Contains(out, "CHECKOUT_SHA="+r.SHA["tip"]+"\n") {
			t.Errorf("%q: the environment is\n%s\n%s", flags, out, stderr)
		}
	}
	c, err := s3.Client()
	if err != nil {
		t.Fatal(err)
	}
	list, err := c.ListObjectsV2(bucket, "commits/", "", "", "", 10)
	if err != nil || len(list.Contents) == 0 {
		t.Errorf("nothing was published: %v", err)
	}
}
