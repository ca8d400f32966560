package odb

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
)

func resum(pack []byte) []byte {
	body := pack[:len(pack)-20]
	sum := sha1.Sum(body)
	return append(slices.Clone(body), sum[:]...)
}

// A pack that was damaged on its way, whatever byte it hit and wherever it was cut, is never taken. One whose checksum was made right again is
// refused or misses objects, unless the change means nothing (the unused bits at a zlib stream's end).
func TestDamagedPack(t *testing.T) {
	r, head := history(t)
	tags := []plumbing.Hash{r.id("", "rev-parse", "v1"), r.id("", "rev-parse", "v2")}
	for _, option := range []string{"--delta-base-offset", "--no-delta-base-offset"} {
		pack := r.pack(option)
		good := ingested(t, pack)
		d := openDir(t)
		bad := func(what string, damaged []byte) {
			t.Helper()
			if _, _, err := Ingest(ctx, d, bytes.NewReader(damaged), nil); fail.Of(err) != fail.BadData {
				t.Fatalf("%s: %v", what, err)
			}
		}
		for i := range pack {
			bad(fmt.Sprint("cut at ", i), pack[:i])
			flipped := slices.Clone(pack)
			flipped[i] ^= 1 << (i % 8)
			bad(fmt.Sprint("changed at ", i), flipped)
			if i >= len(pack)-20 {
				continue
			}
			name, _, err := Ingest(ctx, d, bytes.NewReader(resum(flipped)), nil)
			if err != nil {
				if fail.Of(err) != fail.BadData {
					t.Fatalf("changed at %d: %v", i, err)
				}
				continue
			}
			s := opened(t, d, name)
			if err := s.Verify(ctx, head, nil, tags); err == nil {
				sameObjects(t, good, s)
			} else if fail.Of(err) != fail.BadData {
				t.Fatalf("changed at %d: %v", i, err)
			}
			d.Unlink(name + ".pack")
			d.Unlink(name + ".idx")
		}
		bad("a byte more", append(slices.Clone(pack), 0))
		bad("twice", append(slices.Clone(pack), pack...))
		bad("one byte with a continuation bit more", append(slices.Clone(pack), 0x80))
		if names, _ := d.Names(); len(names) != 0 {
			t.Errorf("left over: %q", names)
		}
	}
}

func ids(s *Store) (all []plumbing.Hash) {
	for _, p := range s.packs {
		it, _ := p.idx.Entries()
		for e, err := it.Next(); err == nil; e, err = it.Next() {
			all = append(all, e.Hash)
		}
	}
	return all
}

func sameObjects(t *testing.T, want, got *Store) {
	t.Helper()
	for _, id := range ids(want) {
		wt, wd, err := want.Read(id)
		if err != nil {
			t.Fatal(err)
		}
		if gt, gd, err := got.Read(id); err != nil || gt != wt || !bytes.Equal(gd, wd) {
			t.Fatalf("%s: %v", id, err)
		}
	}
}

// What happens to the files after they were taken in is found when an object is read, at the latest.
func TestTamperedOnDisk(t *testing.T) {
	r, _ := history(t)
	pack := r.pack("--delta-base-offset")
	good := ingested(t, pack)
	d := openDir(t)
	name, _, err := Ingest(ctx, d, bytes.NewReader(pack), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, ext := range []string{".pack", ".idx"} {
		original, _ := os.ReadFile(filepath.Join(d.Name(), name+ext))
		check := func(what string, data []byte) {
			overwrite(t, filepath.Join(d.Name(), name+ext), data)
			s, err := Open(d, []string{name})
			if err != nil {
				if fail.Of(err) != fail.BadData {
					t.Fatal(what, err)
				}
				return
			}
			defer s.Close()
			wrong := 0
			for _, id := range ids(good) {
				typ, data, err := s.Read(id)
				want, content, _ := good.Read(id)
				if err == nil && (typ != want || !bytes.Equal(data, content)) {
					t.Fatal(what, "wrong content of", id)
				}
				if err != nil {
					if wrong++; fail.Of(err) != fail.BadData {
						t.Fatal(what, err)
					}
				}
			}
			// Some bits of a pack mean nothing to Read; Check sees them.
			if err := s.Check(ctx); wrong == 0 && fail.Of(err) != fail.BadData {
				t.Error(what, "was not noticed:", err)
			}
		}
		for i := range original {
			if ext == ".idx" && i > 8 && i < 1000 && i%50 != 0 {
				continue // the fan-out table: the same two numbers all over
			}
			flipped := slices.Clone(original)
			flipped[i] ^= 0x10
			check(fmt.Sprint(ext, " changed at ", i), flipped)
			if i%13 == 0 {
				check(fmt.Sprint(ext, " cut at ", i), original[:i])
			}
			if ext == ".idx" && i > 1032 && i%7 == 0 { // with its own checksum made right
				s, err := func() (*Store, error) {
					overwrite(t, filepath.Join(d.Name(), name+ext), resum(flipped))
					return Open(d, []string{name})
				}()
				if err == nil {
					for _, id := range ids(good) {
						if _, data, err := s.Read(id); err == nil {
							if _, want, _ := good.Read(id); !bytes.Equal(data, want) {
								t.Fatal("wrong content of", id)
							}
						}
					}
					s.Close()
				}
			}
		}
		overwrite(t, filepath.Join(d.Name(), name+ext), original)
	}
}

func overwrite(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// raw is an object of a pack that git would not make.
type raw struct {
	typ  byte
	size int // declared
	base []byte
	data []byte

	level int // of compression
}

func rawPack(count uint32, objects ...raw) ([]byte, []int64) {
	b := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), count)
	var offsets []int64
	for _, o := range objects {
		offsets = append(offsets, int64(len(b)))
		c, size := o.typ<<4|byte(o.size&15), o.size>>4
		for ; size > 0; size >>= 7 {
			b = append(b, c|0x80)
			c = byte(size & 0x7f)
		}
		b = append(append(b, c), o.base...)
		var z bytes.Buffer
		w, _ := zlib.NewWriterLevel(&z, o.level)
		w.Write(o.data)
		w.Close()
		b = append(b, z.Bytes()...)
	}
	return resum(append(b, make([]byte, 20)...)), offsets
}

