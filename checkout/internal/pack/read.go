package pack

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"

	"run-task/internal/fsx"
)

// Pack is a pack file and its index, open for reading. Objects are numbered in the order of their IDs. It may be used by several
// goroutines.
type Pack struct {
	index
	types []Type // of a received pack
	dir   *fsx.Dir
	base  string // the files' name without extension
	spill *fsx.Dir
	size  int64
	whole int64
	cache cache
	free  sync.Pool // of *reader

	opening sync.Mutex
	file    *os.File // nil after Suspend
}

// reader is what one Read needs.
type reader struct {
	opener
	hash *hasher
}

// ErrLarge is Read's error for an object that is to be read with Reader.
var ErrLarge = errors.New("the object is too large to be read whole")

// finish gives the pack its name and its index.
func (rc *receiver) finish() (*Pack, error) {
	x, types := newIndex(&rc.table, rc.pump.tail)
	name := x.name()
	if err := rc.store(name, x.data); err != nil {
		return nil, err
	}
	p := newPack(rc.dir, name, rc.file, x, rc.end+trailerSize, rc.Whole)
	p.types = types
	return p, nil
}

// store makes pack and index last, and then names them, the index last: git looks for it first.
func (rc *receiver) store(name string, idx []byte) error {
	f, tmp, err := newFile(rc.dir)
	if err != nil {
		return err
	}
	_, err = f.Write(idx)
	err = errors.Join(err, f.Chmod(0o444), f.Sync(), f.Close(), rc.file.Chmod(0o444), rc.file.Sync())
	if err == nil {
		err = rc.dir.Rename(rc.name, name+".pack")
	}
	if err == nil {
		err = rc.dir.Rename(tmp, name+".idx")
	}
	if err != nil {
		rc.dir.Unlink(tmp)
		return err
	}
	return rc.dir.Sync(".")
}

