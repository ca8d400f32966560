package wire

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
	"run-task/tests/gitserver"
)

// What the task's user may not read is said with the user's number. File access is tried as uid 65534 on a thread of its
// own when the test runs as root, who may read everything.
func TestLocalNotReadable(t *testing.T) {
	for _, closed := range []string{"", ".git", ".git/objects/pack", ".git/objects", ".git/objects/pack/*.pack", ".git/objects/pack/*.idx", ".git/objects/[0-9a-f][0-9a-f]", ".git/objects/[0-9a-f][0-9a-f]/*", ".git/config", ".git/packed-refs"} {
		dir := t.TempDir()
		gitserver.Git(t, dir, "init", "-q")
		gitserver.Git(t, dir, "commit", "-q", "--allow-empty", "-m", "x")
		if !strings.Contains(closed, "[") {
			gitserver.Git(t, dir, "gc", "-q")
		}
		cl := newClient(t, dir, gitserver.Git(t, dir, "rev-parse", "HEAD"))
		cl.want.Depth = 0
		names, err := filepath.Glob(dir + "/" + closed)
		if err != nil || len(names) == 0 {
			t.Fatal(closed, err)
		}
		for _, name := range names {
			if err := os.Chmod(name, 0); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Chmod(name, 0o755) })
		}
		errs := make(chan error)
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			if os.Getuid() == 0 {
				if _, _, errno := syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0); errno != 0 {
					errs <- errno
					return
				}
			}
			_, err := cl.fetch()
			errs <- err
		}()
		if err := <-errs; fail.Of(err) != fail.IO || !strings.Contains(fail.Hint(err), "readable for uid") {
			t.Errorf("%q closed: %v (%v), hint %q", closed, err, fail.Of(err), fail.Hint(err))
		}
	}
}

// A repository of many packs does not use up the descriptors.
func TestLocalManyPacks(t *testing.T) {
	var b builder
	var tree []byte
	packs := make([]builder, 5*maxOpen)
	for i := range packs {
		tree = append(tree, treeLine("100644", fmt.Sprintf("%03d", i), packs[i].whole(plumbing.BlobObject, []byte{byte(i)}))...)
	}
	sha := b.commit(b.whole(plumbing.TreeObject, tree))
	repo := b.repository(t)
	for i := range packs {
		packs[i].write(t, fmt.Sprintf("%s/objects/pack/pack-%d", repo, i))
	}
	opened := func() (n int) {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if name, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(name, repo) {
				n++
			}
		}
		return n
	}
	err := fetchLocal(t.Context(), URL{Scheme: "file", Path: repo}, nil, Want{SHA: sha, Depth: 1}, func(_ context.Context, p Pack) (bool, error) {
		_, err := io.Copy(io.Discard, p)
		if n := opened(); n < maxOpen || n > maxOpen+4 {
			t.Errorf("%d files are open", n)
		}
		return true, err
	})
	if err != nil {
		t.Error(err)
	}
	if n := opened(); n != 0 {
		t.Errorf("%d files were left open", n)
	}
}
