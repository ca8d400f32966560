//go:build linux

package tests

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"run-task/tests/gitserver"
)

// asUser are the flags for a task that runs as uid 1000, or as who we are if that is not root.
func asUser() []string {
	if os.Getuid() == 0 {
		return []string{"--user", "1000:1000"}
	}
	return nil
}

// checkOut runs the main job in dir, with a command that does nothing.
func checkOut(t *testing.T, dir string, args ...string) (code int, stderr string) {
	t.Helper()
	args = slices.Concat([]string{"run-task"}, asUser(), args, []string{"--", "probe", "exit", "0"})
	code, _, stderr = (&command{args: args, dir: dir}).run(t)
	return code, stderr
}

func mustCheckOut(t *testing.T, dir string, args ...string) string {
	t.Helper()
	code, stderr := checkOut(t, dir, args...)
	if code != 0 {
		t.Fatalf("%q: exit %d\n%s", args, code, stderr)
	}
	return stderr
}

// native is git as the judge: it neither trusts nor changes what run-task left.
func native(dir string, env []string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = dir, slices.Concat(gitserver.Env(), []string{"GIT_OPTIONAL_LOCKS=0"}, env)
	out, err := cmd.CombinedOutput()
	return strings.TrimSuffix(string(out), "\n"), err
}

// judge has native git look at a worktree: at that commit, nothing missing, nothing changed, nothing else there.
func judge(t *testing.T, dir, commit string) {
	t.Helper()
	want := map[string]string{
		"rev-parse HEAD": commit,
		"status --porcelain --ignored --untracked-files=all": "",
		"diff-files":                      "", // by the index's stat data alone: git need not read the files
		"diff-index --cached HEAD --":     "",
		"fsck --full --no-dangling":       "",
		"log -1 --format=%H":              commit,
		"rev-parse --abbrev-ref @":        "HEAD",
		"config --get-regexp ^hook":       "!",
		"symbolic-ref --quiet HEAD":       "!",
		"config core.bare":                "false",
		"rev-parse --is-inside-work-tree": "true",
	}
	for args, w := range want {
		got, err := native(dir, nil, strings.Fields(args)...)
		if w == "!" && err == nil || w != "!" && (err != nil || got != w) {
			t.Errorf("git %s: %q, %v; want %q", args, got, err, w)
		}
	}
	// An index that knows nothing makes git read every file.
	index := []string{"GIT_INDEX_FILE=" + filepath.Join(t.TempDir(), "index")}
	for _, args := range []string{"read-tree HEAD", "update-index --refresh"} {
		if out, err := native(dir, index, strings.Fields(args)...); err != nil {
			t.Errorf("git %s: %v\n%s", args, err, out)
		}
	}
}

// server is one way to reach the repositories below a directory.
type server struct {
	name string
	v0   bool // speaks protocol version 0 only
	http bool // protocol version 0 over HTTP also gives ancestors of tips
	// url starts the server, whose git is configured so, and gives the URL of the directory; env is what its client needs.
	url func(t *testing.T, root string, config ...string) (url string, env []string)
}

func httpServer(v0 bool) func(t *testing.T, root string, config ...string) (string, []string) {
	return func(t *testing.T, root string, config ...string) (string, []string) {
		return gitserver.HTTP(t, root, gitserver.Options{V0: v0, Config: config}), nil
	}
}

func daemon(v0 bool) func(t *testing.T, root string, config ...string) (string, []string) {
	return func(t *testing.T, root string, config ...string) (string, []string) {
		return gitserver.Daemon(t, root, gitserver.Options{V0: v0, Config: config}), nil
	}
}

func sshd(acceptEnv bool) func(t *testing.T, root string, config ...string) (string, []string) {
	return func(t *testing.T, root string, config ...string) (string, []string) {
		s := gitserver.SSH(t, acceptEnv, gitserver.Options{Config: config})
		home := tempDir(t)
		if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o755); err != nil {
			t.Fatal(err)
		}
		for from, to := range map[string]string{s.Key: "id_ed25519", s.KnownHosts: "known_hosts"} {
			data, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(filepath.Join(home, ".ssh", to), data, 0o600)
			}
			if err == nil && os.Getuid() == 0 {
				err = os.Chown(filepath.Join(home, ".ssh", to), 1000, 1000)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return s.URL + root, []string{"HOME=" + home}
	}
}

var servers = []server{
	{"http v2", false, true, httpServer(false)},
	{"http v0", true, true, httpServer(true)},
	{"git v2", false, false, daemon(false)},
	{"git v0", true, false, daemon(true)},
	{"ssh v2", false, false, sshd(true)},
	{"ssh v0", true, false, sshd(false)},
}

