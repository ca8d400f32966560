//go:build unix

// Package supervise hands the process over to the task's command, and says why when that cannot be done. It is the only
// package that deals with signals and starts programs.
package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
)

// DefaultPath is where a command is looked for when its environment has no PATH: the one that Docker gives a container.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Command is the task's command.
type Command struct {
	Args []string // Args[0] is the program: a path, or a name that is looked up in Env's PATH
	Dir  string   // where it starts; "" is where we are. PWD follows in its environment.
	Env  []string // all of it, as "NAME=value"
}

// Exec replaces this process by the command, which gets our PID, stdio, signal mask and the RLIMIT_NOFILE that we were
// started with. It returns only on failure: NotFound (127), CannotExec (126), Usage or IO for a Dir that cannot be
// entered, or the cause with which s ended the task when a signal came first. s may be nil.
//
// What the Go runtime changes at its start cannot be handed over: of the signals that were ignored, HUP, INT, TSTP, TTIN,
// TTOU and CONT stay ignored and the others get their default action; of those that were blocked, the runtime unblocks the
// ones that end a process (HUP, INT, QUIT, TERM, ABRT, ILL, TRAP, BUS, FPE, SEGV, SYS, STKFLT) or that it needs itself (CHLD,
// PROF, URG, 32 to 34).
//
// After a failure TERM, INT, HUP and QUIT have their default action: nothing may be left to clean up.
func Exec(c Command, s *Signals) error {
	path, env, err := c.resolve()
	if err != nil {
		return err
	}
	if err := s.release(); err != nil {
		return err
	}
	return explain(path, c.Args, env, syscall.Exec(path, c.Args, env))
}

// resolve enters the command's directory and finds its program: as the task's user, who may see less than root does.
func (c Command) resolve() (path string, env []string, err error) {
	if len(c.Args) == 0 {
		return "", nil, fail.Errorf(fail.Usage, "no command to run").WithHint("put it after the flags: run-task [flags] -- command [args...]")
	}
	env = c.Env
	if c.Dir != "" {
		if err := enter(c.Dir); err != nil {
			return "", nil, err
		}
		// Otherwise $(PWD) in a makefile is the directory of whoever started us.
		if wd, err := syscall.Getwd(); err == nil {
			env = append(without(env, "PWD"), "PWD="+wd)
		}
	}
	searchPath, ok := getenv(env, "PATH")
	if !ok {
		searchPath = DefaultPath
	}
	path, err = lookPath(c.Args[0], searchPath)
	return path, env, err
}

func enter(dir string) error {
	err := os.Chdir(dir)
	var cause *fs.PathError
	if !errors.As(err, &cause) {
		return err
	}
	reason, hint := fail.IO, ""
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		reason, hint = fail.Usage, "name an existing directory; relative ones start where run-task was started"
	}
	return fail.Errorf(reason, "start the command in %q: %w", dir, cause.Err).WithHint("%s", hint)
}

// getenv is getenv(3): the first entry of that name counts.
func getenv(env []string, name string) (string, bool) {
	for _, e := range env {
		if k, v, ok := strings.Cut(e, "="); ok && k == name {
			return v, true
		}
	}
	return "", false
}

func without(env []string, name string) []string {
	kept := make([]string, 0, len(env)+1)
	for _, e := range env {
		if !strings.HasPrefix(e, name+"=") {
			kept = append(kept, e)
		}
	}
	return kept
}

// lookPath finds a program as execvp(3) does: a name with a slash is taken as it is; else the first executable file in
// the list of directories wins, an empty or relative element being below the current directory, as POSIX has it: the list
// is the task's, and so is what runs. If there is only something that cannot be executed, that is what the error is about.
func lookPath(name, searchPath string) (string, error) {
	if strings.Contains(name, "/") {
		if _, err := os.Stat(name); errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return "", notFound(name, "%q: %s", name, missing(name))
		}
		return name, nil
	}
	var denied string
	var unseen []string
	for _, dir := range strings.Split(searchPath, ":") {
		if name == "" {
			break
		}
		if dir == "" {
			dir = "."
		}
		path := dir + "/" + name
		st, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrPermission):
			unseen = append(unseen, "cannot be searched: "+dir)
		case err != nil:
		case !st.IsDir() && unix.Access(path, unix.X_OK) == nil:
			return path, nil
		case denied == "":
			denied = path
		}
	}
	if denied != "" {
		return "", explain(denied, nil, nil, unix.EACCES)
	}
	return "", notFound(name, "%q was not found in PATH", name).WithDetails("PATH=" + searchPath).WithDetails(unseen...)
}

func notFound(name, format string, args ...any) *fail.Error {
	e := fail.Errorf(fail.NotFound, format, args...)
	if strings.ContainsAny(name, " \t\n") {
		return e.WithHint("this is one word for the system: separate the arguments, or run a shell: -- sh -c '...'")
	}
	return e
}

// missing says what is missing when a path does not exist: often a link's target.
func missing(path string) string {
	if target, err := os.Readlink(path); err == nil {
		return fmt.Sprintf("it is a link to %q, which does not exist", target)
	}
	return "no such file"
}
