//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() {
	onLinux["latency"] = benchmark{latencies, 3}
	helpers[tellWord] = tell
	helpers[catchWord] = catch
	helpers[caughtWord] = caught
}

const (
	linesEach   = 300 // a run
	signalsEach = 300
	every       = 2 * time.Millisecond
)

// delay is a way for lines or signals, and how many microseconds they took.
type delay struct {
	wrapper
	filter bool
	took   []float64
}

// latencies measures how much later a line is read than it was written, and a signal to the wrapper reaches the command than one sent there.
func latencies(binary, dir string, runs int) error {
	one, err1 := secretFile(dir, 1, "")
	thousand, err2 := secretFile(dir, 1000, "")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	lines := []*delay{{wrapper: wrapper{name: "a pipe"}}}
	if installed("cat") {
		lines = append(lines, &delay{wrapper: wrapper{"cat", []string{"cat"}}, filter: true})
	}
	if installed("ts") {
		lines = append(lines, &delay{wrapper: wrapper{"ts", []string{"ts", stampFormat}}, filter: true})
	}
	lines = append(lines,
		&delay{wrapper: task(binary, "--timestamps", "--timestamps")},
		&delay{wrapper: task(binary, "1 mask", "--mask-file", one)},
		&delay{wrapper: task(binary, "1,000 masks", "--mask-file", thousand)},
		&delay{wrapper: task(binary, "1,000 and --timestamps", "--mask-file", thousand, "--timestamps")})
	title := fmt.Sprintf("from the write of a line to its read (%d lines, one every %v)", runs*linesEach, every)
	if err := delays(title, runs, lines, (*delay).lines); err != nil {
		return err
	}
	signals := []*delay{{wrapper: wrapper{name: "straight to it"}}}
	for _, w := range inits(binary) {
		signals = append(signals, &delay{wrapper: w})
	}
	signals = append(signals, &delay{wrapper: task(binary, "with --timestamps", "--timestamps")})
	return delays(fmt.Sprintf("from kill(USR1) to the command's having it (%d signals)", runs*signalsEach), runs, signals, (*delay).signals)
}

func delays(title string, runs int, all []*delay, measure func(*delay) error) error {
	for run := -1; run < runs; run++ { // the first is a warm-up
		for _, d := range all {
			if run == 0 {
				d.took = nil
			}
			if err := measure(d); err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
		}
	}
	fmt.Printf("\n%s\n", title)
	base := median(all[0].took)
	for _, d := range all {
		fmt.Printf("  %-24s median %8.1f us   p99 %8.1f us   %.2f of the first's median\n", d.name, median(d.took), p99(d.took), median(d.took)/base)
	}
	return nil
}

func p99(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)*99/100]
}

// now is a time that processes can compare.
func now() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

const (
	tellWord = "-tell"
	stamp    = "written at "
)

// tell N writes lines that say when they were written.
func tell(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for range n {
		time.Sleep(every)
		if _, err := unix.Write(1, fmt.Appendf(nil, "a line of some length, as others are: %s%d\n", stamp, now())); err != nil {
			return err
		}
	}
	return nil
}

// lines has a command tell its times through the wrapper.
func (d *delay) lines() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	in, cmds, err := through(d.args, d.filter, self, tellWord, strconv.Itoa(linesEach))
	if err != nil {
		return err
	}
	defer unix.Close(in)
	before := len(d.took)
	err = eachLine(in, func(line string, at int64) error {
		_, text, _ := strings.Cut(line, stamp)
		written, err := strconv.ParseInt(text, 10, 64)
		d.took = append(d.took, float64(at-written)/1e3)
		return err
	})
	if n := len(d.took) - before; err == nil && n != linesEach {
		err = fmt.Errorf("%d lines came", n)
	}
	return errors.Join(err, waitAll(cmds))
}

// eachLine reads lines, and when each was there.
func eachLine(in int, f func(line string, at int64) error) error {
	buf := make([]byte, 64<<10)
	var held []byte
	for {
		n, err := unix.Read(in, buf)
		at := now()
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return nil
		}
		held = append(held, buf[:n]...)
		for {
			line, rest, found := bytes.Cut(held, []byte("\n"))
			if !found {
				break
			}
			if err := f(string(line), at); err != nil {
				return err
			}
			held = rest
		}
	}
}

// The mask of blocked signals that a process was started with is that of all of its threads. So catch blocks the signal and becomes caught, which can then
// wait for it in one system call instead of through the runtime's handler and a goroutine.
const (
	catchWord  = "-catch"
	caughtWord = "-caught"
)

func catch(args []string) error {
	runtime.LockOSThread()
	signal.Reset()
	set := unix.Sigset_t{}
	set.Val[0] = 1 << (unix.SIGUSR1 - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return become(append([]string{self, caughtWord}, args...))
}

// caught N says that it is ready, and then when each of N signals came, and gives up when one does not.
func caught(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	set := uint64(1) << (unix.SIGUSR1 - 1)
	patience := unix.NsecToTimespec(int64(5 * time.Second))
	fmt.Println("ready")
	for range n {
		errno := unix.EINTR // by the runtime's own signals
		for errno == unix.EINTR {
			_, _, errno = unix.Syscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)), 0, uintptr(unsafe.Pointer(&patience)), 8, 0, 0)
		}
		if errno != 0 {
			return os.NewSyscallError("rt_sigtimedwait", errno)
		}
		if _, err := unix.Write(1, fmt.Appendf(nil, "%s%d\n", stamp, now())); err != nil {
			return err
		}
	}
	return nil
}

// signals sends the wrapper one signal after the other, each when the command has told of the one before.
func (d *delay) signals() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.Command(self, catchWord, strconv.Itoa(signalsEach))
	if len(d.args) > 0 {
		c = exec.Command(d.args[0], append(slices.Clone(d.args[1:]), c.Args...)...)
	}
	in, to, err := rawPipe()
	if err != nil {
		return err
	}
	defer unix.Close(in)
	c.Stdout, c.Stderr = to, os.Stderr
	err = c.Start()
	to.Close()
	if err != nil {
		return err
	}
	var sent int64
	n := 0
	err = eachLine(in, func(line string, _ int64) error {
		if n > 0 {
			_, text, _ := strings.Cut(line, stamp)
			had, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return err
			}
			d.took = append(d.took, float64(had-sent)/1e3)
		}
		if n++; n > signalsEach {
			return nil
		}
		time.Sleep(every / 2) // the wrapper and the command wait again
		sent = now()
		return unix.Kill(c.Process.Pid, unix.SIGUSR1)
	})
	if err == nil && n != signalsEach+1 {
		err = fmt.Errorf("%d signals came", n-1)
	}
	return errors.Join(err, c.Wait())
}
