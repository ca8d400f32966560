package pack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"run-task/internal/fsx"
)

// Extraction says how an archive becomes a tree.
type Extraction struct {
	Xattrs   bool                       // set extended attributes; a file system without any is fine
	SetID    bool                       // keep setuid and setgid bits
	Progress func(entries, bytes int64) // is told of each
}

// Check proves all of an archive: each byte, that the stream is the manifest's, and that each file has the content that it should have. visit, if not nil, gets each entry.
func (a *Archive) Check(ctx context.Context, visit func(*Entry) error) error {
	return a.unpack(ctx, func(_ *stream, e *Entry, body func(func([]byte) error) error) error {
		h := sha256.New()
		err := body(func(b []byte) error { h.Write(b); return nil })
		if err == nil && e.Type == File && [sha256.Size]byte(h.Sum(nil)) != e.Sum {
			err = damaged("%q does not have the content that the manifest tells of", e.Name)
		}
		if err == nil && visit != nil {
			err = visit(e)
		}
		return err
	})
}

// unpack goes through manifest and stream side by side. body must be called for each entry: it gives the bytes of a File.
func (a *Archive) unpack(ctx context.Context, each func(s *stream, e *Entry, body func(func([]byte) error) error) error) error {
	m, err := a.manifest()
	if err != nil {
		return err
	}
	defer m.decoder.Close()
	s := a.stream(ctx)
	defer s.close()
	content, bytes := sha256.New(), int64(0)
	var header []byte
	for {
		e, record, err := m.read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		content.Write(record)
		header, _ = e.appendHeader(header[:0])
		if err := s.expect(header, e.Name); err != nil {
			return err
		}
		err = each(s, &e, func(use func([]byte) error) error {
			if e.Type != File {
				return nil
			}
			n := e.stored()
			bytes += n
			for left := n; left > 0; {
				b, err := s.take(left)
				if err == nil {
					left -= int64(len(b))
					err = use(b)
				}
				if err != nil {
					return err
				}
			}
			return s.expect(zeros[:padding(n)], e.Name)
		})
		if err != nil {
			return err
		}
	}
	if err := s.end(); err != nil {
		return err
	}
	if [sha256.Size]byte(content.Sum(nil)) != a.Content || bytes != a.Bytes {
		return damaged("its footer tells of another content")
	}
	return nil
}

// Extract makes the archive's tree in an empty directory that nobody else changes, and gives the directory the root's mode and time. Each byte is proven before it is written.
// On an error a part of it is there.
func (a *Archive) Extract(ctx context.Context, to *fsx.Dir, o Extraction) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	x := &extraction{Extraction: o, dirs: []openDir{{"", hold(to)}}, tasks: make(chan *task, 128)}
	x.dirs[0].share() // it is the caller's, and stays open
	var all sync.WaitGroup
	for range workers() {
		all.Go(func() {
			for t := range x.tasks {
				if err := t.do(ctx, x); err != nil {
					cancel(err)
				}
			}
		})
	}
	err := a.unpack(ctx, x.entry)
	x.leave(0)
	close(x.tasks)
	all.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	return a.settle(ctx, to, x)
}

type openDir struct {
	name string
	*held
}

// extraction is a tree that grows.
type extraction struct {
	Extraction
	dirs    []openDir // those that the next entry may be in, from the root on
	tasks   chan *task
	entries int64
	bytes   int64
	links   int64
}

// target is a file in several frames.
type target struct {
	f       int          // descriptor
	pending atomic.Int32 // runs of bytes that are not written, and one until all are known
}

// task is a run of a file's bytes to be written.
type task struct {
	e      *Entry
	dir    *held
	base   string
	s      *stream
	piece  *piece // that data is in
	data   []byte
	target *target // nil: data is all of the file
	offset int64   // of data in what is stored
}

// enter leaves the directories that a name is not in, and gives the one that it is in.
func (x *extraction) enter(name string) (d *held, base string) {
	dir := dirOf(name)
	for i := len(x.dirs) - 1; i > 0 && x.dirs[i].name != dir; i-- {
		x.leave(i)
	}
	return x.dirs[len(x.dirs)-1].held, path.Base(name)
}

// leave closes directories from the i-th on.
func (x *extraction) leave(i int) {
	for _, d := range x.dirs[i:] {
		d.release()
	}
	x.dirs = x.dirs[:i]
}

// entry makes what an entry is, but for what needs others to be complete: further names of files, and the modes and times of directories.
func (x *extraction) entry(s *stream, e *Entry, body func(func([]byte) error) error) error {
	x.entries++
	if x.Progress != nil {
		x.Progress(x.entries, x.bytes)
	}
	if e.Name == "" {
		if x.Xattrs {
			return setXattrs(x.dirs[0].Fd(), e.Xattrs)
		}
		return nil
	}
	d, base := x.enter(e.Name)
	switch e.Type {
	case Dir:
		if err := d.Mkdir(base, 0o700); err != nil {
			return err
		}
		sub, err := d.OpenDir(base)
		if err != nil {
			return err
		}
		x.dirs = append(x.dirs, openDir{e.Name, hold(sub)})
		if x.Xattrs {
			return setXattrs(sub.Fd(), e.Xattrs)
		}
	case Link:
		x.links++
	case Symlink:
		if err := d.Symlink(e.Target, base); err != nil {
			return err
		}
		return d.SetTime(base, e.Sec, int64(e.Nsec))
	case File:
		return x.file(s, d, base, e, body)
	}
	return nil
}

