package worktree

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/pack"
	"run-task/internal/fail"
)

// takeEarly receives what pack-objects makes of the list, and has files written meanwhile.
func (w *work) takeEarly(r repo, commit plumbing.Hash, list string, args ...string) (*Early, error) {
	w.t.Helper()
	early := NewEarly(w.root, commit, Options{})
	defer early.Close()
	stream := r.git(list, append([]string{"pack-objects", "-q", "--stdout"}, args...)...)
	var err error
	w.store, err = receive(ctx, openDir(w.t, w.path(".git/objects/pack")), strings.NewReader(stream), pack.Options{Object: early.Object})
	if err == nil {
		w.t.Cleanup(func() { w.store.Close() })
	}
	return early, err
}

func (e *Early) whole() (n int) {
	for _, f := range e.files {
		if f.st.Ino != 0 {
			n++
		}
	}
	return n
}

func TestEarly(t *testing.T) {
	r, _ := sample(t)
	r.write("again/1", "the same", 0o644)
	r.write("again/2", "the same", 0o755)
	for i := range 300 {
		r.write(fmt.Sprintf("many/%d/%d", i%7, i), strings.Repeat(fmt.Sprintln("line", i%50), i), 0o644)
	}
	r.write("large", strings.Repeat("x", 9<<20), 0o644)
	c := r.commitAll()
	for _, args := range [][]string{{"--window=0"}, {"--delta-base-offset"}, {"--window=50", "--depth=50"}} {
		w := newWork(t)
		early, err := w.takeEarly(r, c, c.String()+"\n", append(args, "--revs")...)
		if err != nil {
			t.Fatal(err)
		}
		if n := early.whole(); n < 250 {
			t.Errorf("%q: only %d files were written early", args, n)
		}
		// What was changed since is not taken over.
		write(t, w.path("many/1/1"), "changed", 0o644)
		if err := os.Chmod(w.path("again/1"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(w.path("again/2")); err != nil {
			t.Fatal(err)
		}
		write(t, w.path("stray"), "x", 0o644)
		sum := w.mustWrite(c, Options{Early: early})
		if sum.Written != sum.Files || sum.Removed != 3 {
			t.Errorf("%q: %+v", args, sum)
		}
		w.judge(r, c)
	}
}

// mustWrite writes what is in the store.
func (w *work) mustWrite(commit plumbing.Hash, o Options) Summary {
	w.t.Helper()
	sum, err := w.write(commit, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return sum
}

// Trees that break a rule are never entered, and Undo leaves nothing.
func TestEarlyHostileTrees(t *testing.T) {
	r := newRepo(t)
	blob := r.blob("evil")
	inner := r.tree(line("100644", "x", blob))
	bomb := inner
	for i := range 10 {
		var lines []string
		for k := range 10 {
			lines = append(lines, line("40000", fmt.Sprint("d", i, k), bomb))
		}
		bomb = r.tree(lines...)
	}
	for name, tree := range map[string]plumbing.Hash{
		"up":        r.tree(line("40000", "..", inner)),
		"git":       r.tree(line("40000", ".git", inner)),
		"git below": r.tree(line("100644", "a", blob), line("40000", "b", r.tree(line("100644", ".GIT", blob)))),
		"slash":     r.tree(line("100644", "a/b", blob)),
		"twice":     r.tree(line("100644", "a", blob), line("40000", "a", inner)),
		"order":     r.tree(line("40000", "b", inner), line("100644", "a", blob)),
		"mode":      r.tree(line("20666", "a", blob)),
		"bomb":      bomb,
		"missing":   r.tree(line("100644", "a", blob), line("40000", "b", plumbing.NewHash(strings.Repeat("1", 40)))),
	} {
		commit := r.commitTree(tree)
		list := r.git("", "cat-file", "--batch-all-objects", "--batch-check=%(objectname)")
		w := newWork(t)
		early, err := w.takeEarly(r, commit, list)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := os.ReadDir(w.dir + "/.."); err != nil || len(out) != 1 {
			t.Errorf("%s: %v, %v", name, out, err)
		}
		if _, err := os.Lstat(w.path(".git/x")); err == nil {
			t.Errorf("%s: written into .git", name)
		}
		if early.entries > 30*maxAgain {
			t.Errorf("%s: %d entries got a place", name, early.entries)
		}
		if n := early.whole(); name != "bomb" && n > 1 || n == 1 && name != "git below" && name != "missing" {
			t.Errorf("%s: %d files written", name, n)
		}
		if name != "bomb" { // that takes it a while
			if err := w.store.Verify(ctx, commit, nil, false); fail.Of(err) != fail.BadData {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := early.Undo(); err != nil {
			t.Error(err)
		}
		if names, _ := w.root.Names(); len(names) != 1 {
			t.Errorf("%s: left %q", name, names)
		}
	}
}

// What is in the way stays what it is, and Write judges it; nothing is written through a link.
func TestEarlyInTheWay(t *testing.T) {
	r := newRepo(t)
	r.write("a/file", "a", 0o644)
	r.write("b/deep/file", "b", 0o644)
	r.write("c", "c", 0o644)
	c := r.commitAll()
	for name, prepare := range map[string]func(w *work){
		"a link for a directory":  func(w *work) { os.Symlink("/tmp", w.path("a")) },
		"a file for a directory":  func(w *work) { write(t, w.path("b"), "mine", 0o644) },
		"a directory":             func(w *work) { os.Mkdir(w.path("a"), 0o777) },
		"a link for a file":       func(w *work) { os.Symlink("nowhere", w.path("c")) },
		"a directory with a file": func(w *work) { write(t, w.path("a/file"), "mine", 0o644) },
	} {
		w := newWork(t)
		prepare(w)
		before := modes(t, w.dir)
		early, err := w.takeEarly(r, c, c.String()+"\n", "--revs")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat("/tmp/file"); err == nil {
			t.Error(name, "written through a link")
		}
		if _, err := os.Lstat(w.path("nowhere")); err == nil {
			t.Error(name, "written through a link")
		}
		if err := early.Undo(); err != nil {
			t.Error(err)
		}
		if after := modes(t, w.dir); after != before {
			t.Errorf("%s: is\n%swas\n%s", name, after, before)
		}
		w.mustWrite(c, Options{Early: early})
		w.judge(r, c)
	}
}
