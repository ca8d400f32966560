package inflate

import "sync"

// A table is looked up with the next bits of the stream. An entry is
//
//	bit 31      it is a literal, bits 16-23 are the byte
//	bits 16-30  base of a length or distance; of a sub-table: where it begins
//	bit 15      neither literal nor length nor distance: sub-table, end of block or invalid
//	bit 14      sub-table
//	bit 13      end of block
//	bits 8-12   number of extra bits; of a sub-table: the bits that it is looked up with
//	bits 0-3    length of the whole code
const (
	isLiteral = 1 << 31
	isOther   = 1 << 15
	isSub     = 1 << 14
	isEnd     = 1 << 13
	invalid   = isOther
)

const (
	maxLit  = 286
	maxDist = 30
	maxCode = 15 // bits

	// The first table is for codes of so many bits; longer ones, which are rare, are looked up twice. Every sub-table has two symbols at
	// least and serves the longest code, hence the sizes (rounded up to what a mask can check).
	litBits, litSize   = 10, 8192 // 1<<10 + 286/2 * 1<<5 = 5600
	distBits, distSize = 8, 4096  // 1<<8 + 30/2 * 1<<7 = 2176
	preBits            = 7
)

var (
	litEntries  = makeLitEntries()
	distEntries = makeDistEntries()
	preEntries  = makePreEntries()

	// preOrder is the order of the lengths of the codes of lengths: RFC 1951, 3.2.7.
	preOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
)

// makeLitEntries has the literals, the end and the lengths of RFC 1951, 3.2.5.
func makeLitEntries() (t [288]uint32) {
	for i := range 256 {
		t[i] = isLiteral | uint32(i)<<16
	}
	t[256] = isOther | isEnd
	base := uint32(3)
	for i := range uint32(28) {
		extra := max(i/4, 1) - 1
		t[257+i] = base<<16 | extra<<8
		base += 1 << extra
	}
	t[285] = 258 << 16
	t[286], t[287] = invalid, invalid
	return t
}

func makeDistEntries() (t [32]uint32) {
	base := uint32(1)
	for i := range uint32(maxDist) {
		extra := max(i/2, 1) - 1
		t[i] = base<<16 | extra<<8
		base += 1 << extra
	}
	t[30], t[31] = invalid, invalid
	return t
}

func makePreEntries() (t [19]uint32) {
	for i := range t {
		t[i] = uint32(i) << 16
	}
	return t
}

// fixed gives the tables of RFC 1951, 3.2.6.
var fixed = sync.OnceValues(func() (*[litSize]uint32, *[distSize]uint32) {
	var lens [288]uint8
	for i := range lens {
		switch {
		case i < 144, i >= 280:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		default:
			lens[i] = 7
		}
	}
	lit, dist := new([litSize]uint32), new([distSize]uint32)
	build(lit[:], litBits, lens[:], litEntries[:])
	for i := range 32 {
		lens[i] = 5
	}
	build(dist[:], distBits, lens[:32], distEntries[:])
	return lit, dist
})

// build makes the table of the canonical code (RFC 1951, 3.2.2) with these lengths, entries being what the symbols mean. It reports
// whether the lengths are possible: a code is complete, or has no symbol, or one of one bit, as compress/flate has it.
func build(tab []uint32, tabBits int, lens []uint8, entries []uint32) bool {
	var count, next [maxCode + 2]int
	for _, l := range lens {
		count[l]++
	}
	count[0] = 0
	longest, left := 0, 1
	for l := 1; l <= maxCode; l++ {
		left = left<<1 - count[l]
		if left < 0 {
			return false
		}
		if count[l] > 0 {
			longest = l
		}
		next[l+1] = next[l] + count[l]
	}
	if left > 0 && longest > 0 && !(longest == 1 && count[1] == 1) {
		return false
	}
	var sorted [288]uint16
	for s, l := range lens {
		if l > 0 {
			sorted[next[l]] = uint16(s)
			next[l]++
		}
	}
	fill(tab, tabBits, longest, &count, &sorted, entries)
	return true
}

