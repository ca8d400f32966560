package wire

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/tests/gitserver"
)

// refsFixture is a copy of the fixture with refs that are hard to tell apart.
func refsFixture(t *testing.T) (root string, c gitserver.Commits) {
	t.Helper()
	from, c := fixture(t)
	root = t.TempDir()
	repo := root + "/r.git"
	gitserver.Git(t, root, "clone", "-q", "--mirror", from+"/r.git", "r.git")
	gitserver.Git(t, repo, "update-ref", "refs/heads/both", c.Tip)
	gitserver.Git(t, repo, "update-ref", "refs/tags/both", c.Ancestor)
	gitserver.Git(t, repo, "update-ref", "refs/heads/same", c.First)
	gitserver.Git(t, repo, "update-ref", "refs/tags/same", c.Tag)
	gitserver.Git(t, repo, "symbolic-ref", "HEAD", "refs/heads/main")
	gitserver.Git(t, repo, "pack-refs", "--all")
	gitserver.Git(t, repo, "update-ref", "refs/heads/loose/deep", c.Ancestor)
	gitserver.Git(t, repo, "symbolic-ref", "refs/heads/alias", "refs/heads/loose/deep")
	return root, c
}

func allServers(root string) []server {
	return append(servers(), server{"local", false, func(*testing.T, string, []string) (string, Options) { return root + "/r.git", Options{} }})
}

func TestResolve(t *testing.T) {
	root, c := refsFixture(t)
	head := gitserver.Git(t, root+"/r.git", "rev-parse", "HEAD")
	for _, s := range allServers(root) {
		t.Run(s.name, func(t *testing.T) {
			url, o := s.url(t, root, nil)
			cl := newClient(t, url, c.Tip)
			o.Retry = cl.o.Retry
			log := logs.New(&cl.log, logs.Verbose, false)
			for name, want := range map[string]Resolved{
				"HEAD":              {"HEAD", plumbing.NewHash(head), plumbing.NewHash(head)},
				"refs/heads/both":   {"refs/heads/both", plumbing.NewHash(c.Tip), plumbing.NewHash(c.Tip)},
				"refs/tags/both":    {"refs/tags/both", plumbing.NewHash(c.Ancestor), plumbing.NewHash(c.Ancestor)},
				"loose/deep":        {"refs/heads/loose/deep", plumbing.NewHash(c.Ancestor), plumbing.NewHash(c.Ancestor)},
				"alias":             {"refs/heads/alias", plumbing.NewHash(c.Ancestor), plumbing.NewHash(c.Ancestor)},
				"v1":                {"refs/tags/v1", plumbing.NewHash(c.Tag), plumbing.NewHash(c.First)},
				"light":             {"refs/tags/light", plumbing.NewHash(c.First), plumbing.NewHash(c.First)},
				"refs/pull/1/merge": {"refs/pull/1/merge", plumbing.NewHash(c.Merge), plumbing.NewHash(c.Merge)},
				"same":              {"refs/heads/same", plumbing.NewHash(c.First), plumbing.NewHash(c.First)},
			} {
				if is, err := Resolve(t.Context(), log, cl.u, o, name); err != nil || is != want {
					t.Errorf("%s: %+v, %v; want %+v", name, is, err, want)
				}
			}
			for name, words := range map[string]string{
				"both":            "ambiguous: refs/heads/both is " + c.Tip + ", and refs/tags/both is " + c.Ancestor,
				"none":            "there is no ref refs/heads/none or refs/tags/none",
				"loose":           "there is no ref refs/heads/loose or",
				"loose/deep/er":   "there is no ref refs/heads/loose/deep/er",
				"refs/heads/mai":  "there is no ref refs/heads/mai",
				"refs/heads/none": "there is no ref refs/heads/none",
			} {
				if is, err := Resolve(t.Context(), log, cl.u, o, name); fail.Of(err) != fail.Usage || !strings.Contains(err.Error(), words) || fail.Hint(err) == "" || is != (Resolved{}) {
					t.Errorf("%q: %+v, %v (%v); want %q", name, is, err, fail.Of(err), words)
				}
			}
		})
	}
}

// No server is asked for these.
func TestWhatIsNoRef(t *testing.T) {
	u := URL{Scheme: "https", Host: "127.0.0.1", Port: "1", Path: "/r"}
	for _, name := range []string{
		"refs/heads/../x", "refs/heads/a b", "-x\n", "", "refs/", "refs/heads/", "refs/heads/.a", "refs/heads/a@{1}", "/etc/passwd", "a..b", "a.lock", "a//b", "a\x00b", "a^{}", "../HEAD", strings.Repeat("a", maxRef),
	} {
		is, err := Resolve(t.Context(), logs.New(io.Discard, logs.Normal, false), u, Options{}, name)
		if fail.Of(err) != fail.Usage || !strings.Contains(err.Error(), "is not the name of a ref") || fail.Hint(err) == "" || is != (Resolved{}) {
			t.Errorf("%q: %+v, %v (%v)", name, is, err, fail.Of(err))
		}
	}
}

