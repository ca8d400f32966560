package pack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
)

// history makes a repository with commits, deltas upon deltas, an empty file and a tag.
func history(t testing.TB) string {
	dir := t.TempDir()
	git(t, nil, "-C", dir, "init", "-q")
	r := rand.New(rand.NewPCG(3, 4))
	var in bytes.Buffer
	files := make([][]string, 40)
	for c := range 30 {
		fmt.Fprintf(&in, "commit refs/heads/main\ncommitter A <a@b> %d +0000\ndata 2\nc\n", 1_600_000_000+c)
		for f := range files {
			if c > 0 && r.IntN(8) > 0 {
				continue
			}
			for range 1 + r.IntN(20) {
				at := r.IntN(len(files[f]) + 1)
				files[f] = append(files[f][:at], append([]string{fmt.Sprintln("line", r.Uint64(), r.IntN(100))}, files[f][at:]...)...)
			}
			data := strings.Join(files[f], "")
			fmt.Fprintf(&in, "M 100644 inline d%d/e%d/f%d\ndata %d\n%s\n", f%3, f%5, f, len(data), data)
		}
		fmt.Fprintf(&in, "M 100644 inline empty\ndata 0\n\n")
	}
	fmt.Fprintf(&in, "tag v1\nfrom refs/heads/main\ntagger A <a@b> 1600000000 +0000\ndata 1\nt\n")
	git(t, in.Bytes(), "-C", dir, "fast-import", "--quiet")
	return dir
}

func TestWhatGitPacks(t *testing.T) {
	repo := history(t)
	for _, kind := range [][]string{{"--delta-base-offset"}, {"--no-delta-base-offset"}, {"--delta-base-offset", "--depth=0"}} {
		args := append([]string{"-C", repo, "pack-objects", "--all", "--revs", "--stdout", "-q", "--depth=200", "--window=30"}, kind...)
		stream := git(t, nil, args...)
		for _, o := range []Options{{}, {Workers: 1}, {Workers: 7, Memory: 1}, {Whole: 600}, {Whole: 1, Memory: 1, Workers: 3}} {
			t.Run(fmt.Sprintf("%s whole %d memory %d", kind, o.Whole, o.Memory), func(t *testing.T) {
				var s sink
				o.Object = s.take
				p, _ := receive(t, stream, o)
				compare(t, repo, p, &s, o.Whole)
			})
		}
	}
}

// compare reads every object in every way and has git say what it should be.
func compare(t *testing.T, repo string, p *Pack, s *sink, whole int64) {
	t.Helper()
	var ids bytes.Buffer
	for i := range p.Len() {
		fmt.Fprintln(&ids, p.ID(i))
	}
	want := git(t, ids.Bytes(), "-C", repo, "cat-file", "--batch")
	for i := range p.Len() {
		id := p.ID(i)
		if n, ok := p.Find(id); !ok || n != i {
			t.Fatalf("%s is found at %d, %v", id, n, ok)
		}
		head, rest, _ := bytes.Cut(want, []byte("\n"))
		var typ string
		var size int
		fmt.Sscanf(string(head), id.String()+" %s %d", &typ, &size)
		data := rest[:size]
		want = rest[size+1:]
		gotType, got, err := p.Read(i, nil)
		if whole > 0 && errors.Is(err, ErrLarge) {
			got, gotType = data, mustType(t, typ)
		} else if err != nil {
			t.Fatal(err)
		}
		if gotType.String() != typ || !bytes.Equal(got, data) {
			t.Fatalf("%s: read %s of %d bytes, want %s of %d", id, gotType, len(got), typ, size)
		}
		streamType, streamSize, r, err := p.Reader(i)
		if err != nil {
			t.Fatal(err)
		}
		streamed, err := io.ReadAll(r)
		r.Close()
		if err != nil || streamType.String() != typ || streamSize != int64(size) || !bytes.Equal(streamed, data) {
			t.Fatalf("%s: streamed %s of %d bytes, %v", id, streamType, len(streamed), err)
		}
		if s.got[id] != 1 || whole == 0 && !bytes.Equal(s.data[id], data) {
			t.Fatalf("%s was handed out %d times", id, s.got[id])
		}
	}
	if len(s.got) != p.Len() {
		t.Errorf("%d objects were handed out, %d are there", len(s.got), p.Len())
	}
}

func mustType(t *testing.T, name string) Type {
	typ, err := plumbing.ParseObjectType(name)
	if err != nil {
		t.Fatal(err)
	}
	return typ
}

