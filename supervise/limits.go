//go:build unix

package supervise

import (
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
)

// DefaultGrace is how long after TERM comes KILL.
const DefaultGrace = 10 * time.Second

// quitTime is how long a command may take to say where it hangs.
const quitTime = 5 * time.Second

// Limits are how long a command may take; 0 is without limit.
type Limits struct {
	Began    time.Time     // when the task began
	Task     time.Duration // from then on
	Reserved time.Duration // of Task, for what comes after the command
	Command  time.Duration // from the command's start
	Silence  time.Duration // since it last printed something; needs Output.Relay

	Grace     time.Duration // between TERM and KILL; 0 is DefaultGrace
	QuitFirst bool          // QUIT comes before TERM, and most runtimes then print their stacks
}

func (l Limits) grace() time.Duration {
	if l.Grace == 0 {
		return DefaultGrace
	}
	return l.Grace
}

// Rest is how long what comes after the command may take: Reserved, or all that is left of Task where that is not given; otherwise if there is no limit. It is false if nothing is left.
func (l Limits) Rest(otherwise time.Duration) (time.Duration, bool) {
	d := otherwise
	if l.Reserved > 0 {
		d = l.Reserved
	}
	if l.Task > 0 {
		left := time.Until(l.Began.Add(l.Task))
		if d == 0 || left < d {
			d = left
		}
		return d, left > 0
	}
	return d, true
}

// limit is one of them that has passed.
type limit struct {
	name  string // of the flag and in the status file
	after time.Duration
}

func (l limit) error() *fail.Error { return fail.Errorf(fail.TimedOut, "%s is over", l) }

func (l limit) String() string { return "--" + l.name + " " + short(l.after) }

// short is a time without the zeros of time.Duration's.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// arm sets the timer to the limit that passes first.
func (r *run) arm() {
	l, now := r.limits, time.Now()
	var first limit
	var in time.Duration
	consider := func(name string, d, left time.Duration) {
		if d > 0 && (first.name == "" || left < in) {
			first, in = limit{name, d}, left
		}
	}
	consider("timeout", l.Task, l.Began.Add(l.Task-l.Reserved).Sub(now))
	consider("command-timeout", l.Command, r.began.Add(l.Command).Sub(now))
	if r.out != nil {
		consider("no-output-timeout", l.Silence, r.out.printed().Add(l.Silence).Sub(now))
	}
	if first.name == "" {
		return
	}
	r.after(in, func() {
		if first.name == "no-output-timeout" && time.Since(r.out.printed()) < first.after {
			r.arm()
			return
		}
		r.pass(first)
	})
}

// pass ends a command whose time is over.
func (r *run) pass(l limit) {
	r.limit = &l
	r.running = r.list()
	if !r.limits.QuitFirst {
		r.terminate()
		return
	}
	r.noticef("%s is over: QUIT is sent", l)
	r.send(unix.SIGQUIT)
	r.send(unix.SIGCONT)
	r.after(min(r.limits.grace(), quitTime), r.terminate)
}

func (r *run) terminate() {
	r.noticef("%s is over: TERM is sent", r.limit)
	r.send(unix.SIGTERM)
	r.send(unix.SIGCONT) // one that is stopped would not hear it
	r.after(r.limits.grace(), func() {
		r.noticef("the command still runs %s after TERM: KILL is sent", short(r.limits.grace()))
		r.kill()
	})
}

// list is what runs now, for people. A process that hangs may hang who looks at it.
func (r *run) list() []string {
	listed := make(chan []string, 1)
	go func() { listed <- r.describe() }()
	select {
	case l := <-listed:
		return l
	case <-time.After(time.Second):
		return []string{"what was running cannot be told: /proc does not answer"}
	}
}