// TestServers asks real servers, with each setting that decides which commits they give by their SHA, for commits that they advertise, and that they hold but do not.
func TestServers(t *testing.T) {
	root := tempDir(t)
	c := gitserver.Repo(t, root, "repo.git")
	commits := map[string]string{"tip": c.Tip, "ancestor": c.Ancestor, "forced": c.Forced, "old merge": c.OldMerge, "merge": c.Merge}
	for _, s := range servers {
		for _, allow := range []string{"", "allowTipSHA1InWant", "allowReachableSHA1InWant", "allowAnySHA1InWant"} {
			t.Run(s.name+" "+allow, func(t *testing.T) {
				t.Parallel()
				if _, err := user.Current(); err != nil && strings.HasPrefix(s.name, "ssh") {
					skip(t, t.Name(), "needs an account for this uid")
				}
				var config []string
				if allow != "" {
					config = []string{"uploadpack." + allow + "=true"}
				}
				url, env := s.url(t, root, config...)
				for name, sha := range commits {
					unreachable := name == "forced" || name == "old merge"
					dir := tempDir(t)
					args := slices.Concat([]string{"run-task"}, asUser(), []string{"--checkout", "src", "--repo", url + "/repo.git", "--sha", sha, "--", "probe", "exit", "0"})
					code, _, stderr := (&command{args: args, dir: dir, env: env}).run(t)
					want := 0
					if s.v0 && unreachable && allow != "allowAnySHA1InWant" {
						want = 76
					}
					if code != want {
						t.Errorf("%s: exit %d, want %d\n%s", name, code, want, stderr)
					}
					if code == 0 {
						judge(t, filepath.Join(dir, "src"), sha)
					} else if want != 0 && (!strings.Contains(stderr, sha[:8]) || !strings.Contains(stderr, "run-task: hint: ")) {
						t.Errorf("%s: the message does not help\n%s", name, stderr)
					}
				}
			})
		}
	}
}

// What the server pruned is gone: the one code for which a retry is of no use anywhere, and a message that says what was tried.
func TestGone(t *testing.T) {
	root := tempDir(t)
	c := gitserver.Repo(t, root, "repo.git")
	for _, s := range []struct {
		name string
		url  func(t *testing.T, root string, config ...string) (string, []string)
	}{
		{"http v2", httpServer(false)}, {"git v2", daemon(false)},
		{"local", func(t *testing.T, root string, config ...string) (string, []string) { return root, nil }},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			url, _ := s.url(t, root)
			dir := tempDir(t)
			code, stderr := checkOut(t, dir, "--checkout", "src", "--repo", url+"/repo.git", "--sha", c.Gone, "--ref", "refs/pull/1/merge")
			if code != 66 || !strings.Contains(stderr, "commit "+c.Gone[:8]+" is ") || !strings.Contains(stderr, "no other commit is ever used in its place") {
				t.Errorf("exit %d\n%s", code, stderr)
			}
			if _, err := os.Stat(filepath.Join(dir, "src/README")); err == nil {
				t.Error("something was checked out")
			}
		})
	}
}

// A hint leads to a commit that the server does not give by its SHA; it never leads to another.
func TestHints(t *testing.T) {
	t.Parallel()
	root := tempDir(t)
	c := gitserver.Repo(t, root, "repo.git")
	url := gitserver.HTTP(t, root, gitserver.Options{V0: true}) + "/repo.git"
	gitserver.Git(t, filepath.Join(root, "repo.git"), "update-ref", "refs/keep/forced", c.Forced)
	dir := tempDir(t)
	mustCheckOut(t, dir, "--checkout", "src", "--repo", url, "--sha", c.Forced, "--ref", "refs/keep/forced")
	judge(t, filepath.Join(dir, "src"), c.Forced)

	code, stderr := checkOut(t, tempDir(t), "--checkout", "src", "--repo", url, "--sha", c.OldMerge, "--ref", "refs/pull/1/merge")
	if code != 76 {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

// An unreachable server is tried again before it is given up. (The pauses make this the slowest test.)
func TestUnreachable(t *testing.T) {
	t.Parallel()
	code, stderr := checkOut(t, tempDir(t), "--checkout", "src", "--repo", "http://127.0.0.1:1/repo.git", "--sha", anySHA)
	if code != 69 || strings.Count(stderr, "trying again") == 0 || !strings.Contains(stderr, "connection refused") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

// What a server can say instead of giving a repository.
func TestServersThatSayNo(t *testing.T) {
	answer := func(code int, body string, header ...string) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for i := 0; i < len(header); i += 2 {
					w.Header().Set(header[i], header[i+1])
				}
				w.WriteHeader(code)
				io.WriteString(w, body)
			})
		}
	}
	for name, c := range map[string]struct {
		wrap func(http.Handler) http.Handler
		code int
		says string
	}{
		"unauthorized": {answer(401, "", "WWW-Authenticate", `Basic realm="x"`), 77, "401"},
		"forbidden":    {answer(403, ""), 77, "403"},
		"login page":   {answer(200, "<!DOCTYPE html><title>Sign in</title>", "Content-Type", "text/html"), 77, "login page"},
		"not there":    {answer(404, "nothing here"), -1, "404"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := gitserver.HTTP(t, tempDir(t), gitserver.Options{Wrap: c.wrap})
			dir := tempDir(t)
			code, stderr := checkOut(t, dir, "--verbose", "--checkout", "src", "--repo", strings.Replace(url, "http://", "http://job:s3cr3t-t0ken@", 1)+"/x.git", "--sha", anySHA)
			if c.code >= 0 && code != c.code || code < 64 || code == 70 || !strings.Contains(strings.ToLower(stderr), c.says) {
				t.Errorf("exit %d\n%s", code, stderr)
			}
			noSecret(t, dir, stderr)
		})
	}
}

