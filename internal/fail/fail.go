// Package fail says why run-task could not do its job: one table of reasons, each with the exit code a scheduler can act
// on and the word GitLab uses for it. It is the only package that prints errors.
package fail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"run-task/internal/logs"
)

// Reason is why run-task failed. Its value is the process's exit code: sysexits numbers where they fit, 128+signal for a
// cancelled task.
type Reason int

// The reasons. How the user's own command ended is not one of them: see supervise.Status.
const (
	Usage       Reason = 64
	BadData     Reason = 65
	Gone        Reason = 66
	Unavailable Reason = 69
	Internal    Reason = 70
	OS          Reason = 71
	PurgeCache  Reason = 72
	IO          Reason = 74
	Busy        Reason = 75
	Refused     Reason = 76
	Denied      Reason = 77
	TimedOut    Reason = 124
	CannotExec  Reason = 126
	NotFound    Reason = 127
	Interrupted Reason = 130
	Cancelled   Reason = 143
)

// Row is one line of the exit-code table.
type Row struct {
	Reason  Reason
	Word    string // in the status file
	Meaning string
	Retry   string // does running the task again help?
	GitLab  string // failure_reason of GitLab's job API
}

// Table lists every reason in the order of its exit code. The README's table is compared with it.
func Table() []Row {
	return []Row{
		{Usage, "usage", "flags, environment or configuration are wrong", "no", "runner_configuration_error"},
		{BadData, "bad-data", "content is not what was pinned or saved, or a hostile tree", "no", "runner_system_failure"},
		{Gone, "gone", "the pinned commit, or a package that was asked for, is nowhere we may look", "no", "runner_system_failure"},
		{Unavailable, "unavailable", "a server could not be reached or kept failing, after retries", "yes", "runner_external_dependency_failure"},
		{Internal, "internal", "a bug in run-task", "no", "runner_system_failure"},
		{OS, "os", "the kernel or container refuses something run-task needs", "other host", "runner_system_failure"},
		{PurgeCache, "purge-cache", "a cache cannot be used: purge it and run again", "yes, after purge", "runner_system_failure"},
		{IO, "io", "local disk full, read-only, or access denied", "other host", "runner_system_failure"},
		{Busy, "busy", "a lock or a rate limit outlasted its budget", "yes", "runner_external_dependency_failure"},
		{Refused, "refused", "the server will not give that commit and no hint reached it", "no", "runner_system_failure"},
		{Denied, "denied", "credentials or host key rejected", "no", "runner_configuration_error"},
		{TimedOut, "timed-out", "a time limit of run-task's ended the task", "-", "job_execution_timeout"},
		{CannotExec, "cannot-exec", "the command cannot be executed", "no", "script_failure"},
		{NotFound, "not-found", "the command was not found", "no", "script_failure"},
		{Interrupted, "interrupted", "INT arrived before the command started", "-", "job_canceled"},
		{Cancelled, "cancelled", "TERM arrived before the command started", "-", "job_canceled"},
	}
}

// String is the reason's word in the status file; an unknown one is "internal".
func (r Reason) String() string {
	for _, row := range Table() {
		if row.Reason == r {
			return row.Word
		}
	}
	return "internal"
}

// Error is a failure with its reason and, where there is something a user can do, a hint that is an action.
type Error struct {
	Reason  Reason
	Err     error
	Details []string // printed indented below the error
	Hint    string
}

// Errorf makes an Error; format is as fmt.Errorf's, %w included. Lower case, no full stop, name the thing with %q.
func Errorf(r Reason, format string, args ...any) *Error {
	return &Error{Reason: r, Err: fmt.Errorf(format, args...)}
}

// WithHint sets the hint: what the user can do about it.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// WithDetails adds lines that are printed below the error.
func (e *Error) WithDetails(lines ...string) *Error {
	e.Details = append(e.Details, lines...)
	return e
}

// Error is the message alone, without hint and details.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives errors.Is and errors.As the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrInterrupted is the cause of a context that INT cancelled; any other cancelled context means TERM.
var ErrInterrupted = errors.New("interrupted")

// Of is the reason of an error: that of the outermost Error in its chain, or what the cause tells: a cancelled context
// is Cancelled, a system call's error on a file IO, anything else a bug.
func Of(err error) Reason {
	var e *Error
	var errno syscall.Errno
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &e):
		return e.Reason
	case errors.Is(err, ErrInterrupted):
		return Interrupted
	case errors.Is(err, context.Canceled):
		return Cancelled
	case errors.Is(err, context.DeadlineExceeded):
		return TimedOut
	case errors.As(err, &errno), errors.As(err, &path), errors.As(err, &link):
		return IO
	}
	return Internal
}

// Hint is the outermost hint in err's tree; what the system says of a full disk has one, too. It is "" if there is none.
func Hint(err error) (hint string) {
	walk(err, func(e *Error) {
		if hint == "" {
			hint = e.Hint
		}
	})
	if hint == "" && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) {
		hint = "free some space or inodes there, or use a larger volume"
	}
	return hint
}

// walk visits all Errors in err's tree, the outer before the inner, as errors.As does.
func walk(err error, visit func(*Error)) {
	if e, ok := err.(*Error); ok {
		visit(e)
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		walk(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			walk(inner, visit)
		}
	}
}

// Print writes err as the last thing run-task says: one error line, its details indented below, and the hint. Control
// characters are shown escaped, so that foreign text (a server's answer, a file's name) cannot forge a line or drive the terminal.
func Print(w io.Writer, err error) {
	var b strings.Builder
	b.WriteString("run-task: error: " + logs.OneLine(err.Error()) + "\n")
	walk(err, func(e *Error) {
		for _, d := range e.Details {
			b.WriteString("  " + logs.OneLine(d) + "\n")
		}
	})
	if h := Hint(err); h != "" {
		b.WriteString("run-task: hint: " + logs.OneLine(h) + "\n")
	}
	io.WriteString(w, b.String())
}
