package supervise

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	lastSignal = syscall.Signal(64)
	maxRSSUnit = 1024 // getrusage(2): kilobytes
)

// sigaction is struct kernel_sigaction. All zero is SIG_DFL.
type sigaction [4]uint64

func getAction(sig syscall.Signal) (a sigaction) {
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&a)), 8, 0, 0)
	return a
}

func setAction(sig syscall.Signal, a sigaction) {
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&a)), 0, 8, 0, 0)
}

// setDefault sets the default action behind the Go runtime's back, for the whole process. When it returns, no handler is running any more.
func setDefault(signals []os.Signal) {
	for _, sig := range signals {
		setAction(sig.(syscall.Signal), sigaction{})
	}
	// A handler that was already entered has not told Go's queue yet. Each thread makes this call outside of handlers
	// only, so it is a barrier. With cgo it does nothing (ENOTSUP).
	syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0)
}

// ignored tells whether a signal is ignored: the kernel knows also of those that the Go runtime does not look at.
func ignored(sig syscall.Signal) bool { return getAction(sig)[0] == 1 }

// suspend stops our process group by a signal, as the terminal does; it returns when we are continued.
func suspend(sig syscall.Signal) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	was := getAction(sig)
	if unix.Getpgrp() > 0 { // else it is a group of another PID namespace
		setAction(sig, sigaction{1}) // SIG_IGN: it is for the others. Else we could be stopped once by this and, when continued, once more by what follows.
		unix.Kill(0, sig)
	}
	setAction(sig, sigaction{})
	unix.Tgkill(os.Getpid(), unix.Gettid(), sig) // sent to this very thread it acts before the call returns
	setAction(sig, was)
}

// subreaper makes orphans among our descendants our children. PR_SET_CHILD_SUBREAPER is an attribute of the process, unlike others of prctl(2).
func subreaper() {
	if !isInit() {
		unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0, 0)
	}
}

// uptime is the clock that processes' start times are told by.
func uptime() time.Duration {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &t)
	return time.Duration(t.Nano())
}

// grow makes a pipe larger, if we may: fewer and larger pieces.
func grow(fd int) { unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, pipeSize) }

// queued is how much a pipe holds.
func queued(fd int) (int, error) { return unix.IoctlGetInt(fd, unix.TIOCINQ) }

// noexec says whether the file system that path is on forbids to execute.
func noexec(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_NOEXEC != 0
}

// ownPeak is the most memory that this program had, in the unit of getrusage(2); that one's own answer counts who started it, too.
func ownPeak() int64 {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if field := strings.Fields(line); len(field) == 3 && field[0] == "VmHWM:" {
			if kb, err := strconv.ParseInt(field[1], 10, 64); err == nil {
				return kb
			}
		}
	}
	return int64(usage(unix.RUSAGE_SELF).Maxrss)
}
