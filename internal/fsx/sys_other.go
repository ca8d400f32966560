//go:build unix && !linux

package fsx

import "golang.org/x/sys/unix"

func fromStat(st *unix.Stat_t) Stat {
	return Stat{
		Dev: uint64(st.Dev), Ino: st.Ino, Nlink: uint64(st.Nlink), Mode: uint32(st.Mode), UID: st.Uid, GID: st.Gid, Size: st.Size,
		MtimeSec: st.Mtim.Sec, MtimeNsec: st.Mtim.Nsec, CtimeSec: st.Ctim.Sec, CtimeNsec: st.Ctim.Nsec,
	}
}

func (d *Dir) makeWritable(name string, st Stat) error {
	return d.at("chmod", name, func(fd int, base string) error {
		return unix.Fchmodat(fd, base, st.Perm()|0o700, unix.AT_SYMLINK_NOFOLLOW)
	})
}

func mountRoot(int, string) (mount, ok bool) { return false, false }
