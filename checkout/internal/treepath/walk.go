package treepath

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
)

// Entry is one line of a tree.
type Entry struct {
	Name string
	Mode uint32 // as it stands in the tree, or canonical where Walk gives it
	ID   plumbing.Hash
}

// Bounds of what Walk takes. A tree of 40 bytes can name itself a million-fold through its sub-trees ("git bomb"), and no file
// system or git has use for deeper ones (git's core.maxTreeDepth is 2048).
const (
	maxDepth   = 2048
	maxEntries = 4 << 20
)

// Parse splits a tree object into its entries. It fails for what is no tree, and judges neither names nor order.
func Parse(tree []byte) ([]Entry, error) {
	var entries []Entry
	for len(tree) > 0 {
		nul := bytes.IndexByte(tree, 0)
		if nul < 0 || len(tree) < nul+21 {
			return nil, errors.New("an entry of the tree is cut short")
		}
		digits, name, ok := bytes.Cut(tree[:nul], []byte(" "))
		if !ok {
			return nil, errors.New("an entry of the tree has no name")
		}
		mode, err := ParseMode(digits)
		if err != nil {
			return nil, err
		}
		e := Entry{Name: string(name), Mode: mode}
		copy(e.ID[:], tree[nul+1:])
		entries = append(entries, e)
		tree = tree[nul+21:]
	}
	return entries, nil
}

// ParseMode reads the mode of a tree's entry: octal digits, seven at most.
func ParseMode(digits []byte) (mode uint32, err error) {
	if len(digits) == 0 || len(digits) > 7 {
		return 0, fmt.Errorf("%q is no file mode", digits)
	}
	for _, c := range digits {
		if c < '0' || c > '7' {
			return 0, fmt.Errorf("%q is no file mode", digits)
		}
		mode = mode<<3 | uint32(c-'0')
	}
	return mode, nil
}

// Entries are those of a tree object, with canonical modes, if it keeps all the rules that Walk has for a tree by itself.
func Entries(tree []byte) ([]Entry, error) {
	entries, err := Parse(tree)
	if err != nil {
		return nil, err
	}
	if name, err := checkAll(entries); err != nil {
		return nil, refused(name, err)
	}
	for i, e := range entries {
		if entries[i].Mode, err = Canonical(e.Mode); err != nil {
			return nil, refused(e.Name, err)
		}
	}
	return entries, nil
}

// Walk visits everything below the tree root in the order of git's index, a directory (mode Dir) before what it holds, with
// canonical modes. read gives a tree's verified bytes. A tree that breaks a rule ends the walk with fail.BadData naming the
// path and the rule: names (see Check), git's order, names twice (as file and directory, too), more than 2048 levels or
// 4,194,304 entries, submodule paths with a carriage return or a leading "-". Errors of read and visit are returned as they are, but for
// fs.SkipDir: that directory is not walked.
func Walk(root plumbing.Hash, read func(plumbing.Hash) ([]byte, error), visit func(path string, e Entry) error) error {
	w := walk{read: read, visit: visit}
	return w.tree(root, "", 1)
}

type walk struct {
	read    func(plumbing.Hash) ([]byte, error)
	visit   func(string, Entry) error
	entries int
}

func refused(path string, rule error) error {
	if path == "" {
		return fail.Errorf(fail.BadData, "the commit's top directory is refused: %w", rule)
	}
	return fail.Errorf(fail.BadData, "path %q is refused: %w", path, rule)
}

func (w *walk) tree(id plumbing.Hash, prefix string, depth int) error {
	data, err := w.read(id)
	if err != nil {
		return err
	}
	entries, err := Parse(data)
	if err == nil && depth > maxDepth {
		err = fmt.Errorf("more than %d directories deep", maxDepth)
	}
	if err == nil && len(entries) > maxEntries-w.entries {
		err = fmt.Errorf("more than %d entries", maxEntries)
	}
	if err != nil {
		return refused(strings.TrimSuffix(prefix, "/"), err)
	}
	w.entries += len(entries)
	if name, err := checkAll(entries); err != nil {
		return refused(prefix+name, err)
	}
	for _, e := range entries {
		path := prefix + e.Name
		if e.Mode, err = Canonical(e.Mode); err != nil {
			return refused(path, err)
		}
		if e.Mode == Gitlink && (path[0] == '-' || strings.Contains(path, "\r")) {
			return refused(path, errors.New(`a submodule's path has a carriage return or a leading "-"`))
		}
		err := w.visit(path, e)
		if err != nil && err != fs.SkipDir {
			return err
		}
		if e.Mode == Dir && err == nil {
			if err := w.tree(e.ID, path+"/", depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkAll applies the rules that one tree can break, and names the entry that does.
func checkAll(entries []Entry) (string, error) {
	for i, e := range entries {
		if err := Check(e.Name, e.Mode); err != nil {
			return e.Name, err
		}
		if i == 0 {
			continue
		}
		before := entries[i-1]
		if before.Name == e.Name {
			return e.Name, errors.New("the name is there twice")
		}
		if key(before) >= key(e) {
			return e.Name, errors.New("the tree is not in git's order")
		}
		if e.Mode&typeMask == Dir && hasFile(entries[:i], e.Name) {
			return e.Name, errors.New("the name is there twice, as file and as directory")
		}
	}
	return "", nil
}

// key is what git sorts a tree by: a directory stands where its contents' paths would.
func key(e Entry) string {
	if e.Mode&typeMask == Dir {
		return e.Name + "/"
	}
	return e.Name
}

// hasFile looks for a file of that name. It sorts before the directory, with "name.c" and "name-b" in between.
func hasFile(sorted []Entry, name string) bool {
	i := sort.Search(len(sorted), func(i int) bool { return key(sorted[i]) >= name })
	return i < len(sorted) && key(sorted[i]) == name
}
