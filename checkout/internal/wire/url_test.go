package wire

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"run-task/internal/fail"
)

func TestParseURL(t *testing.T) {
	here, _ := filepath.Abs("repo")
	for in, want := range map[string]struct {
		u URL
		s string
	}{
		"https://Example.org/a/b.git":      {URL{Scheme: "https", Host: "example.org", Path: "/a/b.git"}, "https://example.org/a/b.git"},
		"https://u:p%40w@h:443/a%2Fb/-/c/": {URL{Scheme: "https", User: "u", password: "p@w", Host: "h", Path: "/a%2Fb/-/c"}, "https://h/a%2Fb/-/c"},
		"http://tok@h:8080/x":              {URL{Scheme: "http", User: "tok", Host: "h", Port: "8080", Path: "/x"}, "http://h:8080/x"},
		"http://[::1]:80/x":                {URL{Scheme: "http", Host: "::1", Path: "/x"}, "http://[::1]/x"},
		"ssh://git@h:22/o/r.git":           {URL{Scheme: "ssh", User: "git", Host: "h", Path: "/o/r.git"}, "ssh://git@h/o/r.git"},
		"ssh://git:pw@h:2222/~al/r":        {URL{Scheme: "ssh", User: "git", password: "pw", Host: "h", Port: "2222", Path: "~al/r"}, "ssh://git@h:2222/~al/r"},
		"ssh://h/a%20b":                    {URL{Scheme: "ssh", Host: "h", Path: "/a b"}, "ssh://h/a%20b"},
		"git@GitHub.com:o/r.git":           {URL{Scheme: "ssh", User: "git", Host: "github.com", Path: "o/r.git"}, "git@github.com:o/r.git"},
		"h:/abs":                           {URL{Scheme: "ssh", Host: "h", Path: "/abs"}, "ssh://h/abs"},
		"me@[h:2222]:r":                    {URL{Scheme: "ssh", User: "me", Host: "h", Port: "2222", Path: "r"}, "me@[h:2222]:r"},
		"[::1]:r":                          {URL{Scheme: "ssh", Host: "::1", Path: "r"}, "[::1]:r"},
		"git://h/~x/r":                     {URL{Scheme: "git", Host: "h", Path: "~x/r"}, "git://h/~x/r"},
		"git://h:9419/r":                   {URL{Scheme: "git", Host: "h", Port: "9419", Path: "/r"}, "git://h:9419/r"},
		"file:///srv/a%20b/":               {URL{Scheme: "file", Path: "/srv/a b"}, "file:///srv/a%20b"},
		"/srv/./x:y":                       {URL{Scheme: "file", Path: "/srv/x:y"}, "file:///srv/x:y"},
		"repo":                             {URL{Scheme: "file", Path: here}, "file://" + here},
		"./repo":                           {URL{Scheme: "file", Path: here}, "file://" + here},
	} {
		u, err := ParseURL(in)
		if err != nil || u != want.u || u.String() != want.s {
			t.Errorf("ParseURL(%q) = %+v %v; String %q; want %q", in, fmt.Sprintf("%s|%s|%s|%s|%s", u.Scheme, u.User, u.Host, u.Port, u.Path), err, u.String(), want.s)
		}
		if again, err := ParseURL(u.String()); err != nil || again.String() != want.s {
			t.Errorf("%q does not parse back: %v, %v", want.s, again, err)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	for _, in := range []string{
		"", "-x", "--upload-pack=touch /tmp/x", "ext::sh -c touch% /tmp/x", "ftp://h/x", "HTTPS//x:y:z://", "ssh://-oProxyCommand=x/y", "-oProxyCommand=x:y",
		"h:-x", "ssh://-u@h/x", "git://h/a%0ab", "git://h/a%00b", "https://h/a\nb", "http://h/\x7f", "git@h:a\x01b", "https://h", "https:///x", "ssh://h",
		"file://host/x", "http://h/x?token=1", "http://h/x#f", "http://h/x?", "http://h:port/x", "https://u:%0d%0a@h/x", "user:s3cret@h:o/r.git",
	} {
		u, err := ParseURL(in)
		if fail.Of(err) != fail.Usage || fail.Hint(err) == "" {
			t.Errorf("ParseURL(%q) = %v, %v; want a usage error with a hint", in, u, err)
		}
	}
}

func TestURLsNeverShowSecrets(t *testing.T) {
	for _, in := range []string{"https://joe:hunter2@h/x", "ssh://git:hunter2@h/x", "https://hunter2@h/x"} {
		u, err := ParseURL(in)
		if err != nil {
			t.Fatal(err)
		}
		if s := fmt.Sprintf("%v %+v %#v %s", u, u, u, u); strings.Contains(s, "hunter2") {
			t.Errorf("%s", s)
		}
	}
	if _, err := ParseURL("https://joe:hunter2@h/x?y"); strings.Contains(err.Error()+fail.Hint(err), "hunter2") {
		t.Errorf("%v", err)
	}
}

func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"https://u:p@h:1/x", "git@h:x", "[::1]:x", "ssh://h/~x", "a/b:c", "file:///x%00", "h:~x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURL(s)
		if err != nil {
			return
		}
		again, err := ParseURL(u.String())
		if err != nil || again.String() != u.String() {
			t.Errorf("%q is %q, which parses as %q, %v", s, u.String(), again.String(), err)
		}
	})
}
