//go:build unix

package supervise

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/logs"
)

// Options say how to stay with the command. The zero value stays until it has ended, and changes nothing of what it prints.
type Options struct {
	Limits Limits
	Output Output
}

// Status is how the command ended.
type Status struct {
	Code      int            // its exit code, or 128+n for signal n
	Signal    syscall.Signal // what killed the command, 0 if it exited
	Limit     string         // what ended it: "timeout", "command-timeout", "no-output-timeout", or ""
	Cancelled bool           // a signal that came to us, or ^C, asked it to end
	Seconds   float64        // from its start to its end
	// Of all processes that have ended: CPU time in seconds, and the largest one's peak of memory in bytes. The kernel counts our own peak as the command's, so the latter
	// is 0 if it is not larger.
	User, System float64
	MaxRSS       int64
}

// leftBehind is how long what outlives the command may take to end, if the grace is not shorter; and how long we then wait for KILL to do its work.
const leftBehind = 2 * time.Second

// Run starts the command and stays until it and all that it left behind have ended. As PID 1, or as the subreaper that it makes itself
// otherwise, it is the one that reaps. The command has a process group of its own, to which all signals go that can be caught, and the terminal's
// foreground if that was ours. Nothing but the command's end, or a limit, ends it.
//
// The error is NotFound, CannotExec, Usage or IO if the command could not be started, as Exec's; the cause with which s ended the task when a signal came before;
// or TimedOut, with what was running then, if a limit ended the command. The Status is zero if it was not started.
func Run(log *logs.Log, c Command, o Options, s *Signals) (Status, error) {
	path, env, err := c.resolve()
	if err != nil {
		return Status{}, err
	}
	subreaper()
	out, err := o.Output.relay(log)
	if err != nil {
		return Status{}, err
	}
	in, err := s.keep()
	if err != nil {
		return Status{}, err
	}
	r := &run{log: log, limits: o.Limits, tty: controlling(), out: out, in: in, notices: make(chan string, 16), timer: time.NewTimer(time.Hour)}
	r.timer.Stop()
	if r.reap(); !r.alone {
		r.before = inherited()
	}
	if err = r.start(path, c.Args, env); err != nil {
		return Status{}, err
	}
	go r.notify()
	settled := time.AfterFunc(time.Second, settle) // a command that is done in no time does not wait for that
	r.watch()
	r.drain()
	settled.Stop()
	s.leave(in, r.cause(), r.limits.grace())
	return r.status, r.cause()
}

// settle makes us small and quiet for hours to come: what was needed to set the task up is garbage now. Without a limit for garbage to reach
// the Go runtime would collect every two minutes, on all threads, also where there is none.
func settle() {
	const garbage = 4 << 20
	settling.Lock()
	defer settling.Unlock()
	if unsettled {
		return
	}
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	debug.SetMemoryLimit(int64(m.Sys-m.HeapReleased) + garbage)
	debug.SetGCPercent(-1)
}

var (
	settling  sync.Mutex
	unsettled bool
)

// unsettle is for those who work again.
func unsettle() {
	settling.Lock()
	defer settling.Unlock()
	unsettled = true
	debug.SetGCPercent(100)
	debug.SetMemoryLimit(math.MaxInt64)
}

// run is a command that was started and how far it got.
type run struct {
	log    *logs.Log
	limits Limits
	tty    *terminal // nil if there is none that we could hand over
	out    *relay    // nil if the command has our stdout and stderr
	in     *incoming

	before  map[int]time.Duration // children that we had already
	pid     int                   // of the command, and its process group
	began   time.Time
	peak    int64 // our own memory's, then
	asked   bool  // a stop was asked for by a signal to us, and is no business of the terminal's
	over    bool  // the command has ended
	ending  bool  // what it left was sent TERM
	killing bool  // KILL was sent
	alone   bool  // no child is left
	enough  bool  // we wait no longer
	status  Status

	limit   *limit   // that has passed
	running []string // what ran then
	timer   *time.Timer
	next    func() // what the timer is for

	notices chan string // lines of ours: whoever does not read them must not keep us from our work
	said    chan struct{}
}

