//go:build linux

package caches

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

// grown fills a stage from lines "name content"; a name that ends with / is a directory, "name -> target" a link.
func grown(t *testing.T, dir string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		name, content, _ := strings.Cut(l, " ")
		full := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(full), 0o755)
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = errors.Join(err, os.Symlink(target, full))
		} else if strings.HasSuffix(name, "/") {
			err = errors.Join(err, os.MkdirAll(full, 0o755))
		} else {
			err = errors.Join(err, os.WriteFile(full, []byte(content), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// found is what grown would have made.
func found(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		switch {
		case e.IsDir():
			if names, _ := os.ReadDir(p); len(names) == 0 {
				all = append(all, name+"/")
			}
		case e.Type()&os.ModeSymlink != 0:
			target, _ := os.Readlink(p)
			all = append(all, name+" -> "+target)
		default:
			b, err := os.ReadFile(p)
			all = append(all, name+" "+string(b))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

// landing lands a stage that has these lines at base/path.
func landing(t *testing.T, base, path string, lines ...string) error {
	t.Helper()
	to, err := openTarget(base, path, true)
	if err != nil {
		return err
	}
	defer to.close()
	s, err := to.newStage(t.Context())
	if err != nil {
		return err
	}
	defer s.discard()
	grown(t, fmt.Sprintf("/proc/self/fd/%d", s.dir.Fd()), lines...)
	if err := errors.Join(unix.Fchmod(s.dir.Fd(), 0o751), s.dir.SetTime(".", 1000, 5)); err != nil {
		t.Fatal(err)
	}
	d, err := s.land(t.Context(), true)
	if err == nil {
		d.Close()
	}
	return err
}

// What is there and not in the archive stays; what is in both is the archive's. The same holds where nothing can be exchanged: at a mount point.
func TestLand(t *testing.T) {
	needRoot(t)
	for _, mounted := range []bool{false, true} {
		for name, c := range map[string]struct{ before, archive, after []string }{
			"missing":              {nil, []string{"a 1", "b/c 2"}, []string{"a 1", "b/c 2"}},
			"empty":                {[]string{"."}, []string{"a 1"}, []string{"a 1"}},
			"an empty archive":     {[]string{"a 0"}, nil, []string{"a 0"}},
			"beside":               {[]string{"x 0", "d/y 0"}, []string{"a 1", "d/b 2", "e/"}, []string{"a 1", "d/b 2", "d/y 0", "e/", "x 0"}},
			"the same names":       {[]string{"a 0", "d/b 0"}, []string{"a 1", "d/b 2"}, []string{"a 1", "d/b 2"}},
			"a file, now a dir":    {[]string{"a 0"}, []string{"a/b 1"}, []string{"a/b 1"}},
			"a dir, now a file":    {[]string{"a/b 0"}, []string{"a 1"}, []string{"a 1"}},
			"a link, now a file":   {[]string{"a -> /etc/passwd"}, []string{"a 1"}, []string{"a 1"}},
			"a link, now a dir":    {[]string{"a -> ../outside"}, []string{"a/b 1"}, []string{"a/b 1"}},
			"a dir, now a link":    {[]string{"a/b 0"}, []string{"a -> ../outside"}, []string{"a -> ../outside"}},
			"links stay":           {[]string{"a -> ../outside", "d/l -> x"}, []string{"b 1", "d/c 1"}, []string{"a -> ../outside", "b 1", "d/c 1", "d/l -> x"}},
			"deep":                 {[]string{"a/b/c/d/e 0"}, []string{"a/b/c/f 1"}, []string{"a/b/c/d/e 0", "a/b/c/f 1"}},
			"what was killed once": {[]string{"a 0", landingName + "/a 5", landingName + "/d/e 5"}, []string{"b 1"}, []string{"a 5", "b 1", "d/e 5"}},
			"what was swept":       {[]string{stagePrefix + "0123/half 0"}, []string{"b 1"}, []string{"b 1"}},
		} {
			if name == "what was swept" && !mounted { // that is beside the target then
				continue
			}
			t.Run(fmt.Sprintf("%s, mounted %v", name, mounted), func(t *testing.T) {
				base := t.TempDir()
				grown(t, base, "outside/victim mine")
				if mounted {
					grown(t, base, "in/t/")
					if err := unix.Mount("tmpfs", base+"/in/t", "tmpfs", 0, ""); err != nil {
						t.Fatal(err)
					}
					defer unix.Unmount(base+"/in/t", unix.MNT_DETACH)
				}
				for _, l := range c.before {
					if l == "." {
						grown(t, base, "in/t/")
					} else {
						grown(t, base+"/in/t", l)
					}
				}
				if err := landing(t, base, "in/t", c.archive...); err != nil {
					t.Fatal(err)
				}
				if got, want := found(t, base+"/in/t"), strings.Join(c.after, "\n"); got != want {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
				if got := found(t, base+"/outside"); got != "victim mine" {
					t.Errorf("outside: %s", got)
				}
				if names, _ := os.ReadDir(base + "/in"); len(names) != 1 {
					t.Errorf("litter: %v", names)
				}
				if st, err := os.Stat(base + "/in/t"); err != nil || st.Mode().Perm() != 0o751 || st.ModTime().UnixNano() != 1000e9+5 {
					t.Errorf("%v, %v", st, err)
				}
			})
		}
	}
}

// The way to a target may have links of the user's, up to where others could have made them.
func TestTargetPaths(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	grown(t, dir, "base/sub/", "base/link -> ../outside", "outside/", "base/file x", "alias -> base")
	for path, want := range map[string]string{
		"sub/new": "", "new": "", "sub": "", "fresh/a/b": "", "./sub/../new2": "", "link/x": "link", "link": "link", "file/x": "link", "file": "link", dir + "/base/link/x": "link", "../x": "?",
	} {
		err := landing(t, dir+"/alias", path, "a 1")
		switch {
		case want == "?":
		case want == "" && err != nil, want != "" && (fail.Of(err) != fail.Usage || err == nil):
			t.Errorf("%s: %v", path, err)
		}
	}
	if got := found(t, dir+"/outside"); got != "" {
		t.Errorf("outside: %s", got)
	}
	if b, err := os.ReadFile(dir + "/base/file"); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
}

// Many land at one target at once: one after the other, each as a whole.
func TestLandAtOnce(t *testing.T) {
	base := t.TempDir()
	var all sync.WaitGroup
	errs := make(chan error, 16)
	for i := range 16 {
		all.Go(func() {
			errs <- landing(t, base, "t", fmt.Sprintf("own-%d x", i), fmt.Sprintf("a %d", i), fmt.Sprintf("b %d", i))
		})
	}
	all.Wait()
	for range 16 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	a, _ := os.ReadFile(base + "/t/a")
	b, _ := os.ReadFile(base + "/t/b")
	if len(a) == 0 || string(a) != string(b) {
		t.Errorf("a mix: %q and %q", a, b)
	}
	if names, _ := os.ReadDir(base); len(names) != 1 {
		t.Errorf("litter: %v", names)
	}
}

// After which commands what is saved.
func TestEnding(t *testing.T) {
	for _, c := range []struct {
		e    Ending
		want string
	}{
		{Ending{}, "on_success always"}, {Ending{Failed: true}, "on_failure always"}, {Ending{Failed: true, TimedOut: true}, "always"}, {Ending{TimedOut: true}, "always"},
		{Ending{Cancelled: true}, ""}, {Ending{Failed: true, Cancelled: true}, ""}, {Ending{TimedOut: true, Cancelled: true}, ""},
	} {
		var got []string
		for _, w := range []string{"on_success", "on_failure", "always"} {
			s, err := ParseArchive("path=p,key=k,when=" + w)
			if err != nil {
				t.Fatal(err)
			}
			if c.e.allows(s.When) {
				got = append(got, w)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %q, want %q", c.e, got, c.want)
		}
	}
}

// A save and a restore of a few bytes say so in one line each.
func TestSaveAndRestore(t *testing.T) {
	dir := t.TempDir()
	grown(t, dir, "work/tree/a 1", "work/tree/b/c 2")
	s, err := ParseArchive("path=tree,key=k,policy=pull-push,store=dir:" + dir + "/store")
	if err != nil {
		t.Fatal(err)
	}
	a := Archives{Specs: []ArchiveSpec{s}, Dir: dir + "/work"}
	log := logs.New(io.Discard, logs.Quiet, false)
	a.Store.Log = log
	run := func() *Archive {
		t.Helper()
		all, err := Restore(t.Context(), log, a)
		if err != nil {
			t.Fatal(err)
		}
		if err := Save(t.Context(), log, a, all, Ending{}); err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	if x := run(); x.Restored != Miss || x.Saved != Saved || x.Files != 2 {
		t.Errorf("%+v", x)
	}
	if err := os.RemoveAll(dir + "/work/tree"); err != nil {
		t.Fatal(err)
	}
	if x := run(); x.Restored != Hit || x.Saved != Unchanged {
		t.Errorf("%+v", x)
	}
	if got := found(t, dir+"/work/tree"); got != "a 1\nb/c 2" {
		t.Errorf("%s", got)
	}
}
