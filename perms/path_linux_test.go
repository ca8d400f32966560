package perms

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

var quiet = logs.New(io.Discard, logs.Quiet, false)

// usage wants a user's error with a hint, that says which path it is about.
func usage(t *testing.T, path string, err error) {
	t.Helper()
	if fail.Of(err) != fail.Usage || fail.Hint(err) == "" || !strings.Contains(err.Error(), fmt.Sprintf("%q", path)) {
		t.Errorf("%q: %v (%v), hint %q", path, err, fail.Of(err), fail.Hint(err))
	}
}

// Nothing is not the working directory, and a NUL is no matter of user namespaces.
func TestNoPath(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	do(t, os.Mkdir(dir+"/empty", 0o755))
	t.Chdir(dir + "/empty")
	id := Identity{UID: me, GID: me, Groups: []int{me}, Root: true, Drop: true}
	for _, bad := range []string{"", "\x00", "a\x00b", dir + "/\x00/x", dir + "/empty\x00"} {
		usage(t, bad, Own(t.Context(), quiet, bad, me, me))
		usage(t, bad, Provide(quiet, []string{bad}, id))
		_, err := OpenDir(bad)
		usage(t, bad, err)
		if bad != "" && RootsAlone(bad) {
			t.Errorf("%q is no path of root's", bad)
		}
	}
	wantOwner(t, dir+"/empty", roots(0o755))
	usage(t, "file", func() error { write(t, "file"); return Provide(quiet, []string{"file/x"}, id) }())
}

// EINVAL is about ids only where ids were given.
func TestExplainInvalid(t *testing.T) {
	err := explain(needs(capChown, unix.EINVAL), "own", 5, 6)
	if fail.Of(err) != fail.OS || !strings.Contains(err.Error(), "uid 5 or gid 6 is not mapped") {
		t.Error(err)
	}
	for _, err := range []error{unix.EINVAL, needs(capFowner, unix.EINVAL)} {
		if err := explain(err, "own", 5, 6); fail.Of(err) != fail.IO || strings.Contains(err.Error(), "mapped") {
			t.Error(err)
		}
	}
}

func TestOpenDir(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	do(t, os.MkdirAll(top+"/dir/sub", 0o755), os.MkdirAll(top+"/users/sub", 0o755), os.Chown(top+"/users", me, me), os.Mkdir(top+"/open", 0o777), os.Chmod(top+"/open", 0o777),
		os.Symlink("dir", top+"/link"), os.Symlink("dir", top+"/theirs"), os.Lchown(top+"/theirs", me, me), os.Symlink("../dir", top+"/users/link"), os.Symlink("../dir", top+"/open/link"),
		os.Symlink("loop", top+"/loop"), os.Symlink("users/link", top+"/two"), os.Symlink("nowhere", top+"/dangling"))
	write(t, top+"/file")
	for _, good := range []string{"dir/sub", "link/sub", "users/sub", "users/../link/sub", "dir//sub/.", "open/../dir", "."} {
		d, err := OpenDir(top + "/" + good)
		if err != nil {
			t.Errorf("%s: %v", good, err)
			continue
		}
		got, err1 := d.Stat()
		var want unix.Stat_t
		do(t, err1, unix.Stat(top+"/"+filepath.Clean(good), &want), d.Close())
		if d.Name() != top+"/"+good || got.Ino != want.Ino {
			t.Errorf("%s: another directory, or %q", good, d.Name())
		}
	}
	long := strings.Repeat("x", 300)
	for _, bad := range []string{"none", "none/none", "file", "file/x", "link", "link/", "theirs/sub", "users/link/sub", "open/link/sub", "two/sub", "loop/x", "dangling/x", "dangling",
		"../../../../../../..", long, long + "/x"} {
		_, err := OpenDir(top + "/" + bad)
		usage(t, top+"/"+bad, err)
	}
	// Own opens as OpenDir does. It is not asked here: if it were broken it would give the machine away.
	for _, all := range []string{"/", "//", "/..", "/proc/self/root/."} {
		_, err := OpenDir(all)
		usage(t, all, err)
	}
}

func TestOwnTreeOfAnOpenDirectory(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	write(t, top+"/c/a/file")
	write(t, top+"/other/a/file")
	d, err := OpenDir(top + "/c")
	do(t, err)
	defer d.Close()
	do(t, os.Rename(top+"/c", top+"/moved"), os.Rename(top+"/other", top+"/c"))
	for _, uid := range []int{me, me + 1} { // it can be done again
		do(t, OwnTree(t.Context(), quiet, d, uid, me))
		wantOwner(t, top+"/moved/a/file", fmt.Sprintf("%d:%d 644", uid, me))
		wantOwner(t, top+"/c/a/file", roots(0o644))
	}
	if err := OwnTree(t.Context(), quiet, d, -1, me); fail.Of(err) != fail.Internal {
		t.Error(err)
	}
}

