package worktree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sort"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/index"
	"run-task/checkout/internal/odb"
	"run-task/checkout/internal/treepath"
	"run-task/internal/fail"
)

// file is one entry of the index, and what becomes of it.
type file struct {
	index.Entry
	link  string // a link's target, "" if it was not read
	keep  bool   // what stands there is right
	early bool   // because Early wrote it
	known bool   // Stat is from a time when what stood there was right
	lfs   bool   // content is a Git LFS pointer

	replace bool   // what stands there is a file or link of ours, which goes
	perm    uint32 // if not 0, what stands there is right, but needs these permissions
}

// plan is all that the worktree shall hold, made and checked before anything is touched.
type plan struct {
	objects    Source
	files      []file // in the index's order, which is that of walking the tree
	top        *index.Tree
	same       bool // as the earlier run's
	cone       *Cone
	visible    []int // with a cone, how many of the files before each are in it
	attributes attributes
	modules    []byte   // the content of .gitmodules
	callers    []string // the submodules whose directories are the caller's, sorted
}

// maxTarget is PATH_MAX without its NUL: no longer target can be made.
const maxTarget = 4095

// level is a directory that makePlan is in.
type level struct {
	path     string // "" or ends with "/"
	dir, old *index.Tree
}

// makePlan walks the tree, but for the directories that are as the earlier run left them: those were checked then.
func makePlan(ctx context.Context, tree plumbing.Hash, objects Source, old *Old, cone *Cone) (*plan, error) {
	p := &plan{objects: objects, top: &index.Tree{ID: tree}, cone: cone}
	if old != nil && old.Top.ID == tree {
		p.top = &index.Tree{}
		p.carry(p.top, old.Top, old)
		if p.same = !p.narrow(cone); p.same {
			return p, nil
		}
		return p, p.lookAgain()
	}
	stack := []level{{dir: p.top}}
	if old != nil {
		stack[0].old = old.Top
	}
	read := func(id plumbing.Hash) ([]byte, error) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return readAs(objects, plumbing.TreeObject, id)
	}
	leave := func() {
		in := stack[len(stack)-1].dir
		in.Files = len(p.files) - in.First
		stack = stack[:len(stack)-1]
	}
	err := treepath.Walk(tree, read, func(path string, e treepath.Entry) error {
		for !strings.HasPrefix(path, stack[len(stack)-1].path) {
			leave()
		}
		in := stack[len(stack)-1]
		if e.Mode == treepath.Dir {
			sub, was := &index.Tree{Name: e.Name, ID: e.ID, First: len(p.files)}, in.old.Sub(e.Name)
			in.dir.Subs = append(in.dir.Subs, sub)
			if was != nil && was.ID == e.ID {
				p.carry(sub, was, old)
				return fs.SkipDir
			}
			stack = append(stack, level{path + "/", sub, was})
			return nil
		}
		f := file{Entry: index.Entry{Path: path, Mode: e.Mode, ID: e.ID}}
		if err := p.look(&f, e.Name); err != nil {
			return fmt.Errorf("path %q: %w", path, err)
		}
		if was := old.find(in.old, path); was != nil && was.Mode == e.Mode && was.ID == e.ID {
			f.known, f.Stat = old.trusts(was), was.Stat
		}
		p.files = append(p.files, f)
		return nil
	})
	for len(stack) > 0 {
		leave()
	}
	p.narrow(cone)
	if err == nil {
		err = p.checkModules(p.modules)
	}
	if err == nil && old != nil {
		err = p.lookAgain()
	}
	return p, err
}

// carry takes a directory and all below it over from the earlier run.
func (p *plan) carry(to, was *index.Tree, old *Old) {
	shift := len(p.files) - was.First
	for i := range was.Files {
		e := &old.Entries[was.First+i]
		p.files = append(p.files, file{Entry: *e, known: old.trusts(e)})
	}
	moved(to, was, shift)
}

func moved(to, was *index.Tree, shift int) {
	*to = *was
	to.First += shift
	to.Subs = make([]*index.Tree, len(was.Subs))
	for i, sub := range was.Subs {
		to.Subs[i] = &index.Tree{}
		moved(to.Subs[i], sub, shift)
	}
}

// replaced counts the files that go to make room.
func replaced(p *plan) (n int) {
	for i := range p.files {
		if p.files[i].replace {
			n++
		}
	}
	return n
}

// lookAgain reads what must be known of files that were taken over: attributes, for warnings, and links that are to be made.
func (p *plan) lookAgain() error {
	for i := range p.files {
		f := &p.files[i]
		if path.Base(f.Path) == attributesName && f.Mode != treepath.Link || f.Mode == treepath.Link && !f.known && f.link == "" {
			if err := p.look(f, attributesName); err != nil {
				return err
			}
		}
	}
	return nil
}

// look reads what must be known of a file's content beforehand: links' targets, so that impossible ones are refused before anything is
// written, and attributes. A .gitattributes that is a link is not followed, as in git.
func (p *plan) look(f *file, name string) error {
	attributes := name == attributesName && f.Mode != treepath.Gitlink
	modules := f.Path == modulesName && f.Mode != treepath.Gitlink
	if f.Mode != treepath.Link && !attributes && !modules || !p.cone.Has(f.Path) {
		return nil
	}
	data, err := readAs(p.objects, plumbing.BlobObject, f.ID)
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
	case f.Mode != treepath.Link:
		p.attributes.parse(f.Path, data)
	case len(data) == 0 || len(data) > maxTarget || strings.Contains(string(data), "\x00"):
		return fail.Errorf(fail.BadData, "no symbolic link can have this target: it is empty, has a NUL or is longer than %d bytes", maxTarget)
	default:
		f.link = string(data)
	}
	return nil
}

// target is where a link leads.
func (p *plan) target(f *file) (string, error) {
	if f.link == "" {
		if err := p.look(f, ""); err != nil {
			return "", err
		}
	}
	return f.link, nil
}

// find is the file at a path, nil if there is none.
func (p *plan) find(path string) *file {
	if i := p.search(path); i < len(p.files) && p.files[i].Path == path {
		return &p.files[i]
	}
	return nil
}

func (p *plan) search(path string) int {
	return sort.Search(len(p.files), func(i int) bool { return p.files[i].Path >= path })
}

func readAs(objects Source, want plumbing.ObjectType, id plumbing.Hash) ([]byte, error) {
	typ, data, err := objects.Read(id)
	if err == nil && typ != want {
		err = fail.Errorf(fail.BadData, "object %s is a %s, not a %s", id, typ, want)
	}
	return data, err
}
