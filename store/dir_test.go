package store_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/store"
	"run-task/store/storetest"
)

func open(t *testing.T, location string, o store.Options) store.Store {
	t.Helper()
	s, err := store.Open(location, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put makes an object of a copy: not by way of Temp.
func put(t *testing.T, s store.Store, key, content string, o store.PutOptions) (store.Info, error) {
	t.Helper()
	f, err := os.Open(write(t, filepath.Join(t.TempDir(), "file"), content))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return s.Put(t.Context(), key, f, o)
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func names(t *testing.T, root string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != root {
			all = append(all, strings.TrimPrefix(path, root+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestDir(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Store {
		return open(t, "dir:"+filepath.Join(t.TempDir(), "not", "yet"), store.Options{})
	})
}

func TestADirectoryIsMadeByTheFirstPut(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a", "b")
	s := open(t, root, store.Options{})
	f, err := s.Temp()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteString("x")
	if _, err := os.Stat(filepath.Dir(root)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there before anything was put: %v", err)
	}
	if _, err := s.Put(t.Context(), "d/k", f, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, root); len(got) != 2 {
		t.Errorf("%q", got)
	}
}

// What Temp gives becomes the object itself: nothing is copied.
func TestTempIsNotCopied(t *testing.T) {
	root := t.TempDir()
	s := open(t, root, store.Options{})
	f, err := s.Temp()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteString("x")
	if got := names(t, root); len(got) != 0 {
		t.Fatalf("a file with a name: %q", got)
	}
	if _, err := s.Put(t.Context(), "k", f, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	mine, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	its, err := os.Stat(filepath.Join(root, "k"))
	if err != nil || !os.SameFile(mine, its) {
		t.Errorf("another file: %v", err)
	}
}

func TestNothingBelowTheRootIsFollowed(t *testing.T) {
	outside := t.TempDir()
	secret := write(t, filepath.Join(outside, "secret"), "secret")
	root := filepath.Join(t.TempDir(), "link") // the user's own link is followed
	real := t.TempDir()
	for from, to := range map[string]string{root: real, filepath.Join(real, "dir"): outside, filepath.Join(real, "file"): secret} {
		if err := os.Symlink(to, from); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(real, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := open(t, root, store.Options{})
	for _, key := range []string{"dir/secret", "file", "fifo"} {
		f, _, err := s.Get(t.Context(), key, store.GetOptions{})
		if f != nil || fail.Of(err) != fail.IO || !strings.Contains(err.Error(), "and no file") {
			t.Errorf("get %q: %v", key, err)
		}
	}
	if _, err := put(t, s, "dir/new", "x", store.PutOptions{}); fail.Of(err) != fail.IO {
		t.Errorf("put: %v", err)
	}
	if _, err := put(t, s, "file", "mine", store.PutOptions{}); err != nil {
		t.Errorf("a link is replaced, not written through: %v", err)
	}
	all, err := s.(store.Lister).List(t.Context(), "")
	if err != nil || len(all) != 1 || all[0].Key != "file" {
		t.Errorf("list: %+v, %v", all, err)
	}
	if got := names(t, outside); len(got) != 1 {
		t.Errorf("outside: %q", got)
	}
	if b, _ := os.ReadFile(secret); string(b) != "secret" {
		t.Errorf("it was written through a link: %q", b)
	}
}

func TestUseIsNotedAndChangesNoTag(t *testing.T) {
	root := t.TempDir()
	s := open(t, root, store.Options{})
	before, err := put(t, s, "k", "x", store.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(filepath.Join(root, "k"), long, before.Modified); err != nil {
		t.Fatal(err)
	}
	stat, err := s.Stat(t.Context(), "k")
	if err != nil || !stat.Used.Equal(long) {
		t.Fatalf("used %s, %v", stat.Used, err)
	}
	for _, unless := range []string{"", before.Tag} { // who has the content already uses it, too
		if err := os.Chtimes(filepath.Join(root, "k"), long, before.Modified); err != nil {
			t.Fatal(err)
		}
		if f, _, err := s.Get(t.Context(), "k", store.GetOptions{Unless: unless}); err == nil {
			f.Close()
		}
		after, err := s.Stat(t.Context(), "k")
		if err != nil || after.Tag != before.Tag || !after.Modified.Equal(before.Modified) || time.Since(after.Used) > time.Hour {
			t.Errorf("%+v became %+v, %v", before, after, err)
		}
	}
}

func TestSweepTakesOldLitterOnly(t *testing.T) {
	root := t.TempDir()
	s := open(t, root, store.Options{}).(store.Lister)
	if _, err := put(t, s, "a/k", "object", store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, ".tmp-1"), "12345")
	write(t, filepath.Join(root, "a", ".tmp-2"), "123")
	write(t, filepath.Join(root, ".mine"), "not ours")
	if n, bytes, err := s.Sweep(t.Context(), time.Now().Add(-time.Hour)); n != 0 || bytes != 0 || err != nil {
		t.Errorf("what is being written now: %d, %d, %v", n, bytes, err)
	}
	if n, bytes, err := s.Sweep(t.Context(), time.Now().Add(time.Hour)); n != 2 || bytes != 8 || err != nil {
		t.Errorf("%d, %d, %v", n, bytes, err)
	}
	if got := strings.Join(names(t, root), " "); got != ".mine a a/k" {
		t.Errorf("left: %q", got)
	}
}

func TestAFailedPutLeavesNothing(t *testing.T) {
	root := t.TempDir()
	s := open(t, root, store.Options{})
	if err := os.MkdirAll(filepath.Join(root, "k", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := put(t, s, "k", "over a directory", store.PutOptions{}); fail.Of(err) != fail.IO {
		t.Errorf("put: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fail.ErrInterrupted)
	f, err := os.Open(write(t, filepath.Join(t.TempDir(), "f"), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := s.Put(ctx, "other", f, store.PutOptions{}); fail.Of(err) != fail.Interrupted {
		t.Errorf("put: %v", err)
	}
	if got := strings.Join(names(t, root), " "); got != "k k/x" {
		t.Errorf("left: %q", got)
	}
}

// When a file was filled does not matter: gc goes by when it was put, and a time of its own gives each content a tag of its own.
func TestAnObjectIsAsOldAsItsPut(t *testing.T) {
	s := open(t, t.TempDir(), store.Options{})
	f, err := s.Temp()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteString("x")
	if err := unix.Futimes(int(f.Fd()), []unix.Timeval{{Sec: 1e9}, {Sec: 1e9}}); err != nil {
		t.Fatal(err)
	}
	info, err := s.Put(t.Context(), "k", f, store.PutOptions{})
	if err != nil || time.Since(info.Modified) > time.Hour {
		t.Errorf("put %s, %v", info.Modified, err)
	}
}
