package fsx

import (
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

func fromStat(st *unix.Stat_t) Stat {
	return Stat{
		Dev: uint64(st.Dev), Ino: st.Ino, Nlink: uint64(st.Nlink), Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size, Blocks: int64(st.Blocks),
		MtimeSec: int64(st.Mtim.Sec), MtimeNsec: int64(st.Mtim.Nsec), CtimeSec: int64(st.Ctim.Sec), CtimeNsec: int64(st.Ctim.Nsec),
	}
}

// makeWritable gives a directory of ours that cannot be opened u+rwx: it is the directory that was looked at that changes, whatever has its name by
// then. Linux before 6.6 needs /proc for that.
func makeWritable(at int, base string, flags int) error {
	fd, err := retry(func() (int, error) {
		return unix.Openat(at, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|flags, 0)
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() {
		return unix.EPERM
	}
	perm := st.Mode&0o777 | 0o700
	if err := unix.Fchmodat(fd, "", perm, unix.AT_EMPTY_PATH); err == nil {
		return nil
	}
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), perm)
}

// Real is where the directory is now, with no link in it; "" if the system does not say.
func (d *Dir) Real() string {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", d.fd))
	if err != nil || !path.IsAbs(name) {
		return ""
	}
	return name
}

// mountRoot says whether a mount begins at name; ok is false where the kernel cannot tell.
func mountRoot(fd int, name string) (mount, ok bool) {
	var st unix.Statx_t
	if err := unix.Statx(fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st); err != nil {
		return false, false
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// Clone makes an empty file share the blocks of another one, if the file system can (ioctl_ficlone(2)).
func Clone(to, from *os.File) error { return unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) }

func setTime(fd int, name string, sec, nsec int64) error {
	return unix.UtimesNanoAt(fd, name, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: sec, Nsec: nsec}}, unix.AT_SYMLINK_NOFOLLOW)
}

func unnamed(d *Dir) (*os.File, error) {
	fd, err := retry(func() (int, error) { return unix.Openat(d.fd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600) })
	if err != nil {
		return nil, d.err("make a file in", "", err)
	}
	return os.NewFile(uintptr(fd), path.Join(d.name, "(unnamed)")), nil
}

func exchangeNames(from int, old string, to int, new string) error {
	return unix.Renameat2(from, old, to, new, unix.RENAME_EXCHANGE)
}

// SyncFS makes all that the directory's file system holds survive a power cut.
func (d *Dir) SyncFS() error { return d.err("sync", "", unix.Syncfs(d.fd)) }

// Free is how many bytes we may still write to the directory's file system; -1 if that is not told.
func (d *Dir) Free() int64 {
	var st unix.Statfs_t
	if unix.Fstatfs(d.fd, &st) != nil || st.Blocks == 0 {
		return -1
	}
	return int64(st.Bavail) * st.Bsize
}
