package fsx

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func fromStat(st *unix.Stat_t) Stat {
	return Stat{
		Dev: uint64(st.Dev), Ino: st.Ino, Nlink: uint64(st.Nlink), Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size,
		MtimeSec: int64(st.Mtim.Sec), MtimeNsec: int64(st.Mtim.Nsec), CtimeSec: int64(st.Ctim.Sec), CtimeNsec: int64(st.Ctim.Nsec),
	}
}

// makeWritable gives a directory that cannot be opened u+rwx. Only Linux 6.6 has a chmod that does not follow links (and old
// seccomp profiles answer EPERM to it); before that it goes through an O_PATH descriptor, which needs /proc.
func (d *Dir) makeWritable(name string, st Stat) error {
	fd, base, done, err := d.parent(name)
	if err != nil {
		return err
	}
	defer done()
	if err := unix.Fchmodat(fd, base, st.Perm()|0o700, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return nil
	}
	p, err := unix.Openat(fd, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return d.err("open", name, err)
	}
	defer unix.Close(p)
	return d.err("chmod", name, unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", p), st.Perm()|0o700))
}

// mountRoot says whether a mount begins at name; ok is false where the kernel cannot tell.
func mountRoot(fd int, name string) (mount, ok bool) {
	var st unix.Statx_t
	if err := unix.Statx(fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st); err != nil {
		return false, false
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0
}
