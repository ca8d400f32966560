package task

import (
	"slices"
	"strings"
	"testing"

	"run-task/internal/fail"
	"run-task/store"
)

func TestStoreLogins(t *testing.T) {
	env := []string{"T=t0ken", "P=pa,ss", "EMPTY=", "lower=hunter2"}
	for spec, want := range map[string]store.Login{
		"host=h,header=JOB-TOKEN,token-env=T":                    {Host: "h", Header: "JOB-TOKEN", Secret: "t0ken"},
		"token-env=P,host=h:8443,header=X1":                      {Host: "h:8443", Header: "X1", Secret: "pa,ss"},
		"host=[::1]:80,user=u,password-env=P,http=true":          {Host: "[::1]:80", User: "u", Secret: "pa,ss", HTTP: true},
		"host=h,user=u,token-env=T,http=false":                   {Host: "h", User: "u", Secret: "t0ken"},
		"host=h,user=a=b,password-env=T":                         {Host: "h", User: "a=b", Secret: "t0ken"},
		"host=127.0.0.1:1,header=PRIVATE-TOKEN,password-env=T":   {Host: "127.0.0.1:1", Header: "PRIVATE-TOKEN", Secret: "t0ken"},
		"host=h,header=private-token,token-env=lower,http=false": {Host: "h", Header: "private-token", Secret: "hunter2"},
	} {
		if got, variables, err := readStoreLogin(spec, env); err != nil || got != want || len(variables) != 1 || !strings.Contains(spec, "-env="+variables[0]) {
			t.Errorf("%s: %+v, %q, %v; want %+v", spec, got, variables, err, want)
		}
	}
	for spec, want := range map[string]string{
		"":                                   "each said once",
		"host=h":                             "one of token-env and password-env",
		"hunter2":                            "each said once",
		"host=h,token=hunter2":               "never said here",
		"host=h,header=X,password=hunter2":   "never said here",
		"host=h,header=,token-env=T":         "each said once",
		"host=h,host=i,header=X,token-env=T": "each said once",
		"header=X,token-env=T":               "its host is missing",
		"host=https://u:hunter2@h/,header=X,token-env=T": "no host",
		"host=h:hunter2,header=X,token-env=T":            "no host",
		"host=h,token-env=T":                             "one of header",
		"host=h,header=X,user=u,token-env=T":             "one of header",
		"host=h,header=X,token-env=T,password-env=P":     "one of token-env and password-env",
		"host=h,header=X: hunter2,token-env=T":           "no header's name",
		"host=h,header=X\r\nY,token-env=T":               "no header's name",
		"host=h,header=Ü,token-env=T":                    "no header's name",
		"host=h,header=X,token-env=T,http=hunter2":       "neither true nor false",
		"host=h,header=X,token-env=hunter2-x":            "name of the variable",
		"host=h,header=X,token-env=NONE":                 "variable NONE is not set",
		"host=h,header=X,token-env=EMPTY":                "variable EMPTY is not set",
		"host=h,header=X,token-env=glpat_hunter2":        "variable that it names is not set",
	} {
		_, _, err := readStoreLogin(spec, env)
		said := ""
		if err != nil {
			said = err.Error() + "\n" + fail.Hint(err)
		}
		if fail.Of(err) != fail.Usage || !strings.Contains(said, want) || strings.Contains(said, "hunter2") {
			t.Errorf("%q: %q, want %q", spec, said, want)
		}
	}
}

func FuzzStoreAuth(f *testing.F) {
	for _, s := range []string{"host=h,header=X,token-env=T", "host=h:1,user=u,password-env=T,http=true", "host=[::1]:5,header=JOB-TOKEN,password-env=T", "", ",", "host=", "header==", "T"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, variables, err := readStoreLogin(s, []string{"T=secret"})
		switch {
		case err != nil && (fail.Of(err) != fail.Usage || len(variables) > 0 && l.Secret != ""):
			t.Errorf("%q: %v, %+v, %q", s, err, l, variables)
		case err == nil && (l.Secret != "secret" || !slices.Equal(variables, []string{"T"}) || (l.Header == "") == (l.User == "") || l.Host == "" || strings.ContainsAny(l.Host, "/@ \n,") || strings.ContainsAny(l.Header, ": \r\n,")):
			t.Errorf("%q: %+v, %q", s, l, variables)
		}
	})
}

