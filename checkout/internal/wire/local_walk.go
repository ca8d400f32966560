package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/treepath"
	"run-task/internal/fail"
)

// What the receiver of the pack would refuse anyhow.
const (
	maxTags  = 64   // tags upon each other
	maxDepth = 2048 // directories in each other
)

// walk collects names of objects, each once, in the order of the pack: commits first, then trees before what is in them.
type walk struct {
	*repository
	ctx  context.Context
	seen map[plumbing.Hash]bool
	list []plumbing.Hash
}

func (w *walk) add(h plumbing.Hash) bool {
	if w.seen[h] {
		return false
	}
	w.seen[h] = true
	w.list = append(w.list, h)
	return true
}

// collect names what the pack for a want consists of.
func (r *repository) collect(ctx context.Context, want Want) (Pack, []plumbing.Hash, error) {
	w := &walk{repository: r, ctx: ctx, seen: map[plumbing.Hash]bool{}}
	pack := Pack{Source: Local}
	commit, err := w.peel(want.SHA)
	switch {
	case !errors.Is(err, plumbing.ErrObjectNotFound):
	case r.trouble == nil:
		err = fail.Errorf(fail.Gone, "commit %.8s is not in repository %q", want.SHA, r.path).
			WithHint("fetch it there first; no other commit is ever used in its place")
	default:
		err = w.objectError(commit, err)
	}
	if err != nil {
		return pack, nil, err
	}
	trees, shallow, err := w.commits(commit, want.Depth)
	pack.Shallow = shallow
	if err == nil && want.Depth == 0 {
		pack.Refs, err = w.tags()
	}
	for _, t := range trees {
		if err == nil {
			err = w.tree(t)
		}
	}
	return pack, w.list, err
}

// peel adds the annotated tags that lead to a commit, and returns it.
func (w *walk) peel(h plumbing.Hash) (plumbing.Hash, error) {
	for range maxTags {
		typ, content, err := w.read(h)
		if err != nil {
			return h, err
		}
		switch typ {
		case plumbing.CommitObject:
			return h, nil
		case plumbing.TagObject:
			targets, err := headers(content, "object")
			if err == nil && len(targets) != 1 {
				err = errors.New("a tag of nothing")
			}
			if err != nil {
				return h, w.objectError(h, err)
			}
			w.add(h)
			h = targets[0]
		default:
			return h, fail.Errorf(fail.BadData, "%s names a %s, not a commit", h, typ).WithHint("give the commit's full SHA")
		}
	}
	return h, fail.Errorf(fail.BadData, "more than %d tags upon each other, up to %s", maxTags, h).WithHint("give the commit's full SHA")
}

// read reads an object that may be parsed. Of a large blob there is no content.
func (w *walk) read(h plumbing.Hash) (plumbing.ObjectType, []byte, error) {
	if w.ctx.Err() != nil {
		return 0, nil, context.Cause(w.ctx)
	}
	o, err := w.object(h)
	if err != nil {
		return 0, nil, err
	}
	if o.stream != nil && o.typ == plumbing.BlobObject {
		return o.typ, nil, o.stream.Close()
	}
	content, err := o.all()
	if err != nil {
		err = w.objectError(h, err)
	}
	return o.typ, content, err
}

// commits adds the history level by level, so that a commit's depth is that of the shortest way to it, as in git.
func (w *walk) commits(tip plumbing.Hash, depth int) (trees, shallow []plumbing.Hash, err error) {
	level := []plumbing.Hash{tip}
	for d := 1; len(level) > 0; d++ {
		var next []plumbing.Hash
		for _, h := range level {
			if !w.add(h) {
				continue
			}
			tree, parents, err := w.commit(h)
			if err != nil {
				return nil, nil, w.stopped(h, err)
			}
			trees = append(trees, tree)
			if w.shallow[h] || d == depth && len(parents) > 0 {
				shallow = append(shallow, h)
			} else {
				next = append(next, parents...)
			}
		}
		level = next
	}
	return trees, shallow, nil
}

