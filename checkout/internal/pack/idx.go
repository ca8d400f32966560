package pack

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"slices"
)

// Version 2 of the index: magic, fan-out table, IDs, CRCs, offsets, large offsets, the pack's checksum, its own.
const (
	idxMagic  = "\xfftOc\x00\x00\x00\x02"
	fanStart  = len(idxMagic)
	idStart   = fanStart + 256*4
	perObject = len(ID{}) + 4 + 4
	idxTail   = 2 * trailerSize
	isLarge   = 1 << 31
)

// index is the content of an index file that was looked over: nothing in it can lead outside of it or of the pack.
type index struct {
	data []byte
	n    int
}

// newIndex makes the index of a pack's entries, and lists their types in its order.
func newIndex(t *table, checksum []byte) (index, []Type) {
	order := make([]uint32, t.n)
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int {
		x, y := t.at(a), t.at(b)
		return cmp.Or(bytes.Compare(x.id[:], y.id[:]), cmp.Compare(a, b))
	})
	data := append(make([]byte, 0, idStart+len(order)*perObject+idxTail), idxMagic...)
	at := 0
	for first := range 256 {
		for at < len(order) && int(t.at(order[at]).id[0]) <= first {
			at++
		}
		data = binary.BigEndian.AppendUint32(data, uint32(at))
	}
	types := make([]Type, 0, len(order))
	for _, i := range order {
		data = append(data, t.at(i).id[:]...)
		types = append(types, t.at(i).typ)
	}
	for _, i := range order {
		data = binary.BigEndian.AppendUint32(data, t.at(i).crc)
	}
	var large []byte
	for _, i := range order {
		off := t.at(i).off
		if off < isLarge {
			data = binary.BigEndian.AppendUint32(data, uint32(off))
			continue
		}
		data = binary.BigEndian.AppendUint32(data, isLarge|uint32(len(large)/8))
		large = binary.BigEndian.AppendUint64(large, uint64(off))
	}
	data = append(append(data, large...), checksum...)
	sum := sha1.Sum(data)
	return index{append(data, sum[:]...), len(order)}, types
}

// parseIndex looks an index file over. packSize is the pack's size.
func parseIndex(data []byte, packSize int64) (index, error) {
	if len(data) < idStart+idxTail || string(data[:fanStart]) != idxMagic {
		return index{}, bad("not a pack index of version 2")
	}
	if sum := sha1.Sum(data[:len(data)-trailerSize]); !bytes.Equal(sum[:], data[len(data)-trailerSize:]) {
		return index{}, bad("the pack index has a wrong checksum")
	}
	x := index{data: data}
	last := uint32(0)
	for i := range 256 {
		n := x.fan(i)
		if n < last {
			return index{}, bad("the pack index's fan-out table is corrupt")
		}
		last = n
	}
	rest := int64(len(data)) - int64(idStart+idxTail) - int64(last)*int64(perObject)
	if rest < 0 || rest%8 != 0 || rest/8 > int64(last) {
		return index{}, bad("the pack index is too short or too long for its %d objects", last)
	}
	x.n = int(last)
	for i := range x.n {
		if v := x.small(i); v&isLarge != 0 && int64(v&^isLarge) >= rest/8 {
			return index{}, bad("the pack index has a corrupt offset")
		}
		if off := x.offset(i); off < headerSize || off > packSize-trailerSize {
			return index{}, bad("the pack index has an offset beyond the pack")
		}
		first := int(x.id(i)[0])
		if i > 0 && bytes.Compare(x.id(i-1), x.id(i)) > 0 || uint32(i) >= x.fan(first) || first > 0 && uint32(i) < x.fan(first-1) {
			return index{}, bad("the pack index is not sorted")
		}
	}
	return x, nil
}

func (x index) fan(i int) uint32 { return binary.BigEndian.Uint32(x.data[fanStart+4*i:]) }

func (x index) id(i int) []byte { return x.data[idStart+20*i : idStart+20*i+20] }

func (x index) small(i int) uint32 { return binary.BigEndian.Uint32(x.data[idStart+24*x.n+4*i:]) }

func (x index) offset(i int) int64 {
	v := x.small(i)
	if v&isLarge == 0 {
		return int64(v)
	}
	return int64(binary.BigEndian.Uint64(x.data[idStart+perObject*x.n+8*int(v&^isLarge):]))
}

// checksum is the pack's.
func (x index) checksum() []byte {
	return x.data[len(x.data)-idxTail : len(x.data)-trailerSize]
}

func (x index) name() string { return "pack-" + hex.EncodeToString(x.checksum()) }

func (x index) find(id ID) (int, bool) {
	lo, hi := 0, int(x.fan(int(id[0])))
	if id[0] > 0 {
		lo = int(x.fan(int(id[0]) - 1))
	}
	for lo < hi {
		if mid := int(uint(lo+hi) / 2); bytes.Compare(x.id(mid), id[:]) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < x.n && bytes.Equal(x.id(lo), id[:])
}
