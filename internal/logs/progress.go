package logs

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Progress shows how far a long piece of work is: on a terminal one line that is redrawn ten times a second at most, in a
// log one line every ten seconds. Work shorter than that prints nothing.
type Progress struct {
	log   *Log
	start time.Time

	mu   sync.Mutex
	last time.Time
}

// Progress starts to measure; nothing is printed yet.
func (l *Log) Progress() *Progress {
	now := time.Now()
	return &Progress{log: l, start: now, last: now}
}

// Elapsed is the time since the work began.
func (p *Progress) Elapsed() time.Duration { return time.Since(p.start) }

// Updatef says where the work is now. It may be called as often as one likes.
func (p *Progress) Updatef(format string, args ...any) {
	every := 10 * time.Second
	if p.log.terminal {
		every = 100 * time.Millisecond
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.log.level == Quiet || now.Sub(p.last) < every {
		return
	}
	p.last = now
	if !p.log.terminal {
		p.log.Infof(format, args...)
		return
	}
	p.log.draw(fmt.Sprintf(format, args...))
}

// Done removes the progress line.
func (p *Progress) Done() { p.log.draw("") }

func (l *Log) draw(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.terminal || (s == "" && !l.drawn) {
		return
	}
	l.drawn = s != ""
	if s != "" {
		s = "[" + l.step + "] " + OneLine(l.Masked(s))
	}
	io.WriteString(l.w, "\r\x1b[K"+s)
}

// Bytes is a size for people: "17 B", "4.2 kB", "1.3 GB", in powers of ten.
func Bytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, units := float64(n)/1000, "kMGTPE"
	for f >= 999.95 && len(units) > 1 {
		f, units = f/1000, units[1:]
	}
	return fmt.Sprintf("%.1f %cB", f, units[0])
}
