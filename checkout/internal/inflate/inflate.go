// Package inflate decodes one zlib stream (RFC 1950, RFC 1951) into a buffer of known size: what a git object is. It exists
// because it is more than twice as fast as compress/zlib, which must be able to stop after any byte of output, and because it tells
// exactly where a stream ends in its input. It accepts what compress/zlib accepts (no preset dictionaries) and nothing else.
package inflate

import (
	"encoding/binary"
	"errors"
	"hash"
	"hash/adler32"
)

// Slack is how many bytes beyond len(dst) a buffer should have in its capacity for the fast path to reach its end. They are
// overwritten with anything. A buffer without them works, only slower.
const Slack = 272

// Window is how far back a stream may refer.
const Window = 32 << 10

var (
	// ErrShort means that the input ends before the stream does: call Decode again with src[n:] and what follows it.
	ErrShort = errors.New("inflate: the input ends too early")
	// ErrFull means that dst is full and the stream goes on: the data is longer than expected, or, with ResetWindow, Take and
	// Slide are to make room.
	ErrFull = errors.New("inflate: more data than expected")
	// ErrCorrupt means that the input is no zlib stream, or that its Adler-32 differs from the data's. It is final.
	ErrCorrupt = errors.New("inflate: corrupt zlib stream")
)

type state uint8

const (
	inHeader  state = iota // of zlib
	atBlock                // the three bits before a block, and its tables
	inStored               // in a stored block
	inCodes                // in a block of symbols
	inTrailer              // the Adler-32
	done
	dead // ErrCorrupt was returned
)

// Decoder decodes a stream. The zero value must be Reset before use. It may be used for any number of streams, one at a time.
type Decoder struct {
	dst    []byte
	out    int // bytes of dst that are decoded
	taken  int // bytes of dst that were given away before, or are history
	summed int // bytes of dst that sum has seen
	sum    hash.Hash32

	slides bool
	state  state
	final  bool   // the block is the last one
	bits   uint64 // read but not yet used bits, fewer than 8 between calls
	nbits  uint
	stored int // bytes left of a stored block

	lit     *[litSize]uint32 // own or the fixed ones
	dist    *[distSize]uint32
	ownLit  [litSize]uint32
	ownDist [distSize]uint32
	pre     [1 << preBits]uint32
	lens    [maxLit + maxDist]uint8
}

// Reset starts a stream whose data fills dst exactly.
func (d *Decoder) Reset(dst []byte) { d.reset(dst, false) }

// ResetWindow starts a stream of any length that goes through window, which is to be longer than Window by 1 kB at least: after
// ErrFull, Take gives what is there and Slide makes room.
func (d *Decoder) ResetWindow(window []byte) { d.reset(window[:len(window):len(window)], true) }

func (d *Decoder) reset(dst []byte, slides bool) {
	if d.sum == nil {
		d.sum = adler32.New()
	}
	d.sum.Reset()
	d.dst, d.out, d.taken, d.summed = dst, 0, 0, 0
	d.slides = slides
	d.state, d.final, d.bits, d.nbits, d.stored = inHeader, false, 0, 0, 0
}

// Whole decodes the stream at the beginning of src, which must fill dst exactly. n is the stream's length in src. With
// ErrShort the caller may call Decode, as said there; ErrFull means that the data is longer than dst, ErrCorrupt also that it is shorter.
func (d *Decoder) Whole(dst, src []byte) (n int, err error) {
	d.Reset(dst)
	return d.Decode(src)
}

// Decode goes on with src and says how many of its bytes it is done with. A nil error means that the stream ended, that it filled dst
// (after ResetWindow: of what came since the last Take, the rest is there) and that its checksum is right.
func (d *Decoder) Decode(src []byte) (n int, err error) {
	pos := 0
	for err == nil && d.state != done {
		switch d.state {
		case inHeader:
			pos, err = d.header(src)
		case atBlock:
			pos, err = d.block(src, pos)
		case inStored:
			pos, err = d.copyStored(src, pos)
		case inCodes:
			pos, err = d.codes(src, pos)
		case inTrailer:
			pos, err = d.trailer(src, pos)
		default:
			err = ErrCorrupt
		}
	}
	if err == ErrCorrupt {
		d.state = dead
	}
	return pos, err
}

