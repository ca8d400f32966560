package task

import (
	"slices"
	"strings"
	"testing"

	"run-task/internal/fail"
	"run-task/store"
)

func TestStoreLogins(t *testing.T) {
	env := []string{"TOKEN=t0ken-of-store", "PW=pa ss-of-store", "EMPTY="}
	for spec, want := range map[string]store.Login{
		"host=h,header=PRIVATE-TOKEN,token-env=TOKEN":      {Host: "h", Header: "PRIVATE-TOKEN", Secret: "t0ken-of-store"},
		"user=me,password-env=PW,host=h:8443":              {Host: "h:8443", User: "me", Secret: "pa ss-of-store"},
		"host=[::1]:80,http=true,header=X,password-env=PW": {Host: "[::1]:80", Header: "X", Secret: "pa ss-of-store", HTTP: true},
	} {
		task, _, err := parse(t, env, "--user", "root", "--store-auth", spec, "--", "x")
		if err != nil || !slices.Equal(task.Archives.Store.Logins, []store.Login{want}) {
			t.Errorf("%s: %v", spec, err)
			continue
		}
		for _, v := range env[:2] {
			if name, _, _ := strings.Cut(v, "="); slices.Contains(task.Command.Env, v) == strings.Contains(spec+",", "-env="+name+",") {
				t.Errorf("%s: the command's %s", spec, name)
			}
		}
	}
	for _, spec := range []string{"", "h", "host=h", "host=h,header=X", "host=h,token-env=TOKEN", "host=h,header=X,user=u,token-env=TOKEN", "host=h,header=X,token-env=TOKEN,password-env=PW", "host=h,header=X Y,token-env=TOKEN",
		"host=h,header=X,token-env=NOT_SET", "host=h,header=X,token-env=EMPTY", "host=h,host=h,header=X,token-env=TOKEN", "host=h,header=X,token-env=TOKEN,http=yes", "host=h/p,header=X,token-env=TOKEN", "host=h,token=t0ken-of-store"} {
		_, _, err := parse(t, env, "--user", "root", "--store-auth", spec, "--", "x")
		if fail.Of(err) != fail.Usage || strings.Contains(err.Error()+fail.Hint(err), "of-store") {
			t.Errorf("%q: %v", spec, err)
		}
	}
}

func FuzzStoreLogin(f *testing.F) {
	f.Add("host=h,header=X,token-env=TOKEN")
	f.Add("user=me,password-env=PW,host=[::1]:80,http=true")
	f.Fuzz(func(t *testing.T, spec string) {
		l, variables, err := readStoreLogin(spec, []string{"TOKEN=secret-value", "PW=other-value"})
		if err != nil {
			if fail.Of(err) != fail.Usage || strings.Contains(err.Error(), "-value") {
				t.Errorf("%v", err)
			}
			return
		}
		if len(variables) != 1 || !strings.HasSuffix(l.Secret, "-value") || (l.Header == "") == (l.User == "") || strings.ContainsAny(l.Header, "\r\n: ") {
			t.Errorf("%q: %+v, %q", spec, l, variables)
		}
	})
}

func TestThePlanOfArchives(t *testing.T) {
	env := []string{"BRANCH=topic/one", "TOKEN=t0ken-of-store"}
	_, out, err := parse(t, env, "--user", "root", "--cache-policy", "push", "--store-auth", "host=h,header=X,token-env=TOKEN", "--cache-store", "https://u:pa55word@h/p?X-Amz-Signature=s1gned",
		"--cache-archive", `path=a,key={{env BRANCH}}-{{os}},fallback=a-`, "--cache-archive", `path=b,key={{tree "x"}},store=dir:/s`, "--plan", "--", "x")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`archive of "a": push, key "topic-one`, `fallbacks ["a-"], in https://h/p`, `archive of "b": push, key "{{tree \"x\"}}", which cannot be told yet`, "in dir:/s", "stay as its init"} {
		if !strings.Contains(out, want) {
			t.Errorf("the plan does not have %q:\n%s", want, out)
		}
	}
	for _, secret := range []string{"t0ken", "pa55word", "s1gned"} {
		if strings.Contains(out, secret) {
			t.Errorf("the plan has %q:\n%s", secret, out)
		}
	}
	for check, want := range map[string]string{"--check": "only ask", "--quiet": "the command makes it"} {
		args := []string{"package", "--user", "root", "--plan", "--key", "k-{{arch}}", "--path", "p", "--store", "dir:/s", check}
		if check != "--check" {
			args = append(args, "--", "make")
		}
		if _, out, err := parse(t, env, args...); err != nil || !strings.Contains(out, want) || !strings.Contains(out, `package "k-`) {
			t.Errorf("%v: the plan does not have %q:\n%s", err, want, out)
		}
	}
}
