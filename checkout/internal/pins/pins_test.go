//go:build linux

package pins

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
)

const testURL = "https://h/x.git"

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func newRepo(t *testing.T) (*Store, *Repo) {
	t.Helper()
	s := open(t, t.TempDir()+"/store")
	return s, s.Repo(testURL, "")
}

func hex40(n int) string { return fmt.Sprintf("%040x", n) }

func later() time.Time { return time.Now().Add(time.Hour).UTC() }

func pinOf(n int, holder string, expires time.Time) *Pin {
	id := hex40(n)
	return &Pin{Version: 1, URL: testURL, SHA: id, Commit: id, Tree: id, Packs: []string{"pack-" + id}, Whole: true, Holder: holder, Created: time.Now().UTC(), Expires: expires}
}

// publish brings a pin's packs into the store as a task does.
func publish(r *Repo, p *Pin, content string) (err error) {
	l, err := r.Lock(context.Background(), p.SHA, func(string) {})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	q, err := l.Quarantine()
	if err != nil {
		return err
	}
	for _, pack := range p.Packs {
		for _, end := range []string{".pack", ".idx"} {
			if err := q.WriteFile(pack+end, []byte(content), 0o444); err != nil {
				return err
			}
		}
	}
	return l.Publish(p.Packs, p)
}

func put(t *testing.T, r *Repo, p *Pin) *Pin {
	t.Helper()
	must(t, publish(r, p, "xxxx"))
	return p
}

func collect(t *testing.T, s *Store, o GC) Freed {
	t.Helper()
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	f, err := s.GC(context.Background(), o)
	must(t, err)
	return f
}

func found(t *testing.T, r *Repo, p *Pin) bool {
	t.Helper()
	got, err := r.Find(p.SHA, p.Shape, time.Now(), false)
	must(t, err)
	return got != nil
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

func pinFile(r *Repo, p *Pin) string { return filepath.Join(r.Path(), pinDir, p.SHA, p.file()) }

func packFile(r *Repo, p *Pin, end string) string {
	return filepath.Join(r.Path(), packDir, p.Packs[0]+end)
}

// age makes a file two hours old.
func age(t *testing.T, name string) {
	t.Helper()
	old := unix.NsecToTimeval(time.Now().Add(-2 * recent).UnixNano())
	must(t, unix.Lutimes(name, []unix.Timeval{old, old}))
}

// asNobody runs a function without root's rights on files.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if os.Geteuid() == 0 {
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0); errno != 0 {
				done <- errno
				return
			}
		}
		do()
		done <- nil
	}()
	must(t, <-done)
}

func openToAll(t *testing.T, dir string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(name, 0o777)
	}))
}

func TestPublishAndFind(t *testing.T) {
	s, r := newRepo(t)
	p := put(t, r, pinOf(1, "a/ü", later()))
	for name, got := range map[string]*Repo{"same": r, "another trust": s.Repo(testURL, "x"), "another URL": s.Repo("https://h/y", "")} {
		if found(t, got, p) != (name == "same") {
			t.Error(name)
		}
	}
	st, err := os.Stat(packFile(r, p, ".pack"))
	must(t, err)
	if st.Mode().Perm() != 0o444 {
		t.Errorf("a pack has mode %o", st.Mode().Perm())
	}
	if names, _ := os.ReadDir(r.Path() + "/incoming"); len(names) > 0 {
		t.Error("a quarantine stays:", names)
	}
	longer := pinOf(1, "b", p.Expires.Add(time.Hour))
	must(t, r.Write(longer))
	if got, _ := r.Find(p.SHA, p.Shape, time.Now(), false); got == nil || got.Holder != "b" {
		t.Errorf("not the one that expires last: %+v", got)
	}
	if n, err := r.Remove(p.SHA, "b"); n != 1 || err != nil || !found(t, r, p) {
		t.Error(n, err)
	}
	must(t, os.Remove(packFile(r, p, ".idx")))
	if found(t, r, p) {
		t.Error("found without its index")
	}
	if err := r.Write(p); !errors.Is(err, fs.ErrNotExist) || exists(pinFile(r, p)) {
		t.Error("written without its index:", err)
	}
}

func TestShapesAreApart(t *testing.T) {
	_, r := newRepo(t)
	p := pinOf(1, "a", later())
	p.Sparse = []string{"a\nb"}
	put(t, r, p)
	for _, shape := range []Shape{{}, {Depth: 1}, {Sparse: []string{"a", "b"}}} { // the last has the same name
		if got, err := r.Find(p.SHA, shape, time.Now(), false); got != nil || err != nil {
			t.Errorf("%+v: %+v, %v", shape, got, err)
		}
	}
}

