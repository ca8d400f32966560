//go:build linux

package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A command that is as much trouble as one can be: soak, as the processes that it starts.
func init() {
	more["soak"] = soak
	more["soak-work"] = soakWork
	more["soak-write"] = soakWrite
	more["soak-parent"] = soakParent
	more["soak-orphan"] = soakOrphan
	more["soak-print"] = soakPrint
}

// soakSignals are what the tests send us. The runtime cannot handle 34, it is only ignored.
func soakSignals() (out []os.Signal) {
	out = append(out, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGWINCH, unix.SIGIO, unix.SIGPWR)
	for n := 35; n <= 64; n++ {
		out = append(out, syscall.Signal(n))
	}
	return out
}

// soak DURATION SECRETS says "ready" when it can take signals, and exits 37 after it told which ones it got and that no zombies are left.
func soak(args []string) error {
	length, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	ignore34()
	// The worker and all that it starts ignore the signals: until a program has installed handlers of its own they would end it.
	ready, set, err := os.Pipe()
	if err != nil {
		return err
	}
	worker, err := soakStart([]*os.File{os.Stdin, os.Stdout, os.Stderr, set}, "soak-work", strconv.FormatInt(time.Now().Add(length).UnixMilli(), 10), args[1])
	if err != nil {
		return err
	}
	set.Close()
	ready.Read(make([]byte, 1)) // its end
	got := make(chan os.Signal, 1024)
	signal.Notify(got, soakSignals()...)
	counts, counted := map[int]int{}, make(chan struct{})
	go func() {
		defer close(counted)
		for s := range got {
			counts[int(s.(syscall.Signal))]++
		}
	}()
	fmt.Println("ready")
	state, err := worker.Wait()
	if err != nil || !state.Success() {
		return fmt.Errorf("worker: %v, %w", state, err)
	}
	signal.Ignore(soakSignals()...) // first: Stop alone would set what they do by default
	signal.Stop(got)
	close(got)
	<-counted
	left := zombies()
	for deadline := time.Now().Add(time.Minute); len(left) > 0 && time.Now().Before(deadline); left = zombies() {
		time.Sleep(time.Millisecond)
	}
	var b strings.Builder
	for n := 1; n <= 64; n++ {
		if counts[n] > 0 {
			fmt.Fprintf(&b, " %d=%d", n, counts[n])
		}
	}
	fmt.Printf("zombies %d %s\nsignals%s\n", len(left), strings.Join(left[:min(len(left), 5)], " "), b.String())
	os.Exit(37)
	return nil
}

// ignore34 does what signal.Ignore does not for a signal that is musl's own.
func ignore34() {
	ign := [4]uint64{1} // struct kernel_sigaction with SIG_IGN
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, 34, uintptr(unsafe.Pointer(&ign)), 0, 8, 0, 0)
}

func soakStart(files []*os.File, args ...string) (*os.Process, error) {
	return os.StartProcess("/proc/self/exe", append([]string{os.Args[0]}, args...), &os.ProcAttr{Files: files})
}

// zombies are the processes that have ended and that nobody has reaped.
func zombies() (out []string) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, s := range stats {
		data, _ := os.ReadFile(s)
		if _, after, found := strings.Cut(string(data), ") "); found && after[0] == 'Z' {
			out = append(out, string(data[:strings.IndexByte(string(data), ')')+1]))
		}
	}
	return out
}

