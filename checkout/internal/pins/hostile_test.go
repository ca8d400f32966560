//go:build linux

package pins

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// odd makes what is no file of ours in the place of one.
func odd(t *testing.T) map[string]func(string) error {
	out := t.TempDir()
	must(t, os.WriteFile(out+"/precious", nil, 0o666))
	t.Cleanup(func() {
		if !exists(out + "/precious") {
			t.Error("what is outside of the store went")
		}
	})
	return map[string]func(string) error{
		"dir":           func(at string) error { return os.MkdirAll(at+"/x/y", 0o777) },
		"link":          func(at string) error { return os.Symlink(out, at) },
		"dangling link": func(at string) error { return os.Symlink("nowhere", at) },
		"loop":          func(at string) error { return os.Symlink(filepath.Base(at), at) },
		"fifo":          func(at string) error { return unix.Mkfifo(at, 0o666) },
	}
}

// Whatever stands where a file or directory of ours should, nobody fails but who needs a lock: readers see no pin, GC goes on and a publisher replaces it.
func TestHostileNames(t *testing.T) {
	p := pinOf(1, "a", later())
	places := []string{"", "/pins", "/pins/" + p.SHA, "/pins/" + p.SHA + "/" + p.file(), "/objects", "/objects/pack", "/incoming", "/incoming/x", "/damaged", "/locks",
		"/objects/pack/" + p.Packs[0] + ".pack", "/objects/pack/" + p.Packs[0] + ".idx", "/objects/pack/" + p.Packs[0] + ".condemned", "/objects/pack/x", "/objects/pack/" + p.Packs[0] + ".idx.dying"}
	kinds := odd(t)
	kinds["file"] = func(at string) error { return os.WriteFile(at, []byte("x"), 0o666) }
	for _, place := range places {
		for kind, make := range kinds {
			if kind == "dir" && (place == "" || strings.Count(place, "/") < 3 && place != "/incoming/x" && place != "/pins/"+p.SHA) {
				continue // as it should be
			}
			s, r := newRepo(t)
			put(t, r, p)
			at := r.Path() + place
			must(t, os.RemoveAll(at), make(at))
			fails := func(what string, err error) {
				if err != nil {
					t.Errorf("%q as %s: %s: %v", place, kind, what, err)
				}
			}
			_, err := r.Find(p.SHA, p.Shape, time.Now(), false)
			fails("find", err)
			_, err = r.Newest(0, time.Now())
			fails("newest", err)
			_, err = s.Pins()
			fails("list", err)
			for _, o := range []GC{{DryRun: true}, {Grace: time.Hour}, {Grace: 0, MaxSize: 1}} {
				o.Now = time.Now().Add(-time.Minute)
				_, err = s.GC(context.Background(), o)
				fails("gc", err)
			}
			fails("publish", publish(r, p, "xxxx"))
			if !found(t, r, p) {
				t.Errorf("%q as %s: what was published is not found", place, kind)
			}
			fails("set aside", r.SetAside(p))
			if found(t, r, p) {
				t.Errorf("%q as %s: what was set aside is found", place, kind)
			}
		}
	}
}

// A file that is no pin is not given, and goes when nobody can be about to rename it.
func TestNoPins(t *testing.T) {
	other := pinOf(1, "a", later())
	for name, content := range map[string]func(*testing.T, *Repo, string) error{
		"empty":      func(_ *testing.T, _ *Repo, at string) error { return os.WriteFile(at, nil, 0o666) },
		"null":       func(_ *testing.T, _ *Repo, at string) error { return os.WriteFile(at, []byte("null"), 0o666) },
		"list":       func(_ *testing.T, _ *Repo, at string) error { return os.WriteFile(at, []byte("[]"), 0o666) },
		"too large":  func(_ *testing.T, _ *Repo, at string) error { return os.Truncate(at, maxPin+1) },
		"of another": func(_ *testing.T, r *Repo, at string) error { return os.Rename(pinFile(r, other), at) },
		"socket": func(t *testing.T, _ *Repo, at string) error {
			must(t, os.Remove(at))
			t.Chdir(filepath.Dir(at)) // a socket's name is short
			l, err := net.Listen("unix", filepath.Base(at))
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, r := newRepo(t)
			p := put(t, r, pinOf(2, "a", later()))
			put(t, r, other)
			must(t, content(t, r, pinFile(r, p)))
			if found(t, r, p) {
				t.Error("it is found")
			}
			age(t, pinFile(r, p))
			collect(t, s, GC{Grace: time.Hour})
			if exists(pinFile(r, p)) {
				t.Error("it stays")
			}
		})
	}
}
