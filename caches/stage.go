package caches

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"run-task/internal/fsx"
)

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