// soakWork END SECRETS has writers write and forks, and tells how many orphans there were when all of them have ended.
func soakWork(args []string) error {
	signal.Ignore(soakSignals()...)
	unix.Close(3)
	end, err := soakEnd(args[0])
	if err != nil {
		return err
	}
	var writers []*os.Process
	for i := range 4 {
		to := []*os.File{os.Stdout, os.Stderr}[i%2]
		p, err := soakStart([]*os.File{os.Stdin, to, os.Stderr}, "soak-write", strconv.Itoa(i), args[0], args[1])
		if err != nil {
			return err
		}
		writers = append(writers, p)
	}
	alive, hold, err := os.Pipe() // all orphans have it
	if err != nil {
		return err
	}
	const forkers = 2
	var wg sync.WaitGroup
	var counts [forkers]int
	var failed [forkers]error
	for i := range forkers {
		wg.Go(func() {
			for ; time.Now().Before(end) && failed[i] == nil; counts[i]++ {
				var p *os.Process
				if p, failed[i] = soakStart([]*os.File{os.Stdin, os.Stdout, os.Stderr, hold}, "soak-parent", strconv.Itoa(i), strconv.Itoa(counts[i])); failed[i] == nil {
					failed[i] = succeeded(p)
				}
			}
		})
	}
	wg.Wait()
	hold.Close()
	alive.Read(make([]byte, 1))
	for _, p := range writers {
		failed[0] = cmpErr(failed[0], succeeded(p))
	}
	for i, n := range counts {
		fmt.Printf("orphans %d %d\n", i, n)
		failed[0] = cmpErr(failed[0], failed[i])
	}
	return failed[0]
}

func soakEnd(ms string) (time.Time, error) {
	n, err := strconv.ParseInt(ms, 10, 64)
	return time.UnixMilli(n), err
}

func succeeded(p *os.Process) error {
	state, err := p.Wait()
	if err == nil && !state.Success() {
		err = fmt.Errorf("process %d: %v", p.Pid, state)
	}
	return err
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// soakParent leaves its child behind, which again must be born with the signals ignored: our runtime has put its handlers there.
func soakParent(args []string) error {
	signal.Ignore(soakSignals()...)
	_, err := soakStart([]*os.File{os.Stdin, os.Stdout, os.Stderr, os.NewFile(3, "hold")}, append([]string{"soak-orphan"}, args...)...)
	return err
}

func soakOrphan(args []string) error {
	_, err := fmt.Printf("orphan %s %s\n", args[0], args[1])
	return err
}

// soakWrite I END SECRETS writes numbered lines as fast as it can, some of them with a secret. Several whole ones are one write, as large as a pipe
// takes without mixing it with others'.
func soakWrite(args []string) error {
	end, err := soakEnd(args[1])
	if err != nil {
		return err
	}
	content, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	secrets := strings.Fields(string(content))
	n := 0
	var b []byte
	for time.Now().Before(end) {
		for b = b[:0]; len(b) < 3800; n++ {
			b = soakLine(b, args[0], n, secrets[n%len(secrets)])
		}
		if _, err := os.Stdout.Write(b); err != nil {
			return err
		}
	}
	_, err = fmt.Printf("end %s %d\n", args[0], n)
	return err
}

var soakFiller = slices.Repeat([]byte("abcdefghij"), 10)

// soakLine is line n of a writer; the tests know the same.
func soakLine(dst []byte, writer string, n int, secret string) []byte {
	dst = append(append(append(dst, 'w'), writer...), ' ')
	dst = append(strconv.AppendInt(dst, int64(n), 10), ' ')
	dst = append(dst, soakFiller[:n%len(soakFiller)]...)
	if n%7 == 0 {
		dst = append(append(append(dst, " key="...), secret...), " kept"...)
	}
	return append(dst, '\n')
}

// soakPrint BYTES writes lines in large writes that do not end where lines do.
func soakPrint(args []string) error {
	size, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var b []byte
	n := 0
	for done := 0; done < size; {
		for ; len(b) < 64<<10; n++ {
			b = soakLine(b, "0", n, "[MASKED]")
		}
		wrote, err := os.Stdout.Write(b[:64<<10])
		if err != nil {
			return err
		}
		done += wrote
		b = b[:copy(b, b[wrote:])]
	}
	_, err = fmt.Printf("%send 0 %d\n", b, n)
	return err
}
