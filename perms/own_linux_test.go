package perms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
)

const me = 4711 // an owner that is nobody

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// namespaced runs the test again in a process of its own with new namespaces, and is true there.
func namespaced(t *testing.T, flags uintptr) bool {
	t.Helper()
	needRoot(t)
	const child = "PERMS_TEST_NAMESPACED"
	if os.Getenv(child) == t.Name() {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), child+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: flags}
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func mountTmpfs(t *testing.T, at, options string, flags uintptr) {
	t.Helper()
	do(t, unix.Mount("tmpfs", at, "tmpfs", flags, options))
	t.Cleanup(func() { do(t, unix.Unmount(at, unix.MNT_DETACH)) })
}

func write(t *testing.T, name string) string {
	t.Helper()
	do(t, os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(name), 0o644))
	return name
}

// calm waits until files that were just made are no longer new to Own: as good as any file in a cache.
func calm(t *testing.T) {
	t.Helper()
	<-time.After(3 * tick)
}

func own(t *testing.T, dir string) string {
	t.Helper()
	var out bytes.Buffer
	if err := Own(t.Context(), logs.New(&out, logs.Verbose, false), dir, me, me); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func owner(t *testing.T, name string) string {
	t.Helper()
	var st unix.Stat_t
	do(t, unix.Lstat(name, &st))
	return fmt.Sprintf("%d:%d %o", st.Uid, st.Gid, st.Mode&0o7777)
}

func wantOwner(t *testing.T, name, want string) {
	t.Helper()
	if got := owner(t, name); got != want {
		t.Errorf("%s is %s, not %s", name, got, want)
	}
}

func mine(mode int) string  { return fmt.Sprintf("%d:%d %o", me, me, mode) }
func roots(mode int) string { return fmt.Sprintf("0:0 %o", mode) }

func TestOwnTree(t *testing.T) {
	needRoot(t)
	for _, young := range []bool{true, false} {
		top := t.TempDir()
		outside := t.TempDir()
		victim := write(t, outside+"/victim")
		write(t, top+"/a/b/file")
		write(t, top+"/a/set")
		do(t, os.Chmod(top+"/a/set", 0o755|fs.ModeSetuid),
			os.Symlink(victim, top+"/to-file"), os.Symlink(outside, top+"/to-dir"), os.Symlink("nowhere", top+"/dangling"), os.Symlink("..", top+"/a/up"),
			unix.Mkfifo(top+"/fifo", 0o600), unix.Mknod(top+"/socket", unix.S_IFSOCK|0o600, 0), unix.Mknod(top+"/null", unix.S_IFCHR|0o600, 1<<8|3),
			os.Mkdir(top+"/shut", 0o000), os.Mkdir(top+"/readonly", 0o555))
		write(t, top+"/shut/inside")
		if !young {
			calm(t)
		}
		out := own(t, top)
		for name, mode := range map[string]int{"": 0o755, "/a": 0o755, "/a/b": 0o755, "/a/b/file": 0o644, "/a/set": 0o755, "/to-file": 0o777, "/to-dir": 0o777,
			"/dangling": 0o777, "/a/up": 0o777, "/fifo": 0o600, "/socket": 0o600, "/shut": 0o700, "/shut/inside": 0o644, "/readonly": 0o755} {
			wantOwner(t, top+name, mine(mode))
		}
		wantOwner(t, top+"/null", roots(0o600))
		wantOwner(t, victim, roots(0o644))
		wantOwner(t, outside, roots(0o755))
		if want := fmt.Sprintf("owned %q: 15 entries, 14 changed, ", top); !strings.HasPrefix(out, want) || !strings.HasSuffix(out, "s, 1 skipped: devices\n") {
			t.Errorf("young %v: %q", young, out)
		}
		if out := own(t, top); !strings.Contains(out, ": 15 entries, 0 changed, ") {
			t.Errorf("again: %q", out)
		}
	}
}

// A warm cache is not written to: not even a ctime moves.
func TestOwnWritesNothingTwice(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	file := write(t, top+"/a/file")
	own(t, top)
	before := ctimes(t, top, top+"/a", file)
	calm(t)
	own(t, top)
	if after := ctimes(t, top, top+"/a", file); before != after {
		t.Errorf("%s became %s", before, after)
	}
}

func ctimes(t *testing.T, names ...string) (all string) {
	for _, n := range names {
		var st unix.Stat_t
		do(t, unix.Lstat(n, &st))
		all += fmt.Sprint(st.Ctim.Sec, ".", st.Ctim.Nsec, " ")
	}
	return all
}

func TestOwnHardLinks(t *testing.T) {
	needRoot(t)
	base := t.TempDir()
	top := base + "/top"
	shadow := write(t, base+"/shadow")
	inside := write(t, top+"/a/x")
	do(t, os.Link(shadow, base+"/shadow2"), os.Link(shadow, top+"/innocent"), os.Link(shadow, top+"/a/again"),
		os.Mkdir(top+"/b", 0o755), os.Link(inside, top+"/b/y"), os.Link(inside, top+"/z"),
		os.Symlink("x", top+"/a/link"), os.Link(top+"/a/link", base+"/link"))
	for _, young := range []bool{true, false} {
		if !young {
			calm(t)
		}
		out := own(t, top)
		wantOwner(t, shadow, roots(0o644))
		wantOwner(t, base+"/link", roots(0o777))
		wantOwner(t, inside, mine(0o644))
		if !strings.Contains(out, ", 3 skipped: linked from elsewhere\n") {
			t.Errorf("%q", out)
		}
	}
	do(t, os.Remove(shadow), os.Remove(base+"/shadow2")) // now all links are inside
	own(t, top)
	wantOwner(t, top+"/innocent", mine(0o644))
}

func TestOwnMounts(t *testing.T) {
	if !namespaced(t, syscall.CLONE_NEWNS) {
		return
	}
	mountsUntouched(t, func(top string) string { return own(t, top) })
}

// mountsUntouched calls own for a tree with mounts of the same file system in it.
func mountsUntouched(t *testing.T, own func(top string) string) {
	base := t.TempDir()
	top := base + "/top"
	file, dir := write(t, base+"/file"), filepath.Dir(write(t, base+"/dir/inside"))
	onFile, onDir, onSame := write(t, top+"/file"), top+"/sub/dir", write(t, top+"/same")
	do(t, os.MkdirAll(onDir, 0o755), os.Mkdir(top+"/tmpfs", 0o755))
	calm(t)
	do(t, unix.Mount(file, onFile, "", unix.MS_BIND, ""), unix.Mount(dir, onDir, "", unix.MS_BIND, ""),
		unix.Mount("tmpfs", top+"/tmpfs", "tmpfs", 0, ""), unix.Mount(onSame, onSame, "", unix.MS_BIND, ""))
	defer func() {
		do(t, unix.Unmount(onFile, 0), unix.Unmount(onDir, 0), unix.Unmount(top+"/tmpfs", 0), unix.Unmount(onSame, 0))
	}()
	out := own(top)
	wantOwner(t, file, roots(0o644))
	wantOwner(t, dir, roots(0o755))
	wantOwner(t, dir+"/inside", roots(0o644))
	wantOwner(t, onSame, roots(0o644))
	wantOwner(t, top+"/tmpfs", roots(0o1777))
	wantOwner(t, top+"/sub", mine(0o755))
	if !strings.Contains(out, ", 4 mounted there and skipped") {
		t.Errorf("%q", out)
	}
}

// A path longer than PATH_MAX, deeper than there are descriptors.
func TestOwnDeepTree(t *testing.T) {
	if !namespaced(t, syscall.CLONE_NEWNS) {
		return
	}
	const depth = 12000
	top := t.TempDir()
	mountTmpfs(t, top, "", 0)
	fd, err := unix.Open(top, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	do(t, err)
	for range depth {
		do(t, unix.Mkdirat(fd, "directory", 0o755), unix.Mkdirat(fd, "another", 0o755))
		next, err := unix.Openat(fd, "directory", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		do(t, err, unix.Close(fd))
		fd = next
	}
	defer unix.Close(fd)
	calm(t)
	do(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 400, Max: 400}))
	if out := own(t, top); !strings.Contains(out, fmt.Sprintf(": %d entries, %d changed, ", 2*depth+1, 2*depth+1)) {
		t.Errorf("%q", out)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Uid != me {
		t.Errorf("the deepest is uid %d, %v", st.Uid, err)
	}
}

func TestOwnImmutable(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	file := write(t, top+"/immutable")
	write(t, top+"/other")
	f, err := os.Open(file)
	do(t, err)
	defer f.Close()
	const immutable = 0x10 // FS_IMMUTABLE_FL
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, immutable); err != nil {
		t.Skipf("this file system has no immutable files: %v", err)
	}
	defer unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0)
	out := own(t, top)
	wantOwner(t, file, roots(0o644))
	wantOwner(t, top+"/other", mine(0o644))
	if !strings.Contains(out, ", 1 refused by the file system\n") || !strings.Contains(out, fmt.Sprintf("refused to change %q", file)) {
		t.Errorf("%q", out)
	}
}

