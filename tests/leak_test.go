//go:build linux

package tests

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"run-task/tests/gitserver"
)

// secret has characters that are written otherwise in URLs.
const secret = "s3cr3t/T0ken+of%the&job"

// forms are the ways in which a user's password may be written somewhere.
func forms(user, password string) []string {
	return []string{
		password, url.QueryEscape(password), url.PathEscape(password), strings.TrimPrefix(url.UserPassword("", password).String(), ":"),
		base64.StdEncoding.EncodeToString([]byte(user + ":" + password)), base64.StdEncoding.EncodeToString([]byte(password)),
	}
}

// sweep looks for secrets in what was said and in all files below dir, but for those that the user put them into.
func sweep(t *testing.T, secrets []string, dir string, but []string, said map[string]string) {
	t.Helper()
	for _, s := range secrets {
		for name, text := range said {
			if strings.Contains(text, s) {
				t.Errorf("%q is in the %s:\n%s", s, name, text)
			}
		}
	}
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || slices.Contains(but, path) {
			return err
		}
		files++
		data, err := os.ReadFile(path)
		for _, s := range secrets {
			if bytes.Contains(data, []byte(s)) || strings.Contains(path, s) {
				t.Errorf("%q is in %s", s, path)
			}
		}
		return err
	})
	if err != nil || files < 2 {
		t.Errorf("%d files, %v", files, err)
	}
}

// sweepArguments looks for secrets in the command lines of all processes.
func sweepArguments(t *testing.T, secrets []string) {
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(found) == 0 {
		t.Error("no processes", err)
	}
	ours := false
	for _, name := range found {
		line, _ := os.ReadFile(name) // it may be gone
		ours = ours || bytes.HasPrefix(line, []byte(binary+"\x00"))
		for _, s := range secrets {
			if bytes.Contains(line, []byte(s)) {
				t.Errorf("%q is in the arguments %q", s, line)
			}
		}
	}
	if !ours {
		t.Error("no run-task among the processes: this test sees nothing")
	}
}

// credential is one way to give run-task a secret.
type credential struct {
	name  string
	user  string                              // that the server is to see; "" for any
	args  func(addr string) []string          // for the server at that address
	env   func(addr, path string) []string    // for the repository there
	home  map[string]func(addr string) string // files in the home directory
	stays bool                                // in the command's environment
}

func noArgs(string) []string { return nil }

var credentials = []credential{
	{name: "URL", user: "job", args: noArgs, env: func(addr, path string) []string {
		return []string{"RUN_TASK_REPO=" + (&url.URL{Scheme: "https", User: url.UserPassword("job", secret), Host: addr, Path: path}).String()}
	}},
	{name: "token-env", args: func(addr string) []string { return []string{"--git-auth", "host=" + addr + ",token-env=JOB_TOKEN"} },
		env: func(addr, path string) []string {
			return []string{"JOB_TOKEN=" + secret, "RUN_TASK_REPO=https://" + addr + path}
		}},
	{name: "user-env and password-env", user: "job", args: func(addr string) []string {
		return []string{"--git-auth", "host=" + addr + ",user-env=JOB_USER,password-env=JOB_PASSWORD"}
	},
		env: func(addr, path string) []string {
			return []string{"JOB_USER=job", "JOB_PASSWORD=" + secret, "RUN_TASK_REPO=https://" + addr + path}
		}},
	{name: "netrc", user: "job", args: noArgs, env: func(addr, path string) []string { return []string{"RUN_TASK_REPO=https://" + addr + path} },
		home: map[string]func(string) string{".netrc": func(addr string) string {
			host, _, _ := net.SplitHostPort(addr)
			return fmt.Sprintf("machine example.org login x password y\nmachine %s login job password %s\n", host, secret)
		}}},
	{name: "CI_JOB_TOKEN", user: "gitlab-ci-token", args: noArgs, stays: true, env: func(addr, path string) []string {
		host, port, _ := net.SplitHostPort(addr)
		return []string{"CI_JOB_TOKEN=" + secret, "CI_SERVER_HOST=" + host, "CI_SERVER_PORT=" + port, "CI_SERVER_PROTOCOL=https", "RUN_TASK_REPO=https://" + addr + path}
	}},
}

