//go:build unix

package fsx

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree makes a directory to work in and one outside of it, which nothing may touch.
func tree(t *testing.T) (d *Dir, in, out string) {
	t.Helper()
	base := t.TempDir()
	in, out = filepath.Join(base, "in"), filepath.Join(base, "out")
	for _, dir := range []string{in, out} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(out, "file"), []byte("outside"), 0o644); err != nil {
		t.Fatal(err)
	}
	d, err := Open(in)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Close()
		if b, err := os.ReadFile(filepath.Join(out, "file")); err != nil || string(b) != "outside" {
			t.Errorf("the file outside changed: %q, %v", b, err)
		}
	})
	return d, in, out
}

func TestNoComponentIsFollowed(t *testing.T) {
	d, in, out := tree(t)
	for _, err := range []error{os.Symlink(out, filepath.Join(in, "link")), os.Symlink(filepath.Join(out, "file"), filepath.Join(in, "flink")), os.Mkdir(filepath.Join(in, "dir"), 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, call := range map[string]func() error{
		"open dir":          func() error { _, err := d.OpenDir("link"); return err },
		"open below":        func() error { _, err := d.OpenFile("link/file", unix.O_RDWR, 0); return err },
		"open file":         func() error { _, err := d.OpenFile("flink", unix.O_RDWR, 0); return err },
		"read":              func() error { _, err := d.ReadFile("flink", 100); return err },
		"write below":       func() error { return d.WriteFile("link/new", nil, 0o644) },
		"mkdir below":       func() error { return d.Mkdir("link/new", 0o755) },
		"mkdir all":         func() error { return d.MkdirAll("link/a/b", 0o755) },
		"mkdir all on link": func() error { return d.MkdirAll("link", 0o755) },
		"unlink below":      func() error { return d.Unlink("link/file") },
		"rename from":       func() error { return d.Rename("link/file", "got") },
		"rename to":         func() error { return d.Rename("dir", "link/dir") },
		"remove below":      func() error { return d.RemoveAll("link/file") },
		"symlink below":     func() error { return d.Symlink("x", "link/new") },
		"readlink below":    func() error { _, err := d.Readlink("link/file"); return err },
		"lstat below":       func() error { _, err := d.Lstat("link/file"); return err },
		"up":                func() error { _, err := d.OpenDir("dir/.."); return err },
		"empty":             func() error { _, err := d.OpenDir(""); return err },
		"absolute":          func() error { _, err := d.OpenDir(out); return err },
	} {
		if call() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if names, err := os.ReadDir(out); err != nil || len(names) != 1 {
		t.Errorf("outside: %v, %v", names, err)
	}
	// The link itself may go, what it leads to may not.
	if err := d.RemoveAll("link"); err != nil {
		t.Error(err)
	}
}

func TestWriteFileIsWholeOrNotAtAll(t *testing.T) {
	d, in, out := tree(t)
	if err := os.Symlink(filepath.Join(out, "file"), filepath.Join(in, "name")); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteFile("name", []byte("new"), 0o444); err != nil {
		t.Fatal(err)
	}
	st, err := d.Lstat("name")
	if err != nil || !st.IsRegular() || st.Perm() != 0o444 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := os.Mkdir(filepath.Join(in, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteFile("dir", nil, 0o644); err == nil {
		t.Error("a directory was replaced")
	}
	names, err := d.Names()
	if err != nil || len(names) != 2 {
		t.Errorf("a temporary file was left: %q, %v", names, err)
	}
}

func TestReadFileTakesOnlyShortRegularFiles(t *testing.T) {
	d, in, _ := tree(t)
	if err := unix.Mkfifo(filepath.Join(in, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(in, "long"), []byte("12345"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{"fifo": unix.EINVAL, ".": unix.EINVAL, "long": unix.EFBIG, "missing": fs.ErrNotExist} {
		if _, err := d.ReadFile(name, 4); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if b, err := d.ReadFile("long", 5); err != nil || string(b) != "12345" {
		t.Errorf("%q, %v", b, err)
	}
	if err := os.Symlink("long", filepath.Join(in, "a link")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{"fifo": unix.EINVAL, ".": unix.EINVAL, "long": unix.EFBIG, "a link": unix.EFBIG, "missing": fs.ErrNotExist} {
		if _, err := ReadFile(filepath.Join(in, name), 4); !errors.Is(err, want) {
			t.Errorf("%s by its name: %v, want %v", name, err, want)
		}
	}
	if b, err := ReadFile(filepath.Join(in, "a link"), 5); err != nil || string(b) != "12345" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestRemoveAllOfAReadOnlyTree(t *testing.T) {
	d, in, _ := tree(t)
	deep := filepath.Join(in, "mod", "a", "b")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(deep, "f"), nil, 0o444); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{deep, filepath.Dir(deep), filepath.Join(in, "mod")} {
		if err := os.Chmod(dir, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.RemoveAll("mod"); err != nil {
		t.Fatal(err)
	}
	if err := d.RemoveAll("mod"); err != nil {
		t.Errorf("a missing tree: %v", err)
	}
}

func TestReadlinkOfAnyLength(t *testing.T) {
	d, _, _ := tree(t)
	for _, n := range []int{1, 255, 256, 257, 4000} {
		want := strings.Repeat("x", n)
		if err := d.Symlink(want, "l"); err != nil {
			t.Fatal(err)
		}
		if got, err := d.Readlink("l"); err != nil || got != want {
			t.Errorf("%d bytes: got %d, %v", n, len(got), err)
		}
		if err := d.Unlink("l"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLockKeepsOthersOut(t *testing.T) {
	d, _, _ := tree(t)
	open := func() *os.File {
		f, err := d.OpenFile("lock", unix.O_RDWR|unix.O_CREAT, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	first, second := open(), open()
	defer second.Close()
	if err := Lock(context.Background(), first, func() { t.Error("nobody holds it yet") }); err != nil {
		t.Fatal(err)
	}
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(context.Background())
	if err := Lock(ctx, second, func() { cancel(gone) }); !errors.Is(err, gone) {
		t.Errorf("got %v, want the context's cause", err)
	}
	// The holder lets go once the other one says that it waits.
	if err := Lock(context.Background(), second, func() { first.Close() }); err != nil {
		t.Error(err)
	}
}

func TestCreate(t *testing.T) {
	d, in, _ := tree(t)
	data := []byte(strings.Repeat("0123456789", 300_000))
	st, err := d.Create("new", data, 0o640)
	if got, rerr := os.ReadFile(filepath.Join(in, "new")); err != nil || rerr != nil || string(got) != string(data) {
		t.Error(err, rerr, len(got))
	}
	if now, err := d.Lstat("new"); err != nil || now != st || st.Perm()&^0o640 != 0 || st.Size != int64(len(data)) {
		t.Error(st, now, err)
	}
	if err := os.Symlink(filepath.Join(in, "elsewhere"), filepath.Join(in, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"new", "link"} {
		if _, err := d.Create(name, []byte("x"), 0o644); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := d.Create("none/new", nil, 0o644); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if got, err := os.ReadFile(filepath.Join(in, "new")); err != nil || len(got) != len(data) {
		t.Error(len(got), err)
	}
}