func TestCheck(t *testing.T) {
	root, c := fixture(t)
	for _, s := range allServers(root) {
		t.Run(s.name, func(t *testing.T) {
			url, o := s.url(t, root, nil)
			cl := newClient(t, url, c.Tip)
			o.Retry = cl.o.Retry
			log := logs.New(&cl.log, logs.Verbose, false)
			if err := Check(t.Context(), log, cl.u, o); err != nil {
				t.Error(err)
			}
			cl = newClient(t, strings.Replace(url, "r.git", "none.git", 1), c.Tip)
			want := fail.Denied
			if s.name == "local" {
				want = fail.Usage
			}
			if err := Check(t.Context(), log, cl.u, o); fail.Of(err) != want {
				t.Errorf("no repository: %v", err)
			}
		})
	}
}

// Some servers greet everybody and look at rights only when something is asked for.
func TestRightsAreAskedForLate(t *testing.T) {
	for name, c := range map[string]struct {
		deny   func(http.ResponseWriter)
		reason fail.Reason
	}{
		"403": {func(w http.ResponseWriter) { w.WriteHeader(403) }, fail.Denied},
		"ERR": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
			io.WriteString(w, lines("ERR access denied or repository not exported"))
		}, fail.Denied},
		"503": {func(w http.ResponseWriter) { w.WriteHeader(503) }, fail.Unavailable},
	} {
		var posts atomic.Int32
		cl, _ := webClient(t, func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			if !isPack(r) {
				next.ServeHTTP(w, r)
				return
			}
			posts.Add(1)
			c.deny(w)
		})
		err := Check(t.Context(), logs.New(&cl.log, logs.Normal, false), cl.u, cl.o)
		if fail.Of(err) != c.reason || posts.Load() == 0 || c.reason == fail.Denied && posts.Load() != 1 {
			t.Errorf("%s: %v (%v) after %d requests", name, err, fail.Of(err), posts.Load())
		}
		if _, err := Resolve(t.Context(), logs.New(&cl.log, logs.Normal, false), cl.u, cl.o, "HEAD"); fail.Of(err) != c.reason {
			t.Errorf("%s: %v (%v)", name, err, fail.Of(err))
		}
	}
}

// What is asked is the same whatever is there, and a list that has more than was asked for changes nothing.
func TestResolveAsksForLittle(t *testing.T) {
	var bodies []string
	cl, _ := webClient(t, func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if !isPack(r) {
			next.ServeHTTP(w, r)
			return
		}
		b, _ := io.ReadAll(r.Body)
		bodies = append(bodies, string(b))
		w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
		io.WriteString(w, lines(one+" HEAD", one+" refs/tags/a", one+" refs/heads/a", strings.Repeat("2", 40)+" refs/heads/ab")+"0000")
	})
	is, err := Resolve(t.Context(), logs.New(&cl.log, logs.Normal, false), cl.u, cl.o, "a")
	if err != nil || is.ID.String() != one || is.Ref != "refs/heads/a" || len(bodies) != 1 || !strings.Contains(bodies[0], "ref-prefix refs/heads/a\n") || strings.Count(bodies[0], "ref-prefix") != 2 {
		t.Errorf("%+v, %v, asked %q", is, err, bodies)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fail.ErrInterrupted)
	if _, err := Resolve(ctx, logs.New(&cl.log, logs.Normal, false), cl.u, cl.o, "a"); fail.Of(err) != fail.Interrupted {
		t.Errorf("cancelled: %v", err)
	}
}

// In a linked worktree HEAD is the worktree's own.
func TestResolveInWorktrees(t *testing.T) {
	from, c := fixture(t)
	dir := t.TempDir()
	gitserver.Git(t, dir, "clone", "-q", from+"/r.git", "main")
	gitserver.Git(t, dir+"/main", "worktree", "add", "-q", "--detach", dir+"/linked", c.Ancestor)
	empty := t.TempDir()
	gitserver.Git(t, empty, "init", "-q")
	log := logs.New(io.Discard, logs.Normal, false)
	for path, want := range map[string]string{dir + "/linked": c.Ancestor, dir + "/main": gitserver.Git(t, dir+"/main", "rev-parse", "HEAD"), empty: ""} {
		is, err := Resolve(t.Context(), log, URL{Scheme: "file", Path: path}, Options{}, "HEAD")
		if want == "" && (fail.Of(err) != fail.Usage || !strings.Contains(err.Error(), "there is no ref HEAD")) || want != "" && (err != nil || is.Commit.String() != want) {
			t.Errorf("%s: %+v, %v", path, is, err)
		}
	}
	if err := os.WriteFile(empty+"/.git/HEAD", []byte("ref: refs/heads/.invalid\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Resolve(t.Context(), log, URL{Scheme: "file", Path: empty}, Options{}, "HEAD"); fail.Of(err) != fail.Usage || !strings.Contains(err.Error(), "reftable") {
		t.Errorf("%v", err)
	}
}
