//go:build unix

package supervise

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/logs"
	"run-task/internal/mask"
)

// Output says what becomes of what the command prints. The zero value leaves our stdout and stderr to the command.
type Output struct {
	Timestamps bool  // before each line; stderr then goes where stdout goes
	Limit      int64 // bytes that are shown, and after them only the last ones; 0 is all. stderr goes where stdout goes.
	Relay      bool  // have it pass through us in any case: secrets that the log knows are masked in all that does
}

// relay is what stands between the command's stdout and stderr and ours.
type relay struct {
	log   *logs.Log
	pumps []*pump
	wake  [2]int       // a pipe that is closed when all who could print have ended
	last  atomic.Int64 // when something was last read or written
	stuck atomic.Int32 // pumps that wait for who reads what we write: then it is not the command that is silent
}

// relay makes the pipes; nil if nothing is to pass through us.
func (o Output) relay(log *logs.Log) (*relay, error) {
	if !o.Timestamps && o.Limit == 0 && !o.Relay {
		return nil, nil
	}
	r := &relay{log: log}
	r.alive()
	if err := pipe(&r.wake); err != nil {
		return nil, err
	}
	same := sameFile(1, 2)
	targets := []int{1, 2}
	if same || o.Timestamps || o.Limit > 0 {
		targets = targets[:1]
	}
	for _, fd := range targets {
		p := &pump{relay: r, to: fd, masks: log.Masks().Stream(), done: make(chan struct{})}
		var ends [2]int
		if err := pipe(&ends); err != nil {
			return nil, err
		}
		p.from, p.entry = ends[0], ends[1]
		grow(p.from)
		if o.Timestamps {
			p.stamps = &stamper{}
		}
		if o.Limit > 0 {
			p.limit = newTail(o.Limit, p.ends(), log)
		}
		r.pumps = append(r.pumps, p)
	}
	if same { // our own lines go there, too, and must not land in the middle of one of the command's
		log.Divert(r.pumps[0])
	}
	return r, nil
}

func pipe(fds *[2]int) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	var ends [2]int
	if err := unix.Pipe(ends[:]); err != nil {
		return err
	}
	unix.CloseOnExec(ends[0])
	unix.CloseOnExec(ends[1])
	*fds = ends
	return nil
}

func sameFile(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// files are the command's stdin, stdout and stderr.
func (r *relay) files() []uintptr {
	out, err := r.pumps[0], r.pumps[len(r.pumps)-1]
	return []uintptr{0, uintptr(out.entry), uintptr(err.entry)}
}

// start begins to relay; the command has its ends of the pipes.
func (r *relay) start() {
	r.alive()
	for _, p := range r.pumps {
		unix.Close(p.entry)
		go p.run()
	}
}

// printed is when something last came from the command, or now if it cannot print because of who reads.
func (r *relay) printed() time.Time {
	if r.stuck.Load() > 0 {
		return time.Now()
	}
	return start.Add(time.Duration(r.last.Load()))
}

func (r *relay) alive() { r.last.Store(int64(monotonic())) }

var start = time.Now()

// monotonic is a time that no clock's adjustment moves.
func monotonic() time.Duration { return time.Since(start) }

// end says that whoever could print has ended, or will not: what is in the pipes now is all that is written. The channel is closed when it is.
func (r *relay) end() <-chan struct{} {
	unix.Close(r.wake[1])
	done := make(chan struct{})
	go func() {
		for _, p := range r.pumps {
			<-p.done
		}
		close(done)
	}()
	return done
}

// rest shows what has been printed, for we are about to be stopped. A reader that hangs is not waited for.
func (r *relay) rest() {
	if r == nil {
		return
	}
	const most = 100 * time.Millisecond
	for began := monotonic(); monotonic()-began < most; time.Sleep(time.Millisecond) {
		if !slices.ContainsFunc(r.pumps, (*pump).behind) {
			return
		}
	}
}

// report says what could not be written, but for a reader that had enough.
func (r *relay) report() {
	for _, p := range r.pumps {
		if p.err != nil && !errors.Is(p.err, unix.EPIPE) {
			r.log.Warnf("what the command printed could not be written: %v", p.err)
			return
		}
	}
}

const (
	pipeSize   = 256 << 10
	flushAfter = 100 * time.Millisecond // how long the beginning of a line waits for its end
)

// pump relays one pipe. Its stages are run in this order, those that are nil are left out.
type pump struct {
	relay  *relay
	from   int // our end
	entry  int // the command's end
	to     int
	masks  *mask.Stream
	stamps *stamper
	limit  *tail

	mu      sync.Mutex // of what follows, and of the order of writes
	midLine bool       // the last thing written was no line end
	err     error      // of a write; nothing is written after it
	done    chan struct{}

	masked, stamped, shown []byte // of the stages, to be used again

	busy atomic.Bool // with what it read
}

// behind tells whether something was printed that has not been dealt with.
func (p *pump) behind() bool {
	n, err := queued(p.from)
	return err == nil && n > 0 || p.busy.Load()
}

// ends is what lines end with in what is shown.
func (p *pump) ends() string {
	if p.stamps != nil {
		return "\n\r"
	}
	return "\n"
}

// run relays until the pipe ends or, when all is over, until it is empty.
func (p *pump) run() {
	defer close(p.done)
	buf := make([]byte, pipeSize/2)
	left := -1 // bytes that still count, once all is over
	for left != 0 {
		p.busy.Store(false)
		size := len(buf)
		if left < 0 {
			ready, over, err := p.wait()
			switch {
			case err != nil:
				p.fail(err)
			case over:
				left, err = queued(p.from)
				if err != nil {
					left = 0
				}
				continue
			case !ready:
				p.flush()
				continue
			}
		} else {
			size = min(size, left)
		}
		p.busy.Store(true)
		n, err := unix.Read(p.from, buf[:size])
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			break
		}
		p.relay.alive()
		if left > 0 {
			left -= n
		}
		if p.pass(buf[:n]) != nil {
			unix.Close(p.from) // whoever still prints is told as if it wrote there itself: SIGPIPE
			return
		}
	}
	p.finish()
	unix.Close(p.from)
}

