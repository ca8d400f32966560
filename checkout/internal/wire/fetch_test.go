package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/internal/retry"
	"run-task/tests/gitserver"
)

var shared struct {
	root string
	once sync.Once
	gitserver.Commits
}

func TestMain(m *testing.M) {
	m.Run()
	os.RemoveAll(shared.root)
}

// fixture is a directory with the repository r.git, which all tests share and none changes.
func fixture(t *testing.T) (root string, c gitserver.Commits) {
	t.Helper()
	shared.once.Do(func() {
		var err error
		if shared.root, err = os.MkdirTemp("", "wire"); err != nil {
			t.Fatal(err)
		}
		shared.Commits = gitserver.Repo(t, shared.root, "r.git")
	})
	return shared.root, shared.Commits
}

// client is the side of Fetch that is not wire's: it ingests packs with the real git and looks whether the commit is whole.
type client struct {
	t    *testing.T
	want Want
	u    URL
	o    Options
	log  bytes.Buffer

	dir   string // the quarantine of the last pack
	packs []Pack
}

func newClient(t *testing.T, url, sha string) *client {
	t.Helper()
	u, err := ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	return &client{t: t, u: u, want: Want{SHA: plumbing.NewHash(sha), Depth: 1}, o: Options{Retry: retry.Policy{Sleep: noSleep}}}
}

func noSleep(context.Context, time.Duration) error { return nil }

func (c *client) fetch() (string, error) {
	c.t.Helper()
	return Fetch(c.t.Context(), logs.New(&c.log, logs.Verbose, false), c.u, c.o, c.want, c.take)
}

func (c *client) take(_ context.Context, p Pack) (bool, error) {
	c.packs = append(c.packs, p)
	c.dir = filepath.Join(c.t.TempDir(), fmt.Sprint(len(c.packs)))
	gitserver.Git(c.t, "/", "init", "-q", "--bare", c.dir)
	if len(p.Shallow) > 0 {
		var b bytes.Buffer
		for _, h := range p.Shallow {
			fmt.Fprintln(&b, h)
		}
		if err := os.WriteFile(filepath.Join(c.dir, "shallow"), b.Bytes(), 0o600); err != nil {
			return false, err
		}
	}
	index := exec.Command("git", "index-pack", "--stdin", "--fix-thin")
	index.Dir, index.Env, index.Stdin = c.dir, gitserver.Env(), p
	if out, err := index.CombinedOutput(); err != nil {
		return false, fail.Errorf(fail.BadData, "%w: %v: %s", ErrDamaged, err, out)
	}
	whole := exec.Command("git", "rev-list", "--objects", c.want.SHA.String())
	whole.Dir, whole.Env = c.dir, gitserver.Env()
	return whole.Run() == nil, nil
}

// count is how many commits of history came.
func (c *client) count() string {
	c.t.Helper()
	return gitserver.Git(c.t, c.dir, "rev-list", "--count", c.want.SHA.String())
}

type server struct {
	name string
	v0   bool
	url  func(t *testing.T, root string, config []string) (string, Options)
}

func servers() []server {
	web := func(v0 bool) func(*testing.T, string, []string) (string, Options) {
		return func(t *testing.T, root string, config []string) (string, Options) {
			return gitserver.HTTP(t, root, gitserver.Options{V0: v0, Config: config}) + "/r.git", Options{}
		}
	}
	daemon := func(v0 bool) func(*testing.T, string, []string) (string, Options) {
		return func(t *testing.T, root string, config []string) (string, Options) {
			return gitserver.Daemon(t, root, gitserver.Options{V0: v0, Config: config}) + "/r.git", Options{}
		}
	}
	sshd := func(v0 bool) func(*testing.T, string, []string) (string, Options) {
		return func(t *testing.T, root string, config []string) (string, Options) {
			s := gitserver.SSH(t, !v0, gitserver.Options{Config: config})
			return s.URL + root + "/r.git", Options{Home: home(t, map[string]string{"id_ed25519": s.Key, "known_hosts": s.KnownHosts})}
		}
	}
	return []server{
		{"http-v2", false, web(false)}, {"http-v0", true, web(true)}, {"git-v2", false, daemon(false)}, {"git-v0", true, daemon(true)},
		{"ssh-v2", false, sshd(false)}, {"ssh-v0", true, sshd(true)},
	}
}

