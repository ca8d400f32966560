//go:build unix

package supervise

import (
	"bytes"
	"strings"

	"run-task/internal/logs"
)

// mostTail is the largest part of the output that is shown at its end, after --output-limit.
const mostTail = 1 << 20

// tail lets the first bytes through and keeps the last ones.
type tail struct {
	log   *logs.Log
	ends  string // what lines end with
	limit int64
	room  int64 // of limit
	over  bool
	last  byte   // that passed; '\n' at first
	ring  []byte // the last bytes, from pos on once it is full
	pos   int
	total int64 // bytes that did not pass
}

func newTail(limit int64, ends string, log *logs.Log) *tail {
	return &tail{log: log.For("output"), ends: ends, limit: limit, room: limit, last: '\n'}
}

func (t *tail) size() int { return int(max(min(t.limit/4, mostTail), 1)) }

// append appends to dst what of b is still shown.
func (t *tail) append(dst, b []byte) []byte {
	if !t.over {
		if int64(len(b)) <= t.room {
			return t.pass(dst, b)
		}
		t.over = true
		n := bytes.LastIndexAny(b[:t.room], t.ends) + 1 // whole lines, but for one that is too long by itself
		if inLine := !strings.Contains(t.ends, string(t.last)); n == 0 && (inLine || t.room == t.limit) {
			n = int(t.room)
		}
		dst, b = t.pass(dst, b[:n]), b[n:]
		if t.last != '\n' {
			dst = append(dst, '\n')
		}
		dst = append(dst, t.log.Line("the limit of %s is reached: of what follows only the last %s will be shown, at the end", logs.Bytes(t.limit), logs.Bytes(int64(t.size())))...)
	}
	t.keep(b)
	return dst
}

func (t *tail) pass(dst, b []byte) []byte {
	if len(b) > 0 {
		t.room -= int64(len(b))
		t.last = b[len(b)-1]
	}
	return append(dst, b...)
}

func (t *tail) keep(b []byte) {
	t.total += int64(len(b))
	size := t.size()
	if len(b) >= size {
		t.ring, t.pos = append(t.ring[:0], b[len(b)-size:]...), 0
		return
	}
	if free := size - len(t.ring); free > 0 {
		n := min(free, len(b))
		t.ring, b = append(t.ring, b[:n]...), b[n:]
	}
	n := copy(t.ring[t.pos:], b)
	if n == len(b) {
		t.pos = (t.pos + n) % size
	} else {
		t.pos = copy(t.ring, b[n:])
	}
}

// end is what is shown at the end.
func (t *tail) end() []byte {
	if !t.over || t.total == 0 {
		return nil
	}
	last := append(append([]byte(nil), t.ring[t.pos:]...), t.ring[:t.pos]...)
	left := t.total - int64(len(last))
	if left == 0 {
		return last
	}
	if begin := bytes.IndexAny(last, t.ends) + 1; begin > 0 && begin < len(last) {
		left += int64(begin)
		last = last[begin:]
	}
	return append([]byte(t.log.Line("%s left out", logs.Bytes(left))), last...)
}
