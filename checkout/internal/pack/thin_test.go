package pack

import (
	"bytes"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
)

// fromGit is a Base that asks git.
func fromGit(t *testing.T, repo string) func(ID) (Base, error) {
	return func(id ID) (Base, error) {
		typ, err := gitCommand(nil, "-C", repo, "cat-file", "-t", id.String()).Output()
		if err != nil {
			return Base{}, fmt.Errorf("cat-file: %w", plumbing.ErrObjectNotFound)
		}
		name := strings.TrimSpace(string(typ))
		data, err := gitCommand(nil, "-C", repo, "cat-file", name, id.String()).Output()
		if err != nil {
			return Base{}, err
		}
		return Base{Type: mustType(t, name), Data: data}, nil
	}
}

func TestThinPack(t *testing.T) {
	repo := history(t)
	stream := git(t, []byte("main\n^main~3\n"), "-C", repo, "pack-objects", "--revs", "--thin", "--delta-base-offset", "--stdout", "-q")
	if err := refuse(t, "without bases", stream, Options{}); !strings.Contains(err.Error(), "missing") {
		t.Error(err)
	}
	for _, o := range []Options{{Workers: 1}, {Workers: 4}, {Whole: 500}} {
		var s sink
		o.Object, o.Base = s.take, fromGit(t, repo)
		p, _ := receive(t, stream, o)
		if p.Len() <= len(s.got) {
			t.Errorf("%d objects, %d handed out: nothing was appended", p.Len(), len(s.got))
		}
		for i := range p.Len() {
			if id := p.ID(i); s.got[id] == 0 { // an appended one
				s.got[id] = 1
				base, _ := o.Base(id)
				s.data[id] = base.Data
			}
		}
		compare(t, repo, p, &s, o.Whole)
	}
}

func TestBasesInAndOutOfThePack(t *testing.T) {
	// The first delta's base is one of the second, whose base is elsewhere.
	var b builder
	b.ref(idOf(blob, version(2)), delta(version(2), version(3)))
	b.ref(idOf(blob, version(1)), delta(version(1), version(2)))
	var asked []ID
	o := Options{Workers: 1, Base: func(id ID) (Base, error) {
		asked = append(asked, id)
		if id == idOf(blob, version(1)) {
			return Base{Type: blob, Data: version(1)}, nil
		}
		return Base{}, plumbing.ErrObjectNotFound
	}}
	p, dir := receive(t, b.bytes(), o)
	if p.Len() != 3 || len(asked) != 2 || asked[0] != idOf(blob, version(2)) {
		t.Errorf("%d objects, asked for %v", p.Len(), asked)
	}
	git(t, nil, "verify-pack", filepath.Join(dir, p.Name()+".idx"))
	b.ref(idOf(blob, version(8)), delta(version(8), version(9)))
	err := refuse(t, "one missing", b.bytes(), o)
	if want := "missing: " + idOf(blob, version(8)).String(); !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestWrongBases(t *testing.T) {
	var b builder
	b.ref(idOf(blob, version(1)), delta(version(1), version(2)))
	refuse(t, "another content", b.bytes(), Options{Base: func(ID) (Base, error) { return Base{Type: blob, Data: version(7)}, nil }})
	refuse(t, "another type", b.bytes(), Options{Base: func(ID) (Base, error) { return Base{Type: tree, Data: version(1)}, nil }})
	broken := errors.New("the store is gone")
	d, _ := openDir(t)
	_, err := Receive(context.Background(), d, bytes.NewReader(b.bytes()), Options{Base: func(ID) (Base, error) { return Base{}, broken }})
	if !errors.Is(err, broken) || fail.Of(err) == fail.BadData {
		t.Error(err)
	}
}

// What is in another pack as it is needed is taken over as it is: the result has the same objects, and git likes it.
func TestPackedBases(t *testing.T) {
	repo := history(t)
	old, _ := receive(t, git(t, []byte("main~3\n"), "-C", repo, "pack-objects", "--revs", "--stdout", "-q", "--depth=1"), Options{})
	stream := git(t, []byte("main\n^main~3\n"), "-C", repo, "pack-objects", "--revs", "--thin", "--delta-base-offset", "--stdout", "-q")
	packed, deltas := 0, 0
	for n := range old.Len() {
		b, err := old.ReadPacked(n)
		typ, data, rerr := old.Read(n, nil)
		if err != nil || rerr != nil || b.Type != typ || !bytes.Equal(b.Data, data) {
			t.Fatalf("%s: %v, %v", old.ID(n), err, rerr)
		}
		if b.Packed == nil {
			deltas++
			continue
		}
		packed++
		z, err := zlib.NewReader(bytes.NewReader(b.Packed))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := io.ReadAll(z); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%s: its stream is something else: %v", old.ID(n), err)
		}
	}
	if packed == 0 || deltas == 0 {
		t.Errorf("%d as they are, %d deltas", packed, deltas)
	}
	var s sink
	o := Options{Object: s.take, Base: func(id ID) (Base, error) {
		n, ok := old.Find(id)
		if !ok {
			return Base{}, plumbing.ErrObjectNotFound
		}
		return old.ReadPacked(n)
	}}
	p, dir := receive(t, stream, o)
	if p.Len() <= len(s.got) {
		t.Errorf("%d objects, %d handed out: nothing was appended", p.Len(), len(s.got))
	}
	git(t, nil, "verify-pack", filepath.Join(dir, p.Name()+".idx"))
}
