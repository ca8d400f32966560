package wire

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"run-task/internal/fail"
)

// Limits are how long each part of a conversation may take. Waiting is time spent in reading: a slow disk on our side is no
// slow server. A field that is 0 has its default.
type Limits struct {
	Connect time.Duration // TCP connection, default 30 s
	TLS     time.Duration // TLS or SSH handshake, default 30 s
	Answer  time.Duration // all waiting for one answer up to its pack, redirects included, however lively it drips; default 5 minutes
	Prepare time.Duration // all waiting for the pack's first byte while the server says at least once in Answer that it is at work, default 30 minutes
	Stall   time.Duration // while the pack comes: less than LowSpeed of it on average for so long, default 60 s
	// All ways and tries together, what is done with the packs included; default 6 hours. That is 100 GB at 5 MB/s, more than
	// the whole history of the largest public repositories, and longer than CI lets tasks run.
	Total time.Duration

	LowSpeed int64 // bytes in a second, see Stall; default 1000
	AllSize  int64 // bytes of a pack of all branches and tags, the last way to a commit; default 2 GiB
}

// Check says with fail.Usage which limit is negative.
func (l Limits) Check() error {
	for _, limit := range []struct {
		name  string
		value int64
	}{
		{"connect", int64(l.Connect)}, {"tls", int64(l.TLS)}, {"answer", int64(l.Answer)}, {"prepare", int64(l.Prepare)}, {"stall", int64(l.Stall)},
		{"total", int64(l.Total)}, {"low-speed", l.LowSpeed}, {"all-size", l.AllSize},
	} {
		if limit.value < 0 {
			return fail.Errorf(fail.Usage, "the limit %q is negative", limit.name).WithHint("give a positive one, or none for the default")
		}
	}
	return nil
}

func (l Limits) withDefaults() Limits {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&l.Connect, 30*time.Second)
	set(&l.TLS, 30*time.Second)
	set(&l.Answer, 5*time.Minute)
	set(&l.Prepare, 30*time.Minute)
	set(&l.Stall, time.Minute)
	set(&l.Total, 6*time.Hour)
	if l.LowSpeed == 0 {
		l.LowSpeed = 1000
	}
	if l.AllSize == 0 {
		l.AllSize = 2 << 30
	}
	return l
}

var errSlow = errors.New("the server is too slow")

// slowAnswer is the end of a wait for text.
func (l Limits) slowAnswer() error {
	return fmt.Errorf("%w: no whole answer after %s of waiting", errSlow, l.Answer)
}

// phase is what a connection is read for.
type phase int

const (
	answering phase = iota // an advertisement, refs, what comes before a pack
	preparing              // the pack, of which nothing has come
	packing                // the rest of it
)

// watched is a connection's reader that closes the connection when too little comes: a blocked Read knows no context.
// Not for use by several goroutines.
type watched struct {
	r      io.Reader
	limits Limits
	kill   func()
	now    func() time.Time
	timer  *time.Timer
	fired  atomic.Bool

	phase  phase
	waited time.Duration // in this phase
	silent time.Duration // the part of it since a sign of life, or since enough of the pack came
	got    int64         // of the pack, since then
}

func watch(r io.Reader, l Limits, kill func()) *watched {
	w := &watched{r: r, limits: l, kill: kill, now: time.Now}
	w.timer = time.AfterFunc(time.Hour, func() { w.fired.Store(true); kill() })
	w.timer.Stop()
	return w
}

func (w *watched) begin(p phase) { w.phase, w.waited, w.silent, w.got = p, 0, 0, 0 }

// alive says that a packet came. Only before the pack does that prove anything: then the server may have long to compute.
func (w *watched) alive() {
	if w.phase == preparing {
		w.silent = 0
	}
}

// payload says that n bytes of the pack came.
func (w *watched) payload(n int) {
	if w.phase != packing {
		w.begin(packing)
	}
	if w.got += int64(n); float64(w.got) >= float64(w.limits.LowSpeed)*w.limits.Stall.Seconds() {
		w.silent, w.got = 0, 0
	}
}

// left is how much longer a read may wait, and what is wrong if it is not enough.
func (w *watched) left() (time.Duration, error) {
	switch l := w.limits; w.phase {
	case answering:
		return l.Answer - w.waited, l.slowAnswer()
	case preparing:
		if left := l.Prepare - w.waited; left < l.Answer-w.silent {
			return left, fmt.Errorf("%w: no pack after %s of waiting", errSlow, l.Prepare)
		}
		return l.Answer - w.silent, fmt.Errorf("%w: silent for %s", errSlow, l.Answer)
	}
	return w.limits.Stall - w.silent, fmt.Errorf("%w: less than %d B/s of the pack for %s", errSlow, w.limits.LowSpeed, w.limits.Stall)
}

func (w *watched) Read(p []byte) (int, error) {
	left, slow := w.left()
	if left <= 0 {
		w.kill()
		return 0, slow
	}
	start := w.now()
	w.timer.Reset(left)
	n, err := w.r.Read(p)
	w.timer.Stop()
	if err != nil && w.fired.Load() {
		return n, slow
	}
	took := w.now().Sub(start)
	w.waited, w.silent = w.waited+took, w.silent+took
	return n, err
}
