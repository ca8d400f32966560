package caches

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/perms"
)

const (
	stagePrefix = ".run-task-restore-" // of trees that are not complete yet; who fills one holds a lock on it
	landingName = ".run-task-landing"  // of a tree that is complete, and whose entries move up to where it is
)

// target is where an archive's tree goes, or comes from.
type target struct {
	path   string // as it was said
	parent *fsx.Dir
	base   string
}

// openTarget opens the directory that a target is in, and makes it if need be. Up to base, or to what only root can change, the way is the user's and links are followed; from
// there on a checkout or an earlier task may have made them, and none is.
func openTarget(base, path string, make bool) (*target, error) {
	trusted, rest := base, filepath.Clean(path)
	if filepath.IsAbs(rest) {
		trusted, rest = rootsPart(rest)
	}
	names := strings.Split(rest, "/")
	d, err := fsx.Open(trusted)
	if err != nil {
		return nil, err
	}
	for _, name := range names[:len(names)-1] {
		var sub *fsx.Dir
		if make {
			if err = d.Mkdir(name, 0o777); errors.Is(err, fs.ErrExist) {
				err = nil
			}
		}
		if err == nil {
			sub, err = d.OpenDir(name)
		}
		d.Close()
		if err != nil {
			return nil, linked(path, err)
		}
		d = sub
	}
	return &target{path, d, names[len(names)-1]}, nil
}

// rootsPart cuts an absolute path where what others than root can change begins, before its last name at the latest.
func rootsPart(path string) (trusted, rest string) {
	trusted, rest = "/", strings.TrimPrefix(path, "/")
	for {
		name, more, ok := strings.Cut(rest, "/")
		next := filepath.Join(trusted, name)
		if !ok || !perms.RootsAlone(next) {
			return trusted, rest
		}
		if _, err := os.Stat(next); err != nil {
			return trusted, rest
		}
		trusted, rest = next, more
	}
}

func linked(path string, err error) error {
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return fail.Errorf(fail.Usage, "a part of the way to %q is a symbolic link or no directory", path).WithHint("name the directory that is meant; an earlier task or the repository may have made the link")
	}
	return err
}

func (t *target) close() { t.parent.Close() }

// open opens the directory at the target. fs.ErrNotExist: there is none.
func (t *target) open() (*fsx.Dir, error) {
	d, err := t.parent.OpenDir(t.base)
	return d, linked(t.path, err)
}

// stage is a tree that grows beside its target, or in it where that cannot be replaced.
type stage struct {
	*target
	dir    *fsx.Dir // it
	in     *fsx.Dir // where it is
	name   string
	inside *fsx.Dir // the target, if the stage is in it
}

// newStage makes a stage, after it has removed those of runs that were killed and has completed what they had begun to move. What stands at the target must be a directory, if anything.
func (t *target) newStage(ctx context.Context) (_ *stage, err error) {
	s := &stage{target: t, in: t.parent}
	if err := s.choose(ctx); err != nil {
		return nil, err
	}
	if err := sweepStages(s.in); err != nil {
		return nil, errors.Join(err, s.discard())
	}
	for range 100 {
		if err = s.begin(); err == nil {
			return s, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EWOULDBLOCK) { // else somebody swept it away before it was locked
			break
		}
	}
	return nil, errors.Join(err, s.discard())
}

// begin makes the stage's directory.
func (s *stage) begin() (err error) {
	if s.dir != nil {
		s.dir.Close()
		s.dir = nil
	}
	s.name = fmt.Sprintf("%s%016x", stagePrefix, rand.Uint64())
	if err = s.in.Mkdir(s.name, 0o700); err != nil {
		return err
	}
	if s.dir, err = s.in.OpenDir(s.name); err != nil {
		return err
	}
	if err = lockDir(s.dir); err == nil {
		_, err = s.in.Lstat(s.name)
	}
	return err
}

// choose decides where the stage is.
func (s *stage) choose(ctx context.Context) error {
	there, err := s.target.open()
	if errors.Is(err, fs.ErrNotExist) {
		return s.parent.Writable()
	}
	if err != nil {
		return err
	}
	mount := false
	if err = resume(ctx, there); err == nil {
		mount, err = s.parent.IsMount(s.base)
	}
	if err == nil && (mount || s.parent.Writable() != nil) {
		s.in, s.inside = there, there
		return nil
	}
	there.Close()
	return err
}

func lockDir(d *fsx.Dir) error {
	return os.NewSyscallError("flock", unix.Flock(d.Fd(), unix.LOCK_EX|unix.LOCK_NB))
}

// sweepStages removes the stages that nobody fills any more.
func sweepStages(in *fsx.Dir) error {
	names, err := in.Names()
	if err != nil {
		return nil // it may be written and not read
	}
	for _, n := range names {
		if !strings.HasPrefix(n, stagePrefix) {
			continue
		}
		d, err := in.OpenDir(n)
		if err != nil {
			continue // another one sweeps, or it is none of ours
		}
		if lockDir(d) == nil {
			err = in.RemoveAll(n)
		}
		d.Close()
		if err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

// discard removes the stage, if it has not landed.
func (s *stage) discard() error {
	var err error
	if s.name != "" {
		err = s.in.RemoveAll(s.name)
	}
	for _, d := range []*fsx.Dir{s.dir, s.inside} {
		if d != nil {
			d.Close()
		}
	}
	s.name, s.dir, s.inside = "", nil, nil
	return err
}

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
