// Package odb keeps git objects in packs: it takes a pack from a stream into a directory and proves every object in it, and
// it reads objects back and proves each of them again. What it reads may have been made, or changed since, by an enemy.
//
// The pack is parsed here and not with go-git's parser, which allocates by declared sizes and counts, takes objects that are
// shorter than declared, and follows circles of deltas until the stack is full. Deltas, hashes and index files are go-git's.
package odb

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"sort"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"golang.org/x/sys/unix"

	"run-task/internal/fsx"
)

// Ingest reads one pack to the end of the stream into dir, a directory of ours alone, and proves the checksum and that every
// object can be made from the pack alone; their hashes (collision detecting SHA-1) become the index. Then it writes
// <name>.pack and <name>.idx, mode 0444, both and dir synced, where name is "pack-" and the checksum in hex. progress may
// be nil; it is told of objects and bytes received.
//
// A truncated, corrupt or thin pack, bytes after its end and an object that is there twice are fail.BadData. An error of the
// reader or of the disk comes back wrapped, so that errors.Is and fail.Of see it. After an error dir has no
// new index, so git and Open see no new pack.
func Ingest(ctx context.Context, dir *fsx.Dir, pack io.Reader, progress func(objects, total uint32, bytes int64)) (name string, objects int, err error) {
	const tmpPack, tmpIdx = "incoming.pack", "incoming.idx"
	f, err := dir.OpenFile(tmpPack, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return "", 0, err
	}
	defer func() {
		f.Close()
		if err != nil {
			dir.Unlink(tmpPack)
			dir.Unlink(tmpIdx)
		}
	}()
	in := &ingest{ctx: ctx, stream: &stream{ctx: ctx, src: pack, out: bufio.NewWriterSize(f, 256<<10), sum: sha1.New()}, progress: progress}
	sum, err := in.receive()
	if err == nil {
		err = in.resolve(f)
	}
	if err != nil {
		return "", 0, in.failed(err)
	}
	idx, err := in.index(sum)
	if err != nil {
		return "", 0, in.failed(err)
	}
	name = "pack-" + sum.String()
	err = errors.Join(writeIdx(dir, tmpIdx, idx), unix.Fchmod(int(f.Fd()), 0o444), f.Sync())
	if err == nil {
		err = dir.Rename(tmpPack, name+".pack")
	}
	if err == nil {
		// git looks for .idx files, so this one comes last.
		err = dir.Rename(tmpIdx, name+".idx")
	}
	if err == nil {
		err = dir.Sync(".")
	}
	if err != nil {
		return "", 0, err
	}
	return name, len(in.objects), nil
}

// packed is one object of the pack that is being taken in. Lists are linked by position, -1 ends one.
type packed struct {
	off         int64
	crc         uint32
	typ         plumbing.ObjectType
	depth       uint16        // deltas upon each other, this one included
	id          plumbing.Hash // once known
	first, next int32         // deltas upon this one; the next delta upon the same base
}

type ingest struct {
	ctx      context.Context
	stream   *stream
	progress func(objects, total uint32, bytes int64)

	objects []packed
	waiting map[plumbing.Hash][]int32 // REF_DELTAs by the name of their base
	deltas  int
}

// failed says why: the stream's own error if there was one, then the context's, else the pack is bad.
func (in *ingest) failed(err error) error {
	switch {
	case in.stream.failure != nil:
		return fmt.Errorf("receive pack: %w", in.stream.failure)
	case in.ctx.Err() != nil:
		return fmt.Errorf("receive pack: %w", context.Cause(in.ctx))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("it ends too early")
	}
	return corrupt("the received pack", err)
}

// receive reads the stream once: objects that are whole get their names, deltas are noted.
func (in *ingest) receive() (sum plumbing.Hash, err error) {
	s := in.stream
	var head [headerSize]byte
	if _, err := io.ReadFull(s, head[:]); err != nil {
		return sum, err
	}
	if string(head[:8]) != "PACK\x00\x00\x00\x02" {
		return sum, fmt.Errorf("it begins with %q, not with a version 2 pack's header", head[:8])
	}
	total := binary.BigEndian.Uint32(head[8:])
	if total > 1<<31-1 {
		return sum, fmt.Errorf("it says that it holds %d objects", total)
	}
	in.waiting = map[plumbing.Hash][]int32{}
	var inflate inflater
	for n := range total {
		if err := in.one(&inflate); err != nil {
			return sum, err
		}
		if in.progress != nil {
			in.progress(n+1, total, s.offset())
		}
	}
	s.flush()
	want := plumbing.Hash(s.sum.Sum(nil))
	if _, err := io.ReadFull(s, sum[:]); err != nil {
		return sum, err
	}
	if sum != want {
		return sum, fmt.Errorf("its checksum is %s, its content's is %s", sum, want)
	}
	if _, err := s.ReadByte(); err != io.EOF {
		return sum, errors.Join(errors.New("bytes follow its end"), err)
	}
	s.flush()
	if err := s.out.Flush(); err != nil {
		s.failure = err
	}
	return sum, s.failure
}

