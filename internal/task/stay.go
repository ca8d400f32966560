package task

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/internal/mask"
)

// stay reads how to stay with the command, and how its output is shown. Whatever needs us alive implies --init.
func (t *Task) stay(v *values, env []string) error {
	if err := t.masks(v, env); err != nil {
		return err
	}
	l, o := &t.Stay.Limits, &t.Stay.Output
	l.Began, l.QuitFirst, o.Timestamps = time.Now(), v.on("quit-first"), v.on("timestamps")
	for name, d := range map[string]*time.Duration{"timeout": &l.Task, "command-timeout": &l.Command, "no-output-timeout": &l.Silence, "grace": &l.Grace, "save-budget": &l.Reserved} {
		var err error
		if *d, err = duration(v, name, 0); err != nil {
			return err
		}
	}
	switch {
	case l.Reserved > 0 && l.Task == 0 && len(v.list("cache-archive")) == 0:
		return fail.Errorf(fail.Usage, "--save-budget is a part of --timeout, which is not given").WithHint("give --timeout, too")
	case l.Reserved > 0 && l.Task > 0 && l.Reserved >= l.Task:
		return fail.Errorf(fail.Usage, "--save-budget %s leaves nothing of --timeout %s for the command", v.text("save-budget"), v.text("timeout")).WithHint("give it less, or the task more")
	}
	if s := v.text("output-limit"); s != "" {
		var err error
		if o.Limit, err = parseSize(s); err != nil {
			return fail.Errorf(fail.Usage, "--output-limit %q is not a size", s).WithHint("give bytes, or a number and a unit: 500k, 10M, 2GiB")
		}
	}
	switch t.Sections = logs.Sections(v.text("sections")); t.Sections {
	case "", logs.NoSections, logs.GitLab, logs.GitHub:
	default:
		return fail.Errorf(fail.Usage, "--sections %q is none of gitlab, github and none", t.Sections).WithHint("leave it out where the log's viewer folds nothing")
	}
	o.Relay = len(t.Masks) > 0 || l.Silence > 0
	t.Init = !t.Alone && (v.on("init") || l.Task > 0 || l.Command > 0 || o.Timestamps || o.Limit > 0 || o.Relay)
	return nil
}

// masks gathers what must be printed nowhere: values of variables and lines of files.
func (t *Task) masks(v *values, env []string) error {
	for _, name := range v.list("mask-env") {
		value := lookup(env, name)
		switch {
		case value == "":
			t.Warnings = append(t.Warnings, fmt.Sprintf("--mask-env %s: there is no such variable, or it is empty: nothing to mask", name))
			continue
		case len(value) < mask.Min:
			return tooShort("--mask-env %s: its value", name)
		}
		t.Masks = append(t.Masks, value)
		for line := range strings.Lines(value) { // it may be printed with other line ends, or indented
			if line = strings.TrimRight(line, "\r\n"); len(line) >= mask.Min && line != value {
				t.Masks = append(t.Masks, line)
			}
		}
	}
	for _, name := range v.list("mask-file") {
		content, err := readSecrets(name)
		if err != nil {
			return err
		}
		n := 0
		for line := range strings.Lines(content) {
			n++
			switch line = strings.TrimRight(line, "\r\n"); {
			case line == "":
			case len(line) < mask.Min:
				return tooShort("--mask-file %q: line %d", name, n)
			default:
				t.Masks = append(t.Masks, line)
			}
		}
	}
	return nil
}

func tooShort(what string, args ...any) error {
	return fail.Errorf(fail.Usage, what+" is shorter than %d bytes: it would mask ordinary words", append(args, mask.Min)...).WithHint("mask longer secrets; short ones are easily guessed anyway")
}

// readSecrets reads a file of values to mask: a regular one, of 1 MiB at most.
func readSecrets(name string) (string, error) {
	const most = 1 << 20
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	var cause *fs.PathError
	if errors.As(err, &cause) {
		return "", fail.Errorf(fail.Usage, "--mask-file %q: %w", name, cause.Err).WithHint("name a file with one value a line")
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > most {
		return "", fail.Errorf(fail.Usage, "--mask-file %q is no regular file of 1 MiB at most", name).WithHint("name a file with one value a line")
	}
	content, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return "", fmt.Errorf("--mask-file %q: %w", name, err)
	}
	return string(content), nil
}
