//go:build linux

package tests

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hanging is a server that accepts connections and says nothing. Its url is that of a repository there; met gets each connection.
func hanging(t *testing.T) (url string, met chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	met = make(chan net.Conn, 16)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			met <- c
		}
	}()
	return "git://" + l.Addr().String() + "/repo.git", met
}

const anySHA = "0123456789012345678901234567890123456789"

// started is a run-task, as the first process of its own namespaces if we are root, that waits for a server that will not answer.
func started(t *testing.T, args ...string) (*exec.Cmd, *strings.Builder) {
	t.Helper()
	return startedAs(t, nil, args...)
}

// startedAs does so after words for "probe enter".
func startedAs(t *testing.T, enter []string, args ...string) (*exec.Cmd, *strings.Builder) {
	t.Helper()
	url, met := hanging(t)
	dir := tempDir(t)
	user := fmt.Sprint(os.Getuid())
	if os.Getuid() == 0 {
		user = "1000:1001"
	}
	if enter != nil {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	c := &command{pid1: os.Getuid() == 0, enter: enter, dir: dir, args: append([]string{"run-task", "--user", user, "--checkout", "src", "--repo", url, "--sha", anySHA}, args...)}
	cmd := c.cmd()
	var errs strings.Builder
	cmd.Stderr, cmd.Stdout = &errs, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-met:
	case <-time.After(time.Minute):
		cmd.Process.Kill()
		wait(t, cmd)
		t.Fatalf("run-task does not connect\n%s", errs.String())
	}
	return cmd, &errs
}

// A signal before the command started ends the task with a code that says so, also as PID 1, where the kernel's own default would be to ignore it.
func TestSignalDuringSetup(t *testing.T) {
	for sig, want := range map[syscall.Signal]int{unix.SIGTERM: 143, unix.SIGINT: 130} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			t.Parallel()
			cmd, errs := started(t, "--", "probe", "say", "never")
			cmd.Process.Signal(sig)
			if code := wait(t, cmd); code != want {
				t.Errorf("exit %d, want %d\n%s", code, want, errs)
			}
			if strings.Contains(errs.String(), "never") || strings.Count(errs.String(), "run-task: error: ") != 1 {
				t.Errorf("output:\n%s", errs)
			}
		})
	}
}

