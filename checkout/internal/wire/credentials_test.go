package wire

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/internal/mask"
	"run-task/tests/gitserver"
)

const token = "s3cret/t@ken+x"

// writeFile makes a file in a new directory.
func writeFile(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestLoginFits(t *testing.T) {
	for _, c := range []struct {
		host, url string
		want      bool
	}{
		{"h.org", "https://h.org/r", true}, {"H.ORG", "https://h.org/r", true}, {"h.org:443", "https://h.org/r", true}, {"h.org", "https://h.org:443/r", true},
		{"h.org", "https://h.org:8443/r", false}, {"h.org:8443", "https://h.org:8443/r", true}, {"h.org:8443", "https://h.org/r", false}, {"h.org:80", "https://h.org/r", false},
		{"h.org:80", "http://h.org/r", true}, {"h.org", "https://sub.h.org/r", false}, {"org", "https://h.org/r", false}, {"h.org", "https://h.org.evil/r", false}, {"", "https://h.org/r", false},
		{"[::1]:8443", "https://[::1]:8443/r", true}, {"[::1]", "https://[::1]/r", true}, {"::1", "https://[::1]/r", true},
	} {
		u, err := ParseURL(c.url)
		if err != nil {
			t.Fatal(err)
		}
		if got := (Login{Host: c.host}).fits(u); got != c.want {
			t.Errorf("login for %q, %s: %v", c.host, c.url, got)
		}
	}
}

func TestWhichCredentials(t *testing.T) {
	file := writeFile(t, "machine h.org login net password netnet\ndefault login any password anyany\n", 0o600)
	c := Credentials{Netrc: file, Logins: []Login{
		{Host: "h.org", User: "one", Password: "1"}, {Host: "h.org", User: "two", Password: "2", HTTP: true}, {Host: "token.org", Password: "3"},
	}}
	for url, want := range map[string]shown{
		"https://me:pw@h.org/r": {"me", "pw", "of the URL", false},
		"https://h.org/r":       {"one", "1", `of the login for "h.org"`, true},
		"http://h.org/r":        {"two", "2", `of the login for "h.org"`, false},
		"https://token.org/r":   {"oauth2", "3", `of the login for "token.org"`, true},
		"http://token.org/r":    {"oauth2", "3", `of the login for "token.org"`, true},
		"https://h.org:8443/r":  {"net", "netnet", fmt.Sprintf("of netrc %q", file), true},
		"https://other.org/r":   {"any", "anyany", fmt.Sprintf("of netrc %q", file), true},
	} {
		u, err := ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		if got := c.login(logs.New(&log, logs.Verbose, false), u); got != want || strings.Contains(u.String(), "pw") {
			t.Errorf("%s: %+v, want %+v", url, got, want)
		}
	}
}

// guarded serves the fixture to one user, and repeats what others have shown. Without a login it says so.
func guarded(t *testing.T, user string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if u, p, ok := r.BasicAuth(); !ok || u != user || p != token {
				http.Error(w, "who is "+r.Header.Get("Authorization")+"?", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func TestLoginsAndNetrcAreShown(t *testing.T) {
	root, c := fixture(t)
	secure := gitserver.HTTP(t, root, gitserver.Options{TLS: true, Wrap: guarded(t, anyUser)})
	plain := gitserver.HTTP(t, root, gitserver.Options{Wrap: guarded(t, anyUser)})
	tlsHost, host := strings.TrimPrefix(secure, "https://"), strings.TrimPrefix(plain, "http://")
	netrc := writeFile(t, "machine 127.0.0.1 login oauth2 password "+token, 0o600)
	for name, k := range map[string]struct {
		url   string
		c     Credentials
		words string // of the error, "" for none
	}{
		"login":            {secure, Credentials{Logins: []Login{{Host: tlsHost, Password: token}}}, ""},
		"netrc":            {secure, Credentials{Netrc: netrc}, ""},
		"plain":            {plain, Credentials{Logins: []Login{{Host: host, Password: token, HTTP: true}}}, ""},
		"not plain":        {plain, Credentials{Logins: []Login{{Host: host, Password: token}}}, `without credentials: those of the login for "` + host + `" are not sent without TLS`},
		"netrc, not plain": {plain, Credentials{Netrc: netrc}, "are not sent without TLS"},
		"wrong login":      {secure, Credentials{Logins: []Login{{Host: tlsHost, Password: "not" + token}}, Netrc: netrc}, `with the credentials of the login for "` + tlsHost + `"`},
		"wrong netrc":      {secure, Credentials{Netrc: writeFile(t, "default login x password not"+token, 0o600)}, "with the credentials of netrc"},
		"none":             {secure, Credentials{Logins: []Login{{Host: "other.org", Password: token}}}, "401 Unauthorized to a request without credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			cl := newClient(t, k.url+"/r.git", c.Tip)
			cl.o.Credentials = k.c
			cl.o.Credentials.CA = serverCert(t, secure)
			_, err := cl.fetch()
			if k.words == "" && err != nil || k.words != "" && (fail.Of(err) != fail.Denied || !strings.Contains(err.Error(), k.words)) {
				t.Errorf("%v, want %q", err, k.words)
			}
			if said := cl.log.String() + fmt.Sprint(err) + fail.Hint(err); strings.Contains(said, token) {
				t.Errorf("a secret is in %s", said)
			}
		})
	}
}

// Neither what belongs to the first host nor what belongs to the second goes to where a server sends us.
func TestLoginsAndRedirects(t *testing.T) {
	target, c := webClient(t, func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if h := r.Header.Get("Authorization"); h != "" {
			t.Errorf("the other host saw %q", h)
		}
		next.ServeHTTP(w, r)
	})
	from := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, p, _ := r.BasicAuth(); p != token {
			t.Errorf("the first host saw %q", p)
		}
		http.Redirect(w, r, target.u.String()+"/info/refs?"+r.URL.RawQuery, http.StatusFound)
	}))
	t.Cleanup(from.Close)
	cl := newClient(t, from.URL+"/x.git", c.Tip)
	cl.o.Credentials.Logins = []Login{
		{Host: cl.u.address(), Password: token, HTTP: true}, {Host: target.u.address(), Password: "theirs", HTTP: true},
	}
	if _, err := cl.fetch(); err != nil {
		t.Error(err)
	}
}