func (w *walk) commit(h plumbing.Hash) (tree plumbing.Hash, parents []plumbing.Hash, err error) {
	typ, content, err := w.read(h)
	if err != nil {
		return tree, nil, err
	}
	trees, err := headers(content, "tree")
	if err == nil && (typ != plumbing.CommitObject || len(trees) != 1) {
		err = errors.New("not a commit")
	}
	if err == nil {
		parents, err = headers(content, "parent")
	}
	if err != nil {
		return tree, nil, err
	}
	return trees[0], parents, nil
}

// headers are the objects that a commit or tag names in the header lines of one kind.
func headers(content []byte, kind string) (names []plumbing.Hash, err error) {
	head, _, _ := bytes.Cut(content, []byte("\n\n"))
	for line := range bytes.Lines(head) {
		name, value, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		if name != kind {
			continue
		}
		h, ok := parseHash(value)
		if !ok {
			return nil, fmt.Errorf("%.100q in its header", line)
		}
		names = append(names, h)
	}
	return names, nil
}

// stopped is why something cannot be read.
func (w *walk) stopped(h plumbing.Hash, err error) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	return w.objectError(h, err)
}

// level is a tree that has been found, and how deep.
type level struct {
	tree  plumbing.Hash
	depth int
}

// tree adds a tree and all that is in it. Only names are kept of what is still to be read.
func (w *walk) tree(root plumbing.Hash) error {
	var todo []level
	if w.add(root) {
		todo = append(todo, level{root, 1})
	}
	for len(todo) > 0 {
		t := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if t.depth > maxDepth {
			return fail.Errorf(fail.BadData, "repository %q: tree %s is more than %d directories deep", w.path, t.tree, maxDepth).
				WithHint("git itself refuses it: pin another commit")
		}
		typ, content, err := w.read(t.tree)
		if err == nil && typ != plumbing.TreeObject {
			err = errors.New("not a tree")
		}
		for err == nil && len(content) > 0 {
			var entry plumbing.Hash
			var dir, ours bool
			if entry, dir, ours, content, err = treeEntry(content); ours && w.add(entry) && dir {
				todo = append(todo, level{entry, t.depth + 1})
			}
		}
		if err != nil {
			return w.stopped(t.tree, err)
		}
	}
	return nil
}

// treeEntry takes the first entry off a tree: mode, space, name, NUL, 20 bytes. Submodules' commits are not ours, and what
// is none of git's modes git takes for a submodule.
func treeEntry(tree []byte) (h plumbing.Hash, dir, ours bool, rest []byte, err error) {
	i := bytes.IndexByte(tree, 0)
	if i < 0 || len(tree) < i+1+len(h) {
		return h, false, false, nil, errors.New("a tree that ends within an entry")
	}
	digits, _, _ := bytes.Cut(tree[:i], []byte(" "))
	octal, err := strconv.ParseUint(string(digits), 8, 32)
	if err != nil {
		return h, false, false, nil, fmt.Errorf("a tree with the file mode %.20q", digits)
	}
	mode, unknown := treepath.Canonical(uint32(octal))
	copy(h[:], tree[i+1:])
	return h, mode == treepath.Dir, unknown == nil && mode != treepath.Gitlink, tree[i+1+len(h):], nil
}

// tags adds the annotated tags of the history that was collected, and names all tags of it.
func (w *walk) tags() (map[string]plumbing.Hash, error) {
	tags, err := w.tagRefs()
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		h := tags[name]
		chain := &walk{repository: w.repository, ctx: w.ctx, seen: map[plumbing.Hash]bool{}}
		commit, err := chain.peel(h)
		if w.ctx.Err() != nil {
			return nil, context.Cause(w.ctx)
		}
		if err != nil || !w.seen[commit] { // a tag of a tree, or a broken one, is not part of this history
			delete(tags, name)
			continue
		}
		for _, h := range chain.list {
			w.add(h)
		}
	}
	return tags, nil
}
