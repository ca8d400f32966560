//go:build unix

package fsx

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Lock takes an exclusive flock on f, which is released when f is closed or the process dies. It waits until ctx ends;
// waiting, if not nil, is called once when somebody else holds it.
func Lock(ctx context.Context, f *os.File, waiting func()) error {
	return lock(ctx, f, unix.LOCK_EX, waiting)
}

// LockShared is Lock with a lock that several may have, as long as nobody has an exclusive one.
func LockShared(ctx context.Context, f *os.File, waiting func()) error {
	return lock(ctx, f, unix.LOCK_SH, waiting)
}

func lock(ctx context.Context, f *os.File, how int, waiting func()) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return os.NewSyscallError("flock", err)
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}
