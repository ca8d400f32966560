package caches

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// land makes the stage's tree what stands at the target, together with what is there and not in the tree. Where the target can be replaced that happens at once; elsewhere
// a landing that is killed is completed by the next one. It gives the target's directory.
func (s *stage) land(ctx context.Context, durable bool) (*fsx.Dir, error) {
	if durable {
		if err := s.dir.SyncFS(); err != nil {
			return nil, err
		}
	}
	// Others that land here at the same time come before or after.
	unlock, err := s.lockParent(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s.inside != nil {
		return s.moveUp(ctx)
	}
	err = s.in.Rename(s.name, s.base)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		err = s.exchange(ctx)
	}
	if err != nil {
		return nil, err
	}
	if durable {
		if err := s.in.Sync("."); err != nil {
			return nil, err
		}
	}
	return s.landed(), nil
}

func (s *stage) lockParent(ctx context.Context) (unlock func(), err error) {
	f, err := s.in.OpenFile(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	if err := fsx.Lock(ctx, f, nil); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

func (s *stage) landed() *fsx.Dir {
	d := s.dir
	unix.Flock(d.Fd(), unix.LOCK_UN) // or the command's children would hold it
	s.dir, s.name = nil, ""
	return d
}

// exchange gives the stage what only the target has, as further names of the same files, and then lets both change places.
func (s *stage) exchange(ctx context.Context) error {
	old, err := s.target.open()
	if err != nil {
		return err
	}
	err = share(ctx, old, s.dir, fsx.TooDeep)
	old.Close()
	if err == nil {
		err = fsx.Exchange(s.in, s.name, s.base)
	}
	if fsx.Unsupported(err) {
		return s.intoPlace(ctx)
	}
	if err != nil {
		return err
	}
	if err := s.in.RemoveAll(s.name); !errors.Is(err, fs.ErrNotExist) { // else another one swept it
		return err
	}
	return nil
}

// share links what only from has into to.
func share(ctx context.Context, from, to *fsx.Dir, levels int) error {
	names, err := from.Names()
	if err != nil || len(names) == 0 {
		return err
	}
	if levels == 0 {
		return fsx.ErrTooDeep
	}
	st, err := to.Stat()
	if err != nil {
		return err
	}
	if err := unix.Fchmod(to.Fd(), st.Perm()|0o700); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	for _, n := range names {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := shareOne(ctx, from, to, n, levels-1); err != nil {
			return err
		}
	}
	return errors.Join(to.SetTime(".", st.MtimeSec, st.MtimeNsec), os.NewSyscallError("fchmod", unix.Fchmod(to.Fd(), st.Perm())))
}

func shareOne(ctx context.Context, from, to *fsx.Dir, name string, levels int) error {
	was, err := from.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	is, err := to.Lstat(name)
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !missing:
		return err
	case !was.IsDir() && missing:
		return fsx.LinkAcross(from, name, to, name)
	case !was.IsDir() || !missing && !is.IsDir():
		return nil // the archive's goes first
	}
	if mount, err := from.IsMount(name); err != nil || mount {
		return errors.Join(err, &fs.PathError{Op: "merge", Path: filepath.Join(from.Name(), name), Err: unix.EXDEV})
	}
	if missing {
		if err := to.Mkdir(name, 0o700); err != nil {
			return err
		}
	}
	a, err := from.OpenDir(name)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := to.OpenDir(name)
	if err != nil {
		return err
	}
	defer b.Close()
	err = share(ctx, a, b, levels)
	if err == nil && missing {
		err = errors.Join(b.SetTime(".", was.MtimeSec, was.MtimeNsec), os.NewSyscallError("fchmod", unix.Fchmod(b.Fd(), was.Perm())))
	}
	return err
}

// intoPlace moves the stage into the target, whose entries then move up: for file systems that cannot exchange names or link files.
func (s *stage) intoPlace(ctx context.Context) error {
	there, err := s.target.open()
	if err != nil {
		return err
	}
	defer there.Close()
	if err := fsx.Move(s.in, s.name, there, landingName); err != nil {
		return err
	}
	if err := resume(ctx, there); err != nil {
		return err
	}
	d, err := s.target.open()
	if err == nil {
		s.dir.Close()
		s.dir = d
	}
	return err
}

func (s *stage) moveUp(ctx context.Context) (*fsx.Dir, error) {
	if err := s.inside.Rename(s.name, landingName); err != nil {
		return nil, err
	}
	s.name = ""
	if err := resume(ctx, s.inside); err != nil {
		return nil, err
	}
	d := s.inside
	s.inside = nil
	return d, nil
}

// resume completes a landing in a directory, if one was begun. It is not cancelled: each entry that has moved is one that cannot go back.
func resume(ctx context.Context, in *fsx.Dir) error {
	from, err := in.OpenDir(landingName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer from.Close()
	st, err := from.Stat()
	if err != nil || int(st.UID) != os.Geteuid() {
		return fail.Errorf(fail.IO, "%q in %q is not ours", landingName, in.Name()).WithHint("remove it")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Hour)
	defer cancel()
	if err := settle(ctx, from, in, fsx.TooDeep); err != nil {
		return err
	}
	if err := in.RemoveAll(landingName); err != nil {
		return err
	}
	if own, err := in.Stat(); err != nil || int(own.UID) != os.Geteuid() {
		return err
	}
	return in.SetTime(".", st.MtimeSec, st.MtimeNsec)
}

// settle moves what is in one directory into another one, directories that both have entry by entry, and then gives the other the first one's mode and time, if it is ours.
func settle(ctx context.Context, from, to *fsx.Dir, levels int) error {
	if levels == 0 {
		return fsx.ErrTooDeep
	}
	st, err := from.Stat()
	if err != nil {
		return err
	}
	if err := unix.Fchmod(from.Fd(), st.Perm()|0o700); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	names, err := from.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := settleOne(ctx, from, to, n, levels-1); err != nil {
			return err
		}
	}
	if own, err := to.Stat(); err != nil || int(own.UID) != os.Geteuid() {
		return err
	}
	return errors.Join(to.SetTime(".", st.MtimeSec, st.MtimeNsec), os.NewSyscallError("fchmod", unix.Fchmod(to.Fd(), st.Perm())))
}

func settleOne(ctx context.Context, from, to *fsx.Dir, name string, levels int) error {
	st, err := from.Lstat(name)
	if err != nil {
		return err
	}
	there, err := to.Lstat(name)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err == nil && there.IsDir() && !st.IsDir():
		if err := to.RemoveAll(name); err != nil {
			return err
		}
	case err == nil && !there.IsDir() && st.IsDir():
		if err := to.Unlink(name); err != nil {
			return err
		}
	case err == nil && there.IsDir():
		return settleDir(ctx, from, to, name, levels)
	}
	if !st.IsDir() || st.Perm()&0o200 != 0 {
		return fsx.Move(from, name, to, name)
	}
	// The ".." of a directory changes with its place, for which it must be writable.
	d, err := from.OpenDir(name)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Fchmod(d.Fd(), st.Perm()|0o200); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	return errors.Join(fsx.Move(from, name, to, name), os.NewSyscallError("fchmod", unix.Fchmod(d.Fd(), st.Perm())))
}

func settleDir(ctx context.Context, from, to *fsx.Dir, name string, levels int) error {
	a, err := from.OpenDir(name)
	if err != nil {
		return err
	}
	defer a.Close()
	if err := to.MakeWritable(name); err != nil {
		return err
	}
	b, err := to.OpenDir(name)
	if err != nil {
		return err
	}
	defer b.Close()
	return settle(ctx, a, b, levels)
}
