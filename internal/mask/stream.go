package mask

import (
	"fmt"
	"io"
)

// Stream hides the values of a Set in a stream of bytes that comes in pieces of any size. What comes out does not depend on the pieces.
// It is for one goroutine at a time.
//
// The bytes that it holds back need no buffer: they are the last ones of the automaton's state, which is the beginning of a value.
type Stream struct {
	set   *Set
	state uint32
	read  int64 // bytes of the stream that were given to Append
	done  int64 // bytes of these that were decided and written; what is between done and read is held
	mask  bool  // the byte before done was covered: what is covered from there on belongs to the same run

	spans []span // covered bytes after done, in order, apart from each other
	first int    // of spans: those before are done
}

type span struct{ from, to int64 }

// Stream begins a new stream.
func (s *Set) Stream() *Stream { return &Stream{set: s} }

// Append appends to dst what is decided of p and of what was held, with the secrets hidden. Only a byte that may be part of a value whose
// beginning was read is held, and what comes after such a byte. It does not keep p, which must not share memory with dst.
func (t *Stream) Append(dst, p []byte) []byte {
	s := t.set
	if s == nil {
		return append(dst, p...)
	}
	w := writer{t, dst, s.tail(t.state, t.Held()), p}
	at, i := t.state, 0
	for i < len(p) {
		if at == 0 && s.filter != nil {
			i = s.filter.next(p, i)
		}
		for i < len(p) {
			at = s.step(at, p[i])
			i++
			now := &s.states[at]
			begin := i - int(now.depth) // no value that is still to come begins before
			if now.longest != 0 {
				t.cover(t.read+int64(i-int(now.longest)), t.read+int64(i))
				w.settle(t.read + int64(begin))
			}
			if now.depth < gram && s.filter != nil && begin >= 0 && begin+gram <= len(p) && !s.filter.begins(p[begin:]) {
				at, i = 0, begin+1
				break
			}
		}
	}
	w.settle(t.read + int64(len(p)-int(s.states[at].depth)))
	t.state = at
	t.read += int64(len(p))
	return w.dst
}

// Flush appends what was held: the stream ends here. What comes after it is a new one.
func (t *Stream) Flush(dst []byte) []byte {
	if t.set == nil {
		return dst
	}
	w := writer{t, dst, t.set.tail(t.state, t.Held()), nil}
	w.settle(t.read)
	*t = Stream{set: t.set, spans: t.spans[:0]}
	return w.dst
}

// Held is how many bytes are held back: less than the longest value has.
func (t *Stream) Held() int { return int(t.read - t.done) }

// Format keeps the values out of whatever prints a Stream by mistake.
func (t *Stream) Format(f fmt.State, _ rune) { io.WriteString(f, masked) }

// cover adds a span that ends after, or where, all others do.
func (t *Stream) cover(from, to int64) {
	last := len(t.spans) - 1
	for last >= t.first && t.spans[last].from >= from {
		last--
	}
	t.spans = t.spans[:last+1]
	if last >= t.first && t.spans[last].to >= from {
		t.spans[last].to = to
		return
	}
	if t.first > len(t.spans)/2 { // so a span is moved once at most for each one that is done
		t.spans = t.spans[:copy(t.spans, t.spans[t.first:])]
		t.first = 0
	}
	t.spans = append(t.spans, span{from, to})
}

// writer writes for one call of Append or Flush.
type writer struct {
	*Stream
	dst  []byte
	held string // what was held before p
	p    []byte
}

// settle writes all before end, and what is covered from there on without a gap.
func (w *writer) settle(end int64) {
	for w.first < len(w.spans) && w.spans[w.first].from <= max(end, w.done) {
		next := w.spans[w.first]
		w.first++
		w.plain(next.from)
		if !w.mask {
			w.dst = append(w.dst, masked...)
			w.mask = true
		}
		w.done = next.to
	}
	w.plain(end)
}

// plain writes what is before end as it is.
func (w *writer) plain(end int64) {
	if end <= w.done {
		return
	}
	from, to := int(w.done-w.read), int(end-w.read) // in p, or before it
	if from < 0 {
		rest := w.held[len(w.held)+from:]
		w.dst = append(w.dst, rest[:min(len(rest), to-from)]...)
		from = 0
	}
	if from < to {
		w.dst = append(w.dst, w.p[from:to]...)
	}
	w.done, w.mask = end, false
}
