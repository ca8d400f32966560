package odb

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/treepath"
	"run-task/internal/fail"
)

const maxTags = 64 // tags upon tags

// Commit peels annotated tags off id and gives the commit and its tree; what the tree's object is is not looked at. An id
// that leads to a tree or blob is fail.BadData saying so; errors of Read come as they are.
func (s *Store) Commit(id plumbing.Hash) (commit, tree plumbing.Hash, err error) {
	typ, commit, data, err := s.peel(id)
	if err != nil {
		return plumbing.ZeroHash, plumbing.ZeroHash, err
	}
	if typ != plumbing.CommitObject {
		return plumbing.ZeroHash, plumbing.ZeroHash, fail.Errorf(fail.BadData, "object %s is a %s, not a commit", commit, typ).
			WithHint("give the full SHA of a commit or of an annotated tag")
	}
	tree, _, err = parseCommit(commit, data)
	return commit, tree, err
}

// peel follows annotated tags to what they are about.
func (s *Store) peel(id plumbing.Hash) (plumbing.ObjectType, plumbing.Hash, []byte, error) {
	for range maxTags {
		typ, data, err := s.Read(id)
		if errors.Is(err, ErrLarge) {
			return plumbing.BlobObject, id, nil, nil
		}
		if err != nil || typ != plumbing.TagObject {
			return typ, id, data, err
		}
		target, _, ok := header(data, "object ")
		if !ok {
			return 0, id, nil, fail.Errorf(fail.BadData, "tag %s is malformed", id)
		}
		id = target
	}
	return 0, id, nil, fail.Errorf(fail.BadData, "more than %d tags upon each other, up to %s", maxTags, id)
}

// parseCommit reads the header lines that name other objects; git has them in this order, first of all.
func parseCommit(id plumbing.Hash, data []byte) (tree plumbing.Hash, parents []plumbing.Hash, err error) {
	tree, data, ok := header(data, "tree ")
	if !ok {
		return tree, nil, fail.Errorf(fail.BadData, "commit %s is malformed", id)
	}
	for {
		var p plumbing.Hash
		if p, data, ok = header(data, "parent "); !ok {
			break
		}
		parents = append(parents, p)
	}
	if !bytes.HasPrefix(data, []byte("author ")) {
		return tree, nil, fail.Errorf(fail.BadData, "commit %s is malformed", id)
	}
	return tree, parents, nil
}

// header cuts a line "<word><40 hex digits>" off the front of an object.
func header(data []byte, word string) (id plumbing.Hash, rest []byte, ok bool) {
	line, rest, ok := bytes.Cut(data, []byte("\n"))
	digits, found := bytes.CutPrefix(line, []byte(word))
	if !ok || !found || len(digits) != 2*len(id) {
		return id, data, false
	}
	if _, err := hex.Decode(id[:], digits); err != nil {
		return id, data, false
	}
	return id, rest, true
}

// Verify proves that a checkout of want, and git's work in it, will find everything: all commits that want leads to, where only those in shallow may
// lack their parents, all their trees, and that all their blobs are there. Every commit and tree is read, and so proven. want's own tree must also
// keep the path rules (treepath.Walk) and have blobs where it says so. The first object that is missing or wrong is named, with
// what needs it: fail.BadData. What is in a pack that is known to be whole is not looked at again, nor is its path. Of a partial repository blobs may be
// missing: see Missing.
func (s *Store) Verify(ctx context.Context, want plumbing.Hash, shallow []plumbing.Hash, partial bool) error {
	linked := !slices.ContainsFunc(s.packs, func(m member) bool { return !m.whole && (m.links == nil || !m.links.complete(s, partial)) })
	v := &verifier{store: s, ctx: ctx, partial: partial, linked: linked, seen: make([]bool, s.total), shallow: map[plumbing.Hash]bool{}}
	for _, id := range shallow {
		v.shallow[id] = true
	}
	commit, tree, err := s.Commit(want)
	if err != nil {
		return err
	}
	if err := v.worktree(tree); err != nil {
		return within(err, "commit %s", commit)
	}
	v.commits = []link{{commit, "the request"}}
	if err := v.history(); err != nil {
		return err
	}
	s.proven = v.seen
	v.settle()
	return nil
}

