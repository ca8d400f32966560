package pack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

// Limits bound what an archive may say that it holds. The zero value is the default.
type Limits struct {
	Entries int64 // default 20 million
	Bytes   int64 // of the tar stream; default: as much as anybody wants
	Ratio   int64 // the tar stream may be so many times the size of the archive, if it has more than 1 GiB; default 1000
}

// Archive is a file that Write made, or pretends to be one.
type Archive struct {
	Footer
	Size int64 // of the file
	r    io.ReaderAt
	rows []row
}

// Open reads the end of an archive. ErrDamaged: it is none, it is not whole, or it exceeds the limits. What it holds is proven as it is read.
func Open(r io.ReaderAt, size int64, l Limits) (*Archive, error) {
	end := make([]byte, min(size, FooterSize))
	if _, err := r.ReadAt(end, size-int64(len(end))); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read the footer: %w", err)
	}
	f, err := ReadFooter(end)
	if err != nil {
		return nil, err
	}
	if err := l.check(&f, size); err != nil {
		return nil, err
	}
	a := &Archive{Footer: f, Size: size, r: r}
	if a.rows, err = readTable(r, size, &f); err != nil {
		return nil, err
	}
	stream := int64(0)
	for _, r := range a.rows {
		if r.kind == kindData {
			stream += int64(r.raw)
		}
	}
	if stream != f.Stream || f.Bytes > f.Stream || f.Files > f.Entries || f.Entries > f.Stream/block {
		return nil, damaged("its footer does not fit its table of frames")
	}
	return a, nil
}

func (l Limits) check(f *Footer, size int64) error {
	if l.Entries == 0 {
		l.Entries = 20e6
	}
	if l.Ratio == 0 {
		l.Ratio = 1000
	}
	switch {
	case f.Entries > l.Entries:
		return damaged("it would become %d entries, and the limit is %d", f.Entries, l.Entries)
	case l.Bytes > 0 && f.Stream > l.Bytes:
		return damaged("it would become %d bytes, and the limit is %d", f.Stream, l.Bytes)
	case f.Stream > 1<<30 && f.Stream/l.Ratio > size:
		return damaged("its %d bytes would become %d", size, f.Stream)
	}
	return nil
}

// decode proves a frame and gives what it holds.
func (a *Archive) decode(d *zstd.Decoder, r *row, packed, raw []byte) (_, _ []byte, err error) {
	packed = sized(packed, int(r.packed))
	if _, err := a.r.ReadAt(packed, r.offset); err != nil {
		return packed, raw, fmt.Errorf("read the archive: %w", err)
	}
	if sha256.Sum256(packed) != r.sum {
		return packed, raw, damaged("bytes %d to %d have changed", r.offset, r.offset+int64(r.packed))
	}
	body := packed
	if r.kind == kindManifest {
		if !bytes.Equal(packed[:skippableHead], skippable(magicManifest, r.packed-skippableHead)) {
			return packed, raw, damaged("its manifest is none")
		}
		body = packed[skippableHead:]
	}
	// The capacity is all that may be written.
	raw, err = d.DecodeAll(body, sized(raw, int(r.raw))[:0:r.raw])
	if err != nil || len(raw) != int(r.raw) {
		return packed, raw, damaged("bytes %d to %d hold %d, and not %d", r.offset, r.offset+int64(r.packed), len(raw), r.raw)
	}
	return packed, raw, nil
}

func sized(b []byte, n int) []byte {
	if cap(b) < n {
		b = make([]byte, n, max(n, frameBytes))
	}
	return b[:n]
}

func newDecoder() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2*frameBytes), zstd.WithDecodeAllCapLimit(true))
}

// manifest reads records in their order, and checks that they are those of a tree.
type manifest struct {
	a           *Archive
	decoder     *zstd.Decoder
	next        int // row
	packed, raw []byte
	rest        []byte // of raw
	count       int64
	files       int64
	last        string
	dirs        []string // those that the last name is in, and itself if it is one
}

func (a *Archive) manifest() (*manifest, error) {
	d, err := newDecoder()
	return &manifest{a: a, decoder: d}, err
}

// read gives the next entry, with the part of its record that Content counts; io.EOF at the end.
func (m *manifest) read() (e Entry, content []byte, err error) {
	for len(m.rest) == 0 {
		for m.next < len(m.a.rows) && m.a.rows[m.next].kind != kindManifest {
			m.next++
		}
		if m.next == len(m.a.rows) {
			if m.count != m.a.Entries || m.files != m.a.Files {
				return e, nil, damaged("its manifest has %d entries, and its footer %d", m.count, m.a.Entries)
			}
			return e, nil, io.EOF
		}
		if m.packed, m.raw, err = m.a.decode(m.decoder, &m.a.rows[m.next], m.packed, m.raw); err != nil {
			return e, nil, err
		}
		m.rest = m.raw
		m.next++
	}
	if e, content, m.rest, err = readRecord(m.rest); err == nil {
		err = m.place(&e)
	}
	return e, content, err
}

