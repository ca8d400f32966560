package store_test

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"encoding/pem"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/store"
	"run-task/store/storetest"
)

func TestWeb(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Store {
		return open(t, serve(t, nil).URL+"/some/path/", store.Options{Policy: quick(), Temp: t.TempDir()})
	})
}

// gitLab behaves like GitLab's generic package registry whose owner wants no duplicates (docs.gitlab.com, "Generic packages API").
func gitLab(t *testing.T, elsewhere *server) *server {
	var s *server
	s = serve(t, func(w http.ResponseWriter, r *http.Request, _ int) bool {
		switch {
		case r.Header.Get("JOB-TOKEN") != "the-job-token":
			w.WriteHeader(http.StatusUnauthorized)
			return true
		case r.Method == http.MethodPut:
			s.mu.Lock()
			_, ok := s.objects[r.URL.Path]
			s.mu.Unlock()
			if ok {
				w.WriteHeader(http.StatusBadRequest)
				w.Write([]byte(`{"message":"Duplicate package is not allowed"}`))
			}
			return ok
		case elsewhere != nil:
			http.Redirect(w, r, elsewhere.URL+r.URL.Path+"?signed=yes", http.StatusFound)
			return true
		}
		return false
	})
	return s
}

const packages = "/api/v4/projects/7/packages/generic/workhorse/1.0"

func TestGitLabPackages(t *testing.T) {
	bucket := serve(t, nil)
	s := gitLab(t, bucket)
	host := strings.TrimPrefix(s.URL, "http://")
	o := store.Options{Policy: quick(), Temp: t.TempDir(), Logins: []store.Login{{Host: "other.example", Secret: "no"}, {Host: host, Header: "JOB-TOKEN", Secret: "the-job-token", HTTP: true}}}
	st := open(t, s.URL+packages, o)
	if _, err := put(t, st, "sub/w.tar.zst", "content", store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.objects[packages+"/sub/w.tar.zst"]; !ok {
		t.Errorf("put elsewhere: %s", s.seen(func(r *http.Request) string { return r.URL.Path }))
	}
	if _, err := put(t, st, "sub/w.tar.zst", "content", store.PutOptions{}); !errors.Is(err, store.ErrDuplicate) {
		t.Errorf("a duplicate: %v", err)
	}
	bucket.set(packages+"/sub/w.tar.zst", []byte("content"))
	f, _, err := st.Get(t.Context(), "sub/w.tar.zst", store.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if got := bucket.seen(func(r *http.Request) string { return r.Header.Get("JOB-TOKEN") + r.Header.Get("Authorization") }); got != "GET" {
		t.Errorf("another host was shown our token: %s", got)
	}
}

func TestCredentialsAreNotSentWithoutTLS(t *testing.T) {
	for name, c := range map[string]struct {
		login func(host string) []store.Login
		user  string
		want  string
	}{
		"none": {func(string) []store.Login { return nil }, "", ""},
		"basic": {func(h string) []store.Login {
			return []store.Login{{Host: h, User: "u", Secret: "p4ssw0rd", HTTP: true}}
		}, "", "u:p4ssw0rd"},
		"only with TLS": {func(h string) []store.Login { return []store.Login{{Host: h, User: "u", Secret: "p4ssw0rd"}} }, "", ""},
		"other port": {func(h string) []store.Login {
			return []store.Login{{Host: "127.0.0.1", User: "u", Secret: "p", HTTP: true}}
		}, "", ""},
		"userinfo": {func(h string) []store.Login { return []store.Login{{Host: h, User: "u", Secret: "p", HTTP: true}} }, "me:s3cr3t@", "me:s3cr3t"},
	} {
		s := serve(t, nil)
		host := strings.TrimPrefix(s.URL, "http://")
		st := open(t, "http://"+c.user+host+"/p", store.Options{Policy: quick(), Temp: t.TempDir(), Logins: c.login(host)})
		if _, err := st.Stat(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		want := "HEAD"
		if c.want != "" {
			want += " Basic " + base64.StdEncoding.EncodeToString([]byte(c.want))
		}
		if got := s.seen(func(r *http.Request) string { return r.Header.Get("Authorization") }); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if strings.Contains(st.String(), "s3cr3t") {
			t.Errorf("%s: %s", name, st)
		}
	}
}

// The server gets exactly what the location says, and of the key what it is, also if it reads a + as a blank.
func TestAddressesOfObjects(t *testing.T) {
	const key, sent = "a+b/c~d@e=f,g", "a%2Bb/c~d@e=f,g"
	for at, want := range map[string]string{
		"/p":                       "/p/" + sent,
		"/p/":                      "/p/" + sent,
		"":                         "/" + sent,
		"/p?sig=a%2Bb&x":           "/p/" + sent + "?sig=a%2Bb&x",
		"/p/{key}/raw?sig=1":       "/p/" + sent + "/raw?sig=1",
		"/p/%7Bkey%7D/raw":         "/p/" + sent + "/raw",
		"/p?file={key}&sig=1":      "/p?file=a%2Bb%2Fc~d%40e%3Df%2Cg&sig=1",
		"/projects/a%2Fb":          "/projects/a%2Fb/" + sent,
		"/projects/a%2Fb/{key}":    "/projects/a%2Fb/" + sent,
		"/100%25/a b/c%20d/+/%2B/": "/100%25/a%20b/c%20d/+/%2B/" + sent,
		"/a%2fb/ä\"/{key}":         "/a%2fb/%C3%A4%22/" + sent,
	} {
		s := serve(t, nil)
		st := open(t, s.URL+at, store.Options{Policy: quick(), Temp: t.TempDir()})
		st.Stat(t.Context(), key)
		if got := s.seen(func(r *http.Request) string { return r.RequestURI }); got != "HEAD "+want {
			t.Errorf("%q: %q, want %q", at, got, want)
		}
		s.mu.Lock()
		if r := s.requests[0]; !strings.Contains(r.URL.Path+r.URL.Query().Get("file"), key) {
			t.Errorf("%q: the server reads %q", at, r.URL)
		}
		s.mu.Unlock()
	}
}

func TestAnswersToUploads(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		want   fail.Reason
	}{
		"200": {200, 0}, "204": {204, 0}, "unauthorized": {401, fail.Denied}, "forbidden": {403, fail.Denied},
		"too large": {413, fail.Unavailable}, "bad request": {400, fail.Unavailable}, "rate limit": {429, fail.Busy}, "server error": {500, fail.Unavailable},
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) bool {
			w.WriteHeader(c.status)
			return true
		})
		_, err := put(t, open(t, s.URL, store.Options{Policy: quick(), Temp: t.TempDir()}), "k", "x", store.PutOptions{})
		if (err == nil) != (c.want == 0) || err != nil && fail.Of(err) != c.want || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAServerWithoutHEAD(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
		return r.Method == http.MethodHead
	})
	s.set("/k", []byte("12345"))
	info, err := open(t, s.URL, store.Options{Policy: quick(), Temp: t.TempDir()}).Stat(t.Context(), "k")
	if err != nil || info.Size != 5 || info.Tag == "" {
		t.Errorf("%+v, %v", info, err)
	}
}

