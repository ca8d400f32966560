package wire

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"run-task/internal/fail"
	"run-task/tests/gitserver"
)

// What the task's user may not read is said with the user's number. File access is tried as uid 65534 on a thread of its
// own when the test runs as root, who may read everything.
func TestLocalNotReadable(t *testing.T) {
	for _, closed := range []string{"", ".git", ".git/objects/pack", ".git/objects"} {
		dir := t.TempDir()
		gitserver.Git(t, dir, "init", "-q")
		gitserver.Git(t, dir, "commit", "-q", "--allow-empty", "-m", "x")
		cl := newClient(t, dir, gitserver.Git(t, dir, "rev-parse", "HEAD"))
		if err := os.Chmod(dir+"/"+closed, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod(dir+"/"+closed, 0o755) })
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
