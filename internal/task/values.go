package task

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"run-task/internal/fail"
)

// File is where an image or a fleet keeps its defaults.
const File = "/etc/run-task.toml"

// source says where a value came from; the zero one is the built-in default.
type source int

const (
	unset source = iota
	fromArgv
	fromFile
	fromEnv
)

// trusted sources are not in the hands of whoever writes the job.
func (s source) trusted() bool { return s == fromArgv || s == fromFile }

// values are all settings as said, each by the first source that says it.
type values struct {
	said        map[string][]string
	from        map[string]source
	taskcluster bool     // TASKCLUSTER_* is honoured
	warnings    []string // about the environment
}

func (v *values) text(name string) string {
	if s := v.said[name]; len(s) > 0 {
		return s[0]
	}
	return ""
}
func (v *values) list(name string) []string { return v.said[name] }
func (v *values) on(name string) bool       { return v.text(name) == "true" }

// only forgets all settings but these.
func (v *values) only(names []string) {
	for name := range v.said {
		if !slices.Contains(names, name) {
			delete(v.said, name)
			delete(v.from, name)
		}
	}
}

// where names the source of a setting for --plan.
func (v *values) where(name string) string {
	switch v.from[name] {
	case fromArgv:
		return "--" + name
	case fromFile:
		return File
	case fromEnv:
		i := slices.IndexFunc(settings, func(s setting) bool { return s.name == name })
		return settings[i].env()
	}
	return "default"
}

// gather reads argv (through cli), then the file, then the variables.
func gather(c *cli.Context, env []string) (*values, error) {
	v := &values{said: map[string][]string{}, from: map[string]source{}, taskcluster: true}
	file, err := readFile(File)
	if err != nil {
		return nil, err
	}
	if in, ok := file["taskcluster"]; ok {
		if v.taskcluster, ok = in.(bool); !ok {
			return nil, fail.Errorf(fail.Usage, "%s: taskcluster is %v", File, in).WithHint("taskcluster = true or false")
		}
		delete(file, "taskcluster")
	}
	for _, s := range settings {
		var said []string
		var from source
		switch in := file[s.name]; {
		case c.IsSet(s.name):
			said, from = fromContext(c, s), fromArgv
		case in != nil && !s.argvOnly:
			if said, err = fromTOML(s, in); err != nil {
				return nil, err
			}
			from = fromFile
		case s.env() != "" && lookup(env, s.env()) != "":
			if said, err = fromVariable(s, lookup(env, s.env())); err != nil {
				return nil, err
			}
			from = fromEnv
		}
		if !s.argvOnly {
			delete(file, s.name)
		}
		if slices.Contains(said, "") && s.name != "ref" {
			return nil, fail.Errorf(fail.Usage, "--%s is empty", s.name).WithHint("a variable that is not set? leave the flag out, or give it a value")
		}
		if from != unset {
			v.said[s.name], v.from[s.name] = said, from
		}
	}
	for key := range file {
		return nil, fail.Errorf(fail.Usage, "%s: unknown key %q", File, key).WithHint(`keys are the names of the flags without "--", and taskcluster = false`)
	}
	v.warnings = strangers(env)
	return v, nil
}

func fromContext(c *cli.Context, s setting) []string {
	switch s.kind {
	case list:
		return c.StringSlice(s.name)
	case toggle:
		return []string{strconv.FormatBool(c.Bool(s.name))}
	}
	return []string{c.String(s.name)}
}

func fromTOML(s setting, in any) ([]string, error) {
	bad := fail.Errorf(fail.Usage, "%s: %s is %v", File, s.name, in)
	switch x := in.(type) {
	case string:
		if s.kind == text || s.kind == list {
			return []string{x}, nil
		}
	case bool:
		if s.kind == toggle {
			return []string{strconv.FormatBool(x)}, nil
		}
	case int64:
		if s.kind == text {
			return []string{strconv.FormatInt(x, 10)}, nil
		}
	case []any:
		var out []string
		for _, e := range x {
			t, ok := e.(string)
			if !ok || s.kind != list {
				return nil, bad.WithHint("a list holds strings, and only repeatable flags take one")
			}
			out = append(out, t)
		}
		return out, nil
	}
	return nil, bad.WithHint(`strings are "quoted", switches true or false, repeatable flags a list of strings`)
}

func fromVariable(s setting, in string) ([]string, error) {
	switch s.kind {
	case list:
		return slices.DeleteFunc(strings.Split(in, "\n"), func(l string) bool { return l == "" }), nil
	case toggle:
		on, err := strconv.ParseBool(in)
		if err != nil {
			return nil, fail.Errorf(fail.Usage, "%s is %q", s.env(), in).WithHint("use 1 or 0")
		}
		return []string{strconv.FormatBool(on)}, nil
	}
	return []string{in}, nil
}

// readFile reads the defaults; none is fine. Whoever can write the file decides who the task runs as, so nobody but root may.
func readFile(name string) (map[string]any, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fail.Errorf(fail.Usage, "read settings: %w", err).WithHint("%s must be a regular file that every user can read, and no link", name)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != 0 || st.Mode&0o022 != 0 || st.Size > 1<<20 {
		return nil, fail.Errorf(fail.Usage, "%s is not trusted: it must be a regular file of root's that nobody else can write", name).
			WithHint("chown root:root %s && chmod 644 %s", name, name)
	}
	var out map[string]any
	if err := toml.NewDecoder(f).Decode(&out); err != nil {
		return nil, fail.Errorf(fail.Usage, "%s: %w", name, err).WithHint(`it is TOML: user = "worker", cache = ["/builds/cache"]`)
	}
	return out, nil
}

// strangers warns of RUN_TASK_ variables that say nothing: a misspelt one, or one that would decide what the environment may not.
func strangers(env []string) []string {
	known := map[string]bool{}
	forbidden := map[string]string{}
	for _, s := range settings {
		known[s.env()] = true
		s.noEnv = false
		forbidden[s.env()] = s.name
	}
	var out []string
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "RUN_TASK_") || known[name] {
			continue
		}
		if flag := forbidden[name]; flag != "" {
			out = append(out, fmt.Sprintf("%s is ignored: --%s is read from the command line and %s only", name, flag, File))
		} else {
			out = append(out, fmt.Sprintf("%s is ignored: there is no such setting", name))
		}
	}
	return out
}

// lookup is the value of the first entry for name, as execve's users read it.
func lookup(env []string, name string) string {
	for _, kv := range env {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			return v
		}
	}
	return ""
}
