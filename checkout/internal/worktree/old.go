package worktree

import (
	"sort"
	"strings"

	"run-task/checkout/internal/index"
	"run-task/checkout/internal/treepath"
)

// Old is what an earlier Write left in the same directory, and what nobody can have changed since: the caller answers for that. Files whose metadata
// are still those of the index are taken for right, as git does it.
type Old struct {
	index.Index
	Sec, Nsec int64    // when the index was written, by the clock of the file system
	Warnings  []string // Summary.Tree
}

// trusts tells whether a change would have changed the entry's metadata: not if the file is as young as the index (gitformat-index, "racy git").
func (o *Old) trusts(e *index.Entry) bool { return e.Stat.Before(o.Sec, o.Nsec) }

// hasFile, hasSubmodule and hasDir tell what the earlier run's tree had at a path.
func (o *Old) hasFile(path string) bool {
	if o == nil {
		return false
	}
	i := o.search(path)
	return i < len(o.Entries) && o.Entries[i].Path == path && !o.Entries[i].Skip
}

func (o *Old) hasSubmodule(path string) bool {
	return o.hasFile(path) && o.Entries[o.search(path)].Mode == treepath.Gitlink
}

func (o *Old) hasDir(path string) bool {
	if o == nil {
		return false
	}
	i := o.search(path + "/")
	return i < len(o.Entries) && strings.HasPrefix(o.Entries[i].Path, path+"/")
}

func (o *Old) search(path string) int {
	return sort.Search(len(o.Entries), func(i int) bool { return o.Entries[i].Path >= path })
}

// find is the entry of a file directly in a directory.
func (o *Old) find(in *index.Tree, path string) *index.Entry {
	if o == nil || in == nil {
		return nil
	}
	all := o.Entries[in.First : in.First+in.Files]
	if i := sort.Search(len(all), func(i int) bool { return all[i].Path >= path }); i < len(all) && all[i].Path == path {
		return &all[i]
	}
	return nil
}