// home makes a home directory with copies of files in its .ssh.
func home(t *testing.T, ssh map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, from := range ssh {
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, ".ssh", name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// outcome is what the table of the design page promises: a source, or the word of a reason.
func outcome(s server, setting, object string) string {
	any := setting == "allowAnySHA1InWant"
	switch {
	case object == "gone" && (!s.v0 || any):
		return "gone"
	case !s.v0:
		return RemoteV2
	case object == "tip", object == "merge", object == "tag":
		return RemoteV0
	case any && object != "gone", setting == "allowReachableSHA1InWant" && object == "ancestor":
		return RemoteV0
	case setting == "allowTipSHA1InWant" && object == "ancestor" && strings.HasPrefix(s.name, "http"):
		return RemoteV0
	case object == "ancestor":
		return All
	}
	return "refused"
}

func TestEveryServerAndSetting(t *testing.T) {
	root, c := fixture(t)
	objects := map[string]string{"tip": c.Tip, "ancestor": c.Ancestor, "forced": c.Forced, "old merge": c.OldMerge, "merge": c.Merge, "tag": c.Tag, "gone": c.Gone}
	for _, setting := range []string{"default", "allowTipSHA1InWant", "allowReachableSHA1InWant", "allowAnySHA1InWant"} {
		for _, s := range servers() {
			t.Run(setting+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				var config []string
				if setting != "default" {
					config = []string{"uploadpack." + setting + "=true"}
				}
				url, o := s.url(t, root, config)
				for name, sha := range objects {
					cl := newClient(t, url, sha)
					o.Retry = cl.o.Retry
					cl.o = o
					got, err := cl.fetch()
					if err != nil {
						got = fail.Of(err).String()
					}
					if want := outcome(s, setting, name); got != want {
						t.Errorf("%s: %s, want %s (%v)\n%s", name, got, want, err, &cl.log)
					}
					if (got == RemoteV0 || got == RemoteV2) && cl.count() != "1" {
						t.Errorf("%s: %s commits at depth 1", name, cl.count())
					}
				}
			})
		}
	}
}

func TestDepthAndTags(t *testing.T) {
	root, c := fixture(t)
	all := append(servers(), server{"local", false, func(*testing.T, string, []string) (string, Options) { return root + "/r.git", Options{} }})
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			url, o := s.url(t, root, nil)
			for depth, count := range map[int]string{1: "1", 3: "3", 5: "5", 50: "6", 0: "6"} {
				cl := newClient(t, url, c.Tip)
				cl.o, cl.want.Depth = o, depth
				if _, err := cl.fetch(); err != nil {
					t.Fatalf("depth %d: %v", depth, err)
				}
				p := cl.packs[len(cl.packs)-1]
				if cl.count() != count || (len(p.Shallow) > 0) != (depth > 0 && depth < 6) {
					t.Errorf("depth %d: %s commits, boundary %v", depth, cl.count(), p.Shallow)
				}
				if (p.Refs != nil) != (depth == 0) {
					t.Errorf("depth %d: refs %v", depth, p.Refs)
				}
				if depth > 0 {
					continue
				}
				if len(p.Refs) != 2 || p.Refs["refs/tags/v1"].String() != c.Tag || p.Refs["refs/tags/light"].String() != c.First {
					t.Errorf("tags %v", p.Refs)
				}
				gitserver.Git(t, cl.dir, "cat-file", "-e", c.Tag)
			}
		})
	}
}

// A server whose own history ends early says where.
func TestShallowServer(t *testing.T) {
	from, c := fixture(t)
	root := t.TempDir()
	gitserver.Git(t, root, "clone", "-q", "--bare", "--depth=2", "file://"+from+"/r.git", "r.git")
	for _, s := range servers() {
		t.Run(s.name, func(t *testing.T) {
			url, o := s.url(t, root, nil)
			cl := newClient(t, url, c.Tip)
			cl.o, cl.want.Depth = o, 0
			if _, err := cl.fetch(); err != nil || len(cl.packs) != 1 || len(cl.packs[0].Shallow) != 1 || cl.count() != "2" {
				t.Errorf("%v, %+v", err, cl.packs)
			}
		})
	}
}

