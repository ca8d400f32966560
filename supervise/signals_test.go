//go:build linux

package supervise

import (
	"bufio"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
)

func reasonOf(err error) fail.Reason { return fail.Of(err) }

// started runs a command until it says "ready".
func started(t *testing.T, cmd *exec.Cmd) *bufio.Reader {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	t.Cleanup(func() { hung.Stop(); cmd.Process.Kill(); cmd.Wait() })
	out := bufio.NewReader(stdout)
	expect(t, out, "ready")
	return out
}

func expect(t *testing.T, out *bufio.Reader, want string) {
	t.Helper()
	if line, err := out.ReadString('\n'); line != want+"\n" {
		t.Fatalf("got %q (%v), want %q", line, err, want)
	}
}

// pid1 makes a command the first process of a PID namespace.
func pid1(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
	}
	return cmd
}

func TestSignalDuringSetup(t *testing.T) {
	for _, c := range []struct {
		sig  syscall.Signal
		code int
	}{{unix.SIGTERM, 143}, {unix.SIGINT, 130}, {unix.SIGHUP, 143}, {unix.SIGQUIT, 143}} {
		for name, cmd := range map[string]*exec.Cmd{"plain": exec.Command(helper, "setup"), "PID 1": pid1(exec.Command(helper, "setup"))} {
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out := started(t, cmd)
			cmd.Process.Signal(c.sig)
			io.Copy(io.Discard, out)
			cmd.Wait()
			want := "run-task: error: " + unix.SignalName(c.sig) + " arrived before the command started\n"
			if got := status(cmd.ProcessState); got != c.code || cmd.ProcessState.ExitCode() != c.code || stderr.String() != want {
				t.Errorf("%v as %s: status %d, want %d; %q, want %q", c.sig, name, got, c.code, stderr.String(), want)
			}
		}
	}
}

func TestIgnoredSignalIsNotCaught(t *testing.T) {
	cmd := sh(`trap "" HUP; exec "$HELPER" setup`)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out := started(t, cmd)
	cmd.Process.Signal(unix.SIGHUP)
	cmd.Process.Signal(unix.SIGTERM) // a higher number: comes second if both are caught
	io.Copy(io.Discard, out)
	cmd.Wait()
	if !strings.Contains(stderr.String(), "SIGTERM arrived") {
		t.Errorf("got %q, want TERM to be the first signal", stderr.String())
	}
}

func TestSecondSignalDoesNotWait(t *testing.T) {
	cmd := exec.Command(helper, "stuck")
	out := started(t, cmd)
	cmd.Process.Signal(unix.SIGINT)
	expect(t, out, "cancelled")
	cmd.Process.Signal(unix.SIGTERM)
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 130 {
		t.Errorf("status %d, want 130: the first signal tells why", got)
	}
}

// A signal that nobody has looked at when the command is about to start still ends the task.
func TestSignalJustBeforeTheCommand(t *testing.T) {
	for range 50 {
		if out, code := output(t, exec.Command(helper, "late", "echo", "command ran")); code != 130 || strings.Contains(out, "ran") {
			t.Fatalf("status %d, want 130: %s", code, out)
		}
	}
}

// TERM at any instant around execve ends the task: it is never swallowed by a handler that execve removes. As PID 1 the
// kernel drops it once the default action is set, as it would for the command; what it never does is to end with Go's 2.
func TestNoSignalIsLostInExec(t *testing.T) {
	for n := range 600 {
		cmd := exec.Command(helper, "window", "cat")
		if n%2 == 1 {
			pid1(cmd)
		}
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out := started(t, cmd)
		for end := time.Now().Add(time.Duration(rand.Int64N(int64(400 * time.Microsecond)))); time.Now().Before(end); {
		}
		cmd.Process.Signal(unix.SIGTERM)
		stdin.Close() // cat ends with 0 if it has not seen TERM
		io.Copy(io.Discard, out)
		cmd.Wait()
		if got := status(cmd.ProcessState); got != 143 && (got != 0 || n%2 == 0) {
			t.Fatalf("run %d: status %d, want 143", n, got)
		}
	}
}