// Waiting for another task's lock is no reason not to hear it.
func TestSignalWhileWaitingForALock(t *testing.T) {
	dir := tempDir(t)
	for _, d := range []string{"cache", "src/.git/run-task"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	lock := filepath.Join(dir, "src/.git/run-task/lock")
	if err := os.WriteFile(lock, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	me := fmt.Sprint(os.Getuid())
	for held, args := range map[string][]string{
		filepath.Join(dir, "cache"): {"run-task", "--user", me, "--cache", "cache", "--", "probe"},
		lock:                        {"run-task", "checkout", "--user", me, "src,repo=/nowhere,sha=" + anySHA},
	} {
		t.Run(filepath.Base(held), func(t *testing.T) {
			f, err := os.Open(held)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
				t.Fatal(err)
			}
			cmd := (&command{pid1: os.Getuid() == 0, dir: dir, args: args}).cmd()
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var said strings.Builder
			for lines := bufio.NewScanner(stderr); lines.Scan(); {
				fmt.Fprintln(&said, lines.Text())
				if strings.Contains(lines.Text(), "waiting for another") {
					cmd.Process.Signal(unix.SIGTERM)
					break
				}
			}
			io.Copy(&said, stderr)
			if code := wait(t, cmd); code != 143 {
				t.Errorf("exit %d, want 143\n%s", code, &said)
			}
		})
	}
}

// At whatever instant TERM arrives, it ends either run-task, with 143, or the command. Never another code, never a Go runtime's. (Before main begins, in
// the first two milliseconds, nothing of ours can run; a lock that we hold tells us that it has begun.)
func TestSignalAtRandomInstants(t *testing.T) {
	needRoot(t)
	r := newRepo(t)
	// No Go program: in its own first milliseconds, too, it would exit 2.
	shell := []string{"/bin/sh", "-c", "trap 'echo got TERM; exit 0' TERM; sleep 1000 & wait"}
	outcomes := map[int]int{}
	for i := range 40 {
		dir := tempDir(t)
		mkdirAll(t, dir+"/cache")
		lock, err := os.Open(dir + "/cache")
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		c := &command{pid1: true, dir: dir, args: append([]string{"run-task", "--user", "1000:1000", "--cache", "cache", "--checkout", "src", "--repo", r.Path, "--sha", r.SHA["tip"], "--"}, shell...)}
		cmd := c.cmd()
		var out bytes.Buffer
		cmd.Stdout = &out
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(stderr)
		said, err := lines.ReadString('\n')
		if err != nil || !strings.Contains(said, "waiting for another") {
			t.Fatalf("%q, %v", said, err)
		}
		lock.Close()
		done := make(chan struct{})
		go func() {
			// While a program as PID 1 has no handler the kernel drops the signal: whoever stops a container asks again.
			pause := time.Duration(rand.Int64N(int64(40 * time.Millisecond)))
			for {
				select {
				case <-done:
					return
				case <-time.After(pause):
					cmd.Process.Signal(unix.SIGTERM)
					pause = 50 * time.Millisecond
				}
			}
		}()
		rest, _ := io.ReadAll(lines)
		code := wait(t, cmd)
		close(done)
		outcomes[code]++
		if code != 143 && code != 0 || code == 0 && !strings.Contains(out.String(), "got TERM") {
			t.Errorf("run %d: exit %d\n%s%s", i, code, rest, &out)
		}
	}
	t.Logf("exit codes: %v", outcomes)
}

// While other people's bytes are read nothing of root is left, in any thread, and the command's user cannot look into the process.
func TestDropOnEveryThread(t *testing.T) {
	needRoot(t)
	cmd, errs := started(t, "--", "probe")
	defer wait(t, cmd)
	defer cmd.Process.Kill()
	proc := fmt.Sprintf("/proc/%d", cmd.Process.Pid)
	tasks, err := os.ReadDir(proc + "/task")
	if err != nil || len(tasks) < 2 {
		t.Fatalf("%d threads, %v\n%s", len(tasks), err, errs)
	}
	want := map[string]string{
		"Uid": "1000 1000 1000 1000", "Gid": "1001 1001 1001 1001", "Groups": "1001",
		"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapBnd": "0000000000000000", "CapAmb": "0000000000000000",
	}
	for _, task := range tasks {
		status, err := os.ReadFile(proc + "/task/" + task.Name() + "/status")
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for line := range strings.Lines(string(status)) {
			key, value, _ := strings.Cut(line, ":")
			if w, ok := want[key]; ok {
				seen++
				if got := strings.Join(strings.Fields(value), " "); got != w {
					t.Errorf("thread %s: %s is %q, want %q", task.Name(), key, got, w)
				}
			}
		}
		if seen != len(want) {
			t.Errorf("thread %s: only %d of %d lines:\n%s", task.Name(), seen, len(want), status)
		}
	}
	notDumpable(t, cmd)
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink(proc + "/fd/" + fd.Name()); err == nil && strings.Contains(target, "(deleted)") {
			t.Errorf("descriptor %s is still %s", fd.Name(), target)
		}
	}
}

// Also where there was nothing to drop.
func TestNotDumpable(t *testing.T) {
	needRoot(t)
	cmd, _ := startedAs(t, []string{"user", "1000", "1001"}, "--", "probe")
	defer wait(t, cmd)
	defer cmd.Process.Kill()
	notDumpable(t, cmd)
}

// notDumpable: then others of its user cannot read its environment, nor its memory.
func notDumpable(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/environ", cmd.Process.Pid), &st); err != nil || st.Uid != 0 {
		t.Errorf("the process is dumpable: its /proc files belong to uid %d, %v", st.Uid, err)
	}
}
