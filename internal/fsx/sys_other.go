//go:build unix && !linux

package fsx

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func fromStat(st *unix.Stat_t) Stat {
	return Stat{
		Dev: uint64(st.Dev), Ino: st.Ino, Nlink: uint64(st.Nlink), Mode: uint32(st.Mode), UID: st.Uid, GID: st.Gid, Size: st.Size, Blocks: int64(st.Blocks),
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

func setTime(fd int, name string, sec, nsec int64) error {
	t := unix.Timespec{Sec: sec, Nsec: nsec}
	return unix.UtimesNanoAt(fd, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}

func unnamed(*Dir) (*os.File, error) { return nil, errors.ErrUnsupported }

func exchangeNames(int, string, int, string) error { return errors.ErrUnsupported }

// SyncFS makes all that the directory's file system holds survive a power cut.
func (d *Dir) SyncFS() error { return d.err("sync", "", unix.Sync()) }

// Free is -1: see Linux.
func (d *Dir) Free() int64 { return -1 }
