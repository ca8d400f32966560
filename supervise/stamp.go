//go:build unix

package supervise

import (
	"bytes"
	"time"

	"run-task/internal/logs"
)

// longest is how much of a line waits for the rest: longer ones are shown in parts, with one stamp.
const longest = 64 << 10

// stamper puts "[task TIME] " before each line, with the time when its first byte was read. No byte is changed. Lines end with \n, \r\n or \r: what a progress bar redraws
// are lines.
type stamper struct {
	held   []byte        // the beginning of a line that was not shown yet
	first  []byte        // its prefix
	since  time.Duration // when it came
	inLine bool          // the beginning of the line was shown
	cr     bool          // the last byte was \r: a \n now would belong to it

	prefix []byte // of this millisecond
	ms     int64
}

func (s *stamper) holds() bool { return len(s.held) > 0 }

// append appends to dst what of b can be shown now.
func (s *stamper) append(dst, b []byte) []byte {
	if len(b) == 0 {
		return dst
	}
	s.tick()
	if s.cr && b[0] == '\n' {
		dst, b = append(dst, '\n'), b[1:]
	}
	s.cr = false
	for {
		n := bytes.IndexByte(b, '\n') + 1
		if n == 0 {
			return s.rest(dst, b)
		}
		if cr := bytes.IndexByte(b[:n], '\r'); cr >= 0 && cr < n-2 {
			n = cr + 1
		}
		dst = s.line(dst, b[:n])
		b = b[n:]
	}
}

// rest is for what has no \n.
func (s *stamper) rest(dst, b []byte) []byte {
	for {
		n := bytes.IndexByte(b, '\r') + 1
		if n == 0 {
			break
		}
		dst = s.line(dst, b[:n])
		b = b[n:]
		s.cr = len(b) == 0
	}
	switch {
	case len(b) == 0:
	case s.inLine:
		dst = append(dst, b...)
	default:
		if !s.holds() {
			s.first, s.since = append(s.first[:0], s.prefix...), monotonic()
		}
		s.held = append(s.held, b...)
		if len(s.held) > longest {
			dst = s.flush(dst)
		}
	}
	return dst
}

// line is for one that ends.
func (s *stamper) line(dst, b []byte) []byte {
	switch {
	case s.holds():
		dst = s.flush(dst)
	case !s.inLine:
		dst = append(dst, s.prefix...)
	}
	s.inLine = false
	return append(dst, b...)
}

// flush shows what is held; the rest of the line gets no prefix.
func (s *stamper) flush(dst []byte) []byte {
	if s.holds() {
		dst = append(append(dst, s.first...), s.held...)
		s.held, s.inLine = s.held[:0], true
	}
	return dst
}

// interrupted says that something else now stands between what was shown and what comes.
func (s *stamper) interrupted() { s.inLine, s.cr = false, false }

// tick takes the time.
func (s *stamper) tick() {
	now := time.Now()
	if ms := now.UnixMilli(); ms != s.ms || s.prefix == nil {
		s.ms = ms
		s.prefix = append(append(append(s.prefix[:0], "[task "...), logs.Stamp(now)...), "] "...)
	}
}