func TestOrderOfWhatIsHandedOut(t *testing.T) {
	var b builder
	var before [][]ID // for each blob, the trees that stand before it
	var trees []ID
	index := map[ID]int{}
	for i := range 2000 {
		data := fmt.Appendf(nil, "40000 d\x00%020d", i)
		switch {
		case i%3 == 0:
			b.add(tree, nil, data)
			trees = append(trees, idOf(tree, data))
		case i%3 == 1 && i > 3:
			// A tree that is a delta of the one two before it.
			base := fmt.Appendf(nil, "40000 d\x00%020d", i-1)
			b.ofs(len(b.offsets)-1, delta(base, data))
			trees = append(trees, idOf(tree, data))
		default:
			data = fmt.Appendf(nil, "blob %d", i)
			b.add(blob, nil, data)
			index[idOf(blob, data)] = len(before)
			before = append(before, trees[:len(trees):len(trees)])
		}
	}
	var mu sync.Mutex
	var seen []ID
	_, _ = receive(t, b.bytes(), Options{Workers: 4, Object: func(o Object) error {
		mu.Lock()
		defer mu.Unlock()
		if o.Type == tree {
			if o.ID != trees[len(seen)] {
				return fmt.Errorf("tree %d is %s", len(seen), o.ID)
			}
			seen = append(seen, o.ID)
		} else if n := len(before[index[o.ID]]); len(seen) < n {
			return fmt.Errorf("a blob after %d trees came after %d", n, len(seen))
		}
		return nil
	}})
	if len(seen) != len(trees) {
		t.Errorf("%d trees", len(seen))
	}
}

// version is a text that grows.
func version(n int) []byte {
	return append(bytes.Repeat([]byte("common "), 20), strings.Repeat("x", n)...)
}

