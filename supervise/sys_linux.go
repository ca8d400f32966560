package supervise

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setDefault sets the default action behind the Go runtime's back, for the whole process. When it returns, no handler is running any more.
func setDefault(signals []os.Signal) {
	var action [4]uint64 // struct kernel_sigaction: all zero is SIG_DFL
	for _, sig := range signals {
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig.(syscall.Signal)), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	}
	// A handler that was already entered has not told Go's queue yet. Each thread makes this call outside of handlers
	// only, so it is a barrier. With cgo it does nothing (ENOTSUP).
	syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0)
}

// noexec says whether the file system that path is on forbids to execute.
func noexec(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_NOEXEC != 0
}
