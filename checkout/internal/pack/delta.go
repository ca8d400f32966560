package pack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

// errDelta is what a delta that does not fit its base, or itself, ends in.
var errDelta = errors.New("the delta is corrupt")

// deltaSize parses a size at the beginning of a delta. n is its length, 0 if it is not complete or out of range.
func deltaSize(d []byte) (size int64, n int) {
	u, n := binary.Uvarint(d[:min(len(d), 9)])
	return int64(u), max(n, 0)
}

// deltaSizes parses the head of a delta. n is its length, 0 if it is not complete or out of range.
func deltaSizes(d []byte) (base, result int64, n int) {
	base, n = deltaSize(d)
	result, m := deltaSize(d[n:])
	if n == 0 || m == 0 {
		return 0, 0, 0
	}
	return base, result, n + m
}

// maxDeltaHead is the longest that deltaSizes parses.
const maxDeltaHead = 18

// copyOp parses the arguments of a copy, op being the byte before them. n is their length, -1 if they are not complete.
func copyOp(op byte, d []byte) (off, size int64, n int) {
	for i := range 7 {
		if op&(1<<i) == 0 {
			continue
		}
		if n == len(d) {
			return 0, 0, -1
		}
		if i < 4 {
			off |= int64(d[n]) << (8 * i)
		} else {
			size |= int64(d[n]) << (8 * (i - 4))
		}
		n++
	}
	if size == 0 {
		size = 0x10000
	}
	return off, size, n
}

// applyDelta fills dst from base by a delta's instructions, which must fill it exactly. It reports whether they are right.
func applyDelta(dst, base, ops []byte) bool {
	for len(ops) > 0 {
		op := ops[0]
		ops = ops[1:]
		if op&0x80 == 0 {
			n := int(op)
			if n == 0 || n > len(ops) || n > len(dst) {
				return false
			}
			copy(dst, ops[:n])
			dst, ops = dst[n:], ops[n:]
			continue
		}
		off, size, n := copyOp(op, ops)
		if n < 0 || off+size > int64(len(base)) || size > int64(len(dst)) {
			return false
		}
		copy(dst, base[off:off+size])
		dst, ops = dst[size:], ops[n:]
	}
	return len(dst) == 0
}

// streamDelta is applyDelta for what is too large to hold: size bytes go to w. An error that is not errDelta is the reader's or writer's.
func streamDelta(w io.Writer, size int64, base io.ReaderAt, ops *bufio.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		op, err := ops.ReadByte()
		if err == io.EOF && size == 0 {
			return nil
		}
		if err != nil {
			return eofIsCorrupt(err)
		}
		var from io.Reader
		n := int64(op)
		if op&0x80 == 0 {
			from = ops
		} else {
			args, err := ops.Peek(7)
			if err != nil && err != io.EOF {
				return err
			}
			off, length, used := copyOp(op, args)
			if used < 0 {
				return errDelta
			}
			ops.Discard(used)
			from, n = io.NewSectionReader(base, off, length), length
		}
		if n == 0 || n > size {
			return errDelta
		}
		if m, err := io.CopyBuffer(w, io.LimitReader(from, n), buf); err != nil {
			return err
		} else if m != n {
			return errDelta
		}
		size -= n
	}
}

func eofIsCorrupt(err error) error {
	if err == io.EOF {
		return errDelta
	}
	return err
}
