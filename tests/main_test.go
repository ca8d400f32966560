//go:build linux

// Package tests runs the real run-task, as its users would: testdata holds scripts that read like the README's examples, the Go tests need more
// than a script can say. Nothing here looks inside.
package tests

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What TestMain made.
var (
	scratch string // a directory for all of it that every user can enter
	bin     string // run-task and probe, static
	binary  string // bin/run-task
	probe   string // bin/probe
)

func TestMain(m *testing.M) { os.Exit(all(m)) }

func all(m *testing.M) int {
	// Whoever started us may have left descriptors open, a strange umask and signals ignored (nohup does); run-task must get none of it.
	for _, sig := range []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	unix.CloseRange(3, 1<<20, unix.CLOSE_RANGE_CLOEXEC)
	unix.Umask(0o022)
	var err error
	if scratch, err = os.MkdirTemp("", "run-task-tests-"); err != nil {
		return failed(err)
	}
	defer remove(scratch)
	if err := os.Chmod(scratch, 0o755); err != nil {
		return failed(err)
	}
	bin = filepath.Join(scratch, "bin")
	binary, probe = filepath.Join(bin, "run-task"), filepath.Join(bin, "probe")
	for from, to := range map[string]string{"..": binary, "./probe": probe} {
		build := exec.Command("go", "build", "-trimpath", "-tags", "urfave_cli_no_docs", "-o", to, from)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return failed(fmt.Errorf("%s: %w\n%s", strings.Join(build.Args, " "), err, out))
		}
	}
	code := m.Run()
	if err := s3.Stop(); err != nil {
		code = failed(err)
	}
	printSkips()
	return code
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// remove also copes with directories that a test made unwritable, for those who are not root.
func remove(dir string) {
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(path, 0o700)
		}
		return nil
	})
	os.RemoveAll(dir)
}

// skips are the tests that could not run here, by reason. They are printed and counted at the end: a test that did not run must not look like one that passed.
var skips struct {
	sync.Mutex
	names map[string][]string
}

func skip(t interface{ Skip(...any) }, name, reason string) {
	skips.Lock()
	if skips.names == nil {
		skips.names = map[string][]string{}
	}
	skips.names[reason] = append(skips.names[reason], name)
	skips.Unlock()
	t.Skip(reason)
}

func printSkips() {
	n := 0
	for reason, names := range skips.names {
		n += len(names)
		sort.Strings(names)
		fmt.Printf("SKIPPED: %s: %s\n", reason, strings.Join(names, ", "))
	}
	fmt.Printf("%d tests skipped\n", n)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		skip(t, t.Name(), "needs root")
	}
}

// command is run-task, or another program, as the tests start it: nothing of the environment that the tests run in reaches it.
type command struct {
	args  []string
	dir   string
	env   []string // beside PATH, HOME and TMPDIR
	pid1  bool     // in PID and mount namespaces of its own, as their first process
	enter []string // words for "probe enter"
}

func (c *command) cmd() *exec.Cmd {
	args, enter := slices.Clone(c.args), c.enter
	if c.pid1 {
		enter = append([]string{"proc"}, enter...)
	}
	if len(enter) > 0 {
		args = append(append([]string{probe, "enter"}, enter...), append([]string{"--"}, args...)...)
	}
	if !strings.Contains(args[0], "/") {
		args[0] = filepath.Join(bin, args[0])
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = c.dir
	cmd.Env = append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=/nonexistent", "TMPDIR=" + scratch, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null"}, c.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if len(enter) > 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS
	}
	if c.pid1 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWPID
	}
	return cmd
}

// run runs the command to its end and gives its exit code, as a shell does, and its output.
func (c *command) run(t *testing.T) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := c.cmd()
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return wait(t, cmd), out.String(), errs.String()
}

// wait is how the process ended, as a shell says it. One that hangs is killed, which fails the test.
func wait(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	timer := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	cmd.Wait()
	if !timer.Stop() {
		t.Fatalf("%s: hung", strings.Join(cmd.Args, " "))
	}
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// must is a run that exits 0; its stdout is given.
func (c *command) must(t *testing.T) string {
	t.Helper()
	code, stdout, stderr := c.run(t)
	if code != 0 {
		t.Fatalf("%s: exit %d\n%s%s", strings.Join(c.args, " "), code, stdout, stderr)
	}
	return stdout
}
