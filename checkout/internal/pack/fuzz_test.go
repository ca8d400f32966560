package pack

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
)

func FuzzReceive(f *testing.F) {
	pack := small()
	f.Add(pack[:len(pack)-trailerSize], uint16(0))
	f.Add(pack[:len(pack)-trailerSize], uint16(100))
	var b builder
	b.ref(idOf(blob, version(1)), delta(version(1), version(2)))
	b.ofs(0, delta(version(2), version(3)))
	f.Add(b.bytes()[:headerSize+len(b.body)], uint16(0))
	f.Fuzz(func(t *testing.T, unsigned []byte, whole uint16) {
		d, dir := openDir(t)
		p, err := Receive(context.Background(), d, bytes.NewReader(signed(unsigned)), Options{
			Workers: 2, Whole: int64(whole), Memory: 4096,
			Object: func(o Object) error {
				if o.Data != nil && idOf(o.Type, o.Data) != o.ID {
					t.Error("wrong object")
				}
				return nil
			},
			Base: func(id ID) (Base, error) {
				if id == idOf(blob, version(1)) {
					return Base{Type: blob, Data: version(1)}, nil
				}
				return Base{}, plumbing.ErrObjectNotFound
			},
		})
		if err != nil {
			if names, _ := os.ReadDir(dir); len(names) > 0 || fail.Of(err) != fail.BadData {
				t.Fatal(names, err)
			}
			return
		}
		defer p.Close()
		if whatever(t, p) > 0 {
			t.Error("an object that was received cannot be read")
		}
		q := reopen(t, dir, p.Name())
		whatever(t, q)
	})
}

// FuzzDelta compares the two ways of applying one.
func FuzzDelta(f *testing.F) {
	f.Add(version(3), delta(version(3), version(9)))
	f.Add(version(3), delta(version(3), []byte("something else")))
	f.Add([]byte("0123456789"), []byte{10, 3, 0x91, 4, 3})
	f.Add([]byte("0123456789"), []byte{10, 3, 0x80})
	f.Fuzz(func(t *testing.T, base, d []byte) {
		_, size, n := deltaSizes(d)
		if n == 0 || size > 1<<20 {
			return
		}
		dst := make([]byte, size)
		ok := applyDelta(dst, base, d[n:])
		var out bytes.Buffer
		err := streamDelta(&out, size, content{mem: base, size: int64(len(base))}, bufio.NewReader(bytes.NewReader(d[n:])))
		if ok != (err == nil) || ok && !bytes.Equal(dst, out.Bytes()) || err != nil && !errors.Is(err, errDelta) {
			t.Errorf("%v, %v", ok, err)
		}
	})
}

func FuzzIdx(f *testing.F) {
	d, _ := openDir(f)
	pack := small()
	p, err := Receive(context.Background(), d, bytes.NewReader(pack), Options{})
	if err != nil {
		f.Fatal(err)
	}
	defer p.Close()
	f.Add(p.data[:len(p.data)-trailerSize])
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, unsigned []byte) {
		x, err := parseIndex(signed(bytes.Clone(unsigned)), int64(len(pack)))
		if err != nil {
			if fail.Of(err) != fail.BadData {
				t.Error(err)
			}
			return
		}
		for i := range x.n {
			x.offset(i)
			if _, ok := x.find(ID(x.id(i))); !ok {
				t.Errorf("object %d is not found", i)
			}
		}
		os.WriteFile(filepath.Join(dir, "x.pack"), pack, 0o644)
		os.WriteFile(filepath.Join(dir, "x.idx"), x.data, 0o644)
		if !bytes.Equal(x.checksum(), pack[len(pack)-trailerSize:]) {
			return
		}
		whatever(t, reopen(t, dir, "x"))
	})
}
