//go:build linux

package pins

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
)

// A pin that cannot be read may be live: nothing goes that it may need.
func TestUnreadableIsKept(t *testing.T) {
	for _, what := range []string{"pin", "its directory", "all pins", "packs"} {
		s, r := newRepo(t)
		other := s.Repo("https://h/other", "")
		p, gone := put(t, r, pinOf(1, "a", later())), pinOf(2, "a", time.Now().Add(-time.Hour))
		gone.URL = "https://h/other"
		put(t, other, gone)
		openToAll(t, s.path)
		at := map[string]string{"pin": pinFile(r, p), "its directory": filepath.Dir(pinFile(r, p)), "all pins": r.Path() + "/pins", "packs": filepath.Dir(packFile(r, p, ""))}[what]
		must(t, os.Chmod(at, 0))
		t.Cleanup(func() { os.Chmod(at, 0o777) })
		asNobody(t, func() {
			if f, err := s.GC(context.Background(), GC{Now: time.Now()}); !errors.Is(err, fs.ErrPermission) || f.Packs != 1 {
				t.Errorf("%s: %+v, %v: the other repository has a pack to remove", what, f, err)
			}
			if _, err := r.see(p); what == "packs" && !errors.Is(err, fs.ErrPermission) {
				t.Errorf("nobody can know whether the packs are there: %v", err)
			}
			if got, err := r.Newest(0, time.Now()); got != nil || err != nil && what != "all pins" {
				t.Errorf("%s: %+v, %v", what, got, err)
			}
		})
		must(t, os.Chmod(at, 0o777))
		if !found(t, r, p) {
			t.Errorf("%s: a live pin or its packs went", what)
		}
	}
}

// Two tasks find the same damage: the second leaves what the first has fetched again.
func TestSetAsideTwice(t *testing.T) {
	_, r := newRepo(t)
	p := put(t, r, pinOf(1, "a", later()))
	must(t, r.Write(pinOf(1, "b", later())))
	first, err := r.Find(p.SHA, p.Shape, time.Now(), false)
	must(t, err)
	second, err := r.Find(p.SHA, p.Shape, time.Now(), false)
	must(t, err, r.SetAside(first))
	if exists(packFile(r, p, ".pack")) || exists(packFile(r, p, ".idx")) || exists(pinFile(r, p)) || exists(pinFile(r, pinOf(1, "b", later()))) {
		t.Error("a damaged pack or its pins stay")
	}
	must(t, publish(r, p, "good"), r.SetAside(second))
	if !found(t, r, p) {
		t.Error("what was fetched again went")
	}
	must(t, r.SetAside(p))
	if found(t, r, p) {
		t.Error("what Publish has seen is not set aside")
	}
}

// A pin that is written anew after it was read is not removed for what it said before.
func TestForgetLeavesNewPins(t *testing.T) {
	_, r := newRepo(t)
	p := put(t, r, pinOf(1, "a", time.Now().UTC()))
	old := r.at(p.SHA, p.file())
	must(t, r.forget(old))
	if exists(pinFile(r, p)) {
		t.Error("it stays")
	}
	put(t, r, p)
	old = r.at(p.SHA, p.file())
	renewed := pinOf(1, "a", later())
	must(t, r.Write(renewed), r.forget(old))
	if !found(t, r, renewed) {
		t.Error("the new one went")
	}
}

// What has the name of a quarantine's lock and is none keeps it for an hour.
func TestSweepOddLocks(t *testing.T) {
	for kind, make := range map[string]func(string) error{
		"dir":  func(at string) error { return os.MkdirAll(at+"/x", 0o777) },
		"link": func(at string) error { return os.Symlink("nowhere", at) },
		"file": func(at string) error { return os.WriteFile(at, nil, 0o666) },
		"none": func(string) error { return nil },
	} {
		_, r := newRepo(t)
		put(t, r, pinOf(1, "a", later()))
		at := r.Path() + "/incoming/h-1-2"
		must(t, os.Mkdir(at, 0o777), make(at+"/lock"))
		put(t, r, pinOf(2, "a", later()))
		if odd := kind == "dir" || kind == "link"; exists(at) != odd {
			t.Errorf("%s: young, it is there: %v", kind, exists(at))
		}
		if exists(at) {
			age(t, at)
		}
		put(t, r, pinOf(3, "a", later()))
		if exists(at) {
			t.Errorf("%s: it is never swept", kind)
		}
	}
}

// Others cannot fetch what has no lock, and are told what to do.
func TestOddLocks(t *testing.T) {
	for _, name := range []string{"gc", "want-" + hex40(1)} {
		for kind, make := range odd(t) {
			s, r := newRepo(t)
			must(t, os.MkdirAll(r.Path()+"/locks", 0o777), make(r.Path()+"/locks/"+name))
			if err := publish(r, pinOf(1, "a", later()), ""); fail.Of(err) != fail.PurgeCache {
				t.Errorf("%s as %s: %v (%v)", name, kind, err, fail.Of(err))
			}
			if _, err := s.GC(context.Background(), GC{Now: time.Now()}); name == "gc" && fail.Of(err) != fail.PurgeCache || name != "gc" && err != nil {
				t.Errorf("%s as %s: gc: %v", name, kind, err)
			}
		}
	}
}

// A file system that has no flock(2) is said to be one: nothing is done without a lock.
func TestNoLocks(t *testing.T) {
	for _, errno := range []unix.Errno{unix.ENOLCK, unix.ENOSYS, unix.EOPNOTSUPP, unix.EINVAL} {
		if err := noLocks(os.NewSyscallError("flock", errno)); fail.Of(err) != fail.OS || fail.Hint(err) == "" {
			t.Errorf("%v: %v, hint %q", errno, err, fail.Hint(err))
		}
	}
	if err := noLocks(os.NewSyscallError("flock", unix.EIO)); fail.Of(err) != fail.IO {
		t.Errorf("EIO: %v", err)
	}
}
