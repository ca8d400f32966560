package odb

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// Store reads objects from packs. It is not for use by several goroutines at once.
type Store struct {
	packs []*stored
}

type stored struct {
	pack
	name string
	file *os.File
	idx  *idxfile.MemoryIndex
}

// Open opens the named packs ("pack-" and 40 hex digits) of a directory and reads their indexes; nothing else in the
// directory is looked at. A pack that is not there is fs.ErrNotExist; links, other kinds of files, and an index that does not
// belong to its pack or is malformed are fail.BadData.
func Open(dir *fsx.Dir, packs []string) (*Store, error) {
	s := &Store{}
	for _, name := range packs {
		p, err := openPack(dir, name)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.packs = append(s.packs, p)
	}
	return s, nil
}

func openPack(dir *fsx.Dir, name string) (*stored, error) {
	idx, err := readIdx(dir, name+".idx")
	if err != nil {
		return nil, err
	}
	f, size, err := openRegular(dir, name+".pack")
	if err != nil {
		return nil, err
	}
	p := &stored{name: name, file: f, idx: idx}
	p.pack = pack{file: f, size: size - trailerSize, find: p.offset}
	if err := p.check(); err != nil {
		f.Close()
		return nil, corrupt(name+".pack", err)
	}
	return p, nil
}

// check compares what pack and index say about each other, without reading the objects.
func (p *stored) check() error {
	if p.size < headerSize {
		return errors.New("it is too short")
	}
	var head [headerSize]byte
	var trailer plumbing.Hash
	if _, err := p.file.ReadAt(head[:], 0); err != nil {
		return err
	}
	if _, err := p.file.ReadAt(trailer[:], p.size); err != nil {
		return err
	}
	switch count, _ := p.idx.Count(); {
	case string(head[:8]) != "PACK\x00\x00\x00\x02":
		return errors.New("it has no version 2 pack's header")
	case int64(binary.BigEndian.Uint32(head[8:])) != count:
		return fmt.Errorf("its index is for %d objects", count)
	case trailer != p.idx.PackfileChecksum:
		return errors.New("its index is another pack's")
	}
	return nil
}

// Check reads the packs whole and compares their checksums: what Read does not look at, git fsck does. A pack that was changed is fail.BadData.
func (s *Store) Check(ctx context.Context) error {
	buf := make([]byte, 256<<10)
	for _, p := range s.packs {
		sum := sha1.New()
		in := io.NewSectionReader(p.file, 0, p.size)
		for {
			n, err := in.Read(buf)
			sum.Write(buf[:n])
			if err == io.EOF {
				break
			}
			if err == nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			if err != nil {
				return err
			}
		}
		if plumbing.Hash(sum.Sum(nil)) != p.idx.PackfileChecksum {
			return fail.Errorf(fail.BadData, "%q is damaged: it has another checksum than its index says", p.name)
		}
	}
	return nil
}

func openRegular(dir *fsx.Dir, name string) (*os.File, int64, error) {
	f, err := dir.OpenFile(name, unix.O_RDONLY, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, 0, fail.Errorf(fail.BadData, "%w", err)
	}
	if err != nil {
		return nil, 0, err
	}
	st, err := fsx.FileStat(f)
	if err == nil && !st.IsRegular() {
		err = fail.Errorf(fail.BadData, "%q is a %s, not a file", f.Name(), st.Kind())
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size, nil
}

// sized lets go-git's decoder see the file's size, which it checks before it allocates, and still read it buffered.
type sized struct {
	io.Reader
	f *os.File
}

func (s sized) Stat() (fs.FileInfo, error) { return s.f.Stat() }

func readIdx(dir *fsx.Dir, name string) (*idxfile.MemoryIndex, error) {
	f, size, err := openRegular(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > 4<<30 { // 150 million objects; go-git computes with 32 bits beyond
		return nil, fail.Errorf(fail.BadData, "%s is %d bytes long", name, size)
	}
	idx := idxfile.NewMemoryIndex()
	if err := idxfile.NewDecoder(sized{bufio.NewReaderSize(f, 256<<10), f}).Decode(idx); err != nil {
		return nil, corrupt(name, err)
	}
	return idx, nil
}

func (p *stored) offset(id plumbing.Hash) (int64, bool) {
	if ok, _ := p.idx.Contains(id); !ok {
		return 0, false
	}
	// A malformed offset is found out as soon as it is read from.
	off, err := p.idx.FindOffset(id)
	if err != nil {
		off = -1
	}
	return off, true
}

// Close closes the packs. Nothing can be read afterwards.
func (s *Store) Close() error {
	var errs []error
	for _, p := range s.packs {
		errs = append(errs, p.file.Close())
	}
	return errors.Join(errs...)
}

func (s *Store) locate(id plumbing.Hash) (*stored, int64) {
	for _, p := range s.packs {
		if off, ok := p.offset(id); ok {
			return p, off
		}
	}
	return nil, 0
}

// Has says whether the indexes list an object.
func (s *Store) Has(id plumbing.Hash) bool {
	p, _ := s.locate(id)
	return p != nil
}

func missing(id plumbing.Hash) error {
	return fail.Errorf(fail.BadData, "object %s is missing: %w", id, plumbing.ErrObjectNotFound)
}

// Read reads an object and proves that its content has that name (collision detecting SHA-1): fail.BadData if not. One that
// no pack has is plumbing.ErrObjectNotFound. The bytes are shared with later reads and must not be written to.
func (s *Store) Read(id plumbing.Hash) (plumbing.ObjectType, []byte, error) {
	p, off := s.locate(id)
	if p == nil {
		return 0, nil, missing(id)
	}
	o, err := p.read(off)
	if err != nil {
		return 0, nil, corrupt(fmt.Sprintf("%s.pack, object %s,", p.name, id), err)
	}
	if got := plumbing.ComputeHash(o.typ, o.data); got != id {
		return 0, nil, corrupt(p.name+".pack", fmt.Errorf("object %s has the content of %s", id, got))
	}
	return o.typ, o.data, nil
}

// kind is an object's type as the pack has it, unproven.
func (s *Store) kind(id plumbing.Hash) (plumbing.ObjectType, error) {
	p, off := s.locate(id)
	if p == nil {
		return 0, missing(id)
	}
	t, err := p.kind(off)
	if err != nil {
		return 0, corrupt(fmt.Sprintf("%s.pack, object %s,", p.name, id), err)
	}
	return t, nil
}

func (s *Store) readAs(want plumbing.ObjectType, id plumbing.Hash) ([]byte, error) {
	t, data, err := s.Read(id)
	if err == nil && t != want {
		err = fail.Errorf(fail.BadData, "object %s is a %s, not a %s", id, t, want)
	}
	return data, err
}
