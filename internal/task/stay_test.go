package task

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/supervise"
)

// What needs us alive implies --init; what does not leaves the choice.
func TestWhatStays(t *testing.T) {
	for line, want := range map[string]bool{
		"": false, "--init": true, "--timeout 1h": true, "--command-timeout 1h": true, "--no-output-timeout 1h": true, "--timestamps": true, "--output-limit 1M": true,
		"--mask-env TOKEN": true, "--mask-env NOTHING": false, "--grace 1s": false, "--quit-first": false, "--sections github": false, "--status-file /s": false,
	} {
		task, _, err := parse(t, []string{"TOKEN=hunter2"}, slices.Concat([]string{"--user", "root"}, strings.Fields(line), []string{"--", "x"})...)
		if err != nil || task.Init != want {
			t.Errorf("%q: stays: %t, %v", line, task.Init, err)
		}
	}
	task, _, err := parse(t, []string{"RUN_TASK_INIT=1", "RUN_TASK_TIMEOUT=1h", "RUN_TASK_TIMESTAMPS=1"}, "checkout", "--user", "root", "d,repo=/r,sha="+sha)
	if err != nil || task.Init || task.Stay.Limits.Task != time.Hour {
		t.Errorf("without a command: %+v, %v", task, err)
	}
}

func TestStay(t *testing.T) {
	began := time.Now()
	task, _, err := parse(t, []string{"RUN_TASK_TIMEOUT=2h", "RUN_TASK_GRACE=3s", "RUN_TASK_SECTIONS=gitlab", "RUN_TASK_OUTPUT_LIMIT=10M", "RUN_TASK_TIMESTAMPS=0"}, "--user", "root", "--timeout", "1d",
		"--command-timeout", "90m", "--no-output-timeout", "500ms", "--save-budget", "10m", "--quit-first", "--", "x")
	if err != nil {
		t.Fatal(err)
	}
	got := task.Stay
	if got.Limits.Began.Before(began) || got.Limits.Began.After(time.Now()) {
		t.Errorf("it began at %s", got.Limits.Began)
	}
	got.Limits.Began = time.Time{}
	want := supervise.Options{
		Limits: supervise.Limits{Task: 24 * time.Hour, Reserved: 10 * time.Minute, Command: 90 * time.Minute, Silence: 500 * time.Millisecond, Grace: 3 * time.Second, QuitFirst: true},
		Output: supervise.Output{Limit: 10_000_000, Relay: true},
	}
	if got != want || task.Sections != logs.GitLab {
		t.Errorf("got  %+v, sections %q\nwant %+v", got, task.Sections, want)
	}
}

func TestMasks(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	env := []string{"TOKEN=hunter2", "KEY=--begin\r\nabcdefgh\n=\nijkl\n", "EMPTY=", "SHORT=abc"}
	task, _, err := parse(t, env, "--user", "root", "--mask-env", "TOKEN", "--mask-env", "KEY", "--mask-env", "EMPTY", "--mask-env", "NONE",
		"--mask-file", file("values", "one value\r\n\n  two\nlast"), "--", "x")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"hunter2", "--begin\r\nabcdefgh\n=\nijkl\n", "--begin", "abcdefgh", "ijkl", "one value", "  two", "last"}
	if !reflect.DeepEqual(task.Masks, want) {
		t.Errorf("got  %q\nwant %q", task.Masks, want)
	}
	if len(task.Warnings) != 2 || !strings.Contains(task.Warnings[0], "EMPTY") || !strings.Contains(task.Warnings[1], "NONE") {
		t.Errorf("warnings: %q", task.Warnings)
	}
	if !slices.Contains(task.Command.Env, "TOKEN=hunter2") {
		t.Error("the command does not get the variable")
	}

	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"--mask-env SHORT": "SHORT: its value is shorter than 4 bytes", "--mask-file " + file("short", "long enough\nabc\n"): "line 2 is shorter than 4 bytes",
		"--mask-file " + dir + "/none": "no such file", "--mask-file " + dir: "no regular file", "--mask-file " + fifo: "no regular file",
		"--mask-file " + file("large", strings.Repeat("x", 1<<20+1)): "1 MiB", "--save-budget 1s": "--timeout", "--save-budget 2s --timeout 2s": "leaves nothing",
		"--sections jenkins": "gitlab, github", "--output-limit lots": "not a size", "--output-limit 0": "not a size", "--timeout 0s": "not a time", "--timeout soon": "not a time", "--grace -1s": "not a time",
	} {
		task, _, err := parse(t, env, slices.Concat([]string{"--user", "root"}, strings.Fields(args), []string{"--", "x"})...)
		if fail.Of(err) != fail.Usage || !strings.Contains(err.Error(), want) || fail.Hint(err) == "" {
			t.Errorf("%s: %v, hint %q", args, err, fail.Hint(err))
		}
		if err != nil && strings.Contains(err.Error()+fail.Hint(err), "abc") {
			t.Errorf("%s: the secret is in %v", args, err)
		}
		if task == nil {
			t.Errorf("%s: nothing is known of the task", args)
		}
	}
}
