package odb

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
)

// thin packs what leads from one commit to another.
func (r repo) thin(from, to plumbing.Hash) []byte {
	return []byte(r.git(to.String()+"\n^"+from.String()+"\n", "pack-objects", "-q", "--stdout", "--revs", "--thin", "--delta-base-offset"))
}

// A thin pack on top of one of an earlier run makes the next commit complete; without what it builds upon it is nothing.
func TestThinPack(t *testing.T) {
	r, first := history(t)
	dir, spill := openDir(t), openDir(t)
	s := &Store{}
	if err := s.Receive(ctx, dir, bytes.NewReader(r.pack()), plain); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(ctx, first, nil, false); err != nil || !s.Whole() {
		t.Fatal(err, "not whole")
	}
	s.Close()
	next := r.commit(map[string]string{"big": strings.Replace(text(1, 16), "b", "--", 3), "dir/sub/f": "next"})
	r.git("", "tag", "-a", "-m", "x", "v3")
	thin := r.thin(first, next)
	if err := (&Store{}).Receive(ctx, openDir(t), bytes.NewReader(thin), plain); fail.Of(err) != fail.BadData {
		t.Errorf("a thin pack alone: %v", err)
	}
	open := func() *Store {
		s, err := Open(dir, spill, s.Names()[:1])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	warm := open()
	if err := warm.Receive(ctx, dir, bytes.NewReader(thin), plain); err != nil {
		t.Fatal(err)
	}
	if warm.Whole() {
		t.Error("whole before it was looked at")
	}
	if err := warm.Verify(ctx, next, nil, false); err != nil || !warm.Whole() || !warm.Leads(first) || !warm.Leads(next) {
		t.Error(err, warm.Whole())
	}
	for _, id := range strings.Fields(r.git("", "cat-file", "--batch-all-objects", "--batch-check=%(objectname)")) {
		if typ, data, err := warm.Read(plumbing.NewHash(id)); err == nil && plumbing.ComputeHash(typ, data).String() != id || err != nil && id != r.id("", "rev-parse", "v3").String() {
			t.Errorf("%s: %v", id, err)
		}
	}
	before := warm.Len()
	if err := warm.Drop(); err != nil || warm.Len() >= before || warm.Has(next) || !warm.Has(first) {
		t.Error(err, warm.Len())
	}

	// Each object in turn is left out of what comes on top.
	objects := strings.Fields(r.git(next.String()+"\n^"+first.String()+"\n", "rev-list", "--objects", "--no-object-names", "--stdin"))
	for _, missing := range objects {
		list := strings.Join(slices.DeleteFunc(slices.Clone(objects), func(id string) bool { return id == missing }), "\n") + "\n"
		part := open()
		if err := part.Receive(ctx, openDir(t), strings.NewReader(r.git(list, "pack-objects", "-q", "--stdout")), plain); err != nil {
			t.Fatal(err)
		}
		if err := part.Verify(ctx, next, nil, false); !errors.Is(err, plumbing.ErrObjectNotFound) || !strings.Contains(err.Error(), missing) || part.Whole() {
			t.Errorf("without %s: %v", missing, err)
		}
	}
}

// A pack with more in it than the wanted commit needs is no ground to build on: what else there is may lack anything.
func TestWhole(t *testing.T) {
	r, head := history(t)
	needed := r.git("HEAD\n", "rev-list", "--objects", "--no-object-names", "--stdin")
	tag := r.git("", "rev-parse", "v1")
	late := r.commit(map[string]string{"late": "x"})
	r.git("", "tag", "-a", "-m", "x", "of-late")
	lateTag := r.git("", "rev-parse", "of-late")
	blob, lateTree := r.git("", "rev-parse", "HEAD:late"), r.git("", "rev-parse", "HEAD^{tree}")
	for name, c := range map[string]struct {
		more  string
		whole bool
	}{
		"nothing else": {"", true}, "its tag": {tag, true}, "a commit": {late.String() + "\n", false}, "a tag of nothing": {lateTag, false}, "a blob": {blob, true}, "a tree": {lateTree, false},
	} {
		s := received(t, []byte(r.git(needed+c.more, "pack-objects", "-q", "--stdout")))
		if err := s.Verify(ctx, head, nil, false); err != nil || s.Whole() != c.whole {
			t.Errorf("%s: %v, whole is %v", name, err, s.Whole())
		}
	}
}

// A base that is too large to be held in memory makes the pack unusable, not the process.
func TestLargeBase(t *testing.T) {
	r := newRepo(t)
	large := strings.Repeat(text(3, 1000), 250) // 10 MB
	first := r.commit(map[string]string{"large": large})
	dir := openDir(t)
	s := &Store{}
	if err := s.Receive(ctx, dir, strings.NewReader(r.git(first.String()+"\n", "pack-objects", "-q", "--stdout", "--revs")), plain); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(ctx, first, nil, false); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	next := r.commit(map[string]string{"large": large + "more\n"})
	thin := r.thin(first, next)
	if len(thin) > 10_000 {
		t.Fatal(fmt.Sprint("no delta: ", len(thin)))
	}
	if err := s.Receive(ctx, dir, bytes.NewReader(thin), plain); err != nil {
		t.Error(err)
	}
	if err := s.Verify(ctx, next, nil, false); err != nil {
		t.Error(err)
	}
}
