//go:build unix

// Package report tells others how the job went: a file for machines, --status-file.
package report

import (
	"io"
	"strings"
	"time"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/supervise"
)

// Report gathers what there is to say about a job, and writes it to the status file if one was opened. Its zero value is
// ready to use.
type Report struct {
	// Mask hides the secrets that run-task knows of in all text. Without it only those in URLs are hidden.
	Mask func(string) string

	file   *File
	status Status
}

// Open opens the status file and writes that the job is being set up; see OpenFile.
func (r *Report) Open(path string) error {
	f, err := OpenFile(path, r.mask)
	if err != nil {
		return err
	}
	r.file = f
	return r.write(Setup)
}

func (r *Report) mask(text string) string {
	if r.Mask != nil {
		return r.Mask(text)
	}
	var b strings.Builder
	io.WriteString(logs.New(&b, logs.Normal, false), text)
	return b.String()
}

// Step adds a step and how long it took.
func (r *Report) Step(name string, took time.Duration) {
	r.status.Steps = append(r.status.Steps, Step{name, took.Seconds()})
}

// Checkout adds a worktree.
func (r *Report) Checkout(c Checkout) { r.status.Checkouts = append(r.status.Checkouts, c) }

// Archives says what became of the cache archives so far, in place of what it said before.
func (r *Report) Archives(all []Archive) { r.status.Archives = all }

// Command writes that the command gets the process now, or is started. If that fails after all, Failed comes after it.
func (r *Report) Command() error { return r.write(Handed) }

// Ended adds how the command ended, if it was started.
func (r *Report) Ended(s supervise.Status) {
	if s == (supervise.Status{}) {
		return
	}
	c := Command{Code: s.Code, Reason: "exited", Seconds: s.Seconds, MaxRSS: s.MaxRSS, User: s.User, System: s.System}
	if s.Signal != 0 {
		c.Signal, c.Reason = supervise.SignalName(s.Signal), "signal"
	}
	if s.Limit != "" {
		c.Reason = s.Limit
	}
	r.status.Command = &c
}

// Finished writes that the command has ended and all that comes after it is done. It does nothing if there was none that we stayed with.
func (r *Report) Finished() error {
	if r.status.Command == nil {
		return nil
	}
	r.status.Code = r.status.Command.Code
	return r.write(Ended)
}

// Done writes that all is done and that there was no command.
func (r *Report) Done() error { return r.write(Done) }

// Failed writes why run-task ended the task, in which step.
func (r *Report) Failed(step string, err error) error {
	reason := fail.Of(err)
	r.status.Reason, r.status.Code = reason.String(), int(reason)
	r.status.Step, r.status.Error, r.status.Hint = step, err.Error(), fail.Hint(err)
	return r.write(Failed)
}

func (r *Report) write(phase string) error {
	r.status.Phase = phase
	if r.file == nil {
		return nil
	}
	return r.file.Write(r.status)
}
