package pack

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"run-task/checkout/internal/inflate"
)

// input is a reader with a window of what comes next.
type input struct {
	r      io.Reader
	buf    []byte
	lo, hi int
	pos    int64  // offset of buf[lo] in the pack
	crc    uint32 // of what was skipped since it was last set to 0
	err    error  // why there is no more
}

func (in *input) reset(r io.Reader, pos int64, buf []byte) {
	*in = input{r: r, buf: buf, pos: pos}
}

func (in *input) window() []byte { return in.buf[in.lo:in.hi] }

func (in *input) skip(n int) {
	in.crc = crc32.Update(in.crc, crc32.IEEETable, in.buf[in.lo:in.lo+n])
	in.lo += n
	in.pos += int64(n)
}

// more adds to the window; false means that there is no more.
func (in *input) more() bool {
	if in.lo > 0 {
		in.hi = copy(in.buf, in.buf[in.lo:in.hi])
		in.lo = 0
	}
	for in.err == nil && in.hi < len(in.buf) {
		n, err := in.r.Read(in.buf[in.hi:])
		in.hi += n
		in.err = err
		if n > 0 {
			return true
		}
	}
	return false
}

// need makes the window at least n bytes long, if there are so many.
func (in *input) need(n int) []byte {
	for in.hi-in.lo < n && in.more() {
	}
	return in.window()
}

// ended is the error when something ends too early.
func (in *input) ended() error {
	if in.err != nil && in.err != io.EOF {
		return fmt.Errorf("read the pack: %w", in.err)
	}
	return bad("the pack ends too early, at offset %d", in.pos+int64(in.hi-in.lo))
}

// whole inflates into dst, which the object must fill exactly.
func (in *input) whole(d *inflate.Decoder, dst []byte) error {
	d.Reset(dst)
	for {
		n, err := d.Decode(in.window())
		in.skip(n)
		switch {
		case err == nil:
			return nil
		case err != inflate.ErrShort:
			return bad("the pack is corrupt before offset %d: %w", in.pos, err)
		case !in.more():
			return in.ended()
		}
	}
}

// zreader inflates an object of any size. Its last Read checks size and checksum.
type zreader struct {
	in   *input
	d    *inflate.Decoder
	left int64 // bytes that are still to come
	data []byte
	full bool
	err  error
}

// streamWindow is what a zreader inflates into.
const streamWindow = 4 * inflate.Window

func newZreader(in *input, d *inflate.Decoder, size int64) *zreader {
	d.ResetWindow(make([]byte, streamWindow))
	return &zreader{in: in, d: d, left: size}
}

func (z *zreader) Read(p []byte) (int, error) {
	for len(z.data) == 0 && z.err == nil {
		z.err = z.next()
	}
	n := copy(p, z.data)
	z.data = z.data[n:]
	if n == 0 && len(p) > 0 {
		return 0, z.err
	}
	return n, nil
}

func (z *zreader) next() error {
	if z.full {
		z.d.Slide()
		z.full = false
	}
	n, err := z.d.Decode(z.in.window())
	z.in.skip(n)
	z.data = z.d.Take()
	z.left -= int64(len(z.data))
	switch {
	case z.left < 0:
		z.data = nil
		return bad("the pack is corrupt before offset %d: %w", z.in.pos, inflate.ErrFull)
	case err == nil && z.left > 0, err == inflate.ErrCorrupt:
		return bad("the pack is corrupt before offset %d: %w", z.in.pos, inflate.ErrCorrupt)
	case err == nil:
		return io.EOF
	case errors.Is(err, inflate.ErrFull):
		z.full = true
	case len(z.data) == 0 && !z.in.more():
		return z.in.ended()
	}
	return nil
}
