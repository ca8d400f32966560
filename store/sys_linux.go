package store

import (
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fsx"
)

// openUnnamed makes a file without a name on the file system of a directory (O_TMPFILE in open(2)).
func openUnnamed(dir, name string, perm uint32) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, perm)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// link gives a file without a name one. It needs /proc: to do it by descriptor alone is a right of root's.
func link(f *os.File, d *fsx.Dir, base string) error {
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), d.Fd(), base, unix.AT_SYMLINK_FOLLOW)
}

// noteUse sets when a file was last read, and leaves when it was modified. The file must be ours.
func noteUse(d *fsx.Dir, base string, now time.Time) {
	unix.UtimesNanoAt(d.Fd(), base, []unix.Timespec{unix.NsecToTimespec(now.UnixNano()), {Nsec: unix.UTIME_OMIT}}, unix.AT_SYMLINK_NOFOLLOW)
}
