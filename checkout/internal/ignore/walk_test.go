package ignore

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// walk finds what keep-ignored must remove, as Matcher asks for.
type walk struct {
	*repo
	*Matcher
	world   world
	tracked map[string]bool // files, and directories with some
	remove  map[string]bool
}

// dir says whether something stays in a directory.
func (w *walk) dir(dir string) (stays bool) {
	w.t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.repo.dir, dir))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		if full := path.Join(dir, e.Name()); full == ".git" || w.one(full, e) {
			stays = true
		} else {
			w.remove[full] = true
		}
	}
	return stays
}

func (w *walk) one(full string, e fs.DirEntry) (stays bool) {
	isDir, tracked := e.IsDir(), w.tracked[full]
	switch {
	case tracked && !isDir:
		return true
	case !tracked && w.Ignored(e.Name(), isDir):
		return true
	case !isDir || !tracked && w.repo.isDir(full+"/.git"):
		return false
	}
	w.Enter(e.Name(), w.world.rules(full+"/.gitignore"))
	defer w.Leave()
	return w.dir(full) || tracked
}

// list is all that is there but the top's .git.
func (r *repo) list() (all []string) {
	r.t.Helper()
	err := filepath.WalkDir(r.dir, func(name string, d fs.DirEntry, err error) error {
		if name == filepath.Join(r.dir, ".git") {
			return fs.SkipDir
		}
		all = append(all, strings.TrimPrefix(name, r.dir+"/"))
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all[1:]
}

// top is how deep the trees of grow are.
const top = 2

// grow makes a random tree in a directory, and returns the files that the commit has.
func (r *repo) grow(rnd *rand.Rand, w world, in string, depth int) (tracked []string) {
	r.t.Helper()
	r.mkdir(in)
	if rnd.IntN(3) == 0 || depth == top {
		w[in+"/.gitignore"] = randomFile(rnd, 1+rnd.IntN(4))
		r.write(in+"/.gitignore", w[in+"/.gitignore"])
		tracked = append(tracked, in+"/.gitignore")
	}
	for range rnd.IntN(7) {
		full := in + "/" + pick(rnd, names)
		if _, err := os.Lstat(filepath.Join(r.dir, full)); err == nil {
			continue
		}
		switch kind := rnd.IntN(12); {
		case kind < 5 && depth > 0:
			tracked = append(tracked, r.grow(rnd, w, full, depth-1)...)
		case kind == 5:
			r.mkdir(full+"/.git/objects", full+"/.git/refs")
			r.write(full+"/.git/HEAD", "ref: refs/heads/main\n")
			r.write(full+"/a", "")
		case kind == 6:
			if err := os.Symlink(".", filepath.Join(r.dir, full)); err != nil {
				r.t.Fatal(err)
			}
		default:
			r.write(full, "")
			if rnd.IntN(5) == 0 {
				tracked = append(tracked, full)
			}
		}
	}
	return tracked
}

// left is what of all is not removed.
func (w *walk) left(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(name string) bool {
		for ; name != "."; name = path.Dir(name) {
			if w.remove[name] {
				return true
			}
		}
		return false
	})
}

// What git clean leaves is what the walk leaves.
func TestWalkLikeClean(t *testing.T) {
	removed, kept := 0, 0
	for round := range 5 {
		r, w, rnd := newRepo(t), world{}, rand.New(rand.NewPCG(seed, uint64(round)))
		w[exclude] = randomFile(rnd, 1+rnd.IntN(2))
		r.write(exclude, w[exclude])
		var tracked []string
		for i := range 40 {
			tracked = append(tracked, r.grow(rnd, w, fmt.Sprintf("t%d", i), top)...)
		}
		has := map[string]bool{}
		for _, name := range tracked {
			for ; name != "."; name = path.Dir(name) {
				has[name] = true
			}
		}
		find := walk{r, w.matcher(), w, has, map[string]bool{}}
		find.dir("")
		before := r.list()
		got := find.left(before)
		r.git(strings.Join(tracked, "\x00")+"\x00", "update-index", "--add", "-z", "--stdin")
		r.git("", "clean", "-ffd", "--quiet")
		want := r.list()
		removed, kept = removed+len(before)-len(want), kept+len(want)-len(tracked)
		for _, name := range before {
			if git := slices.Contains(want, name); git != slices.Contains(got, name) {
				maps.DeleteFunc(w, func(file, _ string) bool { return file != exclude && !strings.HasPrefix(name, path.Dir(file)+"/") })
				t.Fatalf("seed %d, round %d: git keeps %q: %v, not so here, with\n%s", seed, round, name, git, w)
			}
		}
	}
	t.Logf("%d removed, %d kept that are not tracked", removed, kept)
	if removed < 500 || kept < 500 {
		t.Errorf("%d removed, %d kept: this compares too little", removed, kept)
	}
}