// Root's own directory below a sticky one, as all that is in /tmp is: nobody else can put another in its place.
func TestSticky(t *testing.T) {
	needRoot(t)
	id := Identity{UID: me, GID: me, Groups: []int{me}, Root: true, Drop: true}
	for name, c := range map[string]struct {
		plan func()
		dir  string // what is to be made
		safe bool
	}{
		"root's directory": {func() {}, "tmp/roots/x", true},
		"two of them": {func() {
			do(t, os.Mkdir("tmp/roots/tmp", 0o777), os.Chmod("tmp/roots/tmp", 0o777|os.ModeSticky), os.Mkdir("tmp/roots/tmp/in", 0o755))
		}, "tmp/roots/tmp/in/x", true},
		"root's and empty":            {func() {}, "tmp/roots", true},
		"nothing there":               {func() {}, "tmp/x", false},
		"and nothing deeper":          {func() {}, "tmp/x/y", false},
		"the directory itself":        {func() { do(t, os.Remove("tmp/roots")) }, "tmp", false},
		"not sticky":                  {func() { do(t, os.Chmod("tmp", 0o777)) }, "tmp/roots/x", false},
		"somebody's sticky directory": {func() { do(t, os.Chown("tmp", me+1, 0)) }, "tmp/roots/x", false},
		"somebody's directory in it":  {func() { do(t, os.Chown("tmp/roots", me+1, 0)) }, "tmp/roots/x", false},
		"everybody may write to it":   {func() { do(t, os.Chmod("tmp/roots", 0o757)) }, "tmp/roots/x", false},
		"its group may write to it":   {func() { do(t, os.Chown("tmp/roots", 0, me), os.Chmod("tmp/roots", 0o775)) }, "tmp/roots/x", false},
		"sticky, too":                 {func() { do(t, os.Chmod("tmp/roots", 0o777|os.ModeSticky)) }, "tmp/roots/x", false},
		"two that are sticky":         {func() { do(t, os.Mkdir("tmp/roots/in", 0o755), os.Chmod("tmp/roots", 0o777|os.ModeSticky)) }, "tmp/roots/in/x", false},
		"a file":                      {func() { do(t, os.WriteFile("tmp/file", nil, 0o644)) }, "tmp/file", false},
		"root's link":                 {func() { do(t, os.Symlink("../elsewhere", "tmp/link")) }, "tmp/link/x", false},
		"somebody's link":             {func() { do(t, os.Symlink("../elsewhere", "tmp/link"), os.Lchown("tmp/link", me, me)) }, "tmp/link/x", false},
		"a link to it in root's":      {func() { do(t, os.Symlink("tmp/roots", "link")) }, "link/x", true},
		"somebody's link deeper": {func() {
			do(t, os.Mkdir("tmp/roots/users", 0o755), os.Symlink("../../../elsewhere", "tmp/roots/users/link"), os.Chown("tmp/roots/users", me, me))
		}, "tmp/roots/users/link/x", false},
		"root's after somebody's": {func() {
			do(t, os.MkdirAll("users/tmp/roots", 0o755), os.Chmod("users/tmp", 0o777|os.ModeSticky), os.Chown("users", me, me))
		}, "users/tmp/roots/x", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			do(t, os.MkdirAll("tmp/roots", 0o755), os.Chmod("tmp", 0o777|os.ModeSticky), os.Mkdir("elsewhere", 0o755))
			c.plan()
			if got := RootsAlone(c.dir); got != c.safe {
				t.Errorf("RootsAlone is %v", got)
			}
			before := ctimes(t, "tmp", "elsewhere")
			do(t, Provide(quiet, []string{c.dir}, id))
			var st unix.Stat_t
			err := unix.Lstat(c.dir, &st)
			if got := err == nil && st.Uid == me; got != c.safe {
				t.Errorf("made or given: %v", got)
			}
			if !c.safe && before != ctimes(t, "tmp", "elsewhere") {
				t.Error("root changed something")
			}
		})
	}
}

// A link is not trusted again because root's own directories follow.
func TestStickyDoesNotRestoreTrust(t *testing.T) {
	needRoot(t)
	t.Chdir(t.TempDir())
	do(t, os.MkdirAll("users/tmp/roots", 0o755), os.Chmod("users/tmp", 0o777|os.ModeSticky), os.Chown("users", me, me),
		os.MkdirAll("elsewhere/x", 0o755), os.Symlink("../../../elsewhere", "users/tmp/roots/link"))
	if _, _, err := descend("users/tmp/roots/link/x", nil); !errors.Is(err, errForeignLink) {
		t.Error(err)
	}
	do(t, os.Chown("users", 0, 0))
	fd, rest, err := descend("users/tmp/roots/link/x", nil)
	if err != nil || len(rest) > 0 {
		t.Fatal(rest, err)
	}
	unix.Close(fd)
}
