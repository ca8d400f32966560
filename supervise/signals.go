//go:build unix

package supervise

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
)

// Signals is what ends a task from outside, TERM, INT, HUP and QUIT, while run-task works: caught from Notify until the
// command takes the process over.
type Signals struct {
	caught []os.Signal
	ch     chan os.Signal
	pipe   chan os.Signal // nobody reads it: a write to a closed pipe is an error and no death
	again  chan struct{}
	done   chan struct{} // watch has seen all that came
	ctx    context.Context
}

// Notify catches what ends a task and must be the first thing that main does: before it, TERM makes the Go runtime exit
// with 2 as PID 1. The first signal cancels the context; its cause says which one it was, and is fail.ErrInterrupted for
// INT and context.Canceled for the others.
//
// A HUP or INT that was ignored when we were started stays ignored (nohup, a shell's background jobs), for the command too.
func Notify(parent context.Context) (context.Context, *Signals) {
	ctx, cancel := context.WithCancelCause(parent)
	s := &Signals{ch: make(chan os.Signal, 16), pipe: make(chan os.Signal, 1), again: make(chan struct{}), done: make(chan struct{}), ctx: ctx}
	for _, sig := range []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT} {
		if !signal.Ignored(sig) {
			s.caught = append(s.caught, sig)
		}
	}
	signal.Notify(s.ch, s.caught...)
	signal.Notify(s.pipe, unix.SIGPIPE) // Otherwise a stderr that nobody reads ends us with no exit code of ours, as PID 1 with 2.
	go s.watch(cancel)
	return ctx, s
}

func (s *Signals) watch(cancel context.CancelCauseFunc) {
	defer close(s.done)
	for n := 1; ; n++ {
		sig, ok := <-s.ch
		if !ok {
			return
		}
		if n == 2 {
			close(s.again)
		}
		cancel(arrived(sig.(syscall.Signal))) // only the first call counts
	}
}

// Again is closed when a second signal arrives: whoever sent it does not want to wait for cleaning up.
func (s *Signals) Again() <-chan struct{} { return s.again }

// release gives the signals back, just before the command starts, and returns the cause if one had arrived.
//
// Go's handlers stay installed until execve and would swallow a signal in between, so the default actions are set first:
// from there on a signal ends us like any program (as PID 1 the kernel drops it, as it would for the command). One that
// came earlier has been seen when release returns.
func (s *Signals) release() error {
	if s == nil {
		return nil
	}
	setDefault(append(s.caught, unix.SIGPIPE))
	signal.Stop(s.ch) // waits for what is on its way
	close(s.ch)
	<-s.done
	return context.Cause(s.ctx)
}

// arrived is the cause of a context that a signal cancelled.
type arrived syscall.Signal

func (a arrived) Error() string {
	return unix.SignalName(syscall.Signal(a)) + " arrived before the command started"
}

func (a arrived) Unwrap() error {
	if syscall.Signal(a) == unix.SIGINT {
		return fail.ErrInterrupted
	}
	return context.Canceled
}