// place checks that an entry comes where a walk of a tree would meet it: after all before it, in a directory that is one.
func (m *manifest) place(e *Entry) error {
	if m.count++; e.Type == File {
		m.files++
	}
	if (e.Name == "") != (m.count == 1) || m.count > 1 && order(m.last, e.Name) >= 0 {
		return damaged("%q is out of order, or there twice", e.Name)
	}
	if m.last = e.Name; e.Name == "" {
		m.dirs = []string{""}
		return nil
	}
	parent := dirOf(e.Name)
	for len(m.dirs) > 0 && m.dirs[len(m.dirs)-1] != parent {
		m.dirs = m.dirs[:len(m.dirs)-1]
	}
	if len(m.dirs) == 0 {
		return damaged("%q is in what is no directory", e.Name)
	}
	if e.Type == Dir {
		m.dirs = append(m.dirs, e.Name)
	}
	return nil
}

// Each calls f with each entry, in order.
func (a *Archive) Each(ctx context.Context, f func(*Entry) error) error {
	m, err := a.manifest()
	if err != nil {
		return err
	}
	defer m.decoder.Close()
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		e, _, err := m.read()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = f(&e)
		}
		if err != nil {
			return err
		}
	}
}

// piece is a decoded data frame. Whoever uses bytes of it holds it.
type piece struct {
	raw     []byte
	err     error
	done    chan struct{}
	holders atomic.Int32
	row     *row
}

// stream is the tar stream: data frames are decoded ahead by several goroutines, and given in their order. There are so many pieces and no more: who
// writes slower than others decode makes them wait.
type stream struct {
	a      *Archive
	order  chan *piece
	free   chan *piece
	cur    *piece
	rest   []byte // of cur
	ctx    context.Context
	cancel context.CancelCauseFunc
	all    sync.WaitGroup
}

func (a *Archive) stream(ctx context.Context) *stream {
	n := workers()
	s := &stream{a: a, order: make(chan *piece, n), free: make(chan *piece, 3*n+4)}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	for range cap(s.free) {
		s.free <- &piece{}
	}
	work := make(chan *piece, n)
	for range n {
		s.all.Go(func() {
			d, err := newDecoder()
			if err == nil {
				defer d.Close()
			}
			var packed []byte
			for p := range work {
				if p.err = err; err == nil && s.ctx.Err() == nil {
					packed, p.raw, p.err = a.decode(d, p.row, packed, p.raw)
				}
				close(p.done)
			}
		})
	}
	s.all.Go(func() {
		defer close(work)
		defer close(s.order)
		for i := range a.rows {
			if a.rows[i].kind != kindData {
				continue
			}
			var p *piece
			select {
			case p = <-s.free:
			case <-s.ctx.Done():
				return
			}
			p.row, p.done = &a.rows[i], make(chan struct{})
			p.holders.Store(1)
			select {
			case s.order <- p:
				work <- p
			case <-s.ctx.Done():
				return
			}
		}
	})
	return s
}

// close ends the goroutines.
func (s *stream) close() {
	s.cancel(nil)
	for range s.order { // nobody waits for a place
	}
	s.all.Wait()
}

// hold keeps the current frame's bytes as they are, until it is released.
func (s *stream) hold() *piece {
	s.cur.holders.Add(1)
	return s.cur
}

func (s *stream) release(p *piece) {
	if p.holders.Add(-1) == 0 {
		s.free <- p
	}
}

// more makes the next frame the current one; io.EOF after the last.
func (s *stream) more() error {
	if s.cur != nil {
		s.release(s.cur)
		s.cur = nil
	}
	if err := context.Cause(s.ctx); err != nil {
		return err
	}
	p, ok := <-s.order
	if !ok {
		if err := context.Cause(s.ctx); err != nil {
			return err
		}
		return io.EOF
	}
	<-p.done
	s.cur, s.rest = p, p.raw
	return p.err
}

// take gives up to n of the next bytes, which are valid until the piece is released; the caller holds it if it wants more of it than the next call.
func (s *stream) take(n int64) ([]byte, error) {
	for len(s.rest) == 0 {
		if err := s.more(); err == io.EOF {
			return nil, damaged("its tar stream ends early")
		} else if err != nil {
			return nil, err
		}
	}
	n = min(n, int64(len(s.rest)))
	b := s.rest[:n]
	s.rest = s.rest[n:]
	return b, nil
}

// expect takes bytes that are known.
func (s *stream) expect(want []byte, what string) error {
	for len(want) > 0 {
		b, err := s.take(int64(len(want)))
		if err != nil {
			return err
		}
		if !bytes.Equal(b, want[:len(b)]) {
			return damaged("its tar stream and its manifest differ at %q", what)
		}
		want = want[len(b):]
	}
	return nil
}

var zeros [2 * block]byte

// end expects the end of the stream.
func (s *stream) end() error {
	if err := s.expect(zeros[:], "the end"); err != nil {
		return err
	}
	if len(s.rest) > 0 {
		return damaged("its tar stream goes on after its end")
	}
	if err := s.more(); err != io.EOF {
		if err == nil {
			err = damaged("its tar stream goes on after its end")
		}
		return err
	}
	return nil
}