// Leads tells whether an object is a commit that Verify has proven, or one in a whole pack, or an annotated tag that leads to one.
func (s *Store) Leads(id plumbing.Hash) bool {
	typ, id, _, err := s.peel(id)
	m, n, ok := s.lookup(id)
	return err == nil && typ == plumbing.CommitObject && ok && (m.whole || m.first+n < len(s.proven) && s.proven[m.first+n])
}

// Missing lists the blobs of a tree that are not here, each once: of the paths that has wants, in the directories that enters wants.
func (s *Store) Missing(ctx context.Context, tree plumbing.Hash, enters, has func(path string) bool) (ids []plumbing.Hash, err error) {
	read := func(id plumbing.Hash) ([]byte, error) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return s.readAs(plumbing.TreeObject, id)
	}
	listed := map[plumbing.Hash]bool{}
	err = treepath.Walk(tree, read, func(path string, e treepath.Entry) error {
		switch {
		case e.Mode == treepath.Dir && !enters(path):
			return fs.SkipDir
		case e.Mode == treepath.Dir, e.Mode == treepath.Gitlink, listed[e.ID], !has(path), s.Has(e.ID):
			return nil
		}
		listed[e.ID] = true
		ids = append(ids, e.ID)
		return nil
	})
	return ids, err
}

// Whole tells whether all packs are whole: whatever their objects name is there. Verify finds that out.
func (s *Store) Whole() bool {
	return !slices.ContainsFunc(s.packs, func(m member) bool { return !m.whole })
}

// settle finds the packs of which every object was seen, is in a whole pack, too, or is a tag of such a one. Trees and blobs need not be seen if whatever
// trees name is there.
func (v *verifier) settle() {
	fine := func(m *member, n int) bool {
		id := m.ID(n)
		if m.Type(n) == plumbing.TagObject {
			var err error
			if _, id, _, err = v.store.peel(id); err != nil {
				return false
			}
		}
		at, n, ok := v.store.lookup(id)
		return ok && (at.whole || v.seen[at.first+n] || v.linked && (at.Type(n) == plumbing.TreeObject || at.Type(n) == plumbing.BlobObject))
	}
	var whole []*member
	for i := range v.store.packs {
		m, all := &v.store.packs[i], true
		for n := 0; n < m.Len() && all && !m.whole; n++ {
			all = fine(m, n)
		}
		if all {
			whole = append(whole, m)
		}
	}
	for _, m := range whole {
		m.whole = true
	}
}

// Nearest is the number of commits from want, itself included, to the nearest of the boundary that has parents: most when there is none within most.
func (s *Store) Nearest(want plumbing.Hash, boundary []plumbing.Hash, most int) (int, error) {
	level, seen := []plumbing.Hash{want}, map[plumbing.Hash]bool{}
	for n := 1; n < most && len(level) > 0; n++ {
		var next []plumbing.Hash
		for _, id := range level {
			data, err := s.readAs(plumbing.CommitObject, id)
			if err != nil {
				return 0, err
			}
			_, parents, err := parseCommit(id, data)
			if err != nil {
				return 0, err
			}
			if len(parents) > 0 && slices.Contains(boundary, id) {
				return n, nil
			}
			for _, p := range parents {
				if !seen[p] {
					seen[p] = true
					next = append(next, p)
				}
			}
		}
		level = next
	}
	return most, nil
}

// within says where an error was met, and keeps its reason.
func within(err error, format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, err)...)
}

type link struct {
	id plumbing.Hash
	by string // what needs it
}

type verifier struct {
	store   *Store
	ctx     context.Context
	partial bool
	linked  bool   // whatever a tree names is there
	seen    []bool // by number
	shallow map[plumbing.Hash]bool
	commits []link
	trees   []link
}

// enter notes that an object is looked at, and tells whether there is no need to, because it has been before or is in a whole pack. One that is
// missing never has.
func (v *verifier) enter(id plumbing.Hash) (before bool) {
	m, n, ok := v.store.lookup(id)
	if ok {
		before = v.seen[m.first+n] || m.whole
		v.seen[m.first+n] = true
	}
	return before
}

