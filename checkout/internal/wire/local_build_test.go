package wire

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fsx"
	"run-task/tests/gitserver"
)

// builder makes packs and their indexes by hand, also such as git would not make.
type builder struct {
	body    bytes.Buffer
	z       *zlib.Writer
	ids     []plumbing.Hash
	offsets map[plumbing.Hash]int
}

// add adds an object of that name. between is what stands before the zlib stream.
func (b *builder) add(id plumbing.Hash, typ plumbing.ObjectType, size int64, between, content []byte) {
	if b.offsets == nil {
		b.offsets = map[plumbing.Hash]int{}
	}
	b.ids = append(b.ids, id)
	b.offsets[id] = 12 + b.body.Len()
	b.body.Write(append(entryHeader(typ, size), between...))
	if b.z == nil {
		b.z = zlib.NewWriter(nil)
	}
	b.z.Reset(&b.body)
	b.z.Write(content)
	b.z.Close()
}

// whole adds an object as it should be.
func (b *builder) whole(typ plumbing.ObjectType, content []byte) plumbing.Hash {
	id := plumbing.ComputeHash(typ, content)
	b.add(id, typ, int64(len(content)), nil, content)
	return id
}

// commit adds a commit of a tree.
func (b *builder) commit(tree plumbing.Hash) plumbing.Hash {
	return b.whole(plumbing.CommitObject, []byte("tree "+tree.String()+"\nauthor a <a@b> 1 +0000\ncommitter a <a@b> 1 +0000\n\nx\n"))
}

func treeLine(mode, name string, id plumbing.Hash) []byte {
	return append([]byte(mode+" "+name+"\x00"), id[:]...)
}

// repository makes a bare repository with the pack in it.
func (b *builder) repository(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "r.git")
	gitserver.Git(t, "/", "init", "-q", "--bare", dir)
	b.write(t, dir+"/objects/pack/pack-x")
	return dir
}

func (b *builder) write(t *testing.T, name string) {
	t.Helper()
	p := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(len(b.ids)))
	p = summed(append(p, b.body.Bytes()...))
	slices.SortFunc(b.ids, func(x, y plumbing.Hash) int { return bytes.Compare(x[:], y[:]) })
	idx := []byte("\xfftOc\x00\x00\x00\x02")
	n := 0
	for first := range 256 {
		for n < len(b.ids) && int(b.ids[n][0]) <= first {
			n++
		}
		idx = binary.BigEndian.AppendUint32(idx, uint32(n))
	}
	for _, id := range b.ids {
		idx = append(idx, id[:]...)
	}
	idx = append(idx, make([]byte, 4*len(b.ids))...)
	for _, id := range b.ids {
		idx = binary.BigEndian.AppendUint32(idx, uint32(b.offsets[id]))
	}
	put(t, name+".pack", p)
	put(t, name+".idx", summed(append(idx, p[len(p)-20:]...)))
}

func summed(b []byte) []byte {
	sum := sha1.Sum(b)
	return append(b, sum[:]...)
}

func put(t *testing.T, name string, data []byte) {
	t.Helper()
	os.Remove(name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// pull has the pack of a commit made, and read once meanwhile is done.
func pull(t *testing.T, repo string, sha plumbing.Hash, depth int, meanwhile func()) (got Pack, n int64, err error) {
	t.Helper()
	temp, err := fsx.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer temp.Close()
	err = fetchLocal(t.Context(), URL{Scheme: "file", Path: repo}, temp, Want{SHA: sha, Depth: depth}, func(_ context.Context, p Pack) (bool, error) {
		if meanwhile != nil {
			meanwhile()
		}
		got = p
		n, err = io.Copy(io.Discard, p)
		return true, err
	})
	if names, err := temp.Names(); err != nil || len(names) != 0 {
		t.Errorf("left: %v, %v", names, err)
	}
	return got, n, err
}
