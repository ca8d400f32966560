package task

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"run-task/checkout"
	"run-task/internal/fail"
)

// onRepo is a task with one checkout, of a repository that the command line names.
func onRepo(args ...string) []string {
	return append(append([]string{"--user", "root", "--checkout", "d", "--repo", "https://h/r", "--sha", sha}, args...), "--", "x")
}

func TestCredentials(t *testing.T) {
	env := []string{"HOME=/home/x", "TOKEN=t0ken", "WHO=me", "PW=pa ss", "KEY=-----BEGIN\nx"}
	for name, c := range map[string]struct {
		args, env []string
		want      checkout.Credentials
	}{
		"nothing":   {nil, nil, checkout.Credentials{}},
		"token":     {[]string{"--git-auth", "host=h,token-env=TOKEN"}, nil, checkout.Credentials{Logins: []checkout.Login{{Host: "h", Password: "t0ken"}}}},
		"with user": {[]string{"--git-auth", "token-env=TOKEN,host=h:8443,user=u"}, nil, checkout.Credentials{Logins: []checkout.Login{{Host: "h:8443", User: "u", Password: "t0ken"}}}},
		"variables": {[]string{"--git-auth", "host=[::1]:80,user-env=WHO,password-env=PW,http=true"}, nil,
			checkout.Credentials{Logins: []checkout.Login{{Host: "[::1]:80", User: "me", Password: "pa ss", HTTP: true}}}},
		"in a variable, one a line": {nil, []string{"RUN_TASK_GIT_AUTH=host=a,token-env=TOKEN\nhost=b,token-env=PW"},
			checkout.Credentials{Logins: []checkout.Login{{Host: "a", Password: "t0ken"}, {Host: "b", Password: "pa ss"}}}},
		"GitLab, after ours": {[]string{"--git-auth", "host=gl,token-env=TOKEN"}, []string{"CI_SERVER_HOST=gl", "CI_SERVER_PORT=443", "CI_SERVER_PROTOCOL=https", "CI_JOB_TOKEN=job"},
			checkout.Credentials{Logins: []checkout.Login{{Host: "gl", Password: "t0ken"}, {Host: "gl", User: "gitlab-ci-token", Password: "job"}}}},
		"GitLab on a port": {nil, []string{"CI_SERVER_HOST=gl", "CI_SERVER_PORT=80", "CI_JOB_TOKEN=job"},
			checkout.Credentials{Logins: []checkout.Login{{Host: "gl:80", User: "gitlab-ci-token", Password: "job"}}}},
		"GitLab without TLS": {nil, []string{"CI_SERVER_HOST=gl", "CI_SERVER_PORT=80", "CI_SERVER_PROTOCOL=http", "CI_JOB_TOKEN=job"},
			checkout.Credentials{Logins: []checkout.Login{{Host: "gl", User: "gitlab-ci-token", Password: "job", HTTP: true}}}},
		"GitHub": {nil, []string{"GITHUB_SERVER_URL=https://gh:8443", "GITHUB_TOKEN=gt"},
			checkout.Credentials{Logins: []checkout.Login{{Host: "gh:8443", User: "x-access-token", Password: "gt"}}}},
		"half of the CI's": {nil, []string{"GITHUB_TOKEN=gt", "CI_JOB_TOKEN=job"}, checkout.Credentials{}},
		"ssh": {[]string{"--ssh-key", "/k", "--ssh-key", "env:KEY", "--known-hosts", "well-known", "--known-hosts", "/kh"}, nil,
			checkout.Credentials{SSHKeys: []checkout.SSHKey{{Name: "/k"}, {Name: "KEY", PEM: []byte("-----BEGIN\nx")}}, KnownHosts: []string{"/kh"}, WellKnown: true}},
		"files": {[]string{"--ca", "/ca", "--client-cert", "/c", "--client-key", "/k"}, []string{"NETRC=/n"}, checkout.Credentials{CA: "/ca", ClientCert: "/c", ClientKey: "/k", Netrc: "/n"}},
	} {
		t.Run(name, func(t *testing.T) {
			task, _, err := parse(t, slices.Concat(c.env, env), onRepo(c.args...)...)
			if err != nil {
				t.Fatal(err)
			}
			if c.want.Netrc == "" {
				c.want.Netrc = "/home/x/.netrc"
			}
			if got := task.Checkouts.Net.Credentials; !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	var args []string
	for _, l := range []string{"connect=1s", "tls=2s", "answer=3s", "prepare=4m", "stall=5s", "total=1d", "budget=90s", "tries=7", "low-speed=2k", "all-size=3GiB"} {
		args = append(args, "--git-limit", l)
	}
	task, _, err := parse(t, nil, onRepo(args...)...)
	if err != nil {
		t.Fatal(err)
	}
	n := task.Checkouts.Net
	want := checkout.Limits{Connect: time.Second, TLS: 2 * time.Second, Answer: 3 * time.Second, Prepare: 4 * time.Minute, Stall: 5 * time.Second, Total: 24 * time.Hour,
		LowSpeed: 2000, AllSize: 3 << 30}
	if n.Limits != want || n.Budget != 90*time.Second || n.Tries != 7 {
		t.Errorf("got  %+v\nwant %+v", n, want)
	}
}

func TestNetworkUsageErrors(t *testing.T) {
	for _, c := range []struct{ flag, value, want string }{
		{"git-auth", "hunter2", "known keys"},
		{"git-auth", "hunter2=x", "known keys"},
		{"git-auth", "host=h,password=hunter2", "never said here"},
		{"git-auth", "host=h,host=i,token-env=T", "each said once"},
		{"git-auth", "token-env=T", "its host is missing"},
		{"git-auth", "host=https://u:hunter2@h/,token-env=T", "no host"},
		{"git-auth", "host=h:hunter2:1,token-env=hunter2-x", "no host"},
		{"git-auth", "host=h", "one of password-env and token-env"},
		{"git-auth", "host=h,token-env=T,password-env=T", "one of password-env and token-env"},
		{"git-auth", "host=h,password-env=T", "needs a user"},
		{"git-auth", "host=h,user=u,user-env=T,password-env=T", "exclude each other"},
		{"git-auth", "host=h,token-env=T,http=hunter2", "neither true nor false"},
		{"git-auth", "host=h,token-env=hunter2-x", "name of the variable"},
		{"git-auth", "host=h,token-env=NONE", "variable NONE is not set"},
		{"git-auth", "host=h,token-env=ghp_0123456789abcdef", "variable that it names is not set"},
		{"git-auth", "host=h,token-env=EMPTY", "variable EMPTY is not set, or empty"},
		{"ssh-key", "env:NONE", "variable NONE is not set"},
		{"ssh-key", "env:", "name of the variable"},
		{"client-cert", "/c", "go together"},
		{"client-key", "/k", "go together"},
		{"git-limit", "connect", "not what it takes"},
		{"git-limit", "connect=5", "give a time and its unit"},
		{"git-limit", "connect=0s", "not what it takes"},
		{"git-limit", "total=-1h", "not what it takes"},
		{"git-limit", "total=0d", "not what it takes"},
		{"git-limit", "tries=0", "1 to 1000"},
		{"git-limit", "low-speed=-1", "number of bytes"},
		{"git-limit", "all-size=1X", "number of bytes"},
		{"git-limit", "speed=1", "all-size"},
		{"wait-for-commit", "5", "not a time"},
		{"pin-ttl", "0s", "not a time"},
	} {
		_, _, err := parse(t, []string{"T=hunter2", "EMPTY="}, onRepo("--git-store", "/s", "--"+c.flag, c.value)...)
		said := ""
		if err != nil {
			said = err.Error() + "\n" + fail.Hint(err)
		}
		if fail.Of(err) != fail.Usage || !strings.Contains(said, c.want) {
			t.Errorf("--%s %s: %q: want a usage error with %q", c.flag, c.value, said, c.want)
		}
		if strings.Contains(said, "hunter2") {
			t.Errorf("--%s %s: the error repeats what may be a secret: %q", c.flag, c.value, said)
		}
	}
	if _, _, err := parse(t, nil, onRepo("--git-limit", "tls=1s", "--git-limit", "tls=2s")...); fail.Of(err) != fail.Usage {
		t.Errorf("a limit said twice: %v", err)
	}
}

// Whatever variable run-task was told to take a secret from, the command does not get it. Those that its scripts need it keeps.
func TestSecretsDoNotReachTheCommand(t *testing.T) {
	env := []string{"A=hunter2-user", "B=hunter2-password", "C=hunter2-token", "D=hunter2-key", "E=hunter2-again", "RUN_TASK_REPO=https://u:hunter2@h/r", "RUN_TASK_SHA=" + sha,
		"RUN_TASK_SSH_KEY=env:D\nenv:E", "CI_SERVER_HOST=gl", "CI_JOB_TOKEN=j0b", "GITHUB_SERVER_URL=https://gh", "GITHUB_TOKEN=gt"}
	args := []string{"--user", "root", "--checkout", "d", "--git-auth", "host=h,user-env=A,password-env=B", "--git-auth", "host=i,token-env=C"}
	task, _, err := parse(t, env, append(args, "--", "x")...)
	if err != nil {
		t.Fatal(err)
	}
	got := task.Environ(nil)
	if all := strings.Join(got, "\n"); strings.Contains(all, "hunter2") {
		t.Errorf("a secret reached the command:\n%s", all)
	}
	for _, kept := range []string{"CI_JOB_TOKEN=j0b", "GITHUB_TOKEN=gt"} {
		if !slices.Contains(got, kept) {
			t.Errorf("%s is missing", kept)
		}
	}
	_, out, err := parse(t, env, append(args, "--plan", "--", "x")...)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"hunter2", "j0b", "gt\n"} {
		if strings.Contains(out, secret) {
			t.Errorf("the plan has %q:\n%s", secret, out)
		}
	}
	for _, want := range []string{"a login for h (--git-auth)", "a login for gl (the CI's token)", `the SSH key "D" (RUN_TASK_SSH_KEY)`} {
		if !strings.Contains(out, want) {
			t.Errorf("the plan does not have %q:\n%s", want, out)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"1": 1, "5B": 5, "2k": 2000, "2K": 2000, "2kB": 2000, "2KiB": 2048, "3M": 3e6, "3Mi": 3 << 20, "1GiB": 1 << 30, "1T": 1e12,
		"": 0, "0": 0, "-1": 0, "k": 0, "1.5k": 0, "5i": 0, "5iB": 0, "5BB": 0, "5Bi": 0, "5kM": 0, "5 k": 0, "9000000T": 0, "9223372036854775808": 0} {
		if got, err := parseSize(s); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q is %d, %v: want %d", s, got, err, want)
		}
	}
}

func FuzzGitAuth(f *testing.F) {
	for _, s := range []string{"host=h,token-env=T", "host=h:1,user=u,password-env=T,http=true", "host=[::1]:5,user-env=T,token-env=T", "", ",", "host=", "host==", "T"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, variables, err := readLogin(s, []string{"T=secret"})
		switch {
		case err != nil && fail.Of(err) != fail.Usage:
			t.Errorf("%q: %v is no usage error", s, err)
		case err == nil && (l.Password != "secret" || !slices.Contains(variables, "T") || l.Host == "" || strings.ContainsAny(l.Host, "/@ \n,")):
			t.Errorf("%q: %+v, %q", s, l, variables)
		}
	})
}

func FuzzGitLimit(f *testing.F) {
	for _, s := range []string{"tls=1s", "total=7d", "tries=5", "low-speed=1k", "all-size=2GiB", "", "=", "tls", "tls=1", "budget=9999999h", "all-size=5BB", "total=65535d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var n checkout.Net
		err := limits(&n, []string{s})
		if err != nil && fail.Of(err) != fail.Usage {
			t.Errorf("%q: %v is no usage error", s, err)
		}
		l := n.Limits
		least := min(l.Connect, l.TLS, l.Answer, l.Prepare, l.Stall, l.Total, n.Budget, time.Duration(l.LowSpeed), time.Duration(l.AllSize), time.Duration(n.Tries))
		most := max(l.Connect, l.TLS, l.Answer, l.Prepare, l.Stall, l.Total, n.Budget, time.Duration(l.LowSpeed), time.Duration(l.AllSize), time.Duration(n.Tries))
		if err == nil && (least < 0 || most <= 0) {
			t.Errorf("%q is taken for %+v", s, n)
		}
	})
}
