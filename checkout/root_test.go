//go:build linux

package checkout

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// ways has caches and volumes, links of the user's beside them, links of a task's in them, and directories outside.
func ways(t *testing.T) (dir string, o *Options) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	check(t, err)
	for _, name := range []string{"cache/sub/deep", "cache/inner", "volume", "out/sub", "second"} {
		check(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
	}
	for name, target := range map[string]string{
		"alias": "cache", "absolute": dir + "/cache/", "again": "alias", "here": ".", "up": "out/../../" + filepath.Base(dir), "beside": "out",
		"into": "cache/sub", "into-up": "out/../cache/sub/..", "into-inner": "cache/inner", "into-volume": "volume", "loop": "loop", "nowhere": "none/x", "into-none": "cache/none",
		"cache/leaves": "../out", "cache/stays": "sub", "cache/sub/second": dir + "/second", "cache/none-there": "../out/none", "volume/leaves": "../out",
	} {
		check(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	check(t, os.Chmod(dir+"/out/sub", 0o500))
	var keep []string
	for _, name := range []string{"cache/inner", "here/cache", "volume", "second", "missing"} {
		keep = append(keep, dir+"/"+name)
	}
	return dir, &Options{Keep: keep, MayClean: func(d string) bool {
		real, err := filepath.EvalSymlinks(d)
		return err == nil && real != dir+"/cache"
	}}
}

func TestOpenRoot(t *testing.T) {
	const refused = "refused"
	for path, want := range map[string]struct {
		at       string // what is opened
		mayClean bool
	}{
		"cache/src": {"cache/src", true}, "cache/new/er/src": {"cache/new/er/src", true}, "cache/sub": {"cache/sub", true}, "cache/inner": {"cache/inner", true},
		"cache/inner/src": {"cache/inner/src", true}, "cache": {"cache", false}, "alias": {"cache", false}, "alias/src": {"cache/src", true}, "absolute/sub": {"cache/sub", true},
		"again/new": {"cache/new", true}, "here/cache/src": {"cache/src", true}, "here/here/alias/sub": {"cache/sub", true}, "up/alias/sub": {"cache/sub", true},
		"volume": {"volume", true}, "volume/src": {"volume/src", true}, "into-volume": {"volume", true}, "into-volume/src": {"volume/src", true},
		"out/src": {"out/src", false}, "beside": {"out", false}, "beside/src/new": {"out/src/new", false}, "here/out/sub": {"out/sub", false},
		"cache/leaves": {refused, false}, "cache/leaves/src": {refused, false}, "cache/stays": {refused, false}, "cache/sub/second": {refused, false}, "cache/sub/second/src": {refused, false},
		"cache/none-there": {refused, false}, "cache/none-there/src": {refused, false}, "alias/leaves/sub": {refused, false}, "volume/leaves": {refused, false},
		"into": {refused, false}, "into/src": {refused, false}, "into/second/src": {refused, false}, "into-up/leaves": {refused, false}, "into-inner/src": {refused, false}, "into-none/src": {refused, false},
	} {
		dir, o := ways(t)
		root, mayClean, err := o.openRoot(filepath.Join(dir, path))
		if want.at == refused {
			if root != nil || fail.Of(err) != fail.Usage || fail.Hint(err) == "" || !strings.Contains(err.Error(), "link") {
				t.Errorf("%s: %v", path, err)
			}
			for _, made := range []string{"cache/none", "out/none", "out/src", "second/src", "cache/sub/src", "cache/inner/src"} {
				if _, err := os.Lstat(filepath.Join(dir, made)); err == nil {
					t.Errorf("%s: made %s", path, made)
				}
			}
		} else if err != nil {
			t.Errorf("%s: %v", path, err)
		} else {
			if real := root.Real(); real != filepath.Join(dir, want.at) || mayClean != want.mayClean {
				t.Errorf("%s: it is %q, and that it may be cleaned is %v", path, real, mayClean)
			}
			root.Close()
		}
		if info, err := os.Lstat(dir + "/out/sub"); err != nil || info.Mode().Perm() != 0o500 && want.at != "out/sub" {
			t.Errorf("%s: outside became %v, %v", path, info.Mode(), err)
		}
	}
	dir, o := ways(t)
	for _, path := range []string{"loop", "loop/src", "nowhere", "nowhere/src"} {
		if _, _, err := o.openRoot(filepath.Join(dir, path)); err == nil || fail.Of(err) != fail.IO {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Directories of ours that lack permissions get them, on the whole way through a cache; the bits that a program could use are left behind.
func TestOpenRootGivesPermissions(t *testing.T) {
	dir, o := ways(t)
	check(t, unix.Chmod(dir+"/cache/sub/deep", 0o7055), unix.Chmod(dir+"/cache/sub", 0))
	for range 2 {
		root, _, err := o.openRoot(dir + "/cache/sub/deep/src")
		check(t, err)
		check(t, root.Close())
	}
	for name, want := range map[string]uint32{"sub": 0o700, "sub/deep": 0o755} {
		var st unix.Stat_t
		check(t, unix.Lstat(dir+"/cache/"+name, &st))
		if st.Mode&0o7777 != want {
			t.Errorf("%s: %o", name, st.Mode&0o7777)
		}
	}
}

// While a directory on the way and a link to the outside change places, what is opened is in the cache or nothing is, and nothing outside changes.
func TestOpenRootWhileNamesChange(t *testing.T) {
	dir, o := ways(t)
	outside, err := fsx.Open(dir + "/out/sub")
	check(t, err)
	defer outside.Close()
	victim, err := outside.Stat()
	check(t, err)
	check(t, os.MkdirAll(dir+"/cache/way/sub", 0o755), os.Symlink("../out", dir+"/cache/link"), os.Symlink("../../out/sub", dir+"/cache/way/link"))
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			for _, in := range [][3]string{{dir + "/cache/way", "sub", "link"}, {dir + "/cache", "way", "link"}} {
				for range 2 {
					if err := unix.Renameat2(unix.AT_FDCWD, in[0]+"/"+in[1], unix.AT_FDCWD, in[0]+"/"+in[2], unix.RENAME_EXCHANGE); err != nil {
						<-stop
						stopped <- err
						return
					}
				}
			}
		}
	}()
	opened, refused := 0, 0
	for rounds := 0; rounds < 2000 || (opened == 0 || refused == 0) && rounds < 1_000_000; rounds++ { // who comes first is the machine's choice
		root, _, err := o.openRoot(dir + "/cache/way/sub")
		if err != nil {
			refused++
			continue
		}
		opened++
		if st, err := root.Stat(); err != nil || st.Ino == victim.Ino {
			t.Errorf("a link was followed, %v", err)
		}
		root.Close()
	}
	close(stop)
	check(t, <-stopped)
	if now, err := outside.Stat(); err != nil || now.Mode != victim.Mode {
		t.Errorf("outside became %o, %v", now.Mode, err)
	}
	if opened == 0 || refused == 0 {
		t.Errorf("%d times it was opened, %d times refused: this test looks at nothing", opened, refused)
	}
}