// guarded is a server that wants a password, and tells what it was shown.
type guarded struct {
	mu       sync.Mutex
	password string
	repeats  bool // it says in its protocol what it was shown, which is printed
	users    []string
	asked    func() // called for each pack, if not nil
}

func (g *guarded) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, p, ok := r.BasicAuth()
		g.mu.Lock()
		g.users = append(g.users, u)
		g.mu.Unlock()
		if g.repeats {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			said := fmt.Sprintf("ERR access denied for %s, %s, %s, %s", p, url.QueryEscape(p), url.UserPassword(u, p), r.Header.Get("Authorization"))
			fmt.Fprintf(w, "001e# service=git-upload-pack\n0000%04x%s", len(said)+4, said)
			return
		}
		if !ok || p != g.password {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if g.asked != nil && r.Method == http.MethodPost {
			g.asked()
		}
		next.ServeHTTP(w, r)
	})
}

// leaving are flags for all that run-task can leave behind.
var leaving = []string{"--verbose", "--status-file", "status.json", "--export-env", "export.env", "--git-store", "store"}

// However a secret is given to run-task, it is nowhere afterwards: not in the store, the worktree, the home directory, the log, the status file, the export
// file, any process's arguments and the command's environment. Whether it opened the server or not, and even if the server repeats it.
func TestSecretsStaySecret(t *testing.T) {
	r := newRepo(t)
	for _, c := range credentials {
		for _, server := range []string{"takes", "refuses", "repeats"} {
			t.Run(c.name+", server "+server+" it", func(t *testing.T) {
				t.Parallel()
				leaks(t, r, c, server)
			})
		}
	}
}

