//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() {
	if len(os.Args) > 1 && os.Args[1] == "headless" {
		runtime.LockOSThread() // this is the first thread, and will be main's
	}
	more["headless"] = headless
	more["beside"] = beside
	more["orphans"] = func(args []string) error { return orphans(args, false) }
	more["gated"] = func(args []string) error { return orphans(args, true) }
	more["reaped"] = reaped
	more["gone"] = gone
	more["alone"] = alone
	more["shrug"] = shrug
	more["unkillable"] = unkillable
	more["closed"] = closed
	more["littered"] = littered
	more["blocked"] = blocked
}

// beside COMMAND... -- COMMAND...: starts the first as a child in our process group and becomes the second. A shell would let the child ignore INT and QUIT.
func beside(args []string) error {
	first, second, err := cut(args)
	if err != nil {
		return err
	}
	path, err := lookPath(first[0])
	if err != nil {
		return err
	}
	if _, err := syscall.ForkExec(path, first, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}}); err != nil {
		return err
	}
	return become(second)
}

// orphans N CODE: makes N processes that lose their parents and then exit with CODE. Gated ones do so only when we have ended.
func orphans(args []string, gated bool) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	code, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var gate [2]int
	if gated {
		if err := unix.Pipe2(gate[:], 0); err != nil {
			return err
		}
	}
	const litter = 25
	jobs := make(chan int, n/litter+1)
	for ; n > 0; n -= litter {
		jobs <- min(n, litter)
	}
	close(jobs)
	errs := make(chan error, 8)
	var all sync.WaitGroup
	for range cap(errs) {
		all.Go(func() {
			for n := range jobs {
				if err := abandon(n, code, gate); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	return <-errs
}

// abandon forks a child that forks n others and ends. None of them may be interrupted by a handler of the Go runtime, which has only one thread there.
func abandon(n, code int, gate [2]int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	all, old := ^uint64(0), uint64(0)
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	pid, errno := litter(uintptr(n), uintptr(code), uintptr(gate[0]), uintptr(gate[1]))
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	if errno != 0 {
		return errno
	}
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(int(pid), &ws, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err == nil && ws.ExitStatus() != 0 {
			err = fmt.Errorf("fork: %w", syscall.Errno(ws.ExitStatus()))
		}
		return err
	}
}

// litter is fork(2) without execve: what runs in a child makes system calls and nothing else.
//
//go:norace
//go:nosplit
func litter(n, code, read, write uintptr) (uintptr, syscall.Errno) {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 || errno != 0 {
		return pid, errno
	}
	for ; n > 0; n-- {
		pid, _, errno = unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			break
		}
		if pid == 0 {
			if read != 0 {
				unix.RawSyscall(unix.SYS_CLOSE, write, 0, 0)
				unix.RawSyscall(unix.SYS_READ, read, 0, 1) // it only ever ends
			}
			for {
				unix.RawSyscall(unix.SYS_EXIT_GROUP, code, 0, 0)
			}
		}
	}
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(errno), 0, 0)
	}
}

// reaped waits until our parent has no zombies, and says so.
func reaped([]string) error {
	var zombies []string
	parent := strconv.Itoa(os.Getppid())
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		zombies = zombies[:0]
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Name()[0] > '9' {
				continue
			}
			stat, _ := os.ReadFile("/proc/" + e.Name() + "/stat")
			_, rest, _ := strings.Cut(string(stat), ") ")
			if fields := strings.Fields(rest); len(fields) > 1 && fields[0] == "Z" && fields[1] == parent {
				zombies = append(zombies, string(stat))
			}
		}
		if len(zombies) == 0 {
			fmt.Println("no zombies")
			return nil
		}
	}
	return fmt.Errorf("%d zombies: %s", len(zombies), strings.Join(zombies, ""))
}

// alone fails if there are other processes than PID 1 and us.
func alone([]string) error {
	entries, err := os.ReadDir("/proc")
	for _, e := range entries {
		if name := e.Name(); name[0] <= '9' && name != "1" && name != strconv.Itoa(os.Getpid()) {
			stat, _ := os.ReadFile("/proc/" + name + "/stat")
			err = errors.Join(err, fmt.Errorf("still there: %s", stat))
		}
	}
	return err
}

// headless NAME: ends its first thread and lives on in others; then it prints NAME. TERM does nothing.
func headless(args []string) error {
	signal.Ignore(unix.SIGTERM)
	go func() {
		for {
			if stat, _ := os.ReadFile("/proc/self/stat"); strings.Contains(string(stat), ") Z ") {
				break
			}
			time.Sleep(time.Millisecond)
		}
		fmt.Println(args[0])
	}()
	_, _, errno := syscall.Syscall(unix.SYS_EXIT, 0, 0, 0)
	return errno
}

// shrug: no signal that can be caught ends us from now on.
func shrug([]string) error {
	signal.Notify(make(chan os.Signal, 1)) // nobody reads it
	return nil
}

// gone PID: waits until there is no such process, not even a zombie, and says so.
func gone(args []string) error {
	pid, err := strconv.Atoi(args[0])
	for end := time.Now().Add(time.Minute); err == nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
		err = syscall.Kill(pid, 0)
	}
	if err == syscall.ESRCH {
		fmt.Println("gone")
		return nil
	}
	return fmt.Errorf("process %d: %v", pid, err)
}

// unkillable NAME: becomes root, which needs our file's set-user-ID bit, and stays; it prints NAME when it is ready.
func unkillable(args []string) error {
	signal.Ignore(unix.SIGTERM)
	if err := syscall.Setresuid(0, 0, 0); err != nil {
		return err
	}
	fmt.Println(args[0])
	for {
		time.Sleep(time.Hour)
	}
}

// closed FD... -- COMMAND: becomes COMMAND without these descriptors.
func closed(args []string) error {
	words, command, err := cut(args)
	if err != nil {
		return err
	}
	for _, arg := range words {
		fd, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		unix.CloseOnExec(fd) // not before: the runtime may need it to say what is wrong
	}
	return become(command)
}

// blocked N... -- COMMAND: becomes COMMAND with these signals blocked.
func blocked(args []string) error {
	words, command, err := cut(args)
	if err != nil {
		return err
	}
	var mask uint64
	for _, arg := range words {
		sig, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		mask |= 1 << (sig - 1)
	}
	runtime.LockOSThread()
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0); errno != 0 {
		return errno
	}
	return become(command)
}

// littered -- COMMAND: becomes COMMAND with a child that has ended with 9 and was not waited for.
func littered(args []string) error {
	_, command, err := cut(args)
	if err != nil {
		return err
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{os.Args[0], "exit", "9"}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
	if err == nil {
		err = unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	}
	if err != nil {
		return err
	}
	return become(command)
}

// cut separates what stands before -- from the command behind it.
func cut(args []string) (words, command []string, err error) {
	n := slices.Index(args, "--")
	if n < 0 || n == len(args)-1 {
		return nil, nil, errors.New("no command")
	}
	return args[:n], args[n+1:], nil
}

func become(command []string) error {
	path, err := lookPath(command[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", path, syscall.Exec(path, command, os.Environ()))
}
