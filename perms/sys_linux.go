package perms

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"run-task/internal/fsx"
)

const onLinux = true

// Numbers from capabilities(7).
const (
	capChown       = unix.CAP_CHOWN
	capDacOverride = unix.CAP_DAC_OVERRIDE
	capFowner      = unix.CAP_FOWNER
	capSetgid      = unix.CAP_SETGID
	capSetuid      = unix.CAP_SETUID
)

// stat is a file's metadata and the mount that it was reached through; mount 0 is not known.
type stat struct {
	fsx.Stat
	mount uint64
}

// lookAt tells what stands at name (NUL-terminated) below dir, a link itself included, without making a network file
// system ask its server and without mounting what is mounted on demand.
func lookAt(dir int, name *byte) (stat, error) {
	return statx(dir, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC)
}

// look tells what fd is. The mount is known on every kernel, unless there is no /proc.
func look(fd int) (stat, error) {
	st, err := statx(fd, new(byte), unix.AT_EMPTY_PATH)
	if err == nil && st.mount == 0 {
		st.mount = mountOf(fd)
	}
	return st, err
}

func statx(dir int, name *byte, flags uintptr) (stat, error) {
	var x unix.Statx_t
	_, _, e := syscall.Syscall6(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(name)), flags,
		unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, uintptr(unsafe.Pointer(&x)), 0)
	if e == unix.ENOSYS || e == unix.EPERM { // old seccomp profiles
		return fstatat(dir, name, flags)
	}
	if e != 0 {
		return stat{}, e
	}
	st := stat{Stat: fsx.Stat{
		Dev: unix.Mkdev(x.Dev_major, x.Dev_minor), Ino: x.Ino, Nlink: uint64(x.Nlink), Mode: uint32(x.Mode), UID: x.Uid, GID: x.Gid, Size: int64(x.Size),
		MtimeSec: x.Mtime.Sec, MtimeNsec: int64(x.Mtime.Nsec), CtimeSec: x.Ctime.Sec, CtimeNsec: int64(x.Ctime.Nsec),
	}}
	if x.Mask&unix.STATX_MNT_ID != 0 { // Linux 5.8
		st.mount = x.Mnt_id
	}
	return st, nil
}

func fstatat(dir int, name *byte, flags uintptr) (stat, error) {
	var st unix.Stat_t
	flags &= unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_EMPTY_PATH
	if err := unix.Fstatat(dir, unix.BytePtrToString(name), &st, int(flags)); err != nil {
		return stat{}, err
	}
	return stat{Stat: fsx.Stat{
		Dev: st.Dev, Ino: st.Ino, Nlink: uint64(st.Nlink), Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size,
		MtimeSec: int64(st.Mtim.Sec), MtimeNsec: int64(st.Mtim.Nsec), CtimeSec: int64(st.Ctim.Sec), CtimeNsec: int64(st.Ctim.Nsec),
	}}, nil
}

// mountOf reads the mount's number where statx does not tell it (proc(5), fdinfo), 0 if it is nowhere.
func mountOf(fd int) uint64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	_, b, _ = bytes.Cut(b, []byte("mnt_id:"))
	b, _, _ = bytes.Cut(b, []byte("\n"))
	n, _ := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	return n
}

// openPath opens whatever stands at name for looking and chown alone: no FIFO waits, no device starts.
func openPath(dir int, name string) (int, error) {
	return openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW)
}

// openDir opens a directory for listing; ENOTDIR or ELOOP if it is none.
func openDir(dir int, name string) (int, error) {
	return openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
}

func openat(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// chown changes what fd is, an O_PATH descriptor of a link included.
func chown(fd, uid, gid int) error { return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH) }

// chmodPath changes the mode of what an O_PATH descriptor is; it must not be a link.
func chmodPath(fd int, mode uint32) error {
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
}

func mkdir(dir int, name string, mode uint32) error { return unix.Mkdirat(dir, name, mode) }

// readNames fills buf with directory entries; 0 is the end.
func readNames(dir int, buf []byte) (int, error) { return unix.Getdents(dir, buf) }

// nextName splits the first name off what readNames gave, with its NUL.
func nextName(buf []byte) (name, rest []byte) {
	const header = 19 // d_ino, d_off, d_reclen, d_type: getdents(2)
	n := int(*(*uint16)(unsafe.Pointer(&buf[16])))
	name = buf[header:n]
	return name[:bytes.IndexByte(name, 0)+1], buf[n:]
}

// hasCap tells whether this thread has a capability in effect. On failure it has none.
func hasCap(c int) bool {
	_, eff, _ := caps()
	return eff&(1<<c) != 0
}

// caps reads the permitted, effective and inheritable sets of this thread.
func caps() (permitted, effective, inheritable uint64) {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if unix.Capget(&h, &d[0]) != nil {
		return 0, 0, 0
	}
	return uint64(d[1].Permitted)<<32 | uint64(d[0].Permitted),
		uint64(d[1].Effective)<<32 | uint64(d[0].Effective),
		uint64(d[1].Inheritable)<<32 | uint64(d[0].Inheritable)
}

// elevated tells whether the program file gave us capabilities. AT_SECURE alone is not enough: a security module sets
// it when it changes the domain, as container runtimes may have it do.
func elevated() bool {
	const atSecure = 23 // getauxval(3)
	permitted, _, _ := caps()
	if permitted == 0 || os.Getuid() == 0 {
		return false
	}
	aux, err := unix.Auxv()
	if err != nil {
		return false
	}
	for _, kv := range aux {
		if kv[0] == atSecure && kv[1] != 0 {
			return true
		}
	}
	return false
}

// Linux has credentials per thread. What follows changes every thread (nptl(7)); unix.Prctl and unix.Capset change one.

func prctlAll(option, arg2, arg3 uintptr) error {
	_, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, option, arg2, arg3, 0, 0, 0)
	return errno(e)
}

// clearCaps empties the permitted, effective and inheritable sets.
func clearCaps() error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	_, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&h)), uintptr(unsafe.Pointer(&d[0])), 0)
	return errno(e)
}

func setGroups(ids []int) error { return syscall.Setgroups(ids) }
func setGID(id int) error       { return syscall.Setresgid(id, id, id) }
func setUID(id int) error       { return syscall.Setresuid(id, id, id) }

func errno(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func clearAmbient() error   { return prctlAll(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0) }
func clearKeepCaps() error  { return prctlAll(unix.PR_SET_KEEPCAPS, 0, 0) }
func setNoNewPrivs() error  { return prctlAll(unix.PR_SET_NO_NEW_PRIVS, 1, 0) }
func clearDumpable() error  { return prctlAll(unix.PR_SET_DUMPABLE, 0, 0) }
func dropBound(c int) error { return prctlAll(unix.PR_CAPBSET_DROP, uintptr(c), 0) }

// inBound tells whether the bounding set has c; EINVAL if the kernel does not know c.
func inBound(c int) (bool, error) {
	n, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
	return n == 1, err
}

func isNoNewPrivs() bool {
	n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && n == 1
}

func getIDs() (uids, gids [3]int) {
	uids[0], uids[1], uids[2] = unix.Getresuid()
	gids[0], gids[1], gids[2] = unix.Getresgid()
	return uids, gids
}

// closeRange marks every descriptor from 3 on as close-on-exec.
func closeRange() error {
	return unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC) // Linux 5.11
}

// isTerminal asks for the terminal's settings.
func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

func isRefused(err error) bool {
	return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL)
}