// Open opens name.pack and name.idx. Whatever the two hold, reading from them gives an error or an object that has its ID, never a
// panic. dir must stay open until Close; deltas with large contents need to make files in it.
func Open(dir *fsx.Dir, name string) (_ *Pack, err error) {
	file, size, err := openFile(dir, name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	data, err := dir.ReadFile(name+".idx", 1<<36)
	if err != nil {
		return nil, err
	}
	x, err := parseIndex(data, size)
	if err != nil {
		return nil, fmt.Errorf("pack %q: %w", name, err)
	}
	tail := make([]byte, trailerSize)
	if _, err := file.ReadAt(tail, max(0, size-trailerSize)); err != nil && err != io.EOF {
		return nil, err
	}
	if size < headerSize+trailerSize || !bytes.Equal(tail, x.checksum()) {
		return nil, bad("pack %q is not the one that its index is of", name)
	}
	return newPack(dir, name, file, x, size, Options{}.withDefaults().Whole), nil
}

func openFile(dir *fsx.Dir, name string) (*os.File, int64, error) {
	file, err := dir.OpenFile(name+".pack", unix.O_RDONLY, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err := fsx.FileStat(file)
	if err == nil && !st.IsRegular() {
		err = bad("%q is no regular file", name+".pack")
	}
	if err != nil {
		file.Close()
	}
	return file, st.Size, err
}

func newPack(dir *fsx.Dir, name string, file *os.File, x index, size, whole int64) *Pack {
	p := &Pack{index: x, dir: dir, base: name, spill: dir, file: file, size: size, whole: whole}
	p.cache.max = 16 << 20
	p.free.New = func() any { return p.newReader() }
	return p
}

func (p *Pack) newReader() *reader {
	return &reader{opener{end: p.size - trailerSize, whole: p.whole}, newHasher()}
}

// Foreign prepares for a directory that is not ours: deltas with large contents make their files in spill, which must stay open until
// Close. If it is nil Reader fails with ErrLarge for them. cache bounds the bytes of bases that are kept for other deltas. No Read may
// be under way.
func (p *Pack) Foreign(spill *fsx.Dir, cache int64) { p.spill, p.cache.max = spill, cache }

// Suspend closes the file and gives up what is cached, until the next Read or Reader. No Read may be under way and no Reader may be open.
func (p *Pack) Suspend() error {
	p.opening.Lock()
	defer p.opening.Unlock()
	err := p.Close()
	p.file = nil
	p.cache = cache{max: p.cache.max}
	p.free = sync.Pool{New: p.free.New}
	return err
}

// resume gives r the file.
func (p *Pack) resume(r *reader) error {
	p.opening.Lock()
	defer p.opening.Unlock()
	if p.file == nil {
		file, size, err := openFile(p.dir, p.base)
		if err != nil {
			return err
		}
		if size != p.size {
			file.Close()
			return bad("pack %q has changed", p.base)
		}
		p.file = file
	}
	r.file = p.file
	return nil
}

// Name is the pair's name without the extensions.
func (p *Pack) Name() string { return p.name() }

// Size is the pack file's.
func (p *Pack) Size() int64 { return p.size }

// Len is the number of objects.
func (p *Pack) Len() int { return p.n }

// ID is that of object n, which must be below Len.
func (p *Pack) ID(n int) ID { return ID(p.id(n)) }

// Type is that of object n, which must be below Len, if the pack was received. If it was opened it is plumbing.InvalidObject: not known.
func (p *Pack) Type(n int) Type {
	if p.types == nil {
		return plumbing.InvalidObject
	}
	return p.types[n]
}

// Find looks an object up, the first of equal ones.
func (p *Pack) Find(id ID) (n int, ok bool) { return p.find(id) }

// Close closes the files. No Read may be under way and no Reader may be open.
func (p *Pack) Close() error {
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}

// Read reads object n, which must be below Len, into buf if there is room and else into a new buffer. The content was hashed and is
// what the ID says: fail.BadData otherwise. ErrLarge (as in errors.Is) means that it, or something that it is a delta of, is larger
// than 8 MiB, or than what Receive was told.
func (p *Pack) Read(n int, buf []byte) (Type, []byte, error) {
	r := p.free.Get().(*reader)
	defer p.free.Put(r)
	if err := p.resume(r); err != nil {
		return 0, nil, err
	}
	typ, c, err := p.open(r, n)
	if err != nil {
		return 0, nil, err
	}
	defer c.release()
	id, err := r.hash.whole(typ, c.mem)
	if err != nil {
		return 0, nil, err
	}
	if id != p.ID(n) {
		return 0, nil, p.wrong(n)
	}
	return typ, append(buf[:0], c.mem...), nil
}

// ReadPacked is Read for an object that is to go into another pack: where it is no delta its zlib stream is given as well, the very bytes that the content was
// inflated from.
func (p *Pack) ReadPacked(n int) (Base, error) {
	r := p.free.Get().(*reader)
	defer p.free.Put(r)
	if err := p.resume(r); err != nil {
		return Base{}, err
	}
	off := p.offset(n)
	h, err := r.head(off)
	if err != nil {
		return Base{}, p.wrap(n, err)
	}
	if h.packed.IsDelta() || h.size > p.whole {
		typ, data, err := p.Read(n, nil)
		return Base{Type: typ, Data: data}, err
	}
	packed := make([]byte, min(h.size+h.size/64+64, r.end-off-int64(h.len))) // more than any compressor makes of it
	if _, err := p.file.ReadAt(packed, off+int64(h.len)); err != nil {
		return Base{}, p.wrap(n, err)
	}
	data := make([]byte, h.size)
	r.in.reset(bytes.NewReader(packed), 0, r.buf)
	if err := r.in.whole(&r.inflate, data); err != nil {
		return Base{}, p.wrap(n, err)
	}
	if id, err := r.hash.whole(h.packed, data); err != nil {
		return Base{}, err
	} else if id != p.ID(n) {
		return Base{}, p.wrong(n)
	}
	return Base{h.packed, data, packed[:r.in.pos]}, nil
}

func (p *Pack) wrong(n int) error {
	return bad("object %s is corrupt in pack %s", p.ID(n), hex.EncodeToString(p.checksum()))
}

// Reader streams object n, of any size. Its content is hashed on the way: the Read that would give io.EOF gives fail.BadData if it
// is not what the ID says. It must be closed.
func (p *Pack) Reader(n int) (Type, int64, io.ReadCloser, error) {
	r := p.newReader()
	r.spill = p.spill
	if err := p.resume(r); err != nil {
		return 0, 0, nil, err
	}
	s := &stream{hash: r.hash, pack: p, n: n}
	h, err := r.head(p.offset(n))
	if err != nil {
		return 0, 0, nil, p.wrap(n, err)
	}
	size := h.size
	if !h.packed.IsDelta() && size > p.whole {
		s.r, s.typ = newZreader(&r.in, &r.inflate, size), h.packed
	} else {
		if s.typ, s.content, err = p.open(r, n); err != nil {
			return 0, 0, nil, err
		}
		size = s.content.size
		s.r = io.NewSectionReader(s.content, 0, size)
	}
	s.hash.start(s.typ, size)
	return s.typ, size, s, nil
}

// stream is an object that is being read.
type stream struct {
	r       io.Reader
	typ     Type
	hash    *hasher
	pack    *Pack
	n       int
	content content
}

func (s *stream) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	s.hash.Write(b[:n])
	if err == io.EOF {
		if id, err := s.hash.sum(); err != nil {
			return n, err
		} else if id != s.pack.ID(s.n) {
			return n, s.pack.wrong(s.n)
		}
	}
	return n, err
}

// Close releases what a large object needed.
func (s *stream) Close() error {
	if s.content.file != nil {
		return s.content.file.Close()
	}
	return nil
}

func (p *Pack) wrap(n int, err error) error { return fmt.Errorf("object %s: %w", p.ID(n), err) }

// open finds an object's content.
func (p *Pack) open(r *reader, n int) (Type, content, error) {
	typ, c, path, err := p.descend(r, p.offset(n))
	if err != nil {
		return 0, content{}, p.wrap(n, err)
	}
	for i, d := range slices.Backward(path) {
		next, err := r.apply(c, d.ops, nil)
		c.release()
		if errors.Is(err, errDelta) {
			err = bad("the delta at offset %d: %w", d.at, err)
		}
		if err != nil {
			return 0, content{}, p.wrap(n, err)
		}
		if c = next; i > 0 {
			c = p.cache.put(d.at, typ, c)
		}
	}
	return typ, c, nil
}

// step is a delta on the way from an object to its first base.
type step struct {
	at int64 // of its head
	ops
}

// descend goes from the object at off to the nearest one whose content is at hand, and lists the deltas on the way.
func (p *Pack) descend(r *reader, off int64) (typ Type, c content, path []step, err error) {
	for {
		if typ, c, ok := p.cache.get(off); ok {
			return typ, c, path, nil
		}
		h, err := r.head(off)
		if err != nil {
			return 0, content{}, nil, err
		}
		if !h.packed.IsDelta() {
			if c, err = r.load(h.size); err == nil && len(path) > 0 {
				c = p.cache.put(off, h.packed, c)
			}
			return h.packed, c, path, err
		}
		if len(path) == p.n { // only names of bases can make a circle
			return 0, content{}, nil, bad("its deltas go round in a circle")
		}
		path = append(path, step{off, ops{off: r.in.pos, size: h.size}})
		if off = h.base; h.packed == plumbing.REFDeltaObject {
			base, ok := p.find(h.ref)
			if !ok {
				return 0, content{}, nil, bad("its base %s is missing in the pack", h.ref)
			}
			off = p.offset(base)
		}
	}
}