func (r *run) start(path string, args, env []string) error {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if r.tty.foreground() {
		attr.Foreground, attr.Ctty = true, r.tty.fd
		r.tty.given = true
	}
	files := []uintptr{0, 1, 2}
	if r.out != nil {
		files = r.out.files()
	}
	r.began, r.peak = time.Now(), ownPeak()
	var err error
	r.pid, err = syscall.ForkExec(path, args, &syscall.ProcAttr{Env: env, Files: files, Sys: attr})
	r.tty.shield()
	if err != nil {
		r.tty.takeBack()
		return explain(path, args, env, err)
	}
	r.said = make(chan struct{})
	if r.out != nil {
		r.out.start()
	}
	r.arm()
	return nil
}

// watch handles what comes until nothing is left to wait for.
func (r *run) watch() {
	for !r.enough && !(r.over && r.alone) {
		select {
		case sig := <-r.in.signals:
			r.signal(sig.(syscall.Signal))
		case <-r.in.children:
			r.reap()
		case <-r.timer.C:
			r.next()
		}
	}
}

// after has the timer call f, in place of what it was for.
func (r *run) after(d time.Duration, f func()) {
	r.next = f
	r.timer.Reset(d)
}

// giveUp is for what does not even end by KILL: it is not ours to kill, or hangs in the kernel.
func (r *run) giveUp() { r.enough = true }

// reap collects whoever has ended. Signals coalesce, so it goes on until nobody is left.
func (r *run) reap() {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG|syscall.WUNTRACED, nil)
		switch {
		case err == unix.EINTR:
		case err != nil: // ECHILD
			r.alone = true
			return
		case pid == 0:
			r.alone = r.over && len(r.before) > 0 && len(descendants(r.before)) == 0
			if !r.alone {
				r.left()
			}
			return
		case pid == r.pid && ws.Stopped():
			r.stopped(ws.StopSignal())
		case pid == r.pid && !r.over:
			r.ended(ws)
		}
	}
}

// ended is about the command itself.
func (r *run) ended(ws syscall.WaitStatus) {
	r.over = true
	r.status.Seconds = time.Since(r.began).Seconds()
	r.status.Code = ws.ExitStatus()
	if ws.Signaled() {
		r.status.Signal = ws.Signal()
		r.status.Code = 128 + int(ws.Signal())
		r.status.Cancelled = r.status.Cancelled || ws.Signal() == unix.SIGINT
		r.noticef("the command was killed by %s", SignalName(ws.Signal()))
	}
	r.tty.takeBack()
}

// left is about what still runs when the command has ended: it gets TERM, and KILL if that does not help.
func (r *run) left() {
	switch {
	case r.killing:
		r.kill() // again: the children of who was killed have become ours
	case r.over && !r.ending:
		r.ending = true
		r.signalLeft(unix.SIGTERM)
		r.signalLeft(unix.SIGCONT) // one that is stopped would not hear it
		wait := min(r.limits.grace(), leftBehind)
		r.after(wait, func() {
			r.noticef("what the command left behind still runs %s after TERM: KILL is sent", short(wait))
			r.kill()
		})
	}
}

// kill ends at once what is left, the command included.
func (r *run) kill() {
	if !r.killing {
		r.after(leftBehind, r.giveUp)
	}
	r.killing = true
	r.send(unix.SIGKILL)
	if r.over {
		r.signalLeft(unix.SIGKILL)
	}
}

// stopped is about ^Z and reads from the background. We stop as well, so that whoever started us sees it and can go on with something else.
func (r *run) stopped(sig syscall.Signal) {
	if r.tty == nil || sig == unix.SIGSTOP {
		return // who sent that to the command alone will know when to continue it
	}
	asked := r.asked
	r.asked = false
	switch {
	case sig != unix.SIGTSTP && r.tty.foreground(): // the terminal has become ours meanwhile: the command can have it
		r.resume()
	case !orphaned():
		r.tty.takeBack()
		r.out.rest()
		suspend(sig)
		if !asked { // else CONT will come to us as the stop did
			r.continued()
		}
	case sig == unix.SIGTSTP:
		if !asked { // alone, the command would not have been stopped
			r.resume()
		}
	default: // It uses a terminal that it can never have. Alone it would get an error; this is what the kernel does to those that are left stopped.
		r.send(unix.SIGHUP)
		r.send(unix.SIGCONT)
	}
}

