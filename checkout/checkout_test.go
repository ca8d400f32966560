package checkout

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
		if got := validRef(name); got != want {
			t.Errorf("validRef(%q) is %v", name, got)
		}
	}
}

func TestAStateThatSomebodyWroteIsNotBelieved(t *testing.T) {
	good := func() state {
		return state{Version: 1, Packs: []string{"pack-" + strings.Repeat("a", 40)}, Shallow: []string{strings.Repeat("b", 40)}, Tags: map[string]string{"refs/tags/v1": strings.Repeat("c", 40)}}
	}
	if s := good(); !s.sane() {
		t.Fatal("a good state is refused")
	}
	for name, spoil := range map[string]func(*state){
		"version":      func(s *state) { s.Version = 2 },
		"pack path":    func(s *state) { s.Packs[0] = "../../../etc/passwd" },
		"shallow":      func(s *state) { s.Shallow[0] = "x\n" },
		"tag's object": func(s *state) { s.Tags["refs/tags/v1"] = "x" },
		"tag's name": func(s *state) {
			s.Tags["refs/tags/x\n"+strings.Repeat("d", 40)+" refs/heads/y"] = strings.Repeat("c", 40)
		},
		"a branch": func(s *state) { s.Tags["refs/heads/x"] = strings.Repeat("c", 40) },
	} {
		if s := good(); true {
			if spoil(&s); s.sane() {
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
			before, _ := os.ReadDir(dir)
			g, err := claim(root, []string{"caches/a", "cache"}, c.mayClean)
			if c.refused {
				if fail.Of(err) != fail.Usage || !strings.Contains(fail.Hint(err), "--adopt") {
					t.Errorf("got %v, want a refusal with the hint --adopt", err)
				}
				if after, _ := os.ReadDir(dir); len(after) != len(before) {
					t.Errorf("a refused directory changed: %v", after)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer g.close()
			if err := os.Mkdir(dir+"/.git/run-task/lock", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := g.lock(t.Context(), logs.New(io.Discard, logs.Quiet, false)); err != nil {
				t.Errorf("a planted lock: %v", err)
			}
			if st, err := os.Stat(filepath.Join(dir, ".git/run-task")); err != nil || !st.IsDir() {
				t.Errorf("no mark: %v", err)
			}
		})
	}
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