// Take returns the data since the last Take. It is valid until the next Slide or Reset.
func (d *Decoder) Take() []byte {
	b := d.dst[d.taken:d.out]
	d.taken = d.out
	return b
}

// Slide makes room after ErrFull. What was not taken before is lost.
func (d *Decoder) Slide() {
	d.sum.Write(d.dst[d.summed:d.out])
	d.out = copy(d.dst, d.dst[d.out-Window:d.out])
	d.taken, d.summed = d.out, d.out
}

func (d *Decoder) header(src []byte) (int, error) {
	if len(src) < 2 {
		return 0, ErrShort
	}
	h := binary.BigEndian.Uint16(src)
	if src[0]&15 != 8 || src[0]>>4 > 7 || src[1]&0x20 != 0 || h%31 != 0 {
		return 0, ErrCorrupt
	}
	d.state = atBlock
	return 2, nil
}

// block reads a block's head. Nothing is kept of a head that is not there in full: it is read again from its first bit.
func (d *Decoder) block(src []byte, pos int) (int, error) {
	r := reader{src, pos, d.bits, d.nbits}
	head, ok := r.take(3)
	if !ok {
		return pos, ErrShort
	}
	var err error
	next := inCodes
	switch head >> 1 {
	case 0:
		next, err = inStored, d.storedHead(&r)
	case 1:
		d.lit, d.dist = fixed()
	case 2:
		err = d.dynamic(&r)
	default:
		err = ErrCorrupt
	}
	if err != nil {
		return pos, err
	}
	d.state, d.final = next, head&1 != 0
	return d.put(r), nil
}

func (d *Decoder) storedHead(r *reader) error {
	r.take(r.nbits & 7)
	n, ok1 := r.take(16)
	not, ok2 := r.take(16)
	if !ok1 || !ok2 {
		return ErrShort
	}
	if n != not^0xffff {
		return ErrCorrupt
	}
	d.stored = int(n)
	return nil
}

func (d *Decoder) copyStored(src []byte, pos int) (int, error) {
	n := copy(d.dst[d.out:], src[pos:min(pos+d.stored, len(src))])
	d.out += n
	pos += n
	d.stored -= n
	switch {
	case d.stored == 0:
		d.endBlock()
		return pos, nil
	case pos == len(src):
		return pos, ErrShort
	}
	return pos, ErrFull
}

func (d *Decoder) endBlock() {
	d.state = atBlock
	if d.final {
		d.state = inTrailer
	}
}

func (d *Decoder) trailer(src []byte, pos int) (int, error) {
	if len(src)-pos < 4 {
		return pos, ErrShort
	}
	d.sum.Write(d.dst[d.summed:d.out])
	d.summed = d.out
	if d.sum.Sum32() != binary.BigEndian.Uint32(src[pos:]) || !d.slides && d.out != len(d.dst) {
		return pos, ErrCorrupt
	}
	d.state = done
	return pos + 4, nil
}

// put ends the use of r: whole bytes that it has read too many are given back.
func (d *Decoder) put(r reader) int {
	d.nbits = r.nbits & 7
	d.bits = r.bits & (1<<d.nbits - 1)
	return r.pos - int(r.nbits>>3)
}

// reader reads bits, the lowest of a byte first.
type reader struct {
	src   []byte
	pos   int
	bits  uint64
	nbits uint
}

// fill loads what fits: 56 bits at least, if src has them.
func (r *reader) fill() {
	if r.pos+8 <= len(r.src) {
		r.bits |= binary.LittleEndian.Uint64(r.src[r.pos:]) << (r.nbits & 63)
		r.pos += int((63 - r.nbits) >> 3)
		r.nbits |= 56
		return
	}
	for r.nbits < 56 && r.pos < len(r.src) {
		// Above nbits there may be bits of this very byte already.
		r.bits |= uint64(r.src[r.pos]) << r.nbits
		r.pos++
		r.nbits += 8
	}
}

func (r *reader) take(n uint) (uint64, bool) {
	if r.nbits < n {
		if r.fill(); r.nbits < n {
			return 0, false
		}
	}
	v := r.bits & (1<<n - 1)
	r.bits >>= n
	r.nbits -= n
	return v, true
}
