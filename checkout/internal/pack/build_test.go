package pack

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fsx"
)

const (
	commit = plumbing.CommitObject
	tree   = plumbing.TreeObject
	blob   = plumbing.BlobObject
)

// builder makes packs by hand.
type builder struct {
	body    []byte
	offsets []int64
}

func idOf(t Type, data []byte) ID { return plumbing.ComputeHash(t, data) }

func zip(data []byte) []byte { return zipAll(bytes.NewReader(data)) }

// zippers are reused: each has a megabyte of tables.
var zippers = sync.Pool{New: func() any { return zlib.NewWriter(io.Discard) }}

func zipAll(r io.Reader) []byte {
	var b bytes.Buffer
	z := zippers.Get().(*zlib.Writer)
	defer zippers.Put(z)
	z.Reset(&b)
	io.Copy(z, r)
	z.Close()
	return b.Bytes()
}

func (b *builder) add(typ Type, between, data []byte) int {
	return b.raw(typ, int64(len(data)), between, zip(data))
}

func (b *builder) raw(typ Type, size int64, between, zlib []byte) int {
	b.offsets = append(b.offsets, headerSize+int64(len(b.body)))
	b.body = append(appendHead(b.body, typ, size), between...)
	b.body = append(b.body, zlib...)
	return len(b.offsets) - 1
}

func (b *builder) ofs(base int, delta []byte) int {
	back := headerSize + int64(len(b.body)) - b.offsets[base]
	enc := []byte{byte(back & 0x7f)}
	for back >>= 7; back > 0; back >>= 7 {
		back--
		enc = append([]byte{0x80 | byte(back&0x7f)}, enc...)
	}
	return b.add(plumbing.OFSDeltaObject, enc, delta)
}

func (b *builder) ref(base ID, delta []byte) int {
	return b.add(plumbing.REFDeltaObject, base[:], delta)
}

func (b *builder) bytes() []byte { return b.count(uint32(len(b.offsets))) }

func (b *builder) count(n uint32) []byte {
	p := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), n)
	return signed(append(p, b.body...))
}

func signed(p []byte) []byte {
	sum := sha1.Sum(p)
	return append(p, sum[:]...)
}

// delta makes of base what result is, by copying what both begin with and inserting the rest.
func delta(base, result []byte) []byte {
	d := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(len(base))), uint64(len(result)))
	same := 0
	for same < min(len(base), len(result)) && base[same] == result[same] {
		same++
	}
	for off := 0; off < same; {
		n := min(same-off, 0xffffff)
		d = append(d, 0xff, byte(off), byte(off>>8), byte(off>>16), byte(off>>24), byte(n), byte(n>>8), byte(n>>16))
		off += n
	}
	for rest := result[same:]; len(rest) > 0; {
		n := min(len(rest), 127)
		d = append(append(d, byte(n)), rest[:n]...)
		rest = rest[n:]
	}
	return d
}

func openDir(t testing.TB) (*fsx.Dir, string) {
	t.Helper()
	name := t.TempDir()
	d, err := fsx.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, name
}

// sink collects what is handed out.
type sink struct {
	mu   sync.Mutex
	got  map[ID]int
	data map[ID][]byte
}

func (s *sink) take(o Object) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.got == nil {
		s.got, s.data = map[ID]int{}, map[ID][]byte{}
	}
	s.got[o.ID]++
	if o.Data != nil {
		if int64(len(o.Data)) != o.Size || idOf(o.Type, o.Data) != o.ID {
			return fmt.Errorf("wrong object: %s of %d bytes", o.ID, o.Size)
		}
		s.data[o.ID] = bytes.Clone(o.Data)
	}
	return nil
}

// receive receives and lets git judge: its index must be ours.
func receive(t testing.TB, stream []byte, o Options) (*Pack, string) {
	t.Helper()
	d, name := openDir(t)
	p, err := Receive(context.Background(), d, bytes.NewReader(stream), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	asGit(t, filepath.Join(name, p.Name()))
	if names, err := os.ReadDir(name); err != nil || len(names) != 2 {
		t.Fatalf("%v, %v", names, err)
	}
	return p, name
}

// asGit has git index the pack once more and verify it.
func asGit(t testing.TB, base string) {
	t.Helper()
	sameIndex(t, base)
	git(t, nil, "verify-pack", base+".idx")
	for _, ext := range []string{".pack", ".idx"} {
		if st, err := os.Stat(base + ext); err != nil || st.Mode() != 0o444 {
			t.Errorf("%s: %v, %v", ext, st.Mode(), err)
		}
	}
}

// sameIndex has git index the pack once more.
func sameIndex(t testing.TB, base string) {
	t.Helper()
	idx := filepath.Join(t.TempDir(), "git.idx")
	git(t, nil, "index-pack", "-o", idx, base+".pack")
	ours, err1 := os.ReadFile(base + ".idx")
	theirs, err2 := os.ReadFile(idx)
	if err1 != nil || err2 != nil || !bytes.Equal(ours, theirs) {
		t.Fatalf("the index is not git's: %v, %v", err1, err2)
	}
}

func gitCommand(stdin []byte, args ...string) *exec.Cmd {
	c := exec.Command("git", args...)
	c.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b", "LC_ALL=C")
	c.Stdin = bytes.NewReader(stdin)
	return c
}

func git(t testing.TB, stdin []byte, args ...string) []byte {
	t.Helper()
	c := gitCommand(stdin, args...)
	var errs strings.Builder
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		t.Fatalf("git %q: %v: %s", args, err, errs.String())
	}
	return out
}