func TestLongChains(t *testing.T) {
	const length = 2500
	for name, add := range map[string]func(b *builder){
		"by offset": func(b *builder) {
			b.add(blob, nil, version(0))
			for i := range length {
				b.ofs(i, delta(version(i), version(i+1)))
			}
		},
		"by name, last first": func(b *builder) {
			for i := length; i > 0; i-- {
				b.ref(idOf(blob, version(i-1)), delta(version(i-1), version(i)))
			}
			b.add(blob, nil, version(0))
		},
		"each with two deltas, one of which goes on": func(b *builder) {
			last := b.add(blob, nil, version(0))
			for i := range length / 2 {
				b.ofs(last, delta(version(i), append(version(i), '!')))
				next := b.ofs(last, delta(version(i), version(i+1)))
				side := b.ofs(last, delta(version(i), append(version(i), '?')))
				b.ofs(side, delta(append(version(i), '?'), append(version(i), '?', '?')))
				last = next
			}
		},
		"by name, each with two deltas, the last of which goes on": func(b *builder) {
			b.add(blob, nil, version(0))
			for i := range length / 10 {
				side := append(version(i), '!')
				b.ref(idOf(blob, version(i)), delta(version(i), side))
				b.ref(idOf(blob, side), delta(side, append(side, '!')))
				b.ref(idOf(blob, version(i)), delta(version(i), version(i+1)))
			}
		},
		"of trees": func(b *builder) {
			b.add(tree, nil, version(0))
			for i := range length {
				b.ofs(i, delta(version(i), version(i+1)))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var b builder
			add(&b)
			for _, o := range []Options{{}, {Memory: 40 << 10, Workers: 2}} {
				var s sink
				o.Object = s.take
				d, _ := openDir(t)
				p, err := Receive(context.Background(), d, bytes.NewReader(b.bytes()), o)
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				if len(s.got) != len(b.offsets) || p.Len() != len(b.offsets) {
					t.Fatalf("%d of %d objects", len(s.got), len(b.offsets))
				}
				for _, i := range []int{0, p.Len() / 2, p.Len() - 1} {
					if _, _, err := p.Read(i, nil); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

func TestEqualObjects(t *testing.T) {
	var b builder
	b.add(blob, nil, version(1))
	b.add(blob, nil, version(1))
	b.add(blob, nil, nil)
	b.add(blob, nil, nil)
	b.ofs(1, delta(version(1), version(2)))
	var s sink
	d, name := openDir(t)
	p, err := Receive(context.Background(), d, bytes.NewReader(b.bytes()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	sameIndex(t, filepath.Join(name, p.Name()))
	// Git itself does not take a delta by name of one of two equal objects.
	b.ref(idOf(blob, version(1)), delta(version(1), version(2)))
	b.ref(idOf(blob, version(2)), delta(version(2), version(3)))
	p, err = Receive(context.Background(), d, bytes.NewReader(b.bytes()), Options{Object: s.take})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.Len() != 7 || s.got[idOf(blob, version(1))] != 2 || s.got[idOf(blob, version(2))] != 2 || s.got[idOf(blob, nil)] != 2 || s.got[idOf(blob, version(3))] != 1 {
		t.Errorf("%d objects, handed out: %v", p.Len(), s.got)
	}
	receive(t, new(builder).bytes(), Options{})
}

func TestManyObjects(t *testing.T) {
	var b builder
	for i := range 120_000 {
		b.body = append(appendHead(b.body, blob, 6), stored(fmt.Appendf(nil, "%06d", i))...)
		b.offsets = append(b.offsets, 0)
	}
	p, _ := receive(t, b.bytes(), Options{})
	if n, ok := p.Find(idOf(blob, []byte("077777"))); !ok || p.Len() != 120_000 {
		t.Error(n, p.Len())
	}
}

// stored is a zlib stream that does not compress.
func stored(data []byte) []byte {
	z := []byte{0x78, 0x01, 1}
	z = binary.LittleEndian.AppendUint16(z, uint16(len(data)))
	z = binary.LittleEndian.AppendUint16(z, ^uint16(len(data)))
	a, b := 1, 0
	for _, c := range data {
		a = (a + int(c)) % 65521
		b = (b + a) % 65521
	}
	return binary.BigEndian.AppendUint32(append(z, data...), uint32(b<<16|a))
}

// small is a pack with one of everything.
func small() []byte {
	var b builder
	b.add(commit, nil, []byte("tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\nx"))
	b.add(tree, nil, append([]byte("100644 a\x00"), make([]byte, 20)...))
	b.add(blob, nil, version(3))
	b.ofs(2, delta(version(3), version(5)))
	b.ref(idOf(blob, version(5)), delta(version(5), version(9)))
	b.add(blob, nil, nil)
	return b.bytes()
}

func refuse(t *testing.T, what string, stream []byte, o Options) error {
	t.Helper()
	d, name := openDir(t)
	p, err := Receive(context.Background(), d, bytes.NewReader(stream), o)
	if err == nil {
		p.Close()
		t.Fatalf("%s: accepted", what)
	}
	if fail.Of(err) != fail.BadData {
		t.Errorf("%s: %v is %v", what, err, fail.Of(err))
	}
	if names, _ := os.ReadDir(name); len(names) > 0 {
		t.Errorf("%s: %v was left", what, names)
	}
	return err
}

func TestEveryTruncationAndFlip(t *testing.T) {
	pack := small()
	for n := range pack {
		refuse(t, fmt.Sprintf("%d of %d bytes", n, len(pack)), pack[:n], Options{})
		for _, with := range []byte{0x01, 0x80, 0xff} {
			flipped := bytes.Clone(pack)
			flipped[n] ^= with
			refuse(t, fmt.Sprintf("byte %d ^ %#x", n, with), flipped, Options{Whole: int64(1 + n%2*1000)})
		}
	}
}

// A flipped byte under a right checksum is what a hostile server can send: git must agree about every one.
func TestFlipsUnderARightChecksumAreJudgedAsByGit(t *testing.T) {
	pack := small()
	pack = pack[:len(pack)-trailerSize]
	for n := range pack {
		for _, with := range []byte{0x01, 0x10, 0x80} {
			flipped := bytes.Clone(pack)
			flipped[n] ^= with
			flipped = signed(flipped)
			d, dir := openDir(t)
			p, err := Receive(context.Background(), d, bytes.NewReader(flipped), Options{Workers: 1})
			if err == nil {
				asGit(t, filepath.Join(dir, p.Name()))
				p.Close()
				continue
			}
			file := filepath.Join(dir, "x.pack")
			if err := os.WriteFile(file, flipped, 0o644); err != nil {
				t.Fatal(err)
			}
			if out, gerr := gitCommand(nil, "index-pack", file).CombinedOutput(); gerr == nil {
				t.Errorf("byte %d ^ %#x: %v, but git accepts it: %s", n, with, err, out)
			}
		}
	}
}

func TestHostilePacks(t *testing.T) {
	var one builder
	one.add(blob, nil, version(1))
	a, b := idOf(blob, version(1)), idOf(blob, version(2))
	with := func(f func(b *builder)) []byte {
		var b builder
		b.add(blob, nil, version(1))
		f(&b)
		return b.bytes()
	}
	uvarints := func(v ...uint64) (d []byte) {
		for _, n := range v {
			d = binary.AppendUvarint(d, n)
		}
		return d
	}
	for name, c := range map[string]struct {
		stream []byte
		want   string
	}{
		"nothing":                     {nil, "too early"},
		"a page of HTML":              {[]byte("<!DOCTYPE html><html>"), "not a git pack"},
		"more after it":               {append(one.bytes(), 'x'), "there is more after"},
		"an object less than it says": {one.count(2), ""},
		"an object more than it says": {one.count(0), "there is more after"},
		"four billion objects":        {one.count(1<<32 - 1), ""},
		"a version of its own":        {signed([]byte("PACK\x00\x00\x00\x04\x00\x00\x00\x00")), "version"},
		"a size beyond 63 bits": {with(func(b *builder) {
			b.body = append(b.body, 0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)
			b.offsets = append(b.offsets, 0)
		}), "out of range"},
		"a huge size":               {with(func(b *builder) { b.raw(blob, 1<<59, nil, zip(version(1))) }), "corrupt"},
		"a size too large":          {with(func(b *builder) { b.raw(blob, 10_000, nil, zip(version(1))) }), "corrupt"},
		"a size too small":          {with(func(b *builder) { b.raw(blob, 100, nil, zip(make([]byte, 1<<20))) }), "more data than expected"},
		"a delta of itself":         {with(func(b *builder) { b.add(plumbing.OFSDeltaObject, []byte{0}, delta(nil, nil)) }), "out of range"},
		"a base before the pack":    {with(func(b *builder) { b.add(plumbing.OFSDeltaObject, []byte{0xff, 0x7f}, delta(nil, nil)) }), "out of range"},
		"a base within an object":   {with(func(b *builder) { b.add(plumbing.OFSDeltaObject, []byte{1}, delta(nil, nil)) }), "none of the pack's objects"},
		"a base that is far beyond": {with(func(b *builder) { b.add(plumbing.OFSDeltaObject, bytes.Repeat([]byte{0xff}, 25), delta(nil, nil)) }), "out of range"},
		"deltas in a circle": {with(func(x *builder) {
			x.ref(b, delta(version(2), version(4)))
			x.ref(idOf(blob, version(4)), delta(version(4), version(2)))
		}), "missing"},
		"a missing base":             {with(func(x *builder) { x.ref(b, delta(version(2), version(3))) }), b.String()},
		"a delta of another base":    {with(func(b *builder) { b.ofs(0, delta(version(2), version(3))) }), "delta is corrupt"},
		"an empty delta":             {with(func(b *builder) { b.ofs(0, nil) }), "delta is corrupt"},
		"a delta without end":        {with(func(b *builder) { b.ofs(0, bytes.Repeat([]byte{0xff}, 30)) }), "delta is corrupt"},
		"a huge result":              {with(func(b *builder) { b.ref(a, uvarints(uint64(len(version(1))), 1<<62)) }), "delta is corrupt"},
		"a large result that is not": {with(func(b *builder) { b.ref(a, uvarints(uint64(len(version(1))), 1<<31)) }), "delta is corrupt"},
		"a result that is less":      {with(func(b *builder) { b.ofs(0, append(uvarints(uint64(len(version(1))), 8), 3, 'a', 'b', 'c')) }), "delta is corrupt"},
		"a copy beyond the base":     {with(func(b *builder) { b.ofs(0, append(uvarints(uint64(len(version(1))), 9), 0x91, 140, 9)) }), "delta is corrupt"},
		"a copy beyond the result":   {with(func(b *builder) { b.ofs(0, append(uvarints(uint64(len(version(1))), 8), 0x91, 0, 9)) }), "delta is corrupt"},
		"an insertion beyond":        {with(func(b *builder) { b.ofs(0, append(uvarints(uint64(len(version(1))), 8), 9, 1, 2)) }), "delta is corrupt"},
		"a delta of nothing known":   {with(func(b *builder) { b.ofs(0, append(uvarints(uint64(len(version(1))), 1), 0)) }), "delta is corrupt"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, o := range []Options{{}, {Whole: 50}, {Whole: 1}} {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				err := refuse(t, name, c.stream, o)
				runtime.ReadMemStats(&after)
				if n := after.TotalAlloc - before.TotalAlloc; n > 6<<20 {
					t.Errorf("%d bytes were allocated", n)
				}
				if !strings.Contains(err.Error(), c.want) && o.Whole == 0 {
					t.Errorf("got %q, want %q in it", err, c.want)
				}
			}
		})
	}
}

// bomb is a blob of n zero bytes, which is a thousandth of it on the wire.
func bomb(n int64) []byte {
	pr, pw := io.Pipe()
	go func() {
		_, err := io.CopyN(pw, zeros{}, n)
		pw.CloseWithError(err)
	}()
	var b builder
	b.raw(blob, n, nil, zipAll(pr))
	return b.bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestLargeBlobInBoundedMemory(t *testing.T) {
	const size = 40 << 20
	stream := bomb(size)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	handed := int64(0)
	p, _ := receive(t, stream, Options{Object: func(o Object) error {
		if o.Data != nil {
			return errors.New("it was held whole")
		}
		handed += o.Size
		return nil
	}})
	if _, _, err := p.Read(0, nil); !errors.Is(err, ErrLarge) {
		t.Errorf("Read: %v", err)
	}
	_, _, r, err := p.Reader(0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, r)
	if n != size || handed != size || err != nil {
		t.Errorf("%d and %d bytes, %v", n, handed, err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	const levels = 60
	content := func(i int, side string) []byte {
		return append(bytes.Repeat([]byte{'a'}, 1<<20), fmt.Sprint(i, side)...)
	}
	for name, add := range map[string]func(b *builder, i int){
		"chain": func(b *builder, i int) { b.ofs(i, delta(content(i, ""), content(i+1, ""))) },
		// The longer branch is taken first, so that all that is above it is still needed.
		"branches": func(b *builder, i int) {
			side := content(i, "side")
			b.ref(idOf(blob, content(i, "")), delta(content(i, ""), side))
			b.ref(idOf(blob, side), delta(side, append(side, '!')))
			b.ref(idOf(blob, content(i, "")), delta(content(i, ""), content(i+1, "")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			var b builder
			b.add(blob, nil, content(0, ""))
			for i := range levels {
				add(&b, i)
			}
			stream := b.bytes()
			var before, now runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			most := int64(0)
			d, _ := openDir(t)
			p, err := Receive(context.Background(), d, bytes.NewReader(stream), Options{Workers: 1, Memory: 8 << 20, Object: func(o Object) error {
				runtime.GC()
				runtime.ReadMemStats(&now)
				most = max(most, int64(now.HeapAlloc)-int64(before.HeapAlloc))
				return nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			p.Close()
			if most > 24<<20 {
				t.Errorf("%d bytes were in use", most)
			}
		})
	}
}

func TestErrorsOfTheReader(t *testing.T) {
	pack := small()
	broken := errors.New("connection reset")
	for n := range pack {
		d, _ := openDir(t)
		_, err := Receive(context.Background(), d, io.MultiReader(bytes.NewReader(pack[:n]), iotest.ErrReader(broken)), Options{})
		if !errors.Is(err, broken) || fail.Of(err) == fail.BadData {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
	d, _ := openDir(t)
	p, err := Receive(context.Background(), d, iotest.OneByteReader(iotest.DataErrReader(bytes.NewReader(pack))), Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
}

func TestErrorsOfTheCallback(t *testing.T) {
	broken := errors.New("disk full")
	for _, when := range []Type{commit, tree, blob} {
		d, name := openDir(t)
		_, err := Receive(context.Background(), d, bytes.NewReader(small()), Options{Object: func(o Object) error {
			if o.Type == when {
				return broken
			}
			return nil
		}})
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", when, err)
		}
		if names, _ := os.ReadDir(name); len(names) > 0 {
			t.Errorf("%s: %v was left", when, names)
		}
	}
}

func TestCancelled(t *testing.T) {
	why := errors.New("time is over")
	ctx, cancel := context.WithCancelCause(context.Background())
	pr, pw := io.Pipe()
	go func() {
		pw.Write(small()[:20])
		cancel(why)
		pw.Write(small()[20:30])
		pw.CloseWithError(io.ErrClosedPipe)
	}()
	d, _ := openDir(t)
	if _, err := Receive(ctx, d, pr, Options{}); !errors.Is(err, why) {
		t.Error(err)
	}
	pr.Close()
	ctx, cancel = context.WithCancelCause(context.Background())
	_, err := Receive(ctx, d, bytes.NewReader(small()), Options{Object: func(o Object) error {
		cancel(why)
		return nil
	}})
	if !errors.Is(err, why) {
		t.Error(err)
	}
}

func TestProgress(t *testing.T) {
	pack := small()
	var objects, total uint32
	var size int64
	receive(t, pack, Options{Progress: func(o, t uint32, b int64) {
		if o < objects || b < size {
			panic("progress goes backwards")
		}
		objects, total, size = o, t, b
	}})
	if objects != 6 || total != 6 || size != int64(len(pack)) {
		t.Errorf("%d of %d, %d bytes", objects, total, size)
	}
}
