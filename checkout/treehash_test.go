//go:build linux

package checkout

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/tests/gitserver"
)

// What TreeHash says is git rev-parse HEAD:PATH, wherever the objects are: in one pack, in several that grew from commit to commit, or in a store's that the worktree borrows.
func TestTreeHash(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	work, bare := filepath.Join(root, "work"), filepath.Join(root, "r.git")
	gitserver.Git(t, root, "init", "-q", work)
	files := map[string]string{"a/b/c/file": "1", "a/b/other": "2", "a/run.sh": "3", "top": "4", "with space/ü": "5"}
	commit := func() string {
		for name, data := range files {
			check(t, os.MkdirAll(filepath.Dir(filepath.Join(work, name)), 0o755), os.WriteFile(filepath.Join(work, name), []byte(data), 0o644))
		}
		gitserver.Git(t, work, "add", ".")
		gitserver.Git(t, work, "-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "c")
		return gitserver.Git(t, work, "rev-parse", "HEAD")
	}
	check(t, os.MkdirAll(work, 0o755))
	check(t, os.Symlink("top", filepath.Join(work, "link")))
	shas := []string{commit()}
	files["a/b/c/file"] = "changed"
	shas = append(shas, commit())
	files["top"] = "changed"
	check(t, os.Mkdir(filepath.Join(work, "sub"), 0o755))
	gitserver.Git(t, work, "update-index", "--add", "--cacheinfo", "160000,"+shas[0]+",sub")
	shas = append(shas, commit())
	gitserver.Git(t, root, "clone", "-q", "--bare", work, bare)
	url := gitserver.HTTP(t, root, gitserver.Options{}) + "/r.git"

	shared := &Store{Dir: filepath.Join(dir, "store"), Holder: "a", TTL: time.Hour}
	for _, step := range []struct {
		dir, sha string
		depth    int
		store    *Store
		borrow   bool
	}{
		{"own", shas[0], 1, nil, false}, {"own", shas[1], 1, nil, false}, {"own", shas[2], 1, nil, false}, {"own", shas[0], 1, nil, false}, {"own", shas[2], 0, nil, false},
		{"copied", shas[1], 1, shared, false}, {"borrowed", shas[1], 1, shared, true}, {"borrowed", shas[2], 1, shared, true}, {"borrowed", shas[0], 0, shared, true}, {"own", shas[2], 0, nil, false},
	} {
		tree := filepath.Join(dir, step.dir)
		o := Options{Store: step.store, Repos: []Repo{{Dir: tree, URL: url, SHA: step.sha, Depth: step.depth, Alternates: step.borrow}}}
		check(t, Validate(&o.Repos[0]))
		if _, err := All(t.Context(), logs.New(io.Discard, logs.Normal, false), o); err != nil {
			t.Fatalf("%+v: %v", step, err)
		}
		if _, err := os.Stat(tree + "/.git/objects/info/alternates"); (err == nil) != step.borrow {
			t.Errorf("%+v: alternates: %v", step, err)
		}
		for _, path := range []string{".", "a", "a/b", "a/b/c", "a/b/c/file", "a/run.sh", "top", "link", "with space", "with space/ü", "a/b/"} {
			want := gitserver.Git(t, tree, "rev-parse", "HEAD:"+strings.TrimPrefix(path, "."))
			if got, err := TreeHash(tree, path); got != want || err != nil {
				t.Errorf("%+v: %q is %s, %v; git says %s", step, path, got, err, want)
			}
		}
		if got, err := TreeHash(tree, "sub"); step.sha == shas[2] && (got != shas[0] || err != nil) {
			t.Errorf("%+v: a submodule is %s, %v", step, got, err)
		}
		for _, path := range []string{"none", "a/none", "top/x", "link/x", "a/../top", "", "A"} {
			if got, err := TreeHash(tree, path); fail.Of(err) != fail.Usage || fail.Hint(err) == "" || !strings.Contains(err.Error(), step.sha) {
				t.Errorf("%+v: %q is %q, %v", step, path, got, err)
			}
		}
	}
	for _, other := range []string{work, dir} {
		if got, err := TreeHash(other, "top"); fail.Of(err) != fail.Usage || !strings.Contains(fail.Hint(err), "{{tree}}") {
			t.Errorf("what is no checkout of ours: %q, %v", got, err)
		}
	}
	if _, err := TreeHash(dir+"/none", "top"); err == nil {
		t.Error("no directory")
	}
}