// The CI's own login goes to its own server, after those that were said.
func TestStoreLoginOfTheCI(t *testing.T) {
	archive := []string{"--user", "root", "--cache-archive", "path=p,key=k,store=dir:/s", "--store-auth", "host=gl,header=X,token-env=T", "--", "x"}
	job := func(more ...string) []string {
		return append(more, "T=t0ken", "CI_SERVER_HOST=gl", "CI_JOB_TOKEN=job")
	}
	for name, c := range map[string]struct {
		env  []string
		want []store.Login
	}{
		"none":        {[]string{"T=t0ken", "CI_JOB_TOKEN=job"}, nil},
		"TLS":         {job(), []store.Login{{Host: "gl", Header: "JOB-TOKEN", Secret: "job"}}},
		"a port":      {job("CI_SERVER_PORT=8443", "CI_SERVER_PROTOCOL=https"), []store.Login{{Host: "gl:8443", Header: "JOB-TOKEN", Secret: "job"}}},
		"without TLS": {job("CI_SERVER_PORT=80", "CI_SERVER_PROTOCOL=http"), []store.Login{{Host: "gl:80", Header: "JOB-TOKEN", Secret: "job", HTTP: true}}},
	} {
		task, _, err := parse(t, c.env, archive...)
		if err != nil {
			t.Fatal(err)
		}
		want := append([]store.Login{{Host: "gl", Header: "X", Secret: "t0ken"}}, c.want...)
		if got := task.Archives.Store.Logins; !slices.Equal(got, want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
		for _, kv := range task.Command.Env {
			if strings.HasPrefix(kv, "T=") {
				t.Errorf("%s: the command gets %s", name, kv)
			}
		}
		if !slices.Equal(task.Stores, []string{"/s"}) || len(task.Provide) > 0 {
			t.Errorf("%s: root makes %q and %q", name, task.Stores, task.Provide)
		}
	}
}

func TestThePlanOfArchives(t *testing.T) {
	env := []string{"T=s3cretToken", "CI_SERVER_HOST=gl", "CI_JOB_TOKEN=j0bToken", "ARCH=x"}
	plan := func(args ...string) string {
		t.Helper()
		task, out, err := parse(t, env, args...)
		if err != nil || task != nil {
			t.Fatal(task, err)
		}
		for _, secret := range []string{"s3cret", "j0bToken", "pa%2Fss", "signed"} {
			if strings.Contains(out, secret) {
				t.Errorf("the plan has %q:\n%s", secret, out)
			}
		}
		return out
	}
	lines := func(out string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !slices.Contains(strings.Split(out, "\n"), w) {
				t.Errorf("the plan does not have %q:\n%s", w, out)
			}
		}
	}
	args := []string{"--user", "root", "--cache-store", "https://u:pa%2Fss@h/x?sig=signed", "--cache-archive", "path=a,key=k-{{env ARCH}},fallback=k-*,policy=pull-push",
		"--cache-archive", `path=b,key={{tree "src"}},store=s3://bucket/p?endpoint=https://minio:9000`, "--store-auth", "host=h,header=X,token-env=T"}
	out := plan(append(args, "--plan", "--", "x")...)
	lines(out, `[cache] archive of "a": pull-push, key "k-x", fallbacks ["k-*"], in https://h/x (--cache-archive)`,
		`[cache] archive of "b": pull, key "{{tree \"src\"}}", which cannot be told yet, fallbacks [], in s3://bucket/p (--cache-archive)`,
		`[cache] a login for h (--store-auth)`, `[cache] a login for gl (the CI's token)`, `[exec] stay as its init`)
	out = plan(append(args, "--cache-policy", "pull", "--plan", "--", "x")...)
	lines(out, `[cache] archive of "a": pull, key "k-x", fallbacks ["k-*"], in https://h/x (--cache-archive)`, `[exec] become it: nothing of run-task is left`)

	out = plan("package", "--user", "root", "--key", "p-{{env ARCH}}", "--path", "bin", "--store", "https://u:pa%2Fss@h/x", "--plan", "--", "make")
	lines(out, `[exec] ["make"] in "." (default)`)
	if !strings.Contains(out, `[cache] package "p-x" at "bin", in https://h/x (--key, --path, --store): if it is there, no command is run`) {
		t.Errorf("the plan does not have the package:\n%s", out)
	}
	out = plan("package", "--user", "root", "--key", "p", "--path", "bin", "--store", "dir:/s", "--check", "--plan")
	if strings.Contains(out, "[exec]") || !strings.Contains(out, `in dir:/s (--key, --path, --store): only ask`) {
		t.Errorf("the plan of a question:\n%s", out)
	}
}
