package worktree

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/odb"
	"run-task/checkout/internal/treepath"
	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// file is one entry of the index.
type file struct {
	path  string
	mode  uint32 // canonical
	id    plumbing.Hash
	link  string // a link's target
	keep  bool   // what stands there is right
	early bool   // because Early wrote it
	lfs   bool   // content is a Git LFS pointer
	st    fsx.Stat
}

// node is a directory of the tree, for the index's TREE extension.
type node struct {
	path  string
	id    plumbing.Hash
	files int // directly in it
	subs  []*node
}

// plan is all that the worktree shall hold, made and checked before anything is touched.
type plan struct {
	files      []file // in the index's order, which is that of walking the tree
	top        *node
	attributes attributes
	modules    []byte // the content of .gitmodules
}

// maxTarget is PATH_MAX without its NUL: no longer target can be made.
const maxTarget = 4095

func makePlan(ctx context.Context, tree plumbing.Hash, objects Source) (*plan, error) {
	p := &plan{top: &node{id: tree}}
	stack := []*node{p.top}
	read := func(id plumbing.Hash) ([]byte, error) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return readAs(objects, plumbing.TreeObject, id)
	}
	err := treepath.Walk(tree, read, func(path string, e treepath.Entry) error {
		for len(stack) > 1 && !strings.HasPrefix(path, stack[len(stack)-1].path+"/") {
			stack = stack[:len(stack)-1]
		}
		dir := stack[len(stack)-1]
		if e.Mode == treepath.Dir {
			sub := &node{path: path, id: e.ID}
			dir.subs = append(dir.subs, sub)
			stack = append(stack, sub)
			return nil
		}
		dir.files++
		f := file{path: path, mode: e.Mode, id: e.ID}
		if err := p.look(&f, e.Name, objects); err != nil {
			return fmt.Errorf("path %q: %w", path, err)
		}
		p.files = append(p.files, f)
		return nil
	})
	if err == nil {
		err = p.checkModules(p.modules)
	}
	return p, err
}

// look reads what must be known of a file's content beforehand: links' targets, so that impossible ones are refused before anything is
// written, and attributes. A .gitattributes that is a link is not followed, as in git.
func (p *plan) look(f *file, name string, objects Source) error {
	attributes := name == ".gitattributes" && f.mode != treepath.Gitlink
	modules := f.path == ".gitmodules" && f.mode != treepath.Gitlink
	if f.mode != treepath.Link && !attributes && !modules {
		return nil
	}
	data, err := readAs(objects, plumbing.BlobObject, f.id)
	large := errors.Is(err, odb.ErrLarge)
	switch {
	case large && modules:
		return fail.Errorf(fail.BadData, "it is too large to be looked at")
	case large && attributes: // only warnings depend on it
		return nil
	case err != nil && !large:
		return err
	case modules: // never a link: treepath sees to that
		p.modules = data
	case f.mode != treepath.Link:
		p.attributes.parse(f.path, data)
	case len(data) == 0 || len(data) > maxTarget || strings.Contains(string(data), "\x00"):
		return fail.Errorf(fail.BadData, "no symbolic link can have this target: it is empty, has a NUL or is longer than %d bytes", maxTarget)
	default:
		f.link = string(data)
	}
	return nil
}

// find is the file at a path, nil if there is none, and whether there are files below it.
func (p *plan) find(path string) (f *file, dir bool) {
	if i := p.search(path); i < len(p.files) && p.files[i].path == path {
		f = &p.files[i]
	}
	i := p.search(path + "/")
	return f, i < len(p.files) && strings.HasPrefix(p.files[i].path, path+"/")
}

func (p *plan) search(path string) int {
	return sort.Search(len(p.files), func(i int) bool { return p.files[i].path >= path })
}

func readAs(objects Source, want plumbing.ObjectType, id plumbing.Hash) ([]byte, error) {
	typ, data, err := objects.Read(id)
	if err == nil && typ != want {
		err = fail.Errorf(fail.BadData, "object %s is a %s, not a %s", id, typ, want)
	}
	return data, err
}