func leaks(t *testing.T, r *repo, c credential, server string) {
	right := server == "takes"
	user := c.user
	if user == "" {
		user = "oauth2"
	}
	secrets := forms(user, secret)
	var swept atomic.Bool
	g := &guarded{password: secret, repeats: server == "repeats", asked: func() { sweepArguments(t, secrets); swept.Store(true) }}
	if server == "refuses" {
		g.password = "another"
	}
	base := gitserver.HTTP(t, filepath.Dir(r.Path), gitserver.Options{TLS: true, Wrap: g.wrap})
	addr := strings.TrimPrefix(base, "https://")
	ca := authority(t, addr)

	dir := tempDir(t)
	var given []string
	mkdirAll(t, dir+"/home")
	for name, text := range c.home {
		plant(t, dir+"/home/"+name, text(addr))
		given = append(given, dir+"/home/"+name)
		if err := os.Chmod(dir+"/home/"+name, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	own(t, dir)
	run := &command{dir: dir, env: slices.Concat([]string{"HOME=" + dir + "/home", "RUN_TASK_SHA=" + r.SHA["tip"]}, c.env(addr, "/repo.git")),
		args: slices.Concat([]string{"run-task"}, asUser(), leaving, []string{"--ca", ca, "--checkout", "src"}, c.args(addr), []string{"--", "probe"})}
	code, stdout, stderr := run.run(t)
	said := map[string]string{"log": stderr, "command's environment": stdout}
	if c.stays {
		if right && !strings.Contains(stdout, "env.CI_JOB_TOKEN="+secret+"\n") {
			t.Errorf("scripts need it:\n%s", stdout)
		}
		delete(said, "command's environment")
	}
	sweep(t, secrets, dir, given, said)
	says := map[string]string{"takes": "", "refuses": "401", "repeats": "access denied for [MASKED]"}[server]
	if right {
		if code != 0 || !swept.Load() {
			t.Fatalf("exit %d, processes swept: %t\n%s", code, swept.Load(), stderr)
		}
		judge(t, dir+"/src", r.SHA["tip"])
	} else if code != 77 || !strings.Contains(stderr, says) || !strings.Contains(stderr, "run-task: hint: ") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	for _, name := range []string{"JOB_TOKEN", "JOB_PASSWORD", "JOB_USER", "RUN_TASK_REPO"} {
		if strings.Contains(stdout, "env."+name+"=") {
			t.Errorf("%s reached the command", name)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.users) == 0 || c.user != "" && slices.ContainsFunc(g.users, func(u string) bool { return u != c.user }) {
		t.Errorf("the server saw the users %q", g.users)
	}
	if !right && len(g.users) != 1 {
		t.Errorf("%d requests with a wrong password", len(g.users))
	}
}

// A private key that is given in a variable is nowhere afterwards, either.
func TestSSHKeysStaySecret(t *testing.T) {
	t.Parallel()
	if _, err := user.Current(); err != nil {
		skip(t, t.Name(), "needs an account for this uid")
	}
	r := newRepo(t)
	right, other := gitserver.SSH(t, true, gitserver.Options{}), gitserver.SSH(t, true, gitserver.Options{})
	_, hosts := filesOfSSH(t, right, "")
	for _, s := range []gitserver.SSHServer{right, other} {
		pem, err := os.ReadFile(s.Key)
		if err != nil {
			t.Fatal(err)
		}
		var secrets []string
		for line := range strings.Lines(string(pem)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "--") {
				secrets = append(secrets, line)
			}
		}
		dir := tempDir(t)
		mkdirAll(t, dir+"/home")
		own(t, dir)
		env := []string{"HOME=" + dir + "/home", "DEPLOY_KEY=" + string(pem), "RUN_TASK_REPO=" + right.URL + r.Path, "RUN_TASK_SHA=" + r.SHA["tip"]}
		run := &command{dir: dir, env: env,
			args: slices.Concat([]string{"run-task"}, asUser(), leaving, []string{"--known-hosts", hosts, "--ssh-key", "env:DEPLOY_KEY", "--checkout", "src", "--", "probe"})}
		code, stdout, stderr := run.run(t)
		sweep(t, secrets, dir, nil, map[string]string{"log": stderr, "command's environment": stdout})
		if s == right {
			if code != 0 {
				t.Fatalf("exit %d\n%s", code, stderr)
			}
			judge(t, dir+"/src", r.SHA["tip"])
		} else if code != 77 || !strings.Contains(stderr, "accepts no key of ours") {
			t.Errorf("another key: exit %d\n%s", code, stderr)
		}
		if strings.Contains(stdout, "DEPLOY_KEY") {
			t.Errorf("the variable reached the command\n%s", stdout)
		}
	}
}

// Who redirects to another host, or to another port, gets no credentials sent there: not those for the first one, and not those for the second.
func TestRedirectsGetNoCredentials(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	for _, host := range []string{"127.0.0.1", "127.0.0.2"} {
		var mu sync.Mutex
		var shown []string
		requests := 0
		to := gitserver.HTTP(t, filepath.Dir(r.Path), gitserver.Options{Host: host, Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				requests++
				shown = append(shown, r.Header.Values("Authorization")...)
				mu.Unlock()
				next.ServeHTTP(w, r)
			})
		}})
		g := &guarded{password: secret}
		from := gitserver.HTTP(t, filepath.Dir(r.Path), gitserver.Options{Wrap: func(http.Handler) http.Handler {
			return g.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { gitserver.Redirect(to)(w, r, nil) }))
		}})
		login := func(root string) string {
			return "host=" + strings.TrimPrefix(root, "http://") + ",token-env=JOB_TOKEN,http=true"
		}
		for name, way := range map[string]struct {
			repo string
			args []string
		}{
			"URL":        {strings.Replace(from, "http://", "http://"+url.UserPassword("job", secret).String()+"@", 1), nil},
			"--git-auth": {from, []string{"--git-auth", login(from), "--git-auth", login(to)}},
		} {
			dir := tempDir(t)
			run := &command{dir: dir, env: []string{"JOB_TOKEN=" + secret, "RUN_TASK_REPO=" + way.repo + "/repo.git", "RUN_TASK_SHA=" + r.SHA["tip"]},
				args: slices.Concat([]string{"run-task"}, asUser(), way.args, []string{"--verbose", "--checkout", "src", "--", "probe", "exit", "0"})}
			run.must(t)
			judge(t, dir+"/src", r.SHA["tip"])
			mu.Lock()
			if len(shown) > 0 || requests < 2 {
				t.Errorf("%s to %s: %d requests with %q", name, host, requests, shown)
			}
			shown, requests = nil, 0
			mu.Unlock()
		}
	}
}