func TestSecretsAreMasked(t *testing.T) {
	var b bytes.Buffer
	log := logs.New(&b, logs.Verbose, false)
	u := URL{Scheme: "https", Host: "h.org", Path: "/r"}
	o := Options{Credentials: Credentials{
		Logins: []Login{{Host: "other.org", User: "joe", Password: token}, {Host: "token.org", User: "us3r/t@ken", Password: "x-oauth-basic"}},
		Netrc:  writeFile(t, `machine h.org login joe password "n3t/rc@secret" machine lone.org login "l0ne/t@ken"`, 0o600),
	}}
	Check(t.Context(), log, URL{Scheme: "https", Host: "127.0.0.1", Port: "1", Path: "/"}, Options{Credentials: o.Credentials, Retry: newClient(t, "/", one).o.Retry})
	o.Credentials.login(log, u)
	o.Credentials.login(log, URL{Scheme: "https", Host: "lone.org", Path: "/r"})
	for secret, header := range map[string]string{
		token: basic("joe", token), "n3t/rc@secret": basic("joe", "n3t/rc@secret"), "us3r/t@ken": basic("us3r/t@ken", "x-oauth-basic"), "l0ne/t@ken": basic("l0ne/t@ken", ""),
	} {
		for _, form := range append(mask.Forms(secret), header) {
			b.Reset()
			log.Infof("the server says %s!", form)
			if !strings.Contains(b.String(), "[MASKED]") || strings.Contains(b.String(), form) {
				t.Errorf("not masked: %s", &b)
			}
		}
	}
	if log.Masked("joe") != "joe" {
		t.Error("a user name with a password is no secret")
	}
}

func TestNetrcFiles(t *testing.T) {
	const good = "machine h.org login a password b\n"
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file string
		ok   bool
		log  string
	}{
		"good":      {writeFile(t, good, 0o600), true, ""},
		"readable":  {writeFile(t, good, 0o644), true, "warning: netrc"},
		"missing":   {"/nowhere/netrc", false, ""},
		"directory": {t.TempDir(), false, "is not used: "},
		"fifo":      {fifo, false, "no regular file"},
		"large":     {writeFile(t, good+strings.Repeat(" ", maxNetrc), 0o600), false, "more than 1.0 MB"},
		"rubbish":   {writeFile(t, "machine h.org password \"s3cret", 0o600), false, "line 1: a quote is not closed"},
	} {
		var b bytes.Buffer
		_, _, ok := netrc(logs.New(&b, logs.Verbose, false), c.file, "h.org")
		if ok != c.ok || !strings.Contains(b.String(), c.log) || c.log == "" && b.Len() > 0 || strings.Contains(b.String(), "s3cret") {
			t.Errorf("%s: %v, log %q", name, ok, &b)
		}
	}
}

func TestParseNetrc(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "[]",
		"machine h login a password b": "[{h false a b}]",
		"machine h\n\tlogin a\n\tpassword b\nmachine g password c\n":                    "[{h false a b} {g false  c}]",
		"default login a password b":                                                    "[{ true a b}]",
		`machine h login "a b" password "c\"d\\e"`:                                      `[{h false a b c"d\e}]`,
		"# a comment with machine x\nmachine h password #1":                             "[{h false  #1}]",
		"machine h account x login a password b":                                        "[{h false a b}]",
		"macdef init\nmachine evil login a\npassword b\n\nmachine h login a password b": "[{h false a b}]",
		"macdef init\nmachine evil":                                                     "[]",
		"machine macdef login default password machine":                                 "[{macdef false default machine}]",
		"machine h unknown login a password b":                                          "[{h false a b}]",
		"machine h login a\r\npassword b\r\n":                                           "[{h false a b}]",
		"machine":                                                                       "line 1: nothing comes after machine",
		"machine h\nlogin a password":                                                   "line 2: nothing comes after password",
		"login a":                                                                       "line 1: login belongs to no machine",
		"machine h password \"a\nb\"":                                                   "line 1: a quote is not closed",
		"machine h password \x00":                                                       "it has control characters",
		"machine h password \xff":                                                       "it has control characters",
	} {
		entries, err := parseNetrc(text)
		got := fmt.Sprint(entries)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestNetrcMachines(t *testing.T) {
	file := writeFile(t, "default login any password d\nmachine h.org\nmachine H.org login a password b\nmachine h.org login c password d\n", 0o600)
	for host, want := range map[string]string{"h.org": "a b", "other.org": "any d", "sub.h.org": "any d"} {
		user, password, ok := netrc(logs.New(&bytes.Buffer{}, logs.Normal, false), file, host)
		if got := user + " " + password; got != want || !ok {
			t.Errorf("%s: %s, %v", host, got, ok)
		}
	}
}

func FuzzNetrc(f *testing.F) {
	f.Add("machine h login a password \"b\\\"\" # x\nmacdef m\nx\n\ndefault login c")
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := parseNetrc(text)
		if err != nil && len(err.Error()) > 60 {
			t.Errorf("an error with the file's words: %v", err)
		}
		for _, m := range entries {
			if strings.ContainsAny(m.name+m.user+m.password, "\n\x00") {
				t.Errorf("%+v", m)
			}
		}
	})
}
