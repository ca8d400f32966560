// Droptest is the static binary that the tests of perms run in containers of their own making: the race detector needs
// cgo, and with cgo no program can change all of its threads.
//
//	droptest [flags] become   threads blocked in system calls, Become, then what the kernel says of every thread
//	droptest [flags] own DIR  Own
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/perms"
)

func main() {
	var spec perms.Spec
	flag.StringVar(&spec.User, "user", "", "")
	flag.StringVar(&spec.Passwd, "passwd", "/etc/passwd", "")
	flag.StringVar(&spec.Groups, "groups", "/etc/group", "")
	flag.BoolVar(&spec.NoNewPrivs, "nnp", false, "")
	flag.BoolVar(&spec.PassFDs, "pass-fds", false, "")
	deny := flag.String("deny", "", "system calls that answer EPERM, as old seccomp profiles have it")
	leak := flag.Bool("leak", false, "have a descriptor that is not close-on-exec")
	noProc := flag.Bool("no-proc", false, "cover /proc (in a mount namespace)")
	groups := flag.String("set-groups", "", "supplementary group to start with, - for none")
	again := flag.Bool("again", false, "become a second time")
	uid := flag.Int("uid", 1000, "for own")
	flag.Parse()
	syscall.Umask(0o077)

	switch *groups {
	case "":
	case "-":
		check(syscall.Setgroups(nil))
	default:
		var g int
		fmt.Sscan(*groups, &g)
		check(syscall.Setgroups([]int{g}))
	}
	if *noProc {
		check(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		check(unix.Mount("tmpfs", "/proc", "tmpfs", 0, ""))
	}
	if *deny != "" {
		check(refuse(strings.Split(*deny, ",")))
	}
	if *leak {
		fd, err := unix.Dup(1)
		check(err)
		fmt.Println("leaked", fd)
	}
	log := logs.New(os.Stdout, logs.Verbose, false)
	if flag.Arg(0) == "own" {
		check(perms.Own(context.Background(), log, flag.Arg(1), *uid, *uid))
		return
	}
	become(log, spec, *again)
}

func become(log *logs.Log, spec perms.Spec, again bool) {
	id, err := perms.Resolve(spec)
	check(err)
	for _, n := range id.Notes {
		log.Infof("%s", n)
	}
	before, _ := os.ReadDir("/proc/self/task") // the drop makes threads too
	block(6)
	if id.Drop {
		_, _, e := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0)
		if e != 0 && e != unix.EPERM { // locked by securebits
			check(e)
		}
	}
	check(perms.Become(log, id))
	if again {
		id.Drop = false
		check(perms.Become(log, id))
	}
	block(2)
	if after, err := os.ReadDir("/proc/self/task"); err == nil {
		fmt.Println("threads", len(after) >= 8 && len(after) >= len(before))
	}
	report()
}

// report prints what is the same or different in all threads as JSON: each set of lines with the number of its threads.
func report() {
	seen := map[string]int{}
	tasks, _ := filepath.Glob("/proc/self/task/*/status")
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			continue
		}
		var lines []string
		for _, l := range strings.Split(string(b), "\n") {
			k, v, _ := strings.Cut(l, ":")
			switch k {
			case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Umask":
				lines = append(lines, k+"="+strings.Join(strings.Fields(v), ","))
			}
		}
		seen[strings.Join(lines, " ")]++
	}
	out, err := json.Marshal(seen)
	check(err)
	fmt.Printf("status %s\n", out)
	dumpable, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	fmt.Println("dumpable", dumpable)
	keep, _ := unix.PrctlRetInt(unix.PR_GET_KEEPCAPS, 0, 0, 0, 0)
	fmt.Println("keepcaps", keep)
	for fd := 3; fd < 64; fd++ {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			fmt.Println("open", fd)
		}
	}
	for fd := range 3 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil {
			fmt.Printf("fd %d type %#o uid %d\n", fd, st.Mode&unix.S_IFMT, st.Uid)
		}
	}
}

// block leaves n threads in system calls that never return.
func block(n int) {
	var started sync.WaitGroup
	for range n {
		started.Add(1)
		go func() {
			runtime.LockOSThread()
			var p [2]int
			check(syscall.Pipe2(p[:], syscall.O_CLOEXEC))
			started.Done()
			syscall.Read(p[0], make([]byte, 1))
		}()
	}
	started.Wait()
}

// refuse has the kernel answer EPERM to the calls named, in all threads (seccomp(2)).
func refuse(calls []string) error {
	numbers := map[string]uint32{"statx": unix.SYS_STATX, "close_range": unix.SYS_CLOSE_RANGE, "openat2": unix.SYS_OPENAT2}
	prog := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}}
	for _, c := range calls {
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: numbers[c], Jt: 0, Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
	}
	prog = append(prog, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	f := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	const tsync = 1
	_, _, e := syscall.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, tsync, uintptr(unsafe.Pointer(&f)))
	if e != 0 {
		return e
	}
	return nil
}

func check(err error) {
	if err != nil {
		var b bytes.Buffer
		fail.Print(&b, err)
		fmt.Print(b.String())
		os.Exit(int(fail.Of(err)))
	}
}
