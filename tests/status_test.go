//go:build linux

package tests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

type status struct {
	Version, Code                    int
	Phase, Reason, Step, Error, Hint string
	Steps                            []struct {
		Name    string
		Seconds float64
	}
	Checkouts []struct {
		Name, Dir, SHA, Commit, Tree, Source string
		Seconds                              float64
	}
}

func readStatus(t *testing.T, file string) status {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var s status
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatalf("%v: %q", err, data)
	}
	if strings.Count(string(data), "\n") != 1 {
		t.Errorf("not one line: %q", data)
	}
	return s
}

// --status-file says for machines what the exit code alone cannot: whose it is.
func TestStatusFile(t *testing.T) {
	r := newRepo(t)
	dir := tempDir(t)
	if os.Getuid() == 0 {
		if err := os.Chown(dir, 1000, 1000); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (int, status) {
		t.Helper()
		c := &command{dir: dir, args: append([]string{"run-task"}, args...)}
		code, _, stderr := c.run(t)
		t.Log(stderr)
		return code, readStatus(t, filepath.Join(dir, "status.json"))
	}
	main := func(args ...string) (int, status) {
		t.Helper()
		return run(slices.Concat(asUser(), []string{"--status-file", "status.json"}, args)...)
	}
	from := []string{"--checkout", "src", "--repo", r.Path, "--sha", r.SHA["tag"]}

	code, s := main(append(from, "--", "probe", "exit", "72")...)
	if code != 72 || s.Phase != "command" || s.Code != 0 || s.Reason != "" || s.Version != 1 {
		t.Errorf("the command's own 72: exit %d, %+v", code, s)
	}
	if len(s.Checkouts) != 1 || s.Checkouts[0].SHA != r.SHA["tag"] || s.Checkouts[0].Commit != r.SHA["second"] || s.Checkouts[0].Dir != dir+"/src" || len(s.Checkouts[0].Tree) != 40 || s.Checkouts[0].Source != "local" {
		t.Errorf("checkouts: %+v", s.Checkouts)
	}
	var names []string
	for _, step := range s.Steps {
		names = append(names, step.Name)
	}
	if !slices.Contains(names, "perms") || !slices.Contains(names, "vcs") {
		t.Errorf("steps: %q", names)
	}

	code, s = main(append(from, "--", "no-such-program")...)
	if code != 127 || s.Phase != "failed" || s.Code != 127 || s.Reason != "not-found" || s.Step != "exec" || !strings.Contains(s.Error, "no-such-program") {
		t.Errorf("no such program: exit %d, %+v", code, s)
	}
	code, s = main("--cache", "nowhere", "--", "probe")
	if code != 64 || s.Phase != "failed" || s.Code != 64 || s.Reason != "usage" || s.Step != "cache" || s.Hint == "" || len(s.Checkouts) != 0 {
		t.Errorf("a failed step: exit %d, %+v", code, s)
	}

	// The checkout alone has no command to hand over to.
	code, s = run(slices.Concat([]string{"checkout"}, asUser(), []string{"--status-file", "status.json", "src,repo=" + r.Path + ",sha=" + r.SHA["tip"]})...)
	if code != 0 || s.Phase != "done" || len(s.Checkouts) != 1 {
		t.Errorf("the checkout alone: exit %d, %+v", code, s)
	}

	// Killed by TERM it says so.
	cmd, errs := started(t, "--status-file", "status.json", "--", "probe")
	cmd.Process.Signal(unix.SIGTERM)
	if code := wait(t, cmd); code != 143 {
		t.Errorf("exit %d\n%s", code, errs)
	}
	if s := readStatus(t, filepath.Join(cmd.Dir, "status.json")); s.Phase != "failed" || s.Code != 143 || s.Reason != "cancelled" || s.Step != "vcs" {
		t.Errorf("cancelled: %+v", s)
	}
}

// The file that the environment names is opened as the task's user: root writes nothing for whoever writes the job.
func TestStatusFileOfTheEnvironment(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	mkdirAll(t, dir+"/roots")
	c := &command{dir: dir, env: []string{"RUN_TASK_STATUS_FILE=" + dir + "/roots/status.json"}, args: []string{"run-task", "--user", "1000:1000", "--", "probe"}}
	if code, _, stderr := c.run(t); code != 74 {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	if left, _ := os.ReadDir(dir + "/roots"); len(left) > 0 {
		t.Errorf("root wrote %v", left)
	}

	// Named on the command line it may be root's, but it is never a link, nor another name of a file.
	c.env = nil
	c.args = []string{"run-task", "--user", "1000:1000", "--status-file", "roots/status.json", "--", "probe", "exit", "0"}
	if code, _, stderr := c.run(t); code != 0 {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	plant(t, dir+"/precious", "precious")
	for _, make := range []func(string) error{
		func(p string) error { return os.Symlink("../precious", p) },
		func(p string) error { return os.Link(dir+"/precious", p) },
		func(p string) error { return unix.Mkfifo(p, 0o666) },
	} {
		os.Remove(dir + "/roots/status.json")
		if err := make(dir + "/roots/status.json"); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, dir+"/roots")
		if code, _, stderr := c.run(t); code != 64 {
			t.Errorf("exit %d\n%s", code, stderr)
		}
		if after := snapshot(t, dir+"/roots"); after != before {
			t.Errorf("is\n%swas\n%s", after, before)
		}
	}
	if data, _ := os.ReadFile(dir + "/precious"); string(data) != "precious" {
		t.Errorf("written through a link: %q", data)
	}
}
