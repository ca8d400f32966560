//go:build unix

package supervise

import (
	"cmp"
	"context"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

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
	twice  sync.Once
	done   chan struct{} // watch has seen all that came
	ctx    context.Context
	cancel context.CancelCauseFunc

	staying atomic.Bool // the command's end is another's business

	mu    sync.Mutex
	hurry *time.Timer             // until what comes after a command that a limit ended has to be done
	after context.CancelCauseFunc // of what is done after the command
}

// Notify catches what ends a task and must be the first thing that main does: before it, TERM makes the Go runtime exit
// with 2 as PID 1. The first signal cancels the context; its cause says which one it was, and is fail.ErrInterrupted for
// INT and context.Canceled for the others.
//
// A HUP or INT that was ignored when we were started stays ignored (nohup, a shell's background jobs), for the command too.
func Notify(parent context.Context) (context.Context, *Signals) {
	ctx, cancel := context.WithCancelCause(parent)
	s := &Signals{ch: make(chan os.Signal, 16), pipe: make(chan os.Signal, 1), again: make(chan struct{}), done: make(chan struct{}), ctx: ctx, cancel: cancel}
	for _, sig := range []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT} {
		if !signal.Ignored(sig) {
			s.caught = append(s.caught, sig)
		}
	}
	signal.Notify(s.ch, s.caught...)
	signal.Notify(s.pipe, unix.SIGPIPE) // Otherwise a stderr that nobody reads ends us with no exit code of ours, as PID 1 with 2.
	go s.watch()
	return ctx, s
}

func (s *Signals) watch() {
	defer close(s.done)
	for n := 1; ; n++ {
		sig, ok := <-s.ch
		if !ok {
			return
		}
		s.cancel(arrived(sig.(syscall.Signal))) // only the first call counts
		if n == 2 {
			s.enough()
		}
	}
}

// Again is closed when a second signal arrives: whoever sent it does not want to wait for cleaning up. So it is when the grace of a limit is over.
func (s *Signals) Again() <-chan struct{} { return s.again }

func (s *Signals) enough() { s.twice.Do(func() { close(s.again) }) }

// Limit ends what is done before the command when l.Task is over: the context is cancelled, with TimedOut as its cause, and after the grace Again is closed.
func (s *Signals) Limit(l Limits) {
	if l.Task == 0 {
		return
	}
	time.AfterFunc(time.Until(l.Began.Add(l.Task)), func() {
		if s.staying.Load() {
			return
		}
		s.cancel(limit{"timeout", l.Task}.error())
		time.AfterFunc(l.grace(), s.enough)
	})
}

// incoming are the signals of whoever stays with the command.
type incoming struct {
	signals  chan os.Signal // to be sent on
	children chan os.Signal // one is enough: whoever hears it looks for all that have ended
}

// keep is for who stays: from now on all signals that can be caught arrive there, but for those that a child's end or we ourselves cause. It gives the cause
// if one had arrived before that ends the task. Signals that were ignored when we were started stay so, for the command too.
func (s *Signals) keep() (*incoming, error) {
	in := &incoming{make(chan os.Signal, 1024), make(chan os.Signal, 1)}
	signal.Notify(in.children, unix.SIGCHLD)
	for n := syscall.Signal(1); n <= lastSignal; n++ {
		switch n {
		case unix.SIGKILL, unix.SIGSTOP: // nobody can
		case unix.SIGCHLD, unix.SIGURG: // not meant for the command: a child ended; the Go runtime sends itself dozens a second
		case unix.SIGILL, unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSYS: // what a thread does wrong itself
		default:
			if !ignored(n) {
				signal.Notify(in.signals, n)
			}
		}
	}
	err := catchRest(in.signals)
	s.staying.Store(true)
	signal.Stop(s.ch) // waits for what is on its way
	close(s.ch)
	<-s.done
	return in, cmp.Or(context.Cause(s.ctx), err)
}

// leave is for the end of a stay: what is still to be done ends when somebody asks again or, with a cause, when the grace is over. See After for what takes longer.
func (s *Signals) leave(in *incoming, cause error, grace time.Duration) {
	if cause != nil {
		s.cancel(cause)
		s.hurry = time.AfterFunc(grace, s.enough)
	}
	go func() {
		for sig := range in.signals {
			if sig == unix.SIGTERM || sig == unix.SIGINT {
				s.end(arrived(sig.(syscall.Signal)))
			}
		}
	}()
}

// end is for a signal that comes after the command.
func (s *Signals) end(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.after != nil {
		s.after(cause)
		s.after = nil
		return
	}
	s.cancel(cause)
	s.enough()
}

// After is a context for what is done after the command, and was given its time: TERM and INT end it, and a second one all. Memory that the stay did without may be used again. The
// function must be called when it is done.
func (s *Signals) After() (context.Context, func()) {
	unsettle()
	ctx, cancel := context.WithCancelCause(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = cancel
	if s.hurry != nil {
		s.hurry.Stop()
	}
	return ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.after = nil
		cancel(nil)
	}
}

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