// noSecret looks for the token in what was said and in every file that was left.
func noSecret(t *testing.T, dir, said string) {
	t.Helper()
	if strings.Contains(said, "s3cr3t") {
		t.Errorf("the token is in the log:\n%s", said)
	}
	out, err := exec.Command("grep", "-rla", "s3cr3t", dir).CombinedOutput()
	if err == nil {
		t.Errorf("the token is in files: %s", out)
	}
}

// The token in a URL is used, and is then in no log and no file.
func TestTokenInURL(t *testing.T) {
	t.Parallel()
	root := tempDir(t)
	c := gitserver.Repo(t, root, "repo.git")
	url := gitserver.HTTP(t, root, gitserver.Options{Wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if u, p, _ := r.BasicAuth(); u != "job" || p != "s3cr3t-t0ken" {
				w.WriteHeader(401)
				return
			}
			h.ServeHTTP(w, r)
		})
	}})
	dir := tempDir(t)
	said := mustCheckOut(t, dir, "--verbose", "--status-file", "status.json", "--checkout", "src", "--repo", strings.Replace(url, "http://", "http://job:s3cr3t-t0ken@", 1)+"/repo.git", "--sha", c.Tip)
	judge(t, filepath.Join(dir, "src"), c.Tip)
	noSecret(t, dir, said)
	if got, _ := native(filepath.Join(dir, "src"), nil, "config", "remote.origin.url"); got != url+"/repo.git" {
		t.Errorf("origin is %q", got)
	}
}

// HTTPS takes the certificate authorities that the environment names, and nobody else's.
func TestHTTPS(t *testing.T) {
	root := tempDir(t)
	c := gitserver.Repo(t, root, "repo.git")
	url := gitserver.HTTP(t, root, gitserver.Options{TLS: true})
	conn, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	dir := tempDir(t)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: conn.ConnectionState().PeerCertificates[0].Raw})
	plant(t, dir+"/ca.pem", string(ca))
	args := slices.Concat([]string{"run-task"}, asUser(), []string{"--checkout", "src", "--repo", url + "/repo.git", "--sha", c.Tip, "--", "probe", "exit", "0"})
	if code, _, stderr := (&command{args: args, dir: dir}).run(t); code != 77 || !strings.Contains(stderr, "SSL_CERT_FILE") {
		t.Errorf("an unknown authority: exit %d\n%s", code, stderr)
	}
	(&command{args: args, dir: dir, env: []string{"SSL_CERT_FILE=" + dir + "/ca.pem"}}).must(t)
	judge(t, dir+"/src", c.Tip)
}

// Every task asks for one SHA in the same bytes, so that a large host can answer from its cache.
func TestRequestsAreTheSameBytes(t *testing.T) {
	t.Parallel()
	root := tempDir(t)
	c := gitserver.Repo(t, root, "repo.git")
	var mu sync.Mutex
	var log []string
	url := gitserver.HTTP(t, root, gitserver.Options{Wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			mu.Lock()
			log = append(log, fmt.Sprintf("%s %s %v %q", r.Method, r.URL, r.Header, body))
			mu.Unlock()
			h.ServeHTTP(w, r)
		})
	}}) + "/repo.git"
	take := func(args ...string) string {
		log = nil
		mustCheckOut(t, tempDir(t), args...)
		return strings.Join(log, "\n")
	}
	first := take("--checkout", "src", "--repo", url, "--sha", c.Ancestor)
	second := take("--checkout", "elsewhere,repo="+url+",sha="+strings.ToUpper(c.Ancestor))
	if first != second || !strings.Contains(first, c.Ancestor) {
		t.Errorf("one task asked\n%s\nanother\n%s", first, second)
	}
	if full := take("--checkout", "src", "--repo", url, "--sha", c.Ancestor, "--depth", "0"); full == first {
		t.Error("full history is asked for like depth 1: this test sees nothing")
	}
}