func blob(s string) raw { return raw{typ: 3, size: len(s), data: []byte(s), level: 9} }

func delta(base plumbing.Hash, ops string) raw {
	return raw{typ: 7, size: len(ops), base: base[:], data: []byte(ops)}
}

func blobID(s string) plumbing.Hash { return plumbing.ComputeHash(plumbing.BlobObject, []byte(s)) }

// No declared number or size allocates before there is data to fill it.
func TestHostilePacks(t *testing.T) {
	base := blobID("base")
	huge := string(binary.AppendUvarint(binary.AppendUvarint(nil, 4), 3<<30))
	// 400 copies of 16 MiB, of a blob that is small in the pack.
	zeros := strings.Repeat("\x00", 1<<24)
	copies := string(binary.AppendUvarint(binary.AppendUvarint(nil, 1<<24), 400*(1<<24-1))) + strings.Repeat("\xf0\xff\xff\xff", 400)
	// A blob that holds an object of a pack, and a delta upon that.
	inner, _ := rawPack(1, blob("base"))
	matryoshka := blob(string(inner[headerSize : len(inner)-20]))
	matryoshka.level = 0
	outer, _ := rawPack(2, matryoshka, blob("z"))
	back := byte(len(outer) - 20 - bytes.Index(outer, matryoshka.data))
	chain := []raw{blob("x")}
	for range maxChain + 1 { // each adds a byte to the one before: "x", "xx", "xxx" ...
		last := len(chain)
		ops := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(last)), uint64(last+1))
		ops = append(ops, 0xb0, byte(last), byte(last>>8), 1, 'x')
		chain = append(chain, delta(blobID(strings.Repeat("x", last)), string(ops)))
	}
	for name, objects := range map[string][]raw{
		"a declared size of 3 GiB":      {{typ: 3, size: 3 << 30, data: []byte("short")}},
		"a declared size of 5 GiB":      {{typ: 3, size: 5 << 30, data: []byte("short")}},
		"a delta of 3 GiB":              {blob("base"), {typ: 7, size: 3 << 30, base: base[:], data: []byte("short")}},
		"a delta that promises 3 GiB":   {blob("base"), delta(base, huge+"\x90\x04")},
		"longer than declared":          {{typ: 3, size: 2, data: []byte("long")}},
		"shorter than declared":         {{typ: 3, size: 9, data: []byte("short")}},
		"type 0":                        {{typ: 0}},
		"type 5":                        {{typ: 5}},
		"an object twice":               {blob("base"), blob("base")},
		"an object twice, by delta":     {blob("base"), delta(base, "\x04\x04\x90\x04")},
		"a thin pack":                   {blob("x"), delta(base, "\x04\x04\x90\x04")},
		"a delta upon a missing delta":  {delta(base, "\x04\x04\x90\x04"), {typ: 6, size: 4, base: []byte{41}, data: []byte("\x04\x04\x90\x04")}},
		"a delta without ops":           {blob("base"), delta(base, "\x04\x04")},
		"a delta cut short":             {blob("base"), delta(base, "\x04")},
		"an empty delta":                {blob("base"), delta(base, "")},
		"a delta with op 0":             {blob("base"), delta(base, "\x04\x04\x00")},
		"a delta from beyond its base":  {blob("base"), delta(base, "\x04\x05\x90\x05")},
		"a delta for another base size": {blob("base"), delta(base, "\x05\x04\x90\x04")},
		"a delta upon the header":       {blob("base"), {typ: 6, size: 4, base: []byte{17}, data: []byte("\x04\x04\x90\x04")}},
		"a delta upon itself":           {blob("base"), {typ: 6, size: 4, base: []byte{0}, data: []byte("\x04\x04\x90\x04")}},
		"a delta from before the pack":  {{typ: 6, size: 4, base: []byte{0xff, 0x7f}, data: []byte("\x04\x04\x90\x04")}},
		"an endless base offset":        {{typ: 6, size: 4, base: bytes.Repeat([]byte{0xff}, 30)}},
		"a delta within an object":      {matryoshka, blob("z"), {typ: 6, size: 4, base: []byte{back}, data: []byte("\x04\x04\x90\x04")}},
		"a delta of 6 GiB":              {blob(zeros), delta(blobID(zeros), copies)},
		"too long a chain":              chain,
	} {
		for _, count := range []uint32{uint32(len(objects)), uint32(len(objects)) + 1, 1<<31 - 1, 1<<32 - 1} {
			if count != uint32(len(objects)) && len(objects[0].data)+len(objects) > 1000 {
				continue // slow, and no different
			}
			pack, _ := rawPack(count, objects...)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _, err := Ingest(ctx, openDir(t), bytes.NewReader(pack), nil)
			runtime.ReadMemStats(&after)
			if fail.Of(err) != fail.BadData {
				t.Errorf("%s, %d objects: %v", name, count, err)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 128<<20 && name != "too long a chain" {
				t.Errorf("%s, %d objects: %d bytes allocated", name, count, got)
			}
		}
	}
	if _, err := readEntry(bytes.NewReader([]byte{0xb0, 0x80, 0x80, 0x80, 0x80, 0x02}), headerSize); err == nil {
		t.Error("an object of 8 GiB is taken")
	}
	pack, _ := rawPack(3, blob("base"), delta(base, "\x04\x03\x90\x03"), delta(blobID("bas"), "\x03\x02\x90\x02"))
	s := ingested(t, pack)
	if typ, data, err := s.Read(blobID("ba")); err != nil || typ != plumbing.BlobObject || string(data) != "ba" {
		t.Error(typ, data, err)
	}
	if typ, err := s.kind(blobID("ba")); err != nil || typ != plumbing.BlobObject {
		t.Error(typ, err)
	}
	if pack, _ = rawPack(0); len(ids(ingested(t, pack))) != 0 {
		t.Error("an empty pack")
	}
}

