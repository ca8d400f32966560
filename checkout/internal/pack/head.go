package pack

import "github.com/go-git/go-git/v5/plumbing"

// head is what stands before an object's zlib stream.
type head struct {
	packed Type
	size   int64
	base   int64 // OFS_DELTA: the base's offset
	ref    ID    // REF_DELTA: the base's ID
	len    int
}

// parseHead parses the head of the object at off. ok is false if b ends before the head does; the error tells of one that cannot be.
func parseHead(b []byte, off int64) (h head, ok bool, err error) {
	if len(b) == 0 {
		return h, false, nil
	}
	c := b[0]
	h.packed, h.size, h.len = Type(c>>4&7), int64(c&15), 1
	for shift := 4; c&0x80 != 0; shift += 7 {
		if h.len == len(b) {
			return h, false, nil
		}
		if shift > 53 {
			return h, false, bad("the size of the object at offset %d is out of range", off)
		}
		c = b[h.len]
		h.len++
		h.size |= int64(c&0x7f) << shift
	}
	switch h.packed {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
		return h, true, nil
	case plumbing.REFDeltaObject:
		n := copy(h.ref[:], b[h.len:])
		h.len += n
		return h, n == len(h.ref), nil
	case plumbing.OFSDeltaObject:
		return parseOffset(h, b, off)
	}
	return h, false, bad("the object at offset %d has the unknown type %d", off, h.packed)
}

func parseOffset(h head, b []byte, off int64) (head, bool, error) {
	back := int64(-1)
	for more := true; more; h.len++ {
		if h.len == len(b) {
			return h, false, nil
		}
		c := b[h.len]
		if back++; back > 1<<55 {
			return h, false, bad("the base of the object at offset %d is out of range", off)
		}
		back = back<<7 | int64(c&0x7f)
		more = c&0x80 != 0
	}
	h.base = off - back
	if back <= 0 || h.base < headerSize {
		return h, false, bad("the base of the object at offset %d is out of range", off)
	}
	return h, true, nil
}