func TestHints(t *testing.T) {
	root, c := fixture(t)
	for _, s := range servers() {
		if !s.v0 { // version 2 gives whatever is there
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			url, o := s.url(t, root, nil)
			for _, depth := range []int{1, 0} {
				cl := newClient(t, url, c.Ancestor)
				cl.o, cl.want.Depth = o, depth
				cl.want.Hints = []string{"refs/heads/none", "refs/heads/topic", "refs/heads/main"}
				got, err := cl.fetch()
				if err != nil || got != Hint || cl.packs[0].Ref != "refs/heads/topic" || len(cl.packs) != 1 {
					t.Errorf("depth %d: %s, %v, %d packs", depth, got, err, len(cl.packs))
				}
			}
		})
	}
}

// gitserver's repositories are too small to need more than depth 50.
func TestHintDeeperThan50(t *testing.T) {
	root := t.TempDir()
	gitserver.Git(t, root, "init", "-q", "--bare", "r.git")
	var in strings.Builder
	for i := range 60 {
		fmt.Fprintf(&in, "commit refs/heads/main\ncommitter A <a@example.org> %d +0000\ndata 1\nx\nM 644 inline f\ndata %d\n%0*d\n\n", 1700000000+i, 4, 4, i)
	}
	gitserver.GitInput(t, root+"/r.git", strings.NewReader(in.String()), "fast-import", "--quiet")
	first := gitserver.Git(t, root+"/r.git", "rev-list", "--max-parents=0", "main")
	cl := newClient(t, gitserver.Daemon(t, root, gitserver.Options{V0: true})+"/r.git", first)
	cl.want.Hints = []string{"refs/heads/main"}
	if got, err := cl.fetch(); err != nil || got != Hint || len(cl.packs) != 2 {
		t.Errorf("%s, %v, %d packs; want the second, full one", got, err, len(cl.packs))
	}
	if !strings.Contains(cl.log.String(), "was reached through refs/heads/main") {
		t.Errorf("log %s", &cl.log)
	}
}

func TestGoneSaysWhatWasAsked(t *testing.T) {
	root, c := fixture(t)
	url := gitserver.HTTP(t, root, gitserver.Options{}) + "/r.git"
	cl := newClient(t, url, c.Gone)
	cl.want.Hints = []string{"refs/pull/1/merge", "refs/pull/2/merge"}
	_, err := cl.fetch()
	var b bytes.Buffer
	fail.Print(&b, err)
	want := fmt.Sprintf("run-task: error: commit %.8s is gone from %s\n"+
		"  asked   exact SHA (protocol v2): \"not our ref\"; refs/pull/1/merge is now %.8s; refs/pull/2/merge does not exist; 4 branches and tags: not reachable\n"+
		"run-task: hint: no other commit is ever used in its place; start a new pipeline, or keep its ref or pin longer\n", c.Gone, url, c.Merge)
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", &b, want)
	}
}

func TestEmptyRepositoryAndSHA256(t *testing.T) {
	root := t.TempDir()
	gitserver.Git(t, root, "init", "-q", "--bare", "r.git")
	gitserver.Git(t, root, "init", "-q", "--bare", "--object-format=sha256", "256.git")
	work := t.TempDir()
	gitserver.Git(t, work, "init", "-q", "--object-format=sha256")
	gitserver.Git(t, work, "commit", "-q", "--allow-empty", "-m", "x")
	gitserver.Git(t, work, "push", "-q", root+"/256.git", "main")
	for _, s := range servers() {
		t.Run(s.name, func(t *testing.T) {
			url, o := s.url(t, root, nil)
			cl := newClient(t, url, strings.Repeat("1", 40))
			cl.o = o
			want := fail.Gone
			if s.v0 {
				want = fail.Refused
			}
			if _, err := cl.fetch(); fail.Of(err) != want {
				t.Errorf("empty: %v", err)
			}
			cl = newClient(t, strings.Replace(url, "r.git", "256.git", 1), strings.Repeat("1", 40))
			cl.o = o
			if _, err := cl.fetch(); fail.Of(err) != fail.Usage || !strings.Contains(err.Error(), "SHA-256 repositories are not supported") {
				t.Errorf("sha256: %v", err)
			}
		})
	}
}

