package odb

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"

	"run-task/internal/fail"
)

const (
	headerSize  = 12 // "PACK", version, number of objects
	trailerSize = 20 // SHA-1 of all before it

	maxObject = 4 << 30   // bytes of one object: they are held in memory
	maxChain  = 4095      // deltas upon deltas, git's own limit
	cacheSize = 128 << 20 // bytes of objects kept because deltas may need them
	firstGrab = 1 << 20   // what a declared size alone may allocate; more must be inflated first
)

// entry is the head of an object in a pack (gitformat-pack, "pack-*.pack files have the following format").
type entry struct {
	typ     plumbing.ObjectType
	size    int64         // inflated; of a delta, the delta's
	base    int64         // OFS_DELTA: the offset of what it changes
	baseRef plumbing.Hash // REF_DELTA: the name of it
}

type byteReader interface {
	io.Reader
	io.ByteReader
}

// readEntry reads the head of the object that begins at off. The object's zlib stream follows.
func readEntry(r byteReader, off int64) (e entry, err error) {
	c, err := r.ReadByte()
	if err != nil {
		return e, err
	}
	e.typ, e.size = plumbing.ObjectType(c>>4&7), int64(c&15)
	for shift := 4; c&0x80 != 0; shift += 7 {
		if shift > 53 {
			return e, errors.New("an object's size does not fit 63 bits")
		}
		if c, err = r.ReadByte(); err != nil {
			return e, err
		}
		e.size |= int64(c&0x7f) << shift
	}
	switch e.typ {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
	case plumbing.OFSDeltaObject:
		e.base, err = readOffset(r, off)
	case plumbing.REFDeltaObject:
		_, err = io.ReadFull(r, e.baseRef[:])
	default:
		err = fmt.Errorf("an object has type %d", e.typ)
	}
	if err == nil && e.size > maxObject {
		err = fmt.Errorf("an object of %d bytes, %d is the most that is supported", e.size, int64(maxObject))
	}
	return e, err
}

// readOffset reads the distance back to a delta's base: 7 bits a byte, most significant first, each continued value plus one.
func readOffset(r io.ByteReader, off int64) (int64, error) {
	c, err := r.ReadByte()
	if err != nil {
		return 0, err
	}
	back := int64(c & 0x7f)
	for c&0x80 != 0 {
		if c, err = r.ReadByte(); err != nil {
			return 0, err
		}
		if back >= 1<<55 {
			return 0, errors.New("a delta's base offset does not fit 63 bits")
		}
		back = (back+1)<<7 | int64(c&0x7f)
	}
	if back > off-headerSize {
		return 0, errors.New("a delta's base lies outside the pack")
	}
	return off - back, nil
}

// inflater decompresses one object after the other, with one set of buffers.
type inflater struct {
	z   io.ReadCloser
	buf [32 << 10]byte
}