func (x *extraction) file(s *stream, d *held, base string, e *Entry, body func(func([]byte) error) error) error {
	kept := *e
	t := task{e: &kept, dir: d, base: base, s: s}
	err := body(func(b []byte) error {
		one := t
		if one.data, one.piece = b, s.hold(); int64(len(b)) < e.stored() {
			if t.target == nil {
				f, err := create(d.Fd(), base)
				if err != nil {
					s.release(one.piece)
					return err
				}
				t.target = &target{f: f}
				t.target.pending.Store(1)
			}
			one.target = t.target
			one.target.pending.Add(1)
		}
		t.offset += int64(len(b))
		d.share()
		x.tasks <- &one
		return nil
	})
	x.bytes += t.offset
	switch {
	case t.target != nil:
		return errors.Join(err, t.written(x))
	case err == nil && e.stored() == 0:
		d.share()
		x.tasks <- &t
	}
	return err
}

// do writes the bytes.
func (t *task) do(ctx context.Context, x *extraction) (err error) {
	defer t.dir.release()
	if t.piece != nil {
		defer t.s.release(t.piece)
	}
	cause := context.Cause(ctx)
	if t.target != nil {
		if err = cause; err == nil {
			err = writeParts(t.target.f, t.e.parts(), t.offset, t.data)
		}
		return errors.Join(err, t.written(x))
	}
	if cause != nil {
		return cause
	}
	f, err := create(t.dir.Fd(), t.base)
	if err != nil {
		return err
	}
	return errors.Join(writeParts(f, t.e.parts(), 0, t.data), t.finish(x, f))
}

// written tells that one run less is to be written. The last finishes the file.
func (t *task) written(x *extraction) error {
	if t.target.pending.Add(-1) > 0 {
		return nil
	}
	return t.finish(x, t.target.f)
}

// finish gives a file its length, its attributes, its mode and, last, its time.
func (t *task) finish(x *extraction, f int) (err error) {
	if t.e.Data != nil {
		err = unix.Ftruncate(f, t.e.Size)
	}
	if err == nil && x.Xattrs {
		err = setXattrs(f, t.e.Xattrs)
	}
	if mode := x.mode(t.e); err == nil && mode != 0o600 {
		err = unix.Fchmod(f, mode)
	}
	if err = errors.Join(err, unix.Close(f)); err != nil {
		return &fs.PathError{Op: "write", Path: t.e.Name, Err: err}
	}
	return t.dir.SetTime(t.base, t.e.Sec, int64(t.e.Nsec))
}

func (x *extraction) mode(e *Entry) uint32 {
	if x.SetID {
		return e.Mode
	}
	return e.Mode &^ 0o6000
}

// setXattrs sets attributes where the file system has any.
func setXattrs(f int, all []Xattr) error {
	for _, a := range all {
		if err := fsx.SetXattr(f, a); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	return nil
}

// create makes a file that is not there yet. Its descriptor is not given to Go's poller, which costs system calls that regular files do not need.
func create(dir int, base string) (int, error) {
	for {
		f, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err == nil {
			return f, nil
		}
		if err != unix.EINTR {
			return -1, &fs.PathError{Op: "create", Path: base, Err: err}
		}
	}
}

// writeParts writes to the parts as if they followed each other.
func writeParts(f int, parts []Part, offset int64, b []byte) error {
	for _, p := range parts {
		if offset >= p.Size {
			offset -= p.Size
			continue
		}
		for at := p.Offset + offset; len(b) > 0 && at < p.Offset+p.Size; {
			n, err := unix.Pwrite(f, b[:min(int64(len(b)), p.Offset+p.Size-at)], at)
			if err != nil && err != unix.EINTR {
				return os.NewSyscallError("write", err)
			}
			b, at = b[max(n, 0):], at+int64(max(n, 0))
		}
		offset = 0
	}
	return nil
}

// settle makes the further names of files, and then gives directories their modes and times, each after all that is in it.
func (a *Archive) settle(ctx context.Context, to *fsx.Dir, x *extraction) error {
	if x.links > 0 {
		err := a.Each(ctx, func(e *Entry) error {
			if e.Type != Link {
				return nil
			}
			err := to.Link(e.Target, e.Name)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
				return damaged("%q leads to %q, which is not there", e.Name, e.Target)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	var open []Entry
	dirs := []*fsx.Dir{to}
	leave := func(n int) error {
		for len(open) > n {
			e, d := &open[len(open)-1], dirs[len(dirs)-1]
			err := errors.Join(d.SetTime(".", e.Sec, int64(e.Nsec)), unix.Fchmod(d.Fd(), x.mode(e)))
			if open, dirs = open[:len(open)-1], dirs[:len(dirs)-1]; d != to {
				d.Close()
			}
			if err != nil {
				return fmt.Errorf("finish the directory %q: %w", e.Name, err)
			}
		}
		return nil
	}
	err := a.Each(ctx, func(e *Entry) error {
		if e.Type != Dir {
			return nil
		}
		n := len(open)
		for n > 0 && open[n-1].Name != dirOf(e.Name) {
			n--
		}
		if e.Name != "" {
			if err := leave(n); err != nil {
				return err
			}
			d, err := dirs[len(dirs)-1].OpenDir(path.Base(e.Name))
			if err != nil {
				return err
			}
			dirs = append(dirs, d)
		}
		open = append(open, *e)
		return nil
	})
	if err == nil {
		return leave(0)
	}
	for _, d := range dirs[1:] {
		d.Close()
	}
	return err
}