func TestOwnReadOnly(t *testing.T) {
	if !namespaced(t, syscall.CLONE_NEWNS) {
		return
	}
	top := t.TempDir()
	mountTmpfs(t, top, "", unix.MS_RDONLY)
	err := Own(t.Context(), logs.New(&bytes.Buffer{}, logs.Normal, false), top, me, me)
	if fail.Of(err) != fail.IO || !errors.Is(err, unix.EROFS) {
		t.Errorf("%v", err)
	}
}

func TestOwnTop(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	file := write(t, top+"/file")
	dir := top + "/dir"
	do(t, os.Mkdir(dir, 0o755), os.Symlink(dir, top+"/link"), os.Mkdir(dir+"/sub", 0o755),
		os.Mkdir(top+"/open", 0o777), os.Chmod(top+"/open", 0o777), os.Symlink(dir, top+"/open/link"), os.Symlink("dir", top+"/rel"))
	log := logs.New(&bytes.Buffer{}, logs.Normal, false)
	for _, bad := range []string{file, top + "/link", top + "/link/", top + "/none", top + "/none/deeper", top + "/open/link/sub"} {
		if err := Own(t.Context(), log, bad, me, me); fail.Of(err) != fail.Usage || fail.Hint(err) == "" {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if s := owner(t, dir); s != roots(0o755) {
		t.Fatal(s)
	}
	if err := Own(t.Context(), log, dir, -1, 1<<32-1); fail.Of(err) != fail.Internal {
		t.Errorf("ids: %v", err)
	}
	own(t, dir+"/../dir/")
	wantOwner(t, dir+"/sub", mine(0o755))
	t.Chdir(top)
	do(t, os.Chown("dir/sub", 0, 0))
	own(t, "dir")
	wantOwner(t, dir+"/sub", mine(0o755))
}

// A link on the way that only root can have made is followed: /tmp may itself be below one.
func TestOwnTopThroughRootsLink(t *testing.T) {
	if !namespaced(t, syscall.CLONE_NEWNS) {
		return
	}
	base := t.TempDir()
	mountTmpfs(t, "/mnt", "mode=755", 0)
	do(t, os.Symlink(base, "/mnt/link"), os.Mkdir(base+"/dir", 0o755))
	own(t, "/mnt/link/dir")
	wantOwner(t, base+"/dir", mine(0o755))
	do(t, os.Lchown("/mnt/link", me, me))
	if err := Own(t.Context(), logs.New(&bytes.Buffer{}, logs.Normal, false), "/mnt/link/dir", 0, 0); fail.Of(err) != fail.Usage {
		t.Errorf("%v", err)
	}
}

func TestOwnCancelled(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	file := write(t, top+"/a/file")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fail.ErrInterrupted)
	var out bytes.Buffer
	if err := Own(ctx, logs.New(&out, logs.Normal, false), top, me, me); fail.Of(err) != fail.Interrupted || out.Len() > 0 {
		t.Errorf("%v, %q", err, &out)
	}
	wantOwner(t, file, roots(0o644))
}

func TestOwnDir(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	file := write(t, top+"/file")
	do(t, os.Chmod(top, 0o050))
	d, err := fsx.Open(top)
	do(t, err)
	defer d.Close()
	do(t, OwnDir(d, me, me))
	wantOwner(t, top, mine(0o750))
	wantOwner(t, file, roots(0o644))
}
