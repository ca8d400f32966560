package pack

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"run-task/internal/fail"
)

func TestSuspendedPack(t *testing.T) {
	p, dir := receive(t, small(), Options{})
	q := reopen(t, dir, p.Name())
	for range 2 {
		if bad := whatever(t, q); bad != 0 {
			t.Errorf("%d objects were refused", bad)
		}
		if err := q.Suspend(); err != nil {
			t.Error(err)
		}
	}
	file := filepath.Join(dir, p.Name()+".pack")
	os.Chmod(file, 0o644)
	if err := os.WriteFile(file, append(small(), 0), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := q.Read(0, nil); fail.Of(err) != fail.BadData {
		t.Errorf("of another size: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, _, err := q.Read(0, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("gone: %v", err)
	}
	if _, _, _, err := q.Reader(0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("gone: %v", err)
	}
	if err := q.Suspend(); err != nil {
		t.Error(err)
	}
}

// In a directory that is not ours nothing is made.
func TestForeignPackWithLargeDelta(t *testing.T) {
	large := bytes.Repeat([]byte("0123456789abcdef"), 600<<10)
	var b builder
	b.add(blob, nil, large[:9<<20])
	b.ofs(0, delta(large[:9<<20], large))
	dir := crafted(t, b.bytes(), map[ID]int64{idOf(blob, large[:9<<20]): b.offsets[0], idOf(blob, large): b.offsets[1]})
	p := reopen(t, dir, "x")
	n, _ := p.Find(idOf(blob, large))
	p.Foreign(nil, 1<<20)
	if _, _, _, err := p.Reader(n); !errors.Is(err, ErrLarge) {
		t.Errorf("without a directory: %v", err)
	}
	spill, name := openDir(t)
	p.Foreign(spill, 1<<20)
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, size, r, err := p.Reader(n)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || size != int64(len(large)) || !bytes.Equal(got, large) {
		t.Errorf("%d of %d bytes, %v", len(got), len(large), err)
	}
	if after, err := os.Stat(dir); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("something was made beside the pack: %v", err)
	}
	if names, err := os.ReadDir(name); err != nil || len(names) != 0 {
		t.Errorf("%v, %v", names, err)
	}
}
