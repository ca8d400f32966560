package worktree

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/pack"
	"run-task/internal/fail"
)

// packed makes a pack of objects as they are, in that order, with its checksum at its end (gitformat-pack(5)).
func packed(objects ...packedObject) []byte {
	b := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(len(objects)))
	for _, o := range objects {
		head, size := o.kind<<4|byte(len(o.data)&15), len(o.data)>>4
		for ; size > 0; size >>= 7 {
			b = append(b, head|0x80)
			head = byte(size & 0x7f)
		}
		var z bytes.Buffer
		w := zlib.NewWriter(&z)
		w.Write([]byte(o.data))
		w.Close()
		b = append(append(b, head), z.Bytes()...)
	}
	sum := sha1.Sum(b)
	return append(b, sum[:]...)
}

type packedObject struct {
	kind byte // 1 is a commit, 2 a tree, 3 a blob
	data string
}

// A pack may have an object twice. What was written for the first is not forgotten over the second, and goes if the pack comes to nothing.
func TestEarlyTwice(t *testing.T) {
	r := newRepo(t)
	file, other := r.blob("file"), r.blob("other")
	sub := r.tree(line("100644", "below", other))
	flat := []string{line("100644", "a", file), line("100755", "b", file), line("100644", "c", other)}
	for _, tree := range []plumbing.Hash{r.tree(flat...), r.tree(append(flat, line("40000", "d", sub))...)} {
		commit := r.commitTree(tree)
		raw := func(kind string, id plumbing.Hash) string { return r.git("", "cat-file", kind, id.String()) }
		c, top, below := packedObject{1, raw("commit", commit)}, packedObject{2, raw("tree", tree)}, packedObject{2, raw("tree", sub)}
		x, y := packedObject{3, "file"}, packedObject{3, "other"}
		for name, objects := range map[string][]packedObject{
			"the commit at the end":        {c, top, below, x, y, c},
			"the commit at once":           {c, c, top, below, x, y},
			"the commit before its blobs":  {c, top, below, c, x, y},
			"the commit after some":        {c, top, x, c, below, y},
			"the tree":                     {c, top, x, y, top, below, top},
			"the tree before its commit":   {top, top, c, below, x, y, below},
			"a blob":                       {c, top, x, x, below, y, y, x},
			"all of it":                    {c, top, below, x, y, c, top, below, x, y},
			"all of it, blobs in between":  {c, top, x, c, top, below, x, y, y, below},
			"the commit twice, blobs last": {c, top, c, below, c, y, x, c},
		} {
			for _, bad := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %.8s, bad checksum %v", name, tree, bad), func(t *testing.T) { twice(t, r, commit, packed(objects...), bad) })
			}
		}
	}
}

// twice receives a pack, good or not, and looks at what was written early.
func twice(t *testing.T, r repo, commit plumbing.Hash, stream []byte, bad bool) {
	if bad {
		stream[len(stream)-1] ^= 1
	}
	w := newWork(t)
	early := NewEarly(w.root, commit, Options{})
	store, err := receive(ctx, openDir(t, w.path(".git/objects/pack")), bytes.NewReader(stream), pack.Options{Object: early.Object})
	early.Close()
	if early.whole() == 0 {
		t.Error("nothing was written early: this test looks at nothing")
	}
	if bad {
		if fail.Of(err) != fail.BadData {
			t.Error(err)
		}
		if err := early.Undo(); err != nil {
			t.Error(err)
		}
		if names, err := w.root.Names(); err != nil || len(names) != 1 {
			t.Errorf("left %q, %v", names, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.Verify(ctx, commit, nil, false); err != nil {
		t.Error(err)
	}
	w.store = store
	w.mustWrite(commit, Options{Early: early})
	w.judge(r, commit)
}