// to writes exactly size bytes to w, and fails if the stream in r holds more or less or fails its checksum.
func (f *inflater) to(w io.Writer, r byteReader, size int64) error {
	var err error
	if f.z == nil {
		f.z, err = zlib.NewReader(r)
	} else {
		err = f.z.(zlib.Resetter).Reset(r, nil)
	}
	if err != nil {
		return err
	}
	for left := size; ; {
		n, err := f.z.Read(f.buf[:])
		if left -= int64(n); left < 0 {
			return errors.New("an object is longer than its size says")
		}
		if _, werr := w.Write(f.buf[:n]); werr != nil {
			return werr
		}
		if err == io.EOF && left > 0 {
			return errors.New("an object is shorter than its size says")
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// bytes is to with the result in memory.
func (f *inflater) bytes(r byteReader, size int64) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(int(min(size, firstGrab)))
	err := f.to(&b, r, size)
	return b.Bytes(), err
}

// object is what a pack entry stands for once its deltas are applied. Its bytes are shared: nobody writes to them.
type object struct {
	typ  plumbing.ObjectType
	data []byte
}

// pack reads objects at offsets of a pack file. It trusts nothing in it, and compares no names: see Store.Read.
type pack struct {
	file io.ReaderAt
	size int64                             // of the objects' part, without the trailer
	find func(plumbing.Hash) (int64, bool) // the offset of an object in this pack

	inflate    inflater
	cache      map[int64]object
	cacheBytes int64
}

// at is a reader of the object at off, and its head.
func (p *pack) at(off int64) (*section, entry, error) {
	if off < headerSize || off >= p.size {
		return nil, entry{}, errors.New("an object's offset lies outside the pack")
	}
	r := newSection(p.file, off, p.size)
	e, err := readEntry(r, off)
	return r, e, err
}

// base is the offset of what the delta e changes.
func (p *pack) base(e entry) (int64, error) {
	if e.typ == plumbing.OFSDeltaObject {
		return e.base, nil
	}
	off, ok := p.find(e.baseRef)
	if !ok {
		return 0, fmt.Errorf("a delta's base %s is not in the pack", e.baseRef)
	}
	return off, nil
}

// read gives the object at off. A chain of deltas is followed in a loop and with a bound, because in a pack that was tampered
// with it may be a circle.
func (p *pack) read(off int64) (object, error) {
	var deltas []int64
	obj, ok := p.cache[off]
	for at := off; !ok; obj, ok = p.cache[at] {
		r, e, err := p.at(at)
		if err != nil {
			return object{}, err
		}
		if !e.typ.IsDelta() {
			data, err := p.inflate.bytes(r, e.size)
			if err != nil {
				return object{}, err
			}
			obj = object{e.typ, data}
			p.keep(at, obj)
			break
		}
		if deltas = append(deltas, at); len(deltas) > maxChain {
			return object{}, fmt.Errorf("more than %d deltas upon each other", maxChain)
		}
		if at, err = p.base(e); err != nil {
			return object{}, err
		}
	}
	for i := len(deltas) - 1; i >= 0; i-- {
		data, err := p.patch(obj.data, deltas[i])
		if err != nil {
			return object{}, err
		}
		obj.data = data
		p.keep(deltas[i], obj)
	}
	return obj, nil
}

// patch applies the delta at off to its base.
func (p *pack) patch(base []byte, off int64) ([]byte, error) {
	r, e, err := p.at(off)
	if err != nil {
		return nil, err
	}
	delta, err := p.inflate.bytes(r, e.size)
	if err != nil {
		return nil, err
	}
	_, n := binary.Uvarint(delta)
	if n <= 0 {
		return nil, packfile.ErrInvalidDelta
	}
	// A few bytes of delta can ask for gigabytes of copies.
	if size, n := binary.Uvarint(delta[n:]); n <= 0 || size > maxObject {
		return nil, fmt.Errorf("%w: %d bytes", packfile.ErrInvalidDelta, size)
	}
	return packfile.PatchDelta(base, delta)
}

// keep remembers an object for the deltas that change it. The simplest bound does: git orders packs so that they follow soon.
func (p *pack) keep(off int64, o object) {
	if p.cache == nil || p.cacheBytes+int64(len(o.data)) > cacheSize {
		p.cache, p.cacheBytes = map[int64]object{}, 0
	}
	if _, ok := p.cache[off]; !ok {
		p.cacheBytes += int64(len(o.data))
	}
	p.cache[off] = o
}

// kind is the type of the object at off, found without inflating anything.
func (p *pack) kind(off int64) (plumbing.ObjectType, error) {
	for range maxChain + 1 {
		_, e, err := p.at(off)
		if err != nil {
			return 0, err
		}
		if !e.typ.IsDelta() {
			return e.typ, nil
		}
		if off, err = p.base(e); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("more than %d deltas upon each other", maxChain)
}

// section is a buffered reader of a part of a file; inflating reads byte by byte.
type section struct {
	file     io.ReaderAt
	off, end int64
	buf      [4096]byte
	r, w     int
}

func newSection(f io.ReaderAt, off, end int64) *section { return &section{file: f, off: off, end: end} }

func (s *section) fill() error {
	if s.r < s.w {
		return nil
	}
	n, err := s.file.ReadAt(s.buf[:min(int64(len(s.buf)), s.end-s.off)], s.off)
	if s.r, s.w, s.off = 0, n, s.off+int64(n); n > 0 {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (s *section) ReadByte() (byte, error) {
	if err := s.fill(); err != nil {
		return 0, err
	}
	s.r++
	return s.buf[s.r-1], nil
}

func (s *section) Read(b []byte) (int, error) {
	if err := s.fill(); err != nil {
		return 0, err
	}
	n := copy(b, s.buf[s.r:s.w])
	s.r += n
	return n, nil
}

// corrupt makes bad data of everything that is not the disk's own error.
func corrupt(name string, err error) error {
	var local *fs.PathError
	if errors.As(err, &local) {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return fail.Errorf(fail.BadData, "%s is %w: %w", name, ErrDamaged, err)
}

// ErrDamaged is in the errors about packs and objects that are not what they were when they were proved: fetching them again helps.
var ErrDamaged = errors.New("corrupt")
