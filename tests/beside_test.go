//go:build linux

package tests

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A shell that becomes run-task hands down its children. They may read what the command prints, and are no business of the end.
func TestChildrenOfBefore(t *testing.T) {
	for _, flag := range []string{"--init", "--timestamps"} {
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			// The reader ends by itself at the end of its input, long after the command, and what the command leaves behind is ended.
			script := `mkfifo in; { IFS= read -r first; echo "$first" >first; cat >rest; echo read >done; } <in & exec run-task --quiet --user ` + fmt.Sprint(os.Getuid()) + ` --group ` + fmt.Sprint(os.Getgid()) + ` ` + flag +
				` --grace 100ms -- /bin/sh -c 'echo one; echo two; sleep 1000 & exit 3' >in`
			c := &command{dir: dir, args: []string{"/bin/sh", "-c", script}}
			cmd := c.cmd()
			r, w, err := os.Pipe() // held open by all: its end says that the reader has ended too
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			cmd.ExtraFiles = []*os.File{w}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if code := wait(t, cmd); code != 3 {
				t.Errorf("exit %d", code)
			}
			io.Copy(io.Discard, r)
			if done, err := os.ReadFile(filepath.Join(dir, "done")); err != nil || string(done) != "read\n" {
				t.Errorf("the reader did not come to its end: %q, %v", done, err)
			}
			if rest, _ := os.ReadFile(filepath.Join(dir, "rest")); !strings.HasSuffix(string(rest), "two\n") {
				t.Errorf("the reader got %q", rest)
			}
		})
	}
}

// In a PID namespace with the /proc of another one numbers mean other processes: nobody may be signalled by them.
func TestForeignProc(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	script := `exec run-task --quiet --user root --init --grace 100ms -- /bin/sh -c 'sleep 1000 & exit 5'`
	beside := "(" + script + ") & job=$!; " + strings.Repeat("sleep 300 & ", 20) + "wait $job; code=$?; kill -0 $! && echo alive; exit $code"
	cmd := exec.Command("/bin/sh", "-c", beside)
	cmd.Env = (&command{args: []string{"x"}}).cmd().Env
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if code := wait(t, cmd); code != 5 || !strings.Contains(out.String(), "alive") {
		t.Errorf("exit %d\n%s", code, &out)
	}
}

// Silence is the command's only if it could print: whoever reads slowly does not end it.
func TestSlowReaderIsNoSilence(t *testing.T) {
	cmd := (&command{args: append(append([]string{"run-task", "--quiet"}, asUser()...), "--no-output-timeout", "300ms", "--", "/bin/sh", "-c", "yes | head -c 3000000; exit 7")}).cmd()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	// It is blocked now, for longer than the limit: another run-task with the same limit, which began later, has ended meanwhile.
	code, _, stderr := (&command{args: append(append([]string{"run-task", "--quiet"}, asUser()...), "--no-output-timeout", "600ms", "--", "sleep", "1000")}).run(t)
	if code != 124 {
		t.Errorf("the other one: exit %d\n%s", code, stderr)
	}
	n, err := io.Copy(io.Discard, r)
	if code := wait(t, cmd); code != 7 || n != 3000000 || err != nil {
		t.Errorf("exit %d, %d bytes, %v", code, n, err)
	}
}

// As many secrets as a file holds are taken in no time, and no line that is printed is slow.
func TestManyMasks(t *testing.T) {
	var secrets strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&secrets, "s%07d\n", i)
	}
	file := filepath.Join(tempDir(t), "secrets")
	if err := os.WriteFile(file, []byte(secrets.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := (&command{args: append(append([]string{"run-task", "--quiet"}, asUser()...), "--mask-file", file, "--", "echo", "s0012345", "s0099999", "s0100000")}).run(t)
	if code != 0 || stdout != "[MASKED] [MASKED] s0100000\n" {
		t.Errorf("exit %d, %q\n%s", code, stdout, stderr)
	}
}

// Also what is said before the flags are understood has no secret in it.
func TestMasksOfWordsThatAreNotUnderstood(t *testing.T) {
	for _, args := range [][]string{
		{"--mask-env", "TOKEN", "--timeouthunter2222", "--", "true"}, {"--init=hunter2222", "--mask-env=TOKEN", "--", "true"}, {"--mask-env", "TOKEN", "curl", "hunter2222"},
	} {
		code, stdout, stderr := (&command{env: []string{"TOKEN=hunter2222"}, args: append([]string{"run-task"}, args...)}).run(t)
		if code != 64 || strings.Contains(stdout+stderr, "hunter") || !strings.Contains(stderr, "[MASKED]") {
			t.Errorf("%q: exit %d\n%s%s", args, code, stdout, stderr)
		}
	}
	code, _, stderr := (&command{env: []string{"TOKEN=hunter2222", "RUN_TASK_MASK_ENV=OTHER\nTOKEN"}, args: []string{"run-task", "curl", "hunter2222"}}).run(t)
	if code != 64 || strings.Contains(stderr, "hunter") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}
