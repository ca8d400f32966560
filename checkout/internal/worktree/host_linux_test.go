package worktree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

// again runs the calling test once more in a process of another kind, where again is true. It fails as that one does.
func again(t *testing.T, binary string, attr *syscall.SysProcAttr, env ...string) bool {
	if os.Getenv("WORKTREE_AGAIN") == t.Name() {
		return true
	}
	cmd := exec.Command(binary, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(append(os.Environ(), "WORKTREE_AGAIN="+t.Name()), env...)
	cmd.Dir, cmd.SysProcAttr = "/", attr
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

// inNamespace gives the test mounts of its own, without root too.
func inNamespace(t *testing.T) bool {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if !again(t, os.Args[0], attr) {
		return false
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	return true
}

func mount(t *testing.T, source, target, kind string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
}

// A volume inside the checkout, on the same disk or not, is neither emptied nor written to.
func TestMountPoints(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	r, c := sample(t)
	w := newWork(t)
	w.must(r, c, Options{})
	volume := t.TempDir()
	write(t, filepath.Join(volume, "sub/precious"), "x", 0o644)
	write(t, filepath.Join(volume, "file"), "x", 0o644)
	for _, name := range []string{"vol", "stray/deep/vol", "stray/other", "mem"} {
		os.MkdirAll(w.path(name), 0o777)
		write(t, w.path(filepath.Dir(name)+"/strayfile"), "x", 0o644)
	}
	write(t, w.path("stray/mounted file"), "", 0o644)
	mount(t, volume, w.path("vol"), "", unix.MS_BIND, "")
	mount(t, volume, w.path("stray/deep/vol"), "", unix.MS_BIND, "")
	mount(t, filepath.Join(volume, "file"), w.path("stray/mounted file"), "", unix.MS_BIND, "")
	mount(t, "none", w.path("mem"), "tmpfs", 0, "")
	write(t, w.path("mem/precious"), "x", 0o644)
	if err := w.root.RemoveAll("stray/deep"); !errors.Is(err, unix.EXDEV) {
		t.Error(err)
	}
	write(t, w.path("stray/deep/strayfile"), "x", 0o644)
	sum := w.must(r, c, Options{})
	if sum.Removed != 4 || !slices.Contains(sum.Notes, `4 mount points among what is not in the commit, left alone: "mem" and others`) {
		t.Errorf("%+v\n%s", sum, w.out.String())
	}
	for _, name := range []string{"vol/sub/precious", "stray/deep/vol/sub/precious", "stray/mounted file", "mem/precious"} {
		if _, err := os.Stat(w.path(name)); err != nil {
			t.Error(err)
		}
	}
	mount(t, volume, w.path("a/b"), "", unix.MS_BIND, "")
	write(t, w.path("stray2"), "x", 0o644)
	for _, clean := range []Clean{All, None} {
		if _, err := w.checkout(r, c, Options{Clean: clean}); fail.Of(err) != fail.Usage || !strings.Contains(err.Error(), `"a/b" is a mount point`) {
			t.Error(err)
		}
	}
	if _, err := os.Stat(w.path("stray2")); err != nil {
		t.Error("something was removed:", err)
	}
}

func TestFullAndReadOnlyDisks(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	r := newRepo(t)
	r.write("big", strings.Repeat("x", 1<<20), 0o644)
	c := r.commitAll()
	log := logs.New(io.Discard, logs.Quiet, false)
	w := newWork(t)
	w.take(r, c)
	_, tree, _ := w.store.Commit(c)
	small := t.TempDir()
	mount(t, "none", small, "tmpfs", 0, "size=64k")
	d := openDir(t, small)
	if _, err := Write(ctx, log, d, w.gitdir, tree, w.store, Options{}); !errors.Is(err, unix.ENOSPC) || fail.Of(err) != fail.IO {
		t.Error(err)
	}
	d.RemoveAll("big")
	random := make([]byte, 1<<20)
	if f, err := os.Open("/dev/urandom"); err != nil {
		t.Fatal(err)
	} else if _, err := io.ReadFull(f, random); err != nil {
		t.Fatal(err)
	}
	r.write("big", string(random), 0o644)
	pack := r.git(r.commitAll().String()+"\n", "pack-objects", "-q", "--stdout", "--revs")
	if _, err := receive(ctx, d, strings.NewReader(pack), plain); !errors.Is(err, unix.ENOSPC) || fail.Of(err) != fail.IO {
		t.Error(err)
	}
	if names, _ := d.Names(); len(names) != 0 {
		t.Errorf("left over: %q", names)
	}
	if err := unix.Mount("", small, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(ctx, log, d, w.gitdir, tree, w.store, Options{}); !errors.Is(err, unix.EROFS) || fail.Of(err) != fail.IO {
		t.Error(err)
	}
}

// What another uid left is named before anything is removed. The test prepares as root and then is uid 54321.
func TestForeignOwned(t *testing.T) {
	const uid = 54321
	if dir := os.Getenv("WORKTREE_DIR"); dir != "" {
		asOther(t, dir)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make another uid's files")
	}
	base, err := os.MkdirTemp("", "foreign")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	os.Chmod(base, 0o777)
	binary := filepath.Join(base, "test")
	if b, err := os.ReadFile("/proc/self/exe"); err != nil || os.WriteFile(binary, b, 0o755) != nil {
		t.Fatal("cannot copy the test:", err)
	}
	r, c := sample(t)
	own := func(name string, id int) {
		if err := os.Lchown(name, id, id); err != nil {
			t.Fatal(err)
		}
	}
	for i, cs := range []struct {
		want string // "" for success
		prep func(w *work)
	}{
		{"", func(w *work) {}},
		{"", func(w *work) { // a foreign file in our directory can be replaced, an empty foreign directory too
			own(w.path("README"), 0)
			write(t, w.path("root's"), "x", 0)
			os.Mkdir(w.path("root's dir"), 0o755)
			os.Mkdir(w.path("root's closed dir"), 0o555)
		}},
		{`"zz/theirs" belongs to uid 0`, func(w *work) {
			write(t, w.path("zz/theirs/x"), "x", 0o644)
			own(w.path("zz"), uid)
		}},
		{`"zz/closed" belongs to uid 0`, func(w *work) {
			os.MkdirAll(w.path("zz/closed"), 0o700)
			own(w.path("zz"), uid)
		}},
		{`"a/b" belongs to uid 0`, func(w *work) { own(w.path("a/b"), 0) }},
		{`"sticky/theirs" belongs to uid 0`, func(w *work) {
			write(t, w.path("sticky/theirs"), "x", 0o644)
			os.Chmod(w.path("sticky"), os.ModeSticky|0o777)
		}},
		{`"." belongs to uid 0`, func(w *work) { own(w.dir, 0) }},
	} {
		w := newWork(t)
		w.must(r, c, Options{})
		dir := filepath.Join(base, fmt.Sprint(i))
		if err := os.Rename(w.dir, dir); err != nil {
			t.Fatal(err)
		}
		filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
			own(p, uid)
			return err
		})
		w.dir = dir
		write(t, w.path("0stray"), "x", 0o644)
		cs.prep(w)
		_, tree, _ := w.store.Commit(c)
		again(t, binary, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}},
			"WORKTREE_DIR="+dir, "WORKTREE_PACK="+w.store.Names()[0], "WORKTREE_TREE="+tree.String(), "WORKTREE_WANT="+cs.want, "TMPDIR="+base)
		var st unix.Stat_t
		if err := unix.Lstat(w.path("README"), &st); err != nil || cs.want == "" && st.Uid != uid {
			t.Errorf("%d: README belongs to uid %d: %v", i, st.Uid, err)
		}
		if _, err := os.Lstat(w.path("0stray")); (err == nil) != (cs.want != "") {
			t.Errorf("%d: half deleted, or not at all: %v", i, err)
		}
	}
}

func asOther(t *testing.T, dir string) {
	if os.Geteuid() == 0 {
		t.Fatal("still root")
	}
	root, gitdir := openDir(t, dir), openDir(t, filepath.Join(dir, ".git"))
	pack, err := os.Open(filepath.Join(dir, ".git/objects/pack", os.Getenv("WORKTREE_PACK")+".pack"))
	if err != nil {
		t.Fatal(err)
	}
	defer pack.Close()
	s, err := receive(ctx, openDir(t, t.TempDir()), pack, plain)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = Write(ctx, logs.New(io.Discard, logs.Quiet, false), root, gitdir, plumbing.NewHash(os.Getenv("WORKTREE_TREE")), s, Options{})
	want := os.Getenv("WORKTREE_WANT")
	if want == "" && err != nil || want != "" && (fail.Of(err) != fail.PurgeCache || !strings.Contains(err.Error(), want)) {
		t.Errorf("%v, not %q", err, want)
	}
}
