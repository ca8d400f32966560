package pack

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"

	"run-task/checkout/internal/inflate"
	"run-task/internal/fsx"
)

// content is an object's content, in memory or, if it is too large for that, in a file without a name.
type content struct {
	mem    []byte
	file   *os.File
	size   int64
	shared bool // others may be using mem
}

func (c content) held() bool { return c.mem != nil || c.file != nil }

func (c content) release() {
	if !c.shared {
		putBuf(c.mem)
	}
	if c.file != nil {
		c.file.Close()
	}
}

// ReadAt reads from wherever it is.
func (c content) ReadAt(p []byte, off int64) (int, error) {
	if c.file != nil {
		return c.file.ReadAt(p, off)
	}
	n := copy(p, c.mem[min(off, int64(len(c.mem))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// opener reads objects of a pack file and applies deltas. It is used by one goroutine at a time.
type opener struct {
	file    io.ReaderAt
	end     int64    // where the pack's trailer begins
	whole   int64    // what is larger goes to a file in spill
	spill   *fsx.Dir // if nil, it is ErrLarge instead
	in      input
	inflate inflate.Decoder
	buf     []byte
}

const openerBuffer = 64 << 10

// start positions in at off, from where guess bytes are likely to be needed.
func (o *opener) start(off, guess int64) {
	if o.buf == nil {
		o.buf = make([]byte, openerBuffer)
	}
	o.in.reset(io.NewSectionReader(o.file, off, o.end-off), off, nil)
	o.expect(guess)
}

// expect makes the window large enough for guess bytes, within reason.
func (o *opener) expect(guess int64) {
	o.in.buf = o.buf[:min(max(guess+64, 2<<10), openerBuffer)]
}

// head reads the head of the object at off, whose zlib stream is what comes next in o.in.
func (o *opener) head(off int64) (head, error) {
	o.start(off, 0)
	h, ok, err := parseHead(o.in.need(maxHead), off)
	if err != nil {
		return head{}, err
	}
	if !ok {
		return head{}, o.in.ended()
	}
	o.in.skip(h.len)
	o.expect(h.size)
	return h, nil
}

// load inflates the object of this size whose zlib stream is what comes next.
func (o *opener) load(size int64) (content, error) {
	if size <= o.whole {
		data := getBuf(size)
		if err := o.in.whole(&o.inflate, data); err != nil {
			putBuf(data)
			return content{}, err
		}
		return content{mem: data, size: size}, nil
	}
	return o.spilled(size, func(w io.Writer) error {
		_, err := io.Copy(w, newZreader(&o.in, &o.inflate, size))
		return err
	})
}

// ops is a delta's data: in memory, or if that is nil, where its zlib stream begins.
type ops struct {
	mem       []byte
	off, size int64
}

// apply makes the content that a delta makes of base. w, if not nil, is given the content as well, but only if it goes to a file.
func (o *opener) apply(base content, d ops, w func(size int64) io.Writer) (content, error) {
	if d.mem == nil && d.size <= o.whole {
		o.start(d.off, d.size)
		c, err := o.load(d.size)
		if err != nil {
			return content{}, err
		}
		defer c.release()
		d.mem = c.mem
	}
	var r *bufio.Reader
	first := d.mem
	if d.mem == nil {
		o.start(d.off, d.size)
		r = bufio.NewReaderSize(newZreader(&o.in, &o.inflate, d.size), 32<<10)
		var err error
		if first, err = r.Peek(maxDeltaHead); err != nil && err != io.EOF {
			return content{}, err
		}
	}
	baseSize, size, n := deltaSizes(first)
	if n == 0 || baseSize != base.size || size > maxDelta {
		return content{}, errDelta
	}
	if d.mem != nil && base.file == nil && size <= o.whole {
		data := getBuf(size)
		if !applyDelta(data, base.mem, d.mem[n:]) {
			putBuf(data)
			return content{}, errDelta
		}
		return content{mem: data, size: size}, nil
	}
	if r == nil {
		r = bufio.NewReader(bytes.NewReader(d.mem))
	}
	r.Discard(n)
	return o.spilled(size, func(to io.Writer) error {
		if w != nil {
			to = io.MultiWriter(to, w(size))
		}
		return streamDelta(to, size, base, r)
	})
}

// spilled makes a content of what write writes.
func (o *opener) spilled(size int64, write func(io.Writer) error) (content, error) {
	if o.spill == nil {
		return content{}, ErrLarge
	}
	f, name, err := newFile(o.spill)
	if err != nil {
		return content{}, err
	}
	b := bufio.NewWriterSize(f, 256<<10)
	if err := errors.Join(o.spill.Unlink(name), write(b), b.Flush()); err != nil {
		f.Close()
		return content{}, err
	}
	return content{file: f, size: size}, nil
}
