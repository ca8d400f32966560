package wire

import (
	"errors"
	"io"
	"sync/atomic"
	"time"
)

// Limits are how long each part of a conversation may take. A field that is 0 has its default.
type Limits struct {
	Connect time.Duration // TCP connection, default 30 s
	TLS     time.Duration // TLS or SSH handshake, default 30 s
	Answer  time.Duration // silence while the server prepares its answer, default 5 minutes
	Stall   time.Duration // while the pack comes: less than 1 kB/s on average for so long, default 60 s
}

const lowSpeed = 1000 // bytes in a second

func (l Limits) withDefaults() Limits {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&l.Connect, 30*time.Second)
	set(&l.TLS, 30*time.Second)
	set(&l.Answer, 5*time.Minute)
	set(&l.Stall, time.Minute)
	return l
}

var errStalled = errors.New("the server stopped sending")

// watched is a connection's reader that closes the connection when too little comes: a blocked Read knows no context.
// Only time spent in Read counts: a slow disk on our side is no slow server. Not for use by several goroutines.
type watched struct {
	r      io.Reader
	limits Limits
	timer  *time.Timer
	fired  atomic.Bool

	pack  bool // the pack has begun
	spent time.Duration
	got   int64
}

func watch(r io.Reader, l Limits, kill func()) *watched {
	w := &watched{r: r, limits: l}
	w.timer = time.AfterFunc(time.Hour, func() { w.fired.Store(true); kill() })
	w.timer.Stop()
	return w
}

// data says that the pack has begun: from now on the rate counts, not only silence.
func (w *watched) data() {
	if !w.pack {
		w.pack, w.spent, w.got = true, 0, 0
	}
}

func (w *watched) Read(p []byte) (int, error) {
	limit := w.limits.Answer
	if w.pack {
		limit = w.limits.Stall
	}
	start := time.Now()
	w.timer.Reset(max(limit-w.spent, time.Millisecond))
	n, err := w.r.Read(p)
	w.timer.Stop()
	if err != nil && w.fired.Load() {
		return n, errStalled
	}
	w.spent, w.got = w.spent+time.Since(start), w.got+int64(n)
	if !w.pack && n > 0 || float64(w.got) >= lowSpeed*limit.Seconds() {
		w.spent, w.got = 0, 0
	}
	return n, err
}