// fill writes the codes in their order. The stream has a code's first bit lowest, so a table for one bit more is the table twice, and
// what a shorter code leaves open is written by the longer ones.
func fill(tab []uint32, tabBits, longest int, count *[maxCode + 2]int, sorted *[288]uint16, entries []uint32) {
	tab[0] = invalid
	size, code, at := 1, 0, 0
	for l := 1; l <= tabBits; l++ {
		copy(tab[size:2*size], tab[:size])
		size *= 2
		for range count[l] {
			tab[code] = entries[sorted[at]] | uint32(l)
			code = following(code, l)
			at++
		}
	}
	subBits, sub, prefix := longest-tabBits, size, -1
	for l := tabBits + 1; l <= longest; l++ {
		for range count[l] {
			if p := code & (size - 1); p != prefix {
				if prefix >= 0 {
					sub += 1 << subBits
				}
				prefix = p
				tab[p] = isOther | isSub | uint32(sub)<<16 | uint32(subBits)<<8
			}
			for i := code >> tabBits; i < 1<<subBits; i += 1 << (l - tabBits) {
				tab[sub+i] = entries[sorted[at]] | uint32(l)
			}
			code = following(code, l)
			at++
		}
	}
}

// following adds one to a code of l bits whose first bit is the lowest.
func following(code, l int) int {
	bit := 1 << (l - 1)
	for code&bit != 0 {
		code ^= bit
		bit >>= 1
	}
	return code | bit
}

// dynamic reads the codes of a block: RFC 1951, 3.2.7.
func (d *Decoder) dynamic(r *reader) error {
	head, ok := r.take(14)
	if !ok {
		return ErrShort
	}
	lits, dists, pres := int(head&31)+257, int(head>>5&31)+1, int(head>>10)+4
	if lits > maxLit || dists > maxDist {
		return ErrCorrupt
	}
	var lens [19]uint8
	for _, s := range preOrder[:pres] {
		l, ok := r.take(3)
		if !ok {
			return ErrShort
		}
		lens[s] = uint8(l)
	}
	if !build(d.pre[:], preBits, lens[:], preEntries[:]) {
		return ErrCorrupt
	}
	all := d.lens[:lits+dists]
	if err := d.lengths(r, all); err != nil {
		return err
	}
	// A block without a code for its end has none.
	if all[256] == 0 {
		return ErrCorrupt
	}
	if !build(d.ownLit[:], litBits, all[:lits], litEntries[:]) || !build(d.ownDist[:], distBits, all[lits:], distEntries[:]) {
		return ErrCorrupt
	}
	d.lit, d.dist = &d.ownLit, &d.ownDist
	return nil
}

// lengths reads the lengths of the two codes, which run through each other.
func (d *Decoder) lengths(r *reader, all []uint8) error {
	for i := 0; i < len(all); {
		if r.nbits < 14 { // 7 of the code, 7 extra
			r.fill()
		}
		e := d.pre[r.bits&(1<<preBits-1)]
		l := uint(e & 15)
		if e&isOther != 0 {
			if r.nbits < preBits {
				return ErrShort
			}
			return ErrCorrupt
		}
		sym, extra, again, value := e>>16, uint(0), 1, uint8(0)
		switch {
		case sym < 16:
			value = uint8(sym)
		case sym == 16:
			extra, again = 2, 3
			if i > 0 {
				value = all[i-1]
			}
		case sym == 17:
			extra, again = 3, 3
		default:
			extra, again = 7, 11
		}
		if r.nbits < l+extra {
			return ErrShort
		}
		again += int(r.bits >> l & (1<<extra - 1))
		r.bits >>= l + extra
		r.nbits -= l + extra
		if i+again > len(all) || sym == 16 && i == 0 {
			return ErrCorrupt
		}
		for range again {
			all[i] = value
			i++
		}
	}
	return nil
}
