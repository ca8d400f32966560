package worktree

import (
	"testing"

	"run-task/checkout/internal/index"
	"run-task/checkout/internal/treepath"
)

// A file that somebody changes after it was compared is not taken for the one that was, and the next run looks at it.
func TestChmodOfAFileThatChanges(t *testing.T) {
	w := newWork(t)
	write(t, w.dir+"/file", "as compared", 0o644)
	st, err := w.root.Lstat("file")
	if err != nil {
		t.Fatal(err)
	}
	f := &file{Entry: index.Entry{Path: "file", Mode: treepath.File, Stat: index.StatOf(st)}, perm: 0o444}
	compared := f.Stat
	write(t, w.dir+"/file", "and changed", 0o644)
	if err := (&writer{root: w.root}).chmod(f); err != nil {
		t.Fatal(err)
	}
	if f.Stat != compared {
		t.Error("the metadata are those of a file that nobody has compared")
	}
	if st, err = w.root.Lstat("file"); err != nil || st.Perm() != 0o644 {
		t.Errorf("%o, %v", st.Perm(), err)
	}

	f.Stat = index.StatOf(st)
	if err := (&writer{root: w.root}).chmod(f); err != nil {
		t.Fatal(err)
	}
	if st, err = w.root.Lstat("file"); err != nil || st.Perm() != 0o444 || f.Stat != index.StatOf(st) {
		t.Errorf("%o, %v", st.Perm(), err)
	}
}