func TestRepositoryThatIsNotThere(t *testing.T) {
	root := t.TempDir()
	for _, s := range servers() {
		t.Run(s.name, func(t *testing.T) {
			url, o := s.url(t, root, nil)
			cl := newClient(t, url, strings.Repeat("1", 40))
			cl.o = o
			if _, err := cl.fetch(); fail.Of(err) != fail.Denied || !strings.Contains(err.Error(), "repository not found or no access") {
				t.Errorf("%v", err)
			}
		})
	}
}

// A server that sends packs, but never the commit, has damaged content: the commit need not be gone. It can make us ask only so often.
func TestPacksWithoutTheCommit(t *testing.T) {
	var packs, lists atomic.Int32
	cl, _ := webClient(t, func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if bytes.Contains(body, []byte("command=fetch")) {
			packs.Add(1)
		} else if isPack(r) {
			lists.Add(1)
		}
		next.ServeHTTP(w, r)
	})
	cl.want.Hints = []string{"refs/heads/topic", "refs/pull/1/merge", "refs/heads/none", "refs/heads/main"}
	fetch := func(from string) (string, error) {
		return Fetch(t.Context(), logs.New(&cl.log, logs.Verbose, false), cl.u, cl.o, cl.want, func(_ context.Context, p Pack) (bool, error) {
			_, err := io.Copy(io.Discard, p)
			return p.Source == from, err
		})
	}
	_, err := fetch("nowhere")
	if fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), "sent a pack without the commit") || fail.Hint(err) == "" {
		t.Errorf("%v (%v)", err, fail.Of(err))
	}
	// By name; two refs at depth 50 and whole, and the one that is the commit; all.
	if packs.Load() != 1+2*2+1+1 || lists.Load() != 2 {
		t.Errorf("%d packs and %d lists of refs were asked for", packs.Load(), lists.Load())
	}
	for _, from := range []string{Hint, All} {
		if got, err := fetch(from); err != nil || got != from {
			t.Errorf("%s, %v; want %s", got, err, from)
		}
	}
}

func TestWantIsChecked(t *testing.T) {
	one := plumbing.NewHash(strings.Repeat("1", 40))
	for words, w := range map[string]Want{
		"no commit 0000": {}, "with depth -1": {SHA: one, Depth: -1}, `"main" is not`: {SHA: one, Hints: []string{"main"}}, `"refs/heads/a\nb" is not`: {SHA: one, Hints: []string{"refs/heads/a\nb"}},
		"is negative: -1s": {SHA: one, Wait: -time.Second}, "more than 32 refs": {SHA: one, Hints: slices.Repeat([]string{"refs/heads/a"}, 33)},
	} {
		if _, err := Fetch(t.Context(), nil, URL{}, Options{}, w, nil); fail.Of(err) != fail.Usage || !strings.Contains(err.Error(), words) {
			t.Errorf("%+v: %v", w, err)
		}
	}
}

func TestTakeDecides(t *testing.T) {
	root, c := fixture(t)
	url := gitserver.Daemon(t, root, gitserver.Options{}) + "/r.git"
	for _, k := range []struct {
		err   error
		calls int
	}{{errors.New("disk full"), 1}, {fail.Errorf(fail.BadData, "a path that may not be"), 1}, {fail.Errorf(fail.BadData, "%w: bad delta", ErrDamaged), 2}} {
		cl, calls := newClient(t, url, c.Tip), 0
		_, err := Fetch(t.Context(), logs.New(&cl.log, logs.Verbose, false), cl.u, cl.o, cl.want, func(context.Context, Pack) (bool, error) {
			calls++
			return false, k.err
		})
		if !errors.Is(err, k.err) || calls != k.calls {
			t.Errorf("%v: take was called %d times, want %d", err, calls, k.calls)
		}
	}
}