// continued waits for the CONT that ended our stop and does what it asks for. If it came later it could undo a stop that comes after it.
func (r *run) continued() {
	noStop := time.After(time.Second) // or there was none: the kernel stops nobody whom nobody can continue
	for {
		select {
		case sig := <-r.in.signals:
			if r.signal(sig.(syscall.Signal)); sig == unix.SIGCONT {
				return
			}
		case <-noStop:
			r.resume()
			return
		}
	}
}

func (r *run) resume() {
	if r.tty.foreground() {
		r.tty.give(r.pid)
	}
	r.send(unix.SIGCONT)
}

// signal sends a signal on to the command's group. When the command has ended, or is being ended, TERM and INT mean that nobody wants to wait.
func (r *run) signal(sig syscall.Signal) {
	if sig == unix.SIGTERM || sig == unix.SIGINT || sig == unix.SIGHUP || sig == unix.SIGQUIT {
		r.status.Cancelled = true
	}
	switch {
	case sig == unix.SIGPIPE && brokenOutput(): // our own doing
	case r.over || r.limit != nil:
		if sig == unix.SIGTERM || sig == unix.SIGINT {
			r.kill()
		}
	case sig == unix.SIGCONT && r.tty != nil:
		r.asked = false
		r.resume()
	default:
		r.asked = r.asked || sig == unix.SIGTSTP
		r.send(sig)
	}
}

// send sends a signal to the command's group. That it is gone or somebody else's is no failure.
func (r *run) send(sig syscall.Signal) {
	if r.over {
		return
	}
	if unix.Kill(-r.pid, sig) == unix.ESRCH {
		unix.Kill(r.pid, sig) // it moved to another group
	}
}

// drain waits for what was printed to be written.
func (r *run) drain() {
	r.timer.Stop()
	if !r.over { // nobody may kill it
		r.status.Seconds = time.Since(r.began).Seconds()
		r.tty.takeBack()
	}
	usage := usage(unix.RUSAGE_CHILDREN)
	r.status.User, r.status.System = time.Duration(usage.Utime.Nano()).Seconds(), time.Duration(usage.Stime.Nano()).Seconds()
	if int64(usage.Maxrss) > r.peak {
		r.status.MaxRSS = int64(usage.Maxrss) * maxRSSUnit
	}
	close(r.notices)
	if r.limit != nil {
		r.status.Limit = r.limit.name
		// A reader that hangs must not hold up the end of a task whose time is over.
		r.timer.Reset(r.limits.grace())
	}
	done := []<-chan struct{}{r.said}
	if r.out != nil {
		done = append(done, r.out.end())
	}
	for _, d := range done {
	waiting:
		for {
			select {
			case <-d:
				break waiting
			case sig := <-r.in.signals:
				if sig == unix.SIGTERM || sig == unix.SIGINT {
					r.status.Cancelled = true
					return
				}
			case <-r.timer.C:
				return
			}
		}
	}
	if r.out != nil {
		r.out.report()
	}
}

func usage(who int) (u unix.Rusage) {
	unix.Getrusage(who, &u)
	return u
}

func (r *run) notify() {
	defer close(r.said)
	for n := range r.notices {
		r.log.Infof("%s", n)
	}
}

func (r *run) noticef(format string, args ...any) {
	select {
	case r.notices <- fmt.Sprintf(format, args...):
	default:
	}
}

// cause is why we ended the command, nil if it ended by itself.
func (r *run) cause() error {
	if r.limit == nil {
		return nil
	}
	return r.limit.error().WithDetails(r.running...)
}

// brokenOutput tells whether nobody reads our stdout or stderr any more: then SIGPIPE is what our own writes gave us.
func brokenOutput() bool {
	fds := []unix.PollFd{{Fd: 1}, {Fd: 2}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && (fds[0].Revents|fds[1].Revents)&(unix.POLLERR|unix.POLLHUP) != 0
}

// SignalName is "SIGKILL", and "signal 40" for one that has no name.
func SignalName(sig syscall.Signal) string {
	return cmp.Or(unix.SignalName(sig), fmt.Sprintf("signal %d", sig))
}

// isInit tells whether the kernel gives us the orphans and ends all others with us.
func isInit() bool { return os.Getpid() == 1 }
