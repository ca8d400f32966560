package mask

import "encoding/binary"

const gram = 4 // bytes that the filter looks at; no more than Min

// filter finds where no value can begin, faster than the automaton does. It knows the hashes of the 4 bytes at the first offsets of
// each value, as many as its stride: wherever a value occurs the stride puts its foot on one of these. And it knows, by another hash, the
// first 4 bytes of each, to tell where around that foot to begin. It may take others for known ones, never the reverse.
type filter struct {
	stride int             // such that the shortest value has 4 bytes at each offset
	bits   [1 << 13]uint64 // 64 KB: 1000 values with 8 offsets each set 2% of the bits
}

// A longer one would fill more of the bits.
const maxStride = 8

const (
	anywhere  = 0x9e3779b1
	beginning = 0x85ebca77
)

func newFilter(values []string) *filter {
	shortest := len(values[0])
	for _, v := range values {
		shortest = min(shortest, len(v))
	}
	if shortest < gram {
		return nil
	}
	f := &filter{stride: min(shortest-gram+1, maxStride)}
	for _, v := range values {
		f.add([]byte(v), beginning)
		for o := range f.stride {
			f.add([]byte(v[o:]), anywhere)
		}
	}
	return f
}

func (f *filter) add(p []byte, kind uint32) {
	h := binary.LittleEndian.Uint32(p) * kind >> 13
	f.bits[h>>6] |= 1 << (h & 63)
}

func (f *filter) has(x, kind uint32) bool {
	h := x * kind >> 13
	return f.bits[h>>6]&(1<<(h&63)) != 0
}

// begins is false if no value begins with the first 4 bytes of p.
func (f *filter) begins(p []byte) bool { return f.has(binary.LittleEndian.Uint32(p), beginning) }

// next is the first position in p, from i on, at which a value may begin. The last 3 bytes of p it cannot tell.
func (f *filter) next(p []byte, i int) int {
	if f.stride > 1 {
		for q := i + f.stride - 1; q+gram <= len(p); q += f.stride {
			if f.has(binary.LittleEndian.Uint32(p[q:]), anywhere) {
				for ; i <= q; i++ {
					if f.begins(p[i:]) {
						return i
					}
				}
			}
			i = q + 1
		}
	}
	for ; i+8 <= len(p); i += 4 {
		x := binary.LittleEndian.Uint64(p[i:])
		if f.has(uint32(x), beginning) || f.has(uint32(x>>8), beginning) || f.has(uint32(x>>16), beginning) || f.has(uint32(x>>24), beginning) {
			break
		}
	}
	for i+gram <= len(p) && !f.begins(p[i:]) {
		i++
	}
	return i
}
