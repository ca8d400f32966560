//go:build linux

package pack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fsx"
)

// extracted is a tree from an archive and what is known of it.
func extracted(t *testing.T, dir string, data []byte, o Extraction) *Index {
	t.Helper()
	if err := opened(t, data).Extract(t.Context(), open(t, dir), o); err != nil {
		t.Fatal(err)
	}
	return recorded(t, dir, data)
}

func recorded(t *testing.T, dir string, data []byte) *Index {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	x, err := opened(t, data).Record(t.Context(), open(t, dir), f)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// settled waits until the file system's clock is so far that a change gives another time than what is there has.
func settled(t *testing.T, dir string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Millisecond); time.Now().Before(end); {
		if err := os.WriteFile(dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever is done to a tree after it was extracted, its digest is that of what is there; what only got other times has the same.
func TestDigestOfChanges(t *testing.T) {
	src := t.TempDir()
	tree(t, src)
	defer os.Chmod(src+"/dirs", 0o700)
	for _, name := range []string{"big/zeros", "big/full frames", "d", "limit", "below", "exact"} {
		if err := os.RemoveAll(filepath.Join(src, name)); err != nil {
			t.Fatal(err)
		}
	}
	data, before := written(t, src, Options{})
	at := func(t *testing.T, name string, sec int64) {
		t.Helper()
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{{Sec: sec}, {Sec: sec, Nsec: 123456789}}, 0); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string) error
		same   bool
	}{
		"nothing": {func(t *testing.T, dir string) error { return nil }, true},
		"times":   {func(t *testing.T, dir string) error { at(t, dir+"/many/01/1", 99); at(t, dir+"/many", 98); return nil }, true},
		"the same again": {func(t *testing.T, dir string) error {
			b, err := os.ReadFile(dir + "/many/01/51")
			return errors.Join(err, os.Remove(dir+"/many/01/51"), os.WriteFile(dir+"/many/01/51", b, 0o644))
		}, true},
		"one byte":          {func(t *testing.T, dir string) error { return flip(t, dir+"/a/b/c/small") }, false},
		"one of many bytes": {func(t *testing.T, dir string) error { return flip(t, dir+"/big/one") }, false},
		"a byte of a hole":  {func(t *testing.T, dir string) error { return flip(t, dir+"/sparse hole") }, false},
		"mode":              {func(t *testing.T, dir string) error { return os.Chmod(dir+"/many/01/1", 0o600) }, false},
		"mode of a dir":     {func(t *testing.T, dir string) error { return os.Chmod(dir+"/many/01", 0o700) }, false},
		"new":               {func(t *testing.T, dir string) error { return os.WriteFile(dir+"/new", nil, 0o644) }, false},
		"removed":           {func(t *testing.T, dir string) error { return os.Remove(dir + "/many/01/1") }, false},
		"renamed":           {func(t *testing.T, dir string) error { return os.Rename(dir+"/many/01/1", dir+"/many/01/1x") }, false},
		"swapped": {func(t *testing.T, dir string) error {
			return unix.Renameat2(unix.AT_FDCWD, dir+"/many/01/1", unix.AT_FDCWD, dir+"/many/02/2", unix.RENAME_EXCHANGE)
		}, false},
		"a link elsewhere": {func(t *testing.T, dir string) error {
			return errors.Join(os.Remove(dir+"/dangling"), os.Symlink("no", dir+"/dangling"))
		}, false},
		"a file for a link": {func(t *testing.T, dir string) error {
			return errors.Join(os.Remove(dir+"/dangling"), os.WriteFile(dir+"/dangling", nil, 0o644))
		}, false},
		"no longer linked": {func(t *testing.T, dir string) error {
			return errors.Join(os.Remove(dir+"/zz"), os.WriteFile(dir+"/zz", []byte("x"), 0o640))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			x := extracted(t, dir, data, Extraction{SetID: true})
			settled(t, t.TempDir()+"/clock")
			if err := c.change(t, dir); err != nil {
				t.Fatal(err)
			}
			f, err := Digest(t.Context(), open(t, dir), Options{Known: x})
			if err != nil || (f.Content == before.Content) != c.same {
				t.Errorf("%v, the same: %v", err, f.Content == before.Content)
			}
			blind, err := Digest(t.Context(), open(t, dir), Options{})
			if err != nil || blind.Content != f.Content || blind.Entries != f.Entries || blind.Bytes != f.Bytes {
				t.Errorf("without an index: %+v, %v, want %+v", blind, err, f)
			}
			os.Chmod(dir+"/dirs", 0o700)
		})
	}
}

// flip changes a byte and leaves size and time as they were.
func flip(t *testing.T, name string) error {
	t.Helper()
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1)
	f.ReadAt(b, st.Size()/2)
	b[0] ^= 1
	_, err = f.WriteAt(b, st.Size()/2)
	return errors.Join(err, f.Close(), os.Chtimes(name, st.ModTime(), st.ModTime()))
}