// tls makes a server one with TLS, and gives its address and what a client needs to trust it.
func tls(t *testing.T, s *server) (string, store.Options) {
	t.Helper()
	s.Close()
	s.Server = newTLS(s)
	t.Cleanup(s.Server.Close)
	ca := write(t, filepath.Join(t.TempDir(), "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	return s.URL, store.Options{Policy: quick(), Temp: t.TempDir(), CA: ca}
}

func TestCA(t *testing.T) {
	s := serve(t, nil)
	at, o := tls(t, s)
	s.set("/k", []byte("x"))
	if _, err := open(t, at, store.Options{Policy: quick(), Temp: t.TempDir()}).Stat(t.Context(), "k"); fail.Of(err) != fail.Denied {
		t.Errorf("an unknown authority: %v", err)
	}
	if _, err := open(t, at, o).Stat(t.Context(), "k"); err != nil {
		t.Error(err)
	}
	for _, file := range []string{write(t, filepath.Join(t.TempDir(), "empty"), ""), filepath.Join(t.TempDir(), "missing"), os.DevNull, t.TempDir(), fifo(t), long(t)} {
		if _, err := store.Open(at, store.Options{CA: file}); fail.Of(err) != fail.Usage || !strings.Contains(err.Error(), filepath.Base(file)) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// fifo is one that nobody writes to.
func fifo(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(name, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// long is a file that never ends, as far as anybody would read it.
func long(t *testing.T) string {
	t.Helper()
	name := write(t, filepath.Join(t.TempDir(), "long"), "")
	if err := os.Truncate(name, 1<<40); err != nil {
		t.Fatal(err)
	}
	return name
}
