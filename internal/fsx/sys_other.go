//go:build unix && !linux

package fsx

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func fromStat(st *unix.Stat_t) Stat {
	return Stat{
		Dev: uint64(st.Dev), Ino: st.Ino, Nlink: uint64(st.Nlink), Mode: uint32(st.Mode), UID: st.Uid, GID: st.Gid, Size: st.Size,
		MtimeSec: st.Mtim.Sec, MtimeNsec: st.Mtim.Nsec, CtimeSec: st.Ctim.Sec, CtimeNsec: st.Ctim.Nsec,
	}
}

func makeWritable(at int, base string, flags int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(at, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.Fchmodat(at, base, uint32(st.Mode)&0o777|0o700, unix.AT_SYMLINK_NOFOLLOW)
}

// Real is "": see Linux.
func (d *Dir) Real() string { return "" }

func mountRoot(int, string) (mount, ok bool) { return false, false }

// Clone makes an empty file share the blocks of another one, if the file system can.
func Clone(to, from *os.File) error { return errors.ErrUnsupported }
