//go:build amd64 || arm64

package supervise

import (
	"encoding/binary"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// uncaught are the signals for which the Go runtime gives nothing to os/signal: PROF is its profiler's, and 34, SIGRTMIN for glibc, it leaves to musl.
var uncaught = []syscall.Signal{unix.SIGPROF, 34}

// handled is the pipe that the handler writes to.
//
//lint:ignore U1000 the handler reads it
var handled int32

// handlerAddress is where the handler begins.
func handlerAddress() uintptr

// catchRest also catches those signals, by a handler of our own. It needs the Go runtime's to be installed for others, and takes over what that says of stack and return.
func catchRest(signals chan<- os.Signal) error {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	handled = int32(ends[1])
	action := getAction(unix.SIGTERM)
	action[0] = uint64(handlerAddress())
	for _, sig := range uncaught {
		if !ignored(sig) {
			setAction(sig, action)
		}
	}
	go func() {
		r := os.NewFile(uintptr(ends[0]), "signals")
		for number := make([]byte, 4); ; {
			if _, err := io.ReadFull(r, number); err != nil {
				return
			}
			signals <- syscall.Signal(binary.NativeEndian.Uint32(number))
		}
	}()
	return nil
}