// What somebody changes between the restore and the look at what was restored is not taken for what was restored.
func TestChangedBeforeItIsRecorded(t *testing.T) {
	src, dir := t.TempDir(), t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(src+"/"+name, []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, before := written(t, src, Options{})
	extracted(t, dir, data, Extraction{})
	if err := os.WriteFile(dir+"/a", []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	settled(t, dir+"/b.clock")
	if err := errors.Join(os.Remove(dir+"/b.clock"), os.Chmod(dir+"/b", 0o644)); err != nil { // else a's change were in the last tick
		t.Fatal(err)
	}
	f, err := Digest(t.Context(), open(t, dir), Options{Known: recorded(t, dir, data)})
	if err != nil || f.Content == before.Content {
		t.Errorf("%v, the same: %v", err, f.Content == before.Content)
	}
}

// A change in the very tick in which the tree was extracted is seen.
func TestChangesAtOnce(t *testing.T) {
	src := t.TempDir()
	for i := range 20 {
		if err := os.WriteFile(fmt.Sprintf("%s/%d", src, i), []byte("before"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, before := written(t, src, Options{})
	for i := range 40 {
		dir := t.TempDir()
		x := extracted(t, dir, data, Extraction{})
		if err := flip(t, fmt.Sprintf("%s/%d", dir, i%20)); err != nil {
			t.Fatal(err)
		}
		f, err := Digest(t.Context(), open(t, dir), Options{Known: x})
		if err != nil || f.Content == before.Content {
			t.Fatalf("round %d: %v: not seen", i, err)
		}
	}
}

// What was extracted last need not be read again either, though it has the time of the very end.
func TestTheOnlyFileIsKnown(t *testing.T) {
	src, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(src+"/only", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	data, _ := written(t, src, Options{})
	x := extracted(t, dir, data, Extraction{})
	st, err := open(t, dir).Lstat("only")
	if err != nil {
		t.Fatal(err)
	}
	if e, err := x.find("only", st); e == nil || err != nil {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestXattrs(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	if err := errors.Join(os.Mkdir(src+"/d", 0o755), os.WriteFile(src+"/f", []byte("x"), 0o644), os.WriteFile(src+"/big", make([]byte, bigFile), 0o444)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(src+"/f", "user.a", []byte("1"), 0); err != nil {
		t.Fatalf("this file system keeps no attributes: %v", err)
	}
	for _, x := range [][3]string{{"/f", "user.b", "\x00\xff=\n"}, {"/d", "user.empty", ""}, {"/big", "user.large", strings.Repeat("v", 3000)}} {
		if err := unix.Setxattr(src+x[0], x[1], []byte(x[2]), 0); err != nil {
			t.Fatal(err)
		}
	}
	plain, without := written(t, src, Options{})
	data, with := written(t, src, Options{Xattrs: true})
	if with.Content == without.Content || bytes.Equal(plain, data) {
		t.Error("attributes do not count")
	}
	x := extracted(t, dst, data, Extraction{Xattrs: true})
	for _, name := range []string{"", "/f", "/d", "/big"} {
		got, err := fsx.UserXattrs(open2(t, dst+name))
		want, err2 := fsx.UserXattrs(open2(t, src+name))
		if err := errors.Join(err, err2); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v %q, want %q", name, err, got, want)
		}
	}
	if f, err := Digest(t.Context(), open(t, dst), Options{Xattrs: true, Known: x}); err != nil || f.Content != with.Content {
		t.Errorf("%v: changed", err)
	}
}

func open2(t *testing.T, name string) int {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

// Files that grow, shrink, vanish and come while they are read make no archive that is wrong, and no error.
func TestRestlessTree(t *testing.T) {
	src := t.TempDir()
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for n := range 2 {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("%s/%d-%d", src, n, i%40)
				switch i % 7 {
				case 0:
					os.Remove(name)
				case 1:
					os.Truncate(name, int64(i%5)*300<<10)
				case 2:
					os.Link(name, name+"l")
				case 3:
					os.Remove(name + "l")
				case 4:
					os.Rename(name, fmt.Sprintf("%s/%d-%d", src, n, (i+20)%40))
				default:
					os.WriteFile(name, make([]byte, i%9*100<<10), 0o644)
				}
			}
		})
	}
	defer writers.Wait()
	defer close(stop)
	var mu sync.Mutex
	warnings := 0
	for range 8 {
		data, _ := written(t, src, Options{Warn: func(string, ...any) { mu.Lock(); warnings++; mu.Unlock() }})
		if err := opened(t, data).Extract(t.Context(), open(t, t.TempDir()), Extraction{}); err != nil {
			t.Fatal(err)
		}
		if err := opened(t, data).Check(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if warnings == 0 {
		t.Error("nothing was ever met while it changed")
	}
}

// What cannot be archived is named, and the rest is.
func TestSpecialFiles(t *testing.T) {
	src := t.TempDir()
	if err := errors.Join(unix.Mkfifo(src+"/fifo", 0o600), os.WriteFile(src+"/file", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	var said []string
	data, f := written(t, src, Options{Warn: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }})
	if f.Entries != 2 || len(said) != 1 || !strings.Contains(said[0], `"fifo" is a FIFO`) {
		t.Errorf("%+v, %q", f, said)
	}
	if err := opened(t, data).Check(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// A context that ends ends everything, at any time.
func TestCancelled(t *testing.T) {
	src := t.TempDir()
	tree(t, src)
	defer os.Chmod(src+"/dirs", 0o700)
	data, _ := written(t, src, Options{})
	why := errors.New("enough")
	for _, after := range []int64{1, 2, 300, 600} {
		ctx, cancel := context.WithCancelCause(t.Context())
		if _, err := Write(ctx, &bytes.Buffer{}, open(t, src), Options{Progress: func(n, _ int64) {
			if n == after {
				cancel(why)
			}
		}}); err != why {
			t.Errorf("Write, at %d: %v", after, err)
		}
		ctx, cancel = context.WithCancelCause(t.Context())
		if err := opened(t, data).Extract(ctx, open(t, t.TempDir()), Extraction{Progress: func(n, _ int64) {
			if n == after {
				cancel(why)
			}
		}}); err != why {
			t.Errorf("Extract, at %d: %v", after, err)
		}
	}
	// The disk of the archive is full.
	if _, err := Write(t.Context(), full{}, open(t, src), Options{}); !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, unix.ENOSPC }
