package checkout

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"run-task/checkout/internal/wire"
	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
)

func TestValidRef(t *testing.T) {
	for name, want := range map[string]bool{
		"refs/heads/main": true, "refs/pipelines/7": true, "refs/heads/ü": true, "refs/heads/a.b": true, "refs/pull/1/merge": true,
		"main": false, "refs/heads/": false, "refs//x": false, "refs/heads/.x": false, "refs/heads/x.lock": false, "refs/heads/x.": false,
		"refs/heads/a..b": false, "refs/heads/a b": false, "refs/heads/a\n": false, "refs/heads/a~1": false, "refs/heads/@{u}": false,
		`refs/heads/a\b`: false, "refs/heads/a*": false, "refs/heads/a?": false, "refs/heads/a[": false, "refs/heads/a:b": false, "refs/heads/a^": false, "": false,
	} {
		if got := wire.ValidRef(name); got != want {
			t.Errorf("wire.ValidRef(%q) is %v", name, got)
		}
	}
}

func TestAStateThatSomebodyWroteIsNotBelieved(t *testing.T) {
	u, err := wire.ParseURL("https://h/r")
	if err != nil {
		t.Fatal(err)
	}
	sha := strings.Repeat("d", 40)
	good := func() (state, Repo) {
		return state{Version: 2, URL: "https://h/r", SHA: sha, Depth: 1, Packs: []string{"pack-" + strings.Repeat("a", 40)}, Shallow: []string{strings.Repeat("b", 40)}}, Repo{SHA: sha, Depth: 1}
	}
	if s, r := good(); !s.fits(u, &r) {
		t.Fatal("a good state is refused")
	}
	for name, spoil := range map[string]func(*state, *Repo){
		"version":        func(s *state, _ *Repo) { s.Version = 1 },
		"pack path":      func(s *state, _ *Repo) { s.Packs[0] = "../../../etc/passwd" },
		"shallow":        func(s *state, _ *Repo) { s.Shallow[0] = "x\n" },
		"repository":     func(s *state, _ *Repo) { s.URL = "https://h/other" },
		"no packs":       func(s *state, _ *Repo) { s.Packs = nil },
		"too many packs": func(s *state, _ *Repo) { s.Packs = slices.Repeat(s.Packs, maxPacks+1) },
		"commit":         func(s *state, _ *Repo) { s.SHA = "HEAD" },
		"depth":          func(_ *state, r *Repo) { r.Depth = 2 },
		"all is shallow": func(s *state, r *Repo) { s.Depth, r.Depth = 0, 0 },
	} {
		if s, r := good(); true {
			if spoil(&s, &r); s.fits(u, &r) {
				t.Errorf("%s: believed", name)
			}
		}
	}
}

func TestClaim(t *testing.T) {
	for name, c := range map[string]struct {
		make     func(t *testing.T, dir string)
		mayClean bool
		refused  bool
	}{
		"empty":            {func(*testing.T, string) {}, false, false},
		"a fresh volume":   {mkdir("lost+found"), false, false},
		"caches in it":     {mkdir("caches/a/x", "cache/y"), false, false},
		"more than caches": {mkdir("caches/a/x", "caches/b"), false, true},
		"killed at once":   {mkdir(".git"), false, false},
		"ours":             {mkdir(".git/run-task", "src"), false, false},
		"somebody's":       {mkdir("src"), false, true},
		"somebody's clone": {mkdir(".git/objects", "src"), false, true},
		"only a .git":      {mkdir(".git/objects"), false, true},
		"a mark that is a file": {func(t *testing.T, dir string) {
			mkdir(".git")(t, dir)
			write(t, dir+"/.git/run-task")
		}, false, true},
		"a mark behind a link": {func(t *testing.T, dir string) {
			mkdir("real/run-task")(t, dir)
			if err := os.Symlink("real", dir+"/.git"); err != nil {
				t.Fatal(err)
			}
		}, false, true},
		"a .git file": {func(t *testing.T, dir string) { write(t, dir+"/.git") }, false, true},
		"adopted":     {mkdir("src"), true, false},
		"adopted, the mark is a file": {func(t *testing.T, dir string) {
			mkdir(".git")(t, dir)
			write(t, dir+"/.git/run-task")
		}, true, false},
		"adopted .git file": {func(t *testing.T, dir string) { write(t, dir+"/.git") }, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c.make(t, dir)
			root, err := fsx.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			before := listing(t, dir)
			g, err := claim(t.Context(), quiet, root, []string{"caches/a", "cache"}, c.mayClean)
			if c.refused {
				if fail.Of(err) != fail.Usage || !strings.Contains(fail.Hint(err), "--adopt") {
					t.Errorf("got %v, want a refusal with the hint --adopt", err)
				}
				if after := listing(t, dir); after != before {
					t.Errorf("a refused directory changed:\n%s", after)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer g.close()
			aside := strings.HasPrefix(name, "adopted")
			if kept := strings.Contains(listing(t, dir), before); aside && !kept || g.aside != aside {
				t.Errorf("before it begins, what is somebody's is changed:\n%s", listing(t, dir))
			}
			if err := g.begin(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir+"/"+markName+"/mine", nil, 0o666); err != nil {
				t.Errorf("no mark: %v", err)
			}
			if _, err := g.dir.Lstat(ownDir + "/mine"); err != nil {
				t.Errorf("what we hold is not %s: %v", markName, err)
			}
			if _, err := os.Lstat(dir + "/" + asideName); err == nil {
				t.Error("something is left aside")
			}
		})
	}
}

// A planted lock is replaced, and who waited for a lock that is not in the way any more looks again.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	mkdir(".git/run-task/lock/x")(t, dir)
	root, err := fsx.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	first, err := claim(t.Context(), quiet, root, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	done := make(chan error)
	said := make(chan struct{})
	go func() {
		second, err := claim(t.Context(), logs.New(io.MultiWriter(&out, closer{said}), logs.Normal, false), root, nil, false)
		if err == nil {
			_, err = os.Stat(filepath.Join(second.dir.Name(), ownDir))
			second.close()
		}
		done <- err
	}()
	<-said
	if err := os.Rename(dir+"/.git", dir+"/.old"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir + "/.old"); err != nil {
		t.Fatal(err)
	}
	first.close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !strings.Contains(out.String(), "waiting for another checkout into") {
		t.Error(out.String())
	}
}

// closer tells of the first line that is written.
type closer struct{ c chan struct{} }

func (c closer) Write(b []byte) (int, error) {
	select {
	case <-c.c:
	default:
		close(c.c)
	}
	return len(b), nil
}

var quiet = logs.New(io.Discard, logs.Quiet, false)

// listing has all that is in a directory.
func listing(t *testing.T, dir string) string {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if p != dir && !strings.Contains(p, asideName) {
			b.WriteString(e.Type().String() + p + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func mkdir(names ...string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		for _, n := range names {
			if err := os.MkdirAll(filepath.Join(dir, n), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func write(t *testing.T, name string) {
	if err := os.WriteFile(name, []byte("gitdir: /elsewhere\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
