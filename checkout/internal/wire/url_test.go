package wire

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

func TestParseURL(t *testing.T) {
	here, _ := filepath.Abs("repo")
	for in, want := range map[string]struct {
		u URL
		s string
	}{
		"https://Example.org/a/b.git":      {URL{Scheme: "https", Host: "example.org", Path: "/a/b.git"}, "https://example.org/a/b.git"},
		"https://u:p%40w@h:443/a%2Fb/-/c/": {URL{Scheme: "https", User: "u", password: "p@w", userinfo: "u:p%40w", Host: "h", Path: "/a%2Fb/-/c"}, "https://h/a%2Fb/-/c"},
		"http://tok@h:8080/x":              {URL{Scheme: "http", User: "tok", userinfo: "tok", Host: "h", Port: "8080", Path: "/x"}, "http://h:8080/x"},
		"http://[::1]:80/x":                {URL{Scheme: "http", Host: "::1", Path: "/x"}, "http://[::1]/x"},
		"ssh://git@h:22/o/r.git":           {URL{Scheme: "ssh", User: "git", userinfo: "git", Host: "h", Path: "/o/r.git"}, "ssh://git@h/o/r.git"},
		"ssh://git:pw@h:2222/~al/r":        {URL{Scheme: "ssh", User: "git", password: "pw", userinfo: "git:pw", Host: "h", Port: "2222", Path: "~al/r"}, "ssh://git@h:2222/~al/r"},
		"ssh://h/a%20b":                    {URL{Scheme: "ssh", Host: "h", Path: "/a b"}, "ssh://h/a%20b"},
		"git@GitHub.com:o/r.git":           {URL{Scheme: "ssh", User: "git", Host: "github.com", Path: "o/r.git"}, "git@github.com:o/r.git"},
		"h:/abs":                           {URL{Scheme: "ssh", Host: "h", Path: "/abs"}, "ssh://h/abs"},
		"me@[h:2222]:r":                    {URL{Scheme: "ssh", User: "me", Host: "h", Port: "2222", Path: "r"}, "me@[h:2222]:r"},
		"[::1]:r":                          {URL{Scheme: "ssh", Host: "::1", Path: "r"}, "[::1]:r"},
		"git://h/~x/r":                     {URL{Scheme: "git", Host: "h", Path: "~x/r"}, "git://h/~x/r"},
		"git://h:9419/r":                   {URL{Scheme: "git", Host: "h", Port: "9419", Path: "/r"}, "git://h:9419/r"},
		"file:///srv/a%20b/":               {URL{Scheme: "file", Path: "/srv/a b"}, "file:///srv/a%20b"},
		"ssh://h/a%40b":                    {URL{Scheme: "ssh", Host: "h", Path: "/a@b"}, "ssh://h/a%40b"},
		"https://h/%40a/b":                 {URL{Scheme: "https", Host: "h", Path: "/%40a/b"}, "https://h/%40a/b"},
		"git@git:r":                        {URL{Scheme: "ssh", User: "git", Host: "git", Path: "r"}, "git@git:r"},
		"/srv/job@2/x":                     {URL{Scheme: "file", Path: "/srv/job@2/x"}, "file:///srv/job@2/x"},
		"file:///a:b@c/d":                  {URL{Scheme: "file", Path: "/a:b@c/d"}, "file:///a:b@c/d"},
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

// What is nearly an address is refused without a word of it: the words may be its password.
func TestParseURLRepeatsNothing(t *testing.T) {
	const user, password, host = "yellow", "hunter2", "s3cret"
	for _, form := range []string{
		"U:P@H:x", "U:P/w@H:x", "U@H:P@x", "U:P@H", "U:P@H/x", "U@x:P@H:x", "[U:P@H]:x", "-U:P@H", "U::P@H/x", "P::U", "https:U:P@H", "https:U:P@H/x", "https:/U:P@H/x", "sSh:U/P",
		"ssh:H/P", "https//U:P@H/x", "https/U:P@H", "P@H/x", "/U:P@H/x", "//U:P@H/x", "./U:P@H", "P:x@https://H/x", "https://U:P@H:port/x", "https://U:1/P@H/x", "https://U:/P@H/x",
		"https://U/P@H", "ssh://U:1/P@H/x", "git://U/P@H/x", "https://P", "https://U:P@H", "file://P/x", "file://U:P@H/x", "ftp://U:P@H/x", "P://H/x", "ssh://P%40x@H/x", "ssh://P!@H/x",
		"https://U:P\n@H/x", "https://U:P@H/x?P", "https://U:P?@H/x", "https://U:P#@H/x", "https://P_x!/y", "https:///U:P@H/x", "http:://U:P@H/x", "https://-P@H/x", "https://U:P@H/\x01",
	} {
		in := strings.NewReplacer("U", user, "P", password, "H", host).Replace(form)
		_, err := ParseURL(in)
		if fail.Of(err) != fail.Usage || fail.Hint(err) == "" {
			t.Errorf("ParseURL(%q) = %v; want a usage error with a hint", in, err)
			continue
		}
		for _, word := range []string{user, password, host} {
			if strings.Contains(err.Error()+fail.Hint(err), word) {
				t.Errorf("ParseURL(%q) repeats %q: %v", in, word, err)
			}
		}
	}
}

func TestSecretsAreMaskedInEveryForm(t *testing.T) {
	for in, forms := range map[string][]string{
		"http://joe:p%2fw%40rd+x%21y@127.0.0.1:1/x":      {"p%2fw%40rd+x%21y", "p/w@rd+x!y", "p%2Fw%40rd+x%21y", "p%2Fw%40rd%2Bx%21y", "p%2Fw@rd+x%21y", "am9lOnAvd0ByZCt4IXk="},
		"http://t%6fken%2f1@127.0.0.1:1/x":               {"t%6fken%2f1", "token/1", "token%2F1", "dG9rZW4vMTo="},
		"http://sometoken:@127.0.0.1:1/x":                {"sometoken", "c29tZXRva2VuOg=="},
		"http://sometoken:x-oauth-basic@127.0.0.1:1/x":   {"sometoken", "c29tZXRva2VuOngtb2F1dGgtYmFzaWM="},
		"ssh://someone:correct%20horse@127.0.0.1:1/x":    {"correct%20horse", "correct horse", "correct+horse"},
		"git://someone:correct%2Dhorse@127.0.0.1:1/r":    {"correct%2Dhorse", "correct-horse"},
		"https://someone:correct%2Dhorse@127.0.0.1:1/r":  {"correct%2Dhorse", "correct-horse"},
		"https://someone:correct%2Dhorse@127.0.0.1:1//r": {"correct%2Dhorse", "correct-horse"},
	} {
		cl := newClient(t, in, one)
		cl.o.Retry.Tries = 1
		log := logs.New(&cl.log, logs.Verbose, false)
		if _, err := Fetch(t.Context(), log, cl.u, cl.o, cl.want, nil); err == nil {
			t.Fatal("a server at port 1")
		}
		for _, f := range forms {
			if got := log.Masked("<" + f + ">"); got != "<[MASKED]>" {
				t.Errorf("%s: %q is shown as %s", in, f, got)
			}
		}
		if got := log.Masked("someone"); got != "someone" {
			t.Errorf("%s: a user name with a password is no secret", in)
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