func (in *ingest) one(inflate *inflater) error {
	s := in.stream
	s.flush()
	s.crc = 0
	o := packed{off: s.offset(), first: -1, next: -1}
	e, err := readEntry(s, o.off)
	if err != nil {
		return err
	}
	o.typ = e.typ
	if e.typ.IsDelta() {
		err = inflate.to(io.Discard, s, e.size)
	} else {
		h := plumbing.NewHasher(e.typ, e.size)
		err = inflate.to(h, s, e.size)
		o.id = h.Sum()
	}
	if err != nil {
		return err
	}
	s.flush()
	o.crc = s.crc
	self := int32(len(in.objects))
	switch e.typ {
	case plumbing.OFSDeltaObject:
		in.deltas++
		base := sort.Search(len(in.objects), func(i int) bool { return in.objects[i].off >= e.base })
		if base == len(in.objects) || in.objects[base].off != e.base {
			return errors.New("a delta's base is not where an object begins")
		}
		o.next, in.objects[base].first = in.objects[base].first, self
	case plumbing.REFDeltaObject:
		in.deltas++
		in.waiting[e.baseRef] = append(in.waiting[e.baseRef], self)
	}
	in.objects = append(in.objects, o)
	return nil
}

// resolve names the deltas' objects, each base right before what changes it.
func (in *ingest) resolve(f *os.File) error {
	known := map[plumbing.Hash]int64{} // only what REF_DELTAs ask for
	p := &pack{file: f, size: in.stream.offset() - trailerSize, find: func(id plumbing.Hash) (int64, bool) {
		off, ok := known[id]
		return off, ok
	}}
	var todo []int32
	for i := range in.objects {
		if in.objects[i].typ.IsDelta() {
			continue
		}
		for todo = append(todo[:0], int32(i)); len(todo) > 0; {
			base := &in.objects[todo[len(todo)-1]]
			todo = todo[:len(todo)-1]
			kids := in.waiting[base.id]
			if delete(in.waiting, base.id); len(kids) > 0 {
				known[base.id] = base.off
			}
			for k := base.first; k >= 0; k = in.objects[k].next {
				kids = append(kids, k)
			}
			for _, k := range kids {
				if err := in.ctx.Err(); err != nil {
					return err
				}
				obj, err := p.read(in.objects[k].off)
				if err != nil {
					return err
				}
				kid := &in.objects[k]
				kid.id = plumbing.ComputeHash(obj.typ, obj.data)
				if kid.depth = base.depth + 1; kid.depth > maxChain {
					return fmt.Errorf("more than %d deltas upon each other", maxChain)
				}
				in.deltas--
			}
			todo = append(todo, kids...)
		}
	}
	for id := range in.waiting {
		return fmt.Errorf("%d deltas have no base, %s is missing", in.deltas, id)
	}
	return nil
}

// index is the idx of all objects. git refuses a pack whose index has fewer of them, so none may be there twice.
func (in *ingest) index(sum plumbing.Hash) (*idxfile.MemoryIndex, error) {
	var w idxfile.Writer
	seen := make(map[plumbing.Hash]struct{}, len(in.objects))
	for _, o := range in.objects {
		if _, twice := seen[o.id]; twice {
			return nil, fmt.Errorf("object %s is in it twice", o.id)
		}
		seen[o.id] = struct{}{}
		w.Add(o.id, uint64(o.off), o.crc)
	}
	if err := w.OnFooter(sum); err != nil {
		return nil, err
	}
	return w.Index()
}

func writeIdx(dir *fsx.Dir, name string, idx *idxfile.MemoryIndex) error {
	f, err := dir.OpenFile(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	b := bufio.NewWriterSize(f, 256<<10)
	_, err = idxfile.NewEncoder(b).Encode(idx)
	return errors.Join(err, b.Flush(), unix.Fchmod(int(f.Fd()), 0o444), f.Sync(), f.Close())
}

// stream is the pack as it arrives. What is consumed of it is hashed and written, in pieces as large as the buffer.
type stream struct {
	ctx     context.Context
	src     io.Reader
	out     *bufio.Writer
	sum     hash.Hash
	crc     uint32
	failure error // of src or out: not the pack's fault
	ended   bool

	buf        [64 << 10]byte
	done, r, w int // flushed, consumed, received
	before     int64
}

func (s *stream) offset() int64 { return s.before + int64(s.r) }

func (s *stream) flush() {
	p := s.buf[s.done:s.r]
	s.done = s.r
	s.sum.Write(p)
	s.crc = crc32.Update(s.crc, crc32.IEEETable, p)
	if _, err := s.out.Write(p); err != nil && s.failure == nil {
		s.failure = err
	}
}

func (s *stream) fill() error {
	if s.r < s.w {
		return nil
	}
	s.flush()
	s.before += int64(s.r)
	s.done, s.r, s.w = 0, 0, 0
	for range 100 {
		if s.failure == nil && s.ctx.Err() != nil {
			s.failure = context.Cause(s.ctx)
		}
		if s.failure != nil || s.ended {
			return cmp.Or(s.failure, io.EOF)
		}
		n, err := s.src.Read(s.buf[:])
		s.w = n
		if s.ended = err == io.EOF; !s.ended {
			s.failure = err // after these n bytes
		}
		if n > 0 {
			return nil
		}
	}
	s.failure = io.ErrNoProgress
	return s.failure
}

func (s *stream) ReadByte() (byte, error) {
	if err := s.fill(); err != nil {
		return 0, err
	}
	s.r++
	return s.buf[s.r-1], nil
}

func (s *stream) Read(b []byte) (int, error) {
	if err := s.fill(); err != nil {
		return 0, err
	}
	n := copy(b, s.buf[s.r:s.w])
	s.r += n
	return n, nil
}