// wait waits for something to read (ready), for the end of all (over), or for the time when the beginning of a line is shown (neither).
func (p *pump) wait() (ready, over bool, err error) {
	timeout := -1
	if p.stamps != nil && p.stamps.holds() {
		timeout = int(max(p.stamps.since+flushAfter-monotonic(), 0)/time.Millisecond) + 1
	}
	fds := []unix.PollFd{{Fd: int32(p.from), Events: unix.POLLIN}, {Fd: int32(p.relay.wake[0]), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, timeout)
	switch {
	case err == unix.EINTR:
		return p.wait()
	case err != nil, n == 0:
		return false, false, err
	}
	return fds[0].Revents != 0, fds[1].Revents != 0, nil
}

func (p *pump) pass(b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.masked = p.masks.Append(p.masked[:0], b)
	return p.show(p.masked)
}

// show is what comes after masking. The caller holds mu.
func (p *pump) show(b []byte) error {
	if p.stamps != nil {
		p.stamped = p.stamps.append(p.stamped[:0], b)
		b = p.stamped
	}
	return p.write(b)
}

func (p *pump) write(b []byte) error {
	if p.limit != nil {
		p.shown = p.limit.append(p.shown[:0], b)
		b = p.shown
	}
	return p.put(b)
}

func (p *pump) put(b []byte) error {
	if len(b) == 0 || p.err != nil {
		return p.err
	}
	p.midLine = b[len(b)-1] != '\n'
	p.relay.stuck.Add(1)
	p.err = writeAll(p.to, b)
	p.relay.alive()
	p.relay.stuck.Add(-1)
	return p.err
}

// flush shows the beginning of a line whose end has not come.
func (p *pump) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.write(p.stamps.flush(p.stamped[:0]))
}

// finish shows what was held back.
func (p *pump) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.masked = p.masks.Flush(p.masked[:0])
	p.show(p.masked)
	if p.stamps != nil {
		p.write(p.stamps.flush(p.stamped[:0]))
	}
	if p.limit != nil {
		p.put(p.limit.end())
	}
}

func (p *pump) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// Write writes lines of our own where the command's go.
func (p *pump) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.midLine {
		b = append([]byte("\n"), b...)
		if p.stamps != nil {
			p.stamps.interrupted()
		}
	}
	if err := p.put(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// writeAll writes to a descriptor that may be shared with others, who may have made it non-blocking.
func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		switch err {
		case nil:
			b = b[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1); err != nil && err != unix.EINTR {
				return err
			}
		default:
			return err
		}
	}
	return nil
}
