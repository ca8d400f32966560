//go:build unix

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

// explain makes of execve's terse errno what a user needs to know: which file it is really about, and what to do.
func explain(path string, args, env []string, err error) error {
	why, hint := reason(path, err, 0)
	if errors.Is(err, unix.E2BIG) {
		why, hint = tooBig(args, env)
	}
	if why != "" {
		why = ": " + why
	}
	return fail.Errorf(fail.CannotExec, "%q: %w%s", path, err, why).WithHint("%s", hint)
}

// reason looks at the file to say why the kernel gave that errno; depth counts interpreters of interpreters, of which the kernel follows four.
func reason(path string, err error, depth int) (why, hint string) {
	st, statErr := os.Stat(path)
	if statErr != nil || depth > 4 {
		return "", ""
	}
	switch {
	case errors.Is(err, unix.EACCES):
		return forbidden(path, st, depth)
	case errors.Is(err, unix.ENOENT):
		return incomplete(path, depth)
	case errors.Is(err, unix.ENOEXEC):
		return foreign(path)
	case errors.Is(err, unix.ETXTBSY):
		return "somebody has it open for writing", "close the file before running it"
	}
	return "", ""
}

func forbidden(path string, st fs.FileInfo, depth int) (why, hint string) {
	switch {
	case st.IsDir():
		return "it is a directory", "name a program"
	case !st.Mode().IsRegular():
		return "it is no regular file", "name a program"
	case st.Mode()&0o111 == 0:
		return fmt.Sprintf("mode %04o", st.Mode().Perm()), "make it executable: chmod +x " + path
	case noexec(path):
		return "its file system is mounted noexec", "run it through its interpreter (-- sh " + path + "), or mount without noexec"
	}
	if unix.Access(path, unix.X_OK) == nil { // so it is about what runs it
		if with, what := open(path).interpreter(); with != "" {
			return about(what, with, unix.EACCES, depth)
		}
	}
	owner := ""
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		owner = fmt.Sprintf(", owned by %d:%d, and this is uid %d gid %d", sys.Uid, sys.Gid, os.Geteuid(), os.Getegid())
	}
	return fmt.Sprintf("mode %04o", st.Mode().Perm()) + owner, ""
}

// incomplete is about a file that exists and yet gave ENOENT: what it needs to run is missing.
func incomplete(path string, depth int) (why, hint string) {
	p := open(path)
	with, what := p.interpreter()
	switch {
	case with == "":
		return "", ""
	case exists(with):
		return about(what, with, unix.ENOENT, depth)
	case strings.HasSuffix(with, "\r"):
		return fmt.Sprintf("its #! line ends in CRLF, so its interpreter is %q", with), `convert it to LF line ends (.gitattributes: "*.sh text eol=lf")`
	case p.elf != nil:
		return fmt.Sprintf("its loader %q is missing: a dynamically linked program in an image without that libc", with),
			"use a static build of it, or an image with the libc it was built for"
	}
	return fmt.Sprintf("its interpreter %q does not exist in this image", with), "install it, or change the #! line"
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func about(what, path string, err error, depth int) (why, hint string) {
	why, hint = reason(path, err, depth+1)
	if why != "" {
		why = ": " + why
	}
	return fmt.Sprintf("its %s %q%s", what, path, why), hint
}

// foreign is about a file that is in no format that the kernel knows.
func foreign(path string) (why, hint string) {
	p := open(path)
	switch {
	case p == nil:
		return "", ""
	case len(p.head) == 0:
		return "it is empty", ""
	case p.elf != nil && machineName(p.elf.machine) != hostMachine():
		return fmt.Sprintf("it is for %s, this is %s", machineName(p.elf.machine), hostMachine()), "use a build or an image for " + hostMachine()
	case p.elf != nil || strings.HasPrefix(p.head, "\x7fELF"):
		return "it is a damaged or unusable ELF file for " + hostMachine(), ""
	case strings.HasPrefix(p.head, "\xef\xbb\xbf#!"):
		return "a byte order mark stands before its #! line", "save it as UTF-8 without a byte order mark"
	case strings.HasPrefix(p.head, "#!"):
		return "its #! line names no interpreter, or is too long", ""
	}
	return "it has no #! line", "put #!/bin/sh on its first line, or run it through a shell: -- sh " + path
}

// tooBig gives the sizes that E2BIG is about, and the name of the largest variable, never its value.
func tooBig(args, env []string) (why, hint string) {
	total, largest, name := 0, 0, ""
	add := func(s, what string) {
		total += len(s) + 1
		if len(s)+1 > largest {
			largest, name = len(s)+1, what
		}
	}
	for i, a := range args {
		add(a, fmt.Sprintf("argument %d", i))
	}
	sum := total
	for _, e := range env {
		k, _, _ := strings.Cut(e, "=")
		add(e, fmt.Sprintf("variable %q", k))
	}
	return fmt.Sprintf("arguments %d bytes, environment %d bytes, the largest is %s with %d", sum, total-sum, name, largest),
		"pass it in a file: Linux takes 131072 bytes in one argument or variable, and a quarter of the stack limit in all"
}