// worktree checks the tree that is going to be checked out.
func (v *verifier) worktree(root plumbing.Hash) error {
	if v.enter(root) {
		return nil
	}
	read := func(id plumbing.Hash) ([]byte, error) {
		if v.ctx.Err() != nil {
			return nil, context.Cause(v.ctx)
		}
		data, err := v.store.readAs(plumbing.TreeObject, id)
		if s := v.store; err == nil && s.kept+len(data) <= maxKept {
			s.trees[id] = data
			s.kept += len(data)
		}
		return data, err
	}
	v.store.trees, v.store.kept = map[plumbing.Hash][]byte{}, 0
	return treepath.Walk(root, read, func(path string, e treepath.Entry) error {
		if e.Mode == treepath.Gitlink {
			return nil
		}
		want := plumbing.BlobObject
		if e.Mode == treepath.Dir {
			want = plumbing.TreeObject
		}
		m, n, err := v.store.find(e.ID)
		if err != nil && v.partial && want == plumbing.BlobObject {
			return nil
		}
		if err == nil && !m.whole && m.Type(n) != want {
			err = isNot(e.ID, m.Type(n), want)
		}
		if err != nil {
			return within(err, "path %q", path)
		}
		v.seen[m.first+n] = true
		if m.whole && e.Mode == treepath.Dir {
			return fs.SkipDir
		}
		return nil
	})
}

func (v *verifier) history() error {
	for len(v.commits) > 0 {
		c := v.commits[len(v.commits)-1]
		v.commits = v.commits[:len(v.commits)-1]
		if v.enter(c.id) {
			continue
		}
		if v.ctx.Err() != nil {
			return context.Cause(v.ctx)
		}
		data, err := v.store.readAs(plumbing.CommitObject, c.id)
		if err != nil {
			return within(err, "commit needed by %s", c.by)
		}
		tree, parents, err := parseCommit(c.id, data)
		if err != nil {
			return err
		}
		by := "commit " + c.id.String()
		if m, n, ok := v.store.lookup(tree); !v.linked || !ok || !m.whole && m.Type(n) != plumbing.TreeObject {
			v.trees = append(v.trees, link{tree, by})
			if err := v.allTrees(); err != nil {
				return err
			}
		}
		if v.shallow[c.id] {
			continue
		}
		for _, p := range parents {
			v.commits = append(v.commits, link{p, by})
		}
	}
	return nil
}

// allTrees works through a list, not by recursion: how deep the trees of history are has no bound.
func (v *verifier) allTrees() error {
	for len(v.trees) > 0 {
		t := v.trees[len(v.trees)-1]
		v.trees = v.trees[:len(v.trees)-1]
		if v.enter(t.id) {
			continue
		}
		if v.ctx.Err() != nil {
			return context.Cause(v.ctx)
		}
		data, err := v.store.readAs(plumbing.TreeObject, t.id)
		if err != nil {
			return within(err, "tree needed by %s", t.by)
		}
		entries, err := treepath.Parse(data)
		if err != nil {
			return fail.Errorf(fail.BadData, "tree %s: %w", t.id, err)
		}
		if err := v.entries(t.id, entries); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) entries(tree plumbing.Hash, entries []treepath.Entry) error {
	for _, e := range entries {
		mode, err := treepath.Canonical(e.Mode)
		switch {
		case err != nil, mode == treepath.Gitlink: // git takes unknown modes for submodules
			continue
		case mode == treepath.Dir:
			if m, n, ok := v.store.lookup(e.ID); !ok || !m.whole && !v.seen[m.first+n] {
				v.trees = append(v.trees, link{e.ID, fmt.Sprintf("tree %s, %q", tree, e.Name)})
			}
		default:
			m, n, err := v.store.find(e.ID)
			if err != nil && v.partial {
				continue
			}
			if err != nil {
				return within(err, "blob needed by tree %s, %q", tree, e.Name)
			}
			v.seen[m.first+n] = true
		}
	}
	return nil
}
