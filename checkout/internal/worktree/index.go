package worktree

import (
	"run-task/checkout/internal/index"
	"run-task/internal/fsx"
)

// writeIndex replaces gitdir's index. One that a task has made a directory is removed, because nothing can be renamed over it.
func writeIndex(gitdir *fsx.Dir, p *plan) error {
	if st, err := gitdir.Lstat("index"); err == nil && st.IsDir() {
		if err := gitdir.RemoveAll("index"); err != nil {
			return err
		}
	}
	entries := make([]index.Entry, len(p.files))
	for i := range p.files {
		entries[i] = p.files[i].Entry
	}
	return gitdir.WriteFile("index", index.Encode(index.Index{Entries: entries, Top: p.top}), 0o644)
}
