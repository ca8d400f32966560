package odb

import (
	"maps"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/treepath"
)

// all is what was named.
func (l *links) all() map[plumbing.Hash]named {
	all := map[plumbing.Hash]named{}
	for i := range l.shards {
		maps.Copy(all, l.shards[i].named)
	}
	return all
}

// What links reads of a tree is what treepath.Parse does.
func FuzzLinksReadTrees(f *testing.F) {
	id := plumbing.ComputeHash(plumbing.BlobObject, nil)
	f.Add([]byte(treeLine("100644", "a", id) + treeLine("40000", "b", id) + treeLine("160000", "c", id) + treeLine("120000", "d e", id) + treeLine("777", "f", id)))
	f.Add([]byte("100644 a\x00short"))
	f.Add([]byte("100644\x00" + strings.Repeat("x", 20)))
	f.Add([]byte("\x00 a" + strings.Repeat("x", 20)))
	f.Fuzz(func(t *testing.T, tree []byte) {
		l := newLinks()
		ok := l.tree(tree)
		entries, err := treepath.Parse(tree)
		if ok != (err == nil) {
			t.Fatalf("%q: %v, but %v", tree, ok, err)
		}
		if !ok {
			return
		}
		want := map[plumbing.Hash]named{}
		for _, e := range entries {
			switch mode, err := treepath.Canonical(e.Mode); {
			case err != nil, mode == treepath.Gitlink:
			case mode == treepath.Dir:
				want[e.ID] |= asTree
			default:
				want[e.ID] |= asBlob
			}
		}
		if got := l.all(); !maps.Equal(got, want) {
			t.Errorf("%q: %v, not %v", tree, got, want)
		}
	})
}

// A pack in which all that trees name is there is not walked; one that lacks something, or has it as something else, is, and the walk says what.
func TestLinksComplete(t *testing.T) {
	r, head := history(t)
	for name, spoil := range map[string]func(l *links, s *Store){
		"nothing":             func(*links, *Store) {},
		"something else":      func(l *links, _ *Store) { l.add(plumbing.ComputeHash(plumbing.BlobObject, []byte("not here")), asBlob) },
		"a blob as tree":      func(l *links, s *Store) { l.add(r.id("", "rev-parse", "HEAD:big"), asTree) },
		"a tree as blob":      func(l *links, s *Store) { l.add(r.id("", "rev-parse", "HEAD:dir"), asBlob) },
		"a commit":            func(l *links, s *Store) { l.add(head, asBlob) },
		"a tree that is none": func(l *links, _ *Store) { l.broken = true },
		"too many": func(l *links, _ *Store) {
			for i := range maxNamed / len(l.shards) {
				l.shards[3].named[plumbing.Hash{3, byte(i), byte(i >> 8), byte(i >> 16), 1}] = asTree
			}
		},
	} {
		s := received(t, r.pack())
		l := s.packs[0].links
		spoil(l, s)
		if got := l.complete(s, false); got != (name == "nothing") {
			t.Errorf("%s: complete is %v", name, got)
		}
		if err := s.Verify(ctx, head, nil, false); err != nil || !s.Whole() { // either way
			t.Errorf("%s: %v", name, err)
		}
	}
	partial := received(t, []byte(r.git("HEAD\n", "pack-objects", "-q", "--stdout", "--revs", "--filter=blob:none")))
	if l := partial.packs[0].links; l.complete(partial, false) || !l.complete(partial, true) {
		t.Error("a pack without blobs")
	}
	tree := r.id("", "rev-parse", "HEAD^{tree}")
	everything := func(string) bool { return true }
	if missing, err := partial.Missing(ctx, tree, everything, everything); err != nil || len(missing) != 5 {
		t.Errorf("%d blobs are missing: %v", len(missing), err)
	}
	if missing, err := partial.Missing(ctx, tree, func(p string) bool { return p == "dir" }, func(p string) bool { return p != "big" && p != "dir/b" }); err != nil || len(missing) != 2 {
		t.Errorf("%d blobs are missing of some paths: %v", len(missing), err)
	}
}