func TestNewest(t *testing.T) {
	_, r := newRepo(t)
	now := time.Now().UTC()
	for n, change := range []func(*Pin){
		func(p *Pin) { p.Created = now.Add(-time.Hour) },
		func(p *Pin) { p.Created = now.Add(-time.Minute) },
		func(p *Pin) { p.Created = now.Add(-time.Minute) }, // of two the lower SHA
		func(p *Pin) { p.Expires = now },
		func(p *Pin) { p.Whole = false },
		func(p *Pin) { p.Partial = true },
		func(p *Pin) { p.Depth = 1 },
		func(p *Pin) { p.Sparse = []string{"a"} },
	} {
		p := pinOf(n+1, "a", now.Add(time.Hour))
		change(p)
		put(t, r, p)
	}
	gone := put(t, r, pinOf(99, "a", now.Add(time.Hour)))
	must(t, os.Remove(packFile(r, gone, ".pack")))
	if got, err := r.Newest(0, now); err != nil || got == nil || got.SHA != hex40(2) {
		t.Errorf("%+v, %v", got, err)
	}
}

// A name of a file says what its holder is, and no two holders have the same.
func TestEscape(t *testing.T) {
	seen := map[string]string{}
	for _, text := range []string{"", "~", "a", "A", "a/b", "a%2Fb", "..", ".", "a b", "\x00", strings.Repeat("x", maxHolder), strings.Repeat("x", maxHolder+1), strings.Repeat("/", 50)} {
		name := escape(text)
		if old, is := seen[name]; is || len(name) > maxHolder || strings.ContainsAny(name, "/\x00.") {
			t.Errorf("%q is %q, as %q", text, name, old)
		}
		seen[name] = text
	}
}

func TestOpen(t *testing.T) {
	for name, c := range map[string]struct {
		make func(dir string) error
		want fail.Reason
	}{
		"link":    {func(dir string) error { return os.Symlink("nowhere", dir+"/version") }, fail.PurgeCache},
		"dir":     {func(dir string) error { return os.Mkdir(dir+"/version", 0o777) }, fail.PurgeCache},
		"long":    {func(dir string) error { return os.WriteFile(dir+"/version", make([]byte, 1000), 0o666) }, fail.PurgeCache},
		"garbage": {func(dir string) error { return os.WriteFile(dir+"/version", []byte("x"), 0o666) }, fail.PurgeCache},
		"newer":   {func(dir string) error { return os.WriteFile(dir+"/version", []byte("2\n"), 0o666) }, fail.Usage},
		"foreign": {func(dir string) error { return os.WriteFile(dir+"/precious", nil, 0o666) }, fail.Usage},
	} {
		dir := t.TempDir()
		must(t, c.make(dir))
		if _, err := Open(dir); fail.Of(err) != c.want {
			t.Errorf("%s: %v (%v)", name, err, fail.Of(err))
		}
	}
	dir := t.TempDir()
	errs := make(chan error)
	for range 8 {
		go func() {
			s, err := Open(dir + "/new/store")
			if err == nil {
				err = s.Close()
			}
			errs <- err
		}()
	}
	for range 8 {
		must(t, <-errs)
	}
}

func TestForeignStore(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a store away")
	}
	s, r := newRepo(t)
	p := put(t, r, pinOf(1, "a", later()))
	for _, name := range []string{s.path, r.Path(), r.Path() + "/locks", r.Path() + "/locks/gc", filepath.Dir(pinFile(r, p))} {
		must(t, os.Chown(name, 12345, 12345))
	}
	asNobody(t, func() {
		if !found(t, r, p) {
			t.Error("a store that can be read does not serve")
		}
		if _, err := r.Lock(context.Background(), p.SHA, func(string) {}); fail.Of(err) != fail.PurgeCache || !strings.Contains(err.Error(), "12345") {
			t.Errorf("lock: %v (%v)", err, fail.Of(err))
		}
		if err := r.Write(pinOf(1, "b", later())); fail.Of(err) != fail.PurgeCache {
			t.Errorf("write: %v (%v)", err, fail.Of(err))
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"sha":"` + hex40(1) + `","commit":"` + hex40(1) + `","tree":"` + hex40(1) + `","packs":["pack-` + hex40(1) + `"]}`))
	f.Add([]byte(`{"version":1,"packs":["../x"],"sparse":[1]}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := Parse(raw)
		if err != nil {
			return
		}
		name := p.file()
		if strings.ContainsAny(name+p.SHA, "/\x00") || len(name) > 200 || !all(hexID, []string{p.SHA, p.Commit, p.Tree}) || !all(packName, p.Packs) || len(p.Packs) == 0 {
			t.Errorf("%q from %q: %+v", name, raw, p)
		}
		if !p.says(p) {
			t.Errorf("%+v is not itself", p)
		}
	})
}
