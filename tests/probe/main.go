//go:build linux

// Probe is the command that the tests let run-task hand over to: it tells what it was given. It is static, so that it also runs in an image
// that holds nothing else, and does there the few things for which tests would need a shell.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) < 2 {
		report(os.Stdout)
		return
	}
	if err := modes(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(99)
	}
}

// more are the modes of the other files here.
var more = map[string]func(args []string) error{}

func modes(mode string, args []string) error {
	if f := more[mode]; f != nil {
		return f(args)
	}
	switch mode {
	case "get": // get KEY...: these lines of the report
		var b strings.Builder
		report(&b)
		for line := range strings.Lines(b.String()) {
			if key, _, _ := strings.Cut(line, "="); slices.Contains(args, key) {
				fmt.Print(line)
			}
		}
		return nil
	case "say":
		_, err := fmt.Println(strings.Join(args, " "))
		return err
	case "err":
		_, err := fmt.Fprintln(os.Stderr, strings.Join(args, " "))
		return err
	case "cat":
		return each(args, func(name string) error {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(os.Stdout, f)
			return err
		})
	case "ls":
		return each(args, func(name string) error {
			entries, err := os.ReadDir(name)
			for _, e := range entries {
				fmt.Println(e.Name())
			}
			return err
		})
	case "stat":
		return each(args, stat)
	case "write":
		return os.WriteFile(args[0], []byte(strings.Join(args[1:], " ")+"\n"), 0o666)
	case "append":
		f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(f, strings.Join(args[1:], " "))
		return err
	case "exit":
		n, err := strconv.Atoi(args[0])
		if err == nil {
			os.Exit(n)
		}
		return err
	case "kill": // by signal N
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		signal.Reset()
		return syscall.Kill(os.Getpid(), syscall.Signal(n))
	case "all": // all MODE ARGS... , MODE ARGS... : one after the other
		for len(args) > 0 {
			n := slices.Index(args, ",")
			if n < 0 {
				n = len(args)
			}
			if err := modes(args[0], args[1:n]); err != nil {
				return err
			}
			args = args[min(n+1, len(args)):]
		}
		return nil
	case "fork":
		return fork(args)
	case "enter":
		return enter(args)
	}
	return fmt.Errorf("no mode %q", mode)
}

func each(names []string, f func(string) error) error {
	for _, n := range names {
		if err := f(n); err != nil {
			return err
		}
	}
	return nil
}

func stat(name string) error {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return err
	}
	kind := map[uint32]string{unix.S_IFREG: "file", unix.S_IFDIR: "dir", unix.S_IFLNK: "link", unix.S_IFIFO: "fifo"}[st.Mode&unix.S_IFMT]
	fmt.Printf("%s: %s %04o %d:%d\n", filepath.Base(name), kind, st.Mode&0o7777, st.Uid, st.Gid)
	return nil
}

// report is one key=value line for each thing that a process gets from the one before it.
func report(w io.Writer) {
	var rlimit unix.Rlimit
	fds := open() // before anything of ours opens more
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Umask", "SigBlk", "SigIgn":
			fmt.Fprintf(w, "%s=%s\n", strings.ToLower(key), strings.Join(strings.Fields(value), " "))
		}
	}
	unix.Getrlimit(unix.RLIMIT_NOFILE, &rlimit)
	cwd, _ := os.Getwd()
	fmt.Fprintf(w, "pid=%d\nppid=%d\ncwd=%s\nhard-nofile=%d\nargs=%q\n", os.Getpid(), os.Getppid(), cwd, rlimit.Max, os.Args[1:])
	for _, fd := range fds {
		fmt.Fprintln(w, "fd="+fd)
	}
	for _, kv := range slices.Sorted(slices.Values(os.Environ())) {
		fmt.Fprintf(w, "env.%s\n", strings.ReplaceAll(kv, "\n", `\n`))
	}
}

// open lists the descriptors that we were started with: "N TARGET". What execve let through has no close-on-exec flag, what our runtime opened has.
func open() []string {
	var out []string
	for fd := range 256 {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue
		}
		target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil {
			target = "?"
		}
		out = append(out, fmt.Sprintf("%d %s", fd, target))
	}
	return out
}

// fork ARGS...: "enter ARGS..." in a child in new PID and mount namespaces, as their first process; our exit code is the child's.
func fork(args []string) error {
	runtime.LockOSThread() // the child dies with the thread that made it
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNS}}
	if slices.Contains(args, "proc") {
		attr.Sys.Cloneflags |= syscall.CLONE_NEWPID
	}
	pid, err := syscall.ForkExec("/proc/self/exe", append([]string{os.Args[0], "enter"}, args...), attr)
	if err != nil {
		return err
	}
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil {
		return err
	}
	if ws.Signaled() {
		os.Exit(128 + int(ws.Signal()))
	}
	os.Exit(ws.ExitStatus())
	return nil
}

// enter WORDS... -- COMMAND: becomes COMMAND in the mount namespace that we were started in, after: "bind A B" mounts, "proc" a fresh /proc,
// "fd N PATH" open descriptors, "ignore N" signals, "umask N", "user UID GID".
func enter(args []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// A test that passed us a pipe learns by its end that the command has the process.
	if err := unix.CloseRange(3, 1<<20, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return err
	}
	uid, gid := -1, -1
	for args[0] != "--" {
		var n int
		var err error
		switch args[0] {
		case "bind":
			n, err = 2, unix.Mount(args[1], args[2], "", unix.MS_BIND|unix.MS_REC, "")
		case "proc":
			err = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		case "noproc":
			err = unix.Mount("none", "/proc", "tmpfs", 0, "")
		case "fd":
			n = 2
			var from, to int
			if to, err = strconv.Atoi(args[1]); err == nil {
				if from, err = unix.Open(args[2], unix.O_RDONLY, 0); err == nil {
					err = unix.Dup3(from, to, 0)
					unix.Close(from)
				}
			}
		case "ignore":
			n = 1
			var sig int
			sig, err = strconv.Atoi(args[1])
			signal.Ignore(syscall.Signal(sig))
		case "umask":
			n = 1
			var mask int64
			mask, err = strconv.ParseInt(args[1], 8, 32)
			unix.Umask(int(mask))
		case "user":
			n = 2
			if uid, err = strconv.Atoi(args[1]); err == nil {
				gid, err = strconv.Atoi(args[2])
			}
		default:
			err = fmt.Errorf("enter: no word %q", args[0])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		args = args[n+1:]
	}
	if uid >= 0 {
		for _, err := range []error{syscall.Setgroups(nil), syscall.Setresgid(gid, gid, gid), syscall.Setresuid(uid, uid, uid)} {
			if err != nil {
				return err
			}
		}
	}
	path, err := lookPath(args[1])
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", path, syscall.Exec(path, args[1:], os.Environ()))
}

// lookPath is os/exec's without os/exec.
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if p := filepath.Join(dir, name); unix.Access(p, unix.X_OK) == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: not in PATH", name)
}
