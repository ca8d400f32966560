package pack

import (
	"io"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/inflate"
	"run-task/internal/fail"
)

// scanner parses the stream's objects, one after the other.
type scanner struct {
	*receiver
	in      input
	jobs    chan<- job
	hash    *hasher
	inflate *inflate.Decoder
}

func (s *scanner) object() error {
	off := s.in.pos
	h, ok, err := parseHead(s.in.need(maxHead), off)
	if err != nil {
		return err
	}
	if !ok {
		return s.in.ended()
	}
	e := s.table.add()
	number := s.table.n - 1
	e.off, e.size, e.packed, e.head = off, h.size, h.packed, uint8(h.len)
	switch h.packed {
	case plumbing.OFSDeltaObject:
		base, ok := s.table.findOffset(h.base)
		if !ok || base == number {
			return bad("the base of the object at offset %d is none of the pack's objects", off)
		}
		b := s.table.at(base)
		e.base, e.typ, e.next, b.child = base+1, b.typ, b.child, number+1
	case plumbing.REFDeltaObject:
		s.refs = append(s.refs, &ref{base: h.ref, entry: number})
	default:
		e.typ = h.packed
	}
	s.in.crc = 0
	s.in.skip(h.len)
	if h.size > s.Whole {
		return s.large(e)
	}
	return s.small(e, number)
}

// small inflates an object that is held in one piece.
func (s *scanner) small(e *entry, number uint32) error {
	data := getBuf(e.size)
	if err := s.in.whole(s.inflate, data); err != nil {
		return err
	}
	e.crc = s.in.crc
	s.queue.take(int64(cap(data)))
	s.jobs <- job{e, number, data}
	return nil
}

// assembler gives what was inflated its ID where that can be done at once.
type assembler struct {
	*receiver
	hash *hasher
}

func (a *assembler) run(inflated <-chan job, blobs chan<- job) {
	for j := range inflated {
		if j.e.packed == plumbing.BlobObject {
			blobs <- j
			continue
		}
		size := int64(cap(j.data))
		if a.err() == nil {
			a.fail(a.one(j))
		}
		a.queue.give(size)
	}
}

func (a *assembler) one(j job) error {
	if j.e.packed.IsDelta() {
		return a.delta(j)
	}
	return a.now(j)
}

// now hands out an object that is no blob, and keeps it: deltas of it are likely to follow.
func (a *assembler) now(j job) error {
	if err := a.known(j.e, a.hash, j.data); err != nil {
		return err
	}
	j.e.done = true
	a.recent.keep(j.number, j.data)
	return nil
}

// delta resolves one that is no blob and whose base is at hand, so that a checkout can go on with a directory while the stream
// arrives. All others are kept for later.
func (a *assembler) delta(j job) error {
	ops := j.data
	defer putBuf(ops)
	base, ok := a.recent.get(j.e.base)
	if !ok || j.e.typ == plumbing.BlobObject {
		a.deltas.keep(j.number, ops)
		return nil
	}
	baseSize, size, n := deltaSizes(ops)
	if size > a.Whole {
		return nil
	}
	data := getBuf(size)
	if n == 0 || baseSize != int64(len(base)) || !applyDelta(data, base, ops[n:]) {
		return deltaError(j.e)
	}
	return a.now(job{j.e, j.number, data})
}

func deltaError(e *entry) error {
	return bad("the object at offset %d: %w", e.off, errDelta)
}

// large streams an object.
func (s *scanner) large(e *entry) error {
	z := newZreader(&s.in, s.inflate, e.size)
	var to io.Writer = io.Discard
	if !e.isDelta() {
		s.hash.start(e.typ, e.size)
		to = s.hash
	}
	if err := s.copy(to, z); err != nil {
		return err
	}
	e.crc = s.in.crc
	if e.isDelta() {
		return nil
	}
	var err error
	if e.id, err = s.hash.sum(); err != nil {
		return err
	}
	e.done = true
	return s.handOut(Object{ID: e.id, Type: e.typ, Size: e.size})
}

func (s *scanner) copy(to io.Writer, z *zreader) error {
	for {
		n, err := io.CopyN(to, z, 16<<20)
		s.progress(s.table.n-1, s.in.pos)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case n == 0:
			return fail.Errorf(fail.Internal, "a stream without an end")
		}
		if err := s.err(); err != nil {
			return err
		}
	}
}

// recent has the last whole objects that were no blobs.
type recent struct {
	data      map[uint32][]byte // by number of entry plus one
	order     []uint32
	used, max int64
}

func (r *recent) get(number uint32) ([]byte, bool) {
	b, ok := r.data[number]
	return b, ok
}

func (r *recent) keep(number uint32, data []byte) {
	if r.data == nil {
		r.data = map[uint32][]byte{}
	}
	r.data[number+1] = data
	r.order = append(r.order, number+1)
	for r.used += int64(cap(data)); r.used > r.max; {
		old := r.data[r.order[0]]
		delete(r.data, r.order[0])
		r.order = r.order[1:]
		r.used -= int64(cap(old))
		putBuf(old)
	}
}

func (r *recent) drop() {
	for _, b := range r.data {
		putBuf(b)
	}
	*r = recent{}
}

// deltas has the data of deltas that are to be resolved, as many as there is room for, so that they need not be inflated again.
type deltas struct {
	data      map[uint32][]byte // by number of entry
	slab      []byte
	used, max int64
}

func (d *deltas) keep(number uint32, ops []byte) {
	const slabSize = 256 << 10
	if d.used += int64(len(ops)); d.used > d.max || len(ops) > slabSize/4 {
		d.used -= int64(len(ops))
		return
	}
	if d.data == nil {
		d.data = map[uint32][]byte{}
	}
	if cap(d.slab)-len(d.slab) < len(ops) {
		d.slab = make([]byte, 0, slabSize)
	}
	start := len(d.slab)
	d.slab = append(d.slab, ops...)
	d.data[number] = d.slab[start:len(d.slab):len(d.slab)]
}
