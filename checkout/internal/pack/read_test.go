package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// reopen opens what receive made.
func reopen(t testing.TB, dir, name string) *Pack {
	t.Helper()
	d, err := fsx.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	p, err := Open(d, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestOpenedPack(t *testing.T) {
	repo := history(t)
	git(t, nil, "-C", repo, "-c", "pack.indexVersion=2", "repack", "-adq", "--depth=50")
	packs, err := filepath.Glob(filepath.Join(repo, ".git/objects/pack/*.idx"))
	if err != nil || len(packs) != 1 {
		t.Fatal(packs, err)
	}
	base := strings.TrimSuffix(packs[0], ".idx")
	p := reopen(t, filepath.Dir(base), filepath.Base(base))
	var s sink
	s.got = map[ID]int{}
	for i := range p.Len() {
		s.got[p.ID(i)] = 1
	}
	p.whole = 1 << 20
	compare(t, repo, p, &s, p.whole)
	if _, ok := p.Find(idOf(blob, []byte("not there"))); ok {
		t.Error("found what is not there")
	}

	// Offsets of 64 bits, as git writes them for packs of 2 GiB and more.
	git(t, nil, "index-pack", "--index-version=2,0x40", "-o", filepath.Join(t.TempDir(), "x.idx"), base+".pack")
	os.Remove(base + ".idx")
	git(t, nil, "index-pack", "--index-version=2,0x40", base+".pack")
	compare(t, repo, reopen(t, filepath.Dir(base), filepath.Base(base)), &s, p.whole)
}

func TestLargeOffsets(t *testing.T) {
	var tab table
	for i := range 10 {
		e := tab.add()
		e.id, e.off = ID{byte(i * 7), 1}, headerSize+int64(i)*(700<<20)
	}
	made, _ := newIndex(&tab, make([]byte, trailerSize))
	x, err := parseIndex(made.data, 8<<30)
	if err != nil {
		t.Fatal(err)
	}
	for i := range tab.n {
		if n, ok := x.find(tab.at(i).id); !ok || x.offset(n) != tab.at(i).off {
			t.Errorf("object %d: %v at %d, want %d", i, ok, x.offset(n), tab.at(i).off)
		}
	}
	if _, err := parseIndex(x.data, 6<<30); fail.Of(err) != fail.BadData {
		t.Errorf("an offset beyond the pack: %v", err)
	}
}

func TestConcurrentReads(t *testing.T) {
	repo := history(t)
	p, _ := receive(t, git(t, nil, "-C", repo, "pack-objects", "--all", "--revs", "--stdout", "-q"), Options{})
	p.cache.max = 20 << 10
	var all sync.WaitGroup
	for w := range 6 {
		all.Go(func() {
			var buf []byte
			for i := range p.Len() {
				var err error
				if _, buf, err = p.Read((i*7+w*31)%p.Len(), buf); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// whatever reads all of a pack: objects that have their IDs, or errors that say that the data is bad.
func whatever(t *testing.T, p *Pack) (bad int) {
	for i := range p.Len() {
		typ, data, err := p.Read(i, nil)
		if err == nil && idOf(typ, data) != p.ID(i) {
			t.Errorf("%s: wrong content", p.ID(i))
		} else if err != nil && fail.Of(err) != fail.BadData && !errors.Is(err, ErrLarge) {
			t.Errorf("%s: %v", p.ID(i), err)
		}
		streamed, serr := io.ReadAll(must(p, i))
		if serr == nil && idOf(typ, streamed) != p.ID(i) && err == nil {
			t.Errorf("%s: wrong content streamed", p.ID(i))
		}
		if err != nil && (serr != nil || !errors.Is(err, ErrLarge)) {
			bad++
			if serr == nil {
				t.Errorf("%s: Read says %v, Reader nothing", p.ID(i), err)
			}
		}
	}
	return bad
}

// must is Reader, its error being that of the first Read.
func must(p *Pack, i int) io.Reader {
	_, _, r, err := p.Reader(i)
	if err != nil {
		return failing{err}
	}
	return r
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestEveryFlippedByteIsSeenWhenRead(t *testing.T) {
	p, dir := receive(t, small(), Options{})
	file := filepath.Join(dir, p.Name()+".pack")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	good := small()
	for n := headerSize; n < len(good)-trailerSize; n++ {
		flipped := bytes.Clone(good)
		flipped[n] ^= 0x11
		if err := os.WriteFile(file, flipped, 0o644); err != nil {
			t.Fatal(err)
		}
		// A flipped CRC-less bit may be one that does not matter, such as a zlib header's level.
		whatever(t, reopen(t, dir, p.Name()))
	}
}

func TestPackTruncatedUnderUs(t *testing.T) {
	p, dir := receive(t, small(), Options{})
	q := reopen(t, dir, p.Name())
	q.cache.max = 0
	for size := len(small()) - trailerSize; size >= 0; size -= 10 {
		if err := os.Truncate(filepath.Join(dir, p.Name()+".pack"), int64(size)); err != nil {
			t.Fatal(err)
		}
		whatever(t, q)
	}
	if bad := whatever(t, q); bad != q.Len() {
		t.Errorf("%d of %d objects were refused", bad, q.Len())
	}
}

func TestPairsThatDoNotBelongTogether(t *testing.T) {
	p, dir := receive(t, small(), Options{})
	idx := filepath.Join(dir, p.Name()+".idx")
	good, err := os.ReadFile(idx)
	if err != nil {
		t.Fatal(err)
	}
	d, err := fsx.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	os.Chmod(idx, 0o644)
	other := bytes.Clone(good[:len(good)-trailerSize])
	other[len(other)-1]++
	for name, data := range map[string][]byte{
		"nothing": nil, "version 1": good[8:], "half": good[:len(good)/2], "of another pack": signed(other),
		"another checksum": append(good[:len(good)-1:len(good)-1], good[len(good)-1]+1),
	} {
		if err := os.WriteFile(idx, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(d, p.Name()); fail.Of(err) != fail.BadData {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(d, "pack-missing"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// crafted writes a pack and an index of one's own making.
func crafted(t testing.TB, pack []byte, objects map[ID]int64) (dir string) {
	var tab table
	for id, off := range objects {
		e := tab.add()
		e.id, e.off = id, off
	}
	dir = t.TempDir()
	x, _ := newIndex(&tab, pack[len(pack)-trailerSize:])
	for ext, data := range map[string][]byte{".pack": pack, ".idx": x.data} {
		if err := os.WriteFile(filepath.Join(dir, "x"+ext), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestHostilePairs(t *testing.T) {
	var b builder
	one, two := idOf(blob, version(1)), idOf(blob, version(2))
	b.ref(two, delta(version(2), version(1)))
	b.ref(one, delta(version(1), version(2)))
	b.raw(blob, 1<<50, nil, zip(nil))
	b.ofs(2, delta(version(1), version(4)))
	b.ref(ID{9}, delta(version(1), version(4)))
	huge := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(len(version(1)))), 1<<40)
	b.add(blob, nil, version(1))
	b.ofs(5, huge)
	b.add(plumbing.OFSDeltaObject, []byte{0xff, 0x7f}, huge)
	objects := map[ID]int64{one: b.offsets[0], two: b.offsets[1], {1}: b.offsets[5] + 1, {2}: headerSize + int64(len(b.body)) - 1}
	for i, off := range b.offsets[2:] {
		objects[ID{3, byte(i)}] = off
	}
	p := reopen(t, crafted(t, b.bytes(), objects), "x")
	if bad := whatever(t, p); bad != p.Len() {
		t.Errorf("%d of %d objects were refused", bad, p.Len())
	}
	if _, _, err := p.Read(func() int { n, _ := p.Find(one); return n }(), nil); err == nil || !strings.Contains(err.Error(), "circle") {
		t.Error(err)
	}
}

func TestHostileIndexes(t *testing.T) {
	var tab table
	for i := range 3 {
		e := tab.add()
		e.id, e.off = ID{byte(i * 100)}, headerSize+int64(i)
	}
	tab.at(2).off = 3 << 30
	index, _ := newIndex(&tab, make([]byte, trailerSize))
	good := index.data
	good = good[:len(good)-trailerSize]
	offsets := idStart + 3*24
	for name, change := range map[string]func(b []byte) []byte{
		"a fan-out table that goes down":     func(b []byte) []byte { b[fanStart+3] = 9; return b },
		"more objects than there are":        func(b []byte) []byte { b[fanStart+255*4] = 1; return b },
		"fewer objects than there are":       func(b []byte) []byte { return append(b, make([]byte, 64)...) },
		"a length that is none":              func(b []byte) []byte { return append(b, 0) },
		"names out of order":                 func(b []byte) []byte { b[idStart+1], b[idStart] = 1, 220; return b },
		"a large offset that is not there":   func(b []byte) []byte { b[offsets+2*4+1] = 1; return b },
		"an offset in the header":            func(b []byte) []byte { b[offsets+3] = 3; return b },
		"an offset beyond the pack":          func(b []byte) []byte { b[offsets+3*4+3] = 1; return b },
		"a large offset that is negative":    func(b []byte) []byte { b[offsets+3*4] = 0xff; return b },
		"another version":                    func(b []byte) []byte { b[7] = 3; return b },
		"nothing but a magic and a checksum": func(b []byte) []byte { return b[:fanStart] },
	} {
		if _, err := parseIndex(signed(change(bytes.Clone(good))), (3<<30)+50); fail.Of(err) != fail.BadData {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := parseIndex(signed(good), 4<<30); err != nil {
		t.Error(err)
	}
}
