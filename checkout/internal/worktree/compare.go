package worktree

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"

	"run-task/checkout/internal/index"
	"run-task/checkout/internal/treepath"
	"run-task/internal/fsx"
)

// restat notes what the metadata of a file are now, which is right.
func (s *scan) restat(f *file, st fsx.Stat) {
	now := index.StatOf(st)
	s.changed = s.changed || f.Stat != now
	f.Stat = now
}

// right says whether a file is what git would have written: type, x bit and content, and it is ours alone, so that nobody changes it through another
// link or as its owner. Metadata that are still those of an earlier run say so, too.
func (s *scan) right(in place, name string, f *file, st fsx.Stat) (bool, error) {
	if s.checked++; s.checked%100 == 0 {
		s.progress.Updatef("comparing files, %d in all, now %q", len(s.plan.files), in.prefix+name)
	}
	if st.UID != s.uid || st.Nlink != 1 {
		return false, nil
	}
	if f.Mode == treepath.Link {
		return s.sameTarget(in, name, f, st)
	}
	if s.early.wrote(f, st) {
		s.restat(f, st)
		f.early = true
		return true, nil
	}
	if !st.IsRegular() || st.Perm()&0o7000 != 0 || st.Perm()&0o100 != 0 != (f.Mode == treepath.Exec) {
		return false, nil
	}
	if f.known && f.Stat == index.StatOf(st) {
		return true, nil
	}
	return s.sameContent(in, name, f)
}

func (s *scan) sameTarget(in place, name string, f *file, st fsx.Stat) (bool, error) {
	if !st.IsSymlink() {
		return false, nil
	}
	if f.known && f.Stat == index.StatOf(st) {
		return true, nil
	}
	want, err := s.plan.target(f)
	if err != nil {
		return false, err
	}
	target, err := in.Readlink(name)
	s.restat(f, st)
	return target == want, err
}

func (s *scan) sameContent(in place, name string, f *file) (bool, error) {
	r, err := in.OpenFile(name, unix.O_RDONLY, 0)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ELOOP) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer r.Close()
	before, err := fsx.FileStat(r)
	if err != nil || !before.IsRegular() {
		return false, err
	}
	if s.buf == nil {
		s.buf = make([]byte, 128<<10)
	}
	h := plumbing.NewHasher(plumbing.BlobObject, before.Size)
	for size := int64(0); size <= before.Size; {
		n, err := r.Read(s.buf)
		if size == 0 {
			f.lfs = isPointer(s.buf[:n], before.Size)
		}
		h.Write(s.buf[:n])
		if size += int64(n); err == io.EOF {
			break
		}
		if err != nil {
			return false, err
		}
		if s.ctx.Err() != nil {
			return false, context.Cause(s.ctx)
		}
	}
	after, err := fsx.FileStat(r)
	s.restat(f, after)
	return h.Sum() == f.ID && after == before, err
}