// A pack that was changed on disk allocates no more than one that comes from a server.
func TestDeclaredSizeOnDisk(t *testing.T) {
	data, at := rawPack(1, raw{typ: 3, size: 3 << 30, data: []byte("short")})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := (&pack{file: bytes.NewReader(data), size: int64(len(data) - 20)}).read(at[0])
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; err == nil || got > 32<<20 {
		t.Errorf("%v, %d bytes allocated", err, got)
	}
}

// Only an index can make a circle, because a name cannot depend on itself.
func TestCircleOfDeltas(t *testing.T) {
	a, b := plumbing.NewHash(strings.Repeat("a", 40)), plumbing.NewHash(strings.Repeat("b", 40))
	data, at := rawPack(2, delta(b, "\x04\x04\x90\x04"), delta(a, "\x04\x04\x90\x04"))
	offsets := map[plumbing.Hash]int64{a: at[0], b: at[1]}
	p := &pack{file: bytes.NewReader(data), size: int64(len(data) - 20), find: func(id plumbing.Hash) (int64, bool) { return offsets[id], true }}
	if _, err := p.read(at[0]); err == nil || !strings.Contains(err.Error(), "upon each other") {
		t.Error(err)
	}
	if _, err := p.kind(at[0]); err == nil {
		t.Error("a circle has a type")
	}
	for _, off := range []int64{-1, 0, 11, int64(len(data)) - 20, 1 << 40} {
		if _, err := p.read(off); err == nil {
			t.Error("read at", off)
		}
	}
}

func FuzzIngest(f *testing.F) {
	r, _ := history(f)
	f.Add(r.pack("--delta-base-offset"))
	f.Add(r.pack("--no-delta-base-offset"))
	small, _ := rawPack(2, blob("base"), delta(blobID("base"), "\x04\x03\x90\x03"))
	f.Add(small)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 32 {
			return
		}
		d := openDir(t)
		name, objects, err := Ingest(ctx, d, bytes.NewReader(resum(data)), nil)
		if err != nil {
			if fail.Of(err) != fail.BadData {
				t.Error(err)
			}
			return
		}
		s := opened(t, d, name)
		if n := len(ids(s)); n != objects {
			t.Errorf("%d objects, %d in the index", objects, n)
		}
		for _, id := range ids(s) {
			if _, _, err := s.Read(id); err != nil {
				t.Error(err)
			}
			s.Commit(id)
		}
	})
}
