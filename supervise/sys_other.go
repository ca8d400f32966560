//go:build unix && !linux

package supervise

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lastSignal = syscall.Signal(31)
	maxRSSUnit = 1
)

// setDefault leaves Go's handlers in place, which then act as the default does.
func setDefault(signals []os.Signal) { signal.Reset(signals...) }

func ignored(sig syscall.Signal) bool { return signal.Ignored(sig) }

func suspend(sig syscall.Signal) { unix.Kill(0, unix.SIGSTOP) }

func subreaper() {}

func uptime() time.Duration { return 0 }

func grow(int) {}

func queued(fd int) (int, error) {
	const fionread = 0x4004667f // sys/filio.h
	return unix.IoctlGetInt(fd, fionread)
}

func noexec(string) bool { return false }

func ownPeak() int64 { return int64(usage(unix.RUSAGE_SELF).Maxrss) }
