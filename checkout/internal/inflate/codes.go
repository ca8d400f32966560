package inflate

import "encoding/binary"

// codes decodes symbols up to the block's end. Where there is room enough in src and dst for anything that one symbol may
// need, fast does it; the rest is done one symbol at a time, so that it can stop before any of them.
func (d *Decoder) codes(src []byte, pos int) (int, error) {
	r := reader{src, pos, d.bits, d.nbits}
	end, err := d.fast(&r)
	if err != nil {
		return pos, err
	}
	if d.out > len(d.dst) {
		d.out, d.state = len(d.dst), dead
		return pos, ErrFull
	}
	for !end {
		if end, err = d.one(&r); err != nil {
			return d.put(r), err
		}
	}
	d.endBlock()
	return d.put(r), nil
}

// one decodes a symbol, or with an error nothing at all.
func (d *Decoder) one(r *reader) (end bool, err error) {
	r.fill()
	e := lookup(d.lit[:], litBits, r.bits)
	used := uint(e & 15)
	switch {
	case e&isOther != 0 && e&isEnd == 0:
		return false, r.bad()
	case used > r.nbits:
		return false, ErrShort
	case e >= isLiteral:
		if d.out == len(d.dst) {
			return false, ErrFull
		}
		d.dst[d.out] = byte(e >> 16)
		d.out++
		r.bits >>= used
		r.nbits -= used
		return false, nil
	case e&isEnd != 0:
		r.bits >>= used
		r.nbits -= used
		return true, nil
	}
	extra := uint(e >> 8 & 31)
	length := int(e>>16) + int(r.bits>>used&(1<<extra-1))
	used += extra
	f := lookup(d.dist[:], distBits, r.bits>>used)
	if f&isOther != 0 {
		return false, r.bad()
	}
	extra = uint(f >> 8 & 31)
	used += uint(f & 15)
	dist := int(f>>16) + int(r.bits>>used&(1<<extra-1))
	used += extra
	switch {
	case used > r.nbits:
		return false, ErrShort
	case dist > d.out:
		return false, ErrCorrupt
	case length > len(d.dst)-d.out:
		return false, ErrFull
	}
	for range length {
		d.dst[d.out] = d.dst[d.out-dist]
		d.out++
	}
	r.bits >>= used
	r.nbits -= used
	return false, nil
}

// bad tells a code that does not exist from one that is not there yet: the longest symbol has 48 bits.
func (r *reader) bad() error {
	if r.nbits < 48 && r.pos == len(r.src) {
		return ErrShort
	}
	return ErrCorrupt
}

func lookup(tab []uint32, tabBits uint, bits uint64) uint32 {
	e := tab[bits&(1<<tabBits-1)]
	if e&(isLiteral|isSub) == isSub {
		e = tab[e>>16&0x7fff+uint32(bits>>tabBits)&(1<<(e>>8&31)-1)]
	}
	return e
}

// fast decodes while there are 16 bytes of input and Slack bytes of output, so that within a symbol neither needs a
// look. It may go beyond len(dst), which the caller sees by d.out.
func (d *Decoder) fast(r *reader) (end bool, err error) {
	src, pos, bits, nbits := r.src, r.pos, r.bits, r.nbits
	lit, dist := d.lit, d.dist
	dst, out := d.dst[:cap(d.dst)], d.out
	last := min(len(d.dst), cap(d.dst)-Slack)
loop:
	for pos+16 <= len(src) && out <= last {
		bits |= binary.LittleEndian.Uint64(src[pos:]) << (nbits & 63)
		pos += int((63 - nbits) >> 3)
		nbits |= 56
		e := lit[bits&(1<<litBits-1)]
		// Three literals leave 26 bits and more of the 56.
		if e >= isLiteral {
			bits >>= e & 15
			nbits -= uint(e & 15)
			dst[out] = byte(e >> 16)
			out++
			if e = lit[bits&(1<<litBits-1)]; e >= isLiteral {
				bits >>= e & 15
				nbits -= uint(e & 15)
				dst[out] = byte(e >> 16)
				out++
				if e = lit[bits&(1<<litBits-1)]; e >= isLiteral {
					bits >>= e & 15
					nbits -= uint(e & 15)
					dst[out] = byte(e >> 16)
					out++
					continue
				}
			}
		}
		if e&isOther != 0 {
			if e&isSub != 0 {
				e = lit[(e>>16+uint32(bits>>litBits)&(1<<(e>>8&31)-1))&(litSize-1)]
				if e >= isLiteral {
					bits >>= e & 15
					nbits -= uint(e & 15)
					dst[out] = byte(e >> 16)
					out++
					continue
				}
			}
			if e&isEnd != 0 {
				bits >>= e & 15
				nbits -= uint(e & 15)
				end = true
				break loop
			}
			if e&isOther != 0 {
				err = ErrCorrupt
				break loop
			}
		}
		bits >>= e & 15
		nbits -= uint(e & 15)
		extra := e >> 8 & 31
		length := int(e>>16) + int(bits&(1<<extra-1))
		bits >>= extra
		nbits -= uint(extra)
		if nbits < 28 {
			bits |= binary.LittleEndian.Uint64(src[pos:]) << (nbits & 63)
			pos += int((63 - nbits) >> 3)
			nbits |= 56
		}
		f := dist[bits&(1<<distBits-1)]
		if f&isOther != 0 {
			if f&isSub != 0 {
				f = dist[(f>>16+uint32(bits>>distBits)&(1<<(f>>8&31)-1))&(distSize-1)]
			}
			if f&isOther != 0 {
				err = ErrCorrupt
				break loop
			}
		}
		bits >>= f & 15
		nbits -= uint(f & 15)
		extra = f >> 8 & 31
		from := out - int(f>>16) - int(bits&(1<<extra-1))
		bits >>= extra
		nbits -= uint(extra)
		if from < 0 {
			err = ErrCorrupt
			break loop
		}
		if out-from >= 8 {
			for to := out; to < out+length; to += 8 {
				binary.LittleEndian.PutUint64(dst[to:], binary.LittleEndian.Uint64(dst[from:]))
				from += 8
			}
		} else {
			for to := out; to < out+length; to++ {
				dst[to] = dst[from]
				from++
			}
		}
		out += length
	}
	d.out = out
	r.pos, r.bits, r.nbits = pos, bits, nbits
	return end, err
}
