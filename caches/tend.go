package caches

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"run-task/caches/internal/pack"
	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/store"
)

// Stored is an archive in a store.
type Stored struct {
	Key      string
	Size     int64 // bytes of the archive
	Modified time.Time
	Used     time.Time // zero if the store does not note it
	Err      error     // what is wrong with it: of VerifyArchives
	Files    int64     // of VerifyArchives
	Bytes    int64

	info store.Info
}

func lister(location string, o store.Options) (store.Lister, error) {
	s, err := store.Open(location, o)
	if err != nil {
		return nil, err
	}
	l, ok := s.(store.Lister)
	if !ok {
		return nil, fail.Errorf(fail.Usage, "%s cannot tell what it holds: web servers list nothing", s).WithHint("use a dir: or s3:// store; a package registry has rules of its own for what it keeps")
	}
	return l, nil
}

// ListArchives gives the archives in a store whose keys begin with prefix, sorted by key. A web server cannot tell: fail.Usage.
func ListArchives(ctx context.Context, location string, o store.Options, prefix string) ([]Stored, error) {
	l, err := lister(location, o)
	if err != nil {
		return nil, err
	}
	found, err := l.List(ctx, prefix)
	var all []Stored
	for _, i := range found {
		if key, ok := strings.CutSuffix(i.Key, suffix); ok {
			all = append(all, stored(key, i))
		}
	}
	return all, err
}

func stored(key string, i store.Info) Stored {
	return Stored{Key: key, Size: i.Size, Modified: i.Modified, Used: i.Used, info: i}
}

// collectable are the archives in a store, and the commits that a fleet shares through it, by their objects' names.
func collectable(ctx context.Context, l store.Lister) (all []Stored, err error) {
	found, err := l.List(ctx, "")
	for _, i := range found {
		key, archive := strings.CutSuffix(i.Key, suffix)
		if archive || strings.HasPrefix(i.Key, "git/") && strings.HasSuffix(i.Key, ".bundle") {
			all = append(all, stored(key, i))
		}
	}
	return all, err
}

// VerifyArchives reads every byte of the named archives, or of all in the store, and proves that they are what was saved. Those that are not have an Err.
func VerifyArchives(ctx context.Context, log *logs.Log, location string, o store.Options, names []string) ([]Stored, error) {
	s, err := store.Open(location, o)
	if err != nil {
		return nil, err
	}
	var all []Stored
	for _, n := range names {
		all = append(all, Stored{Key: n})
	}
	if len(names) == 0 {
		if all, err = ListArchives(ctx, location, o, ""); err != nil {
			return nil, err
		}
	}
	p := log.Progress()
	defer p.Done()
	for i := range all {
		x := &all[i]
		p.Updatef("verifying %q: %d of %d", x.Key, i+1, len(all))
		if x.Err = x.verify(ctx, s); ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if errors.Is(x.Err, fs.ErrNotExist) && len(names) == 0 { // removed meanwhile
			x.Err = nil
		}
		if x.Err != nil && !errors.Is(x.Err, pack.ErrDamaged) && !errors.Is(x.Err, fs.ErrNotExist) {
			return nil, x.Err
		}
	}
	return all, nil
}

func (x *Stored) verify(ctx context.Context, s store.Store) error {
	f, info, err := s.Get(ctx, x.Key+suffix, store.GetOptions{})
	if err != nil {
		return err
	}
	defer f.Close()
	x.Size, x.Modified, x.Used = info.Size, info.Modified, info.Used
	a, err := openArchive(f)
	if err != nil {
		return err
	}
	x.Files, x.Bytes = a.Files, a.Bytes
	return a.Check(ctx, nil)
}

// Collection says what CollectArchives keeps.
type Collection struct {
	MaxAge  time.Duration // remove what nobody has put or got for so long; 0 for any age
	MaxSize int64         // then remove the oldest until the rest has no more bytes; 0 for any size
	Grace   time.Duration // how old what a killed writer left must be; default 24 hours
	DryRun  bool
	Now     time.Time
}

// Collected is what CollectArchives removed, or would.
type Collected struct {
	Removed     []Stored
	Bytes, Left int64 // of what was removed, and of what was not
	Litter      int   // what killed writers left
}

// CollectArchives keeps a store bounded: the archives, and the commits that --git-publish put there. What is being written, or was written or used since it looked, it does not touch.
func CollectArchives(ctx context.Context, location string, o store.Options, c Collection) (done Collected, err error) {
	l, err := lister(location, o)
	if err != nil {
		return done, err
	}
	all, err := collectable(ctx, l)
	if err != nil {
		return done, err
	}
	slices.SortFunc(all, func(a, b Stored) int { return cmp.Or(a.info.Last().Compare(b.info.Last()), cmp.Compare(a.Key, b.Key)) })
	for _, x := range all {
		done.Left += x.Size
	}
	for _, x := range all {
		old := c.MaxAge > 0 && c.Now.Sub(x.info.Last()) > c.MaxAge
		if !old && (c.MaxSize == 0 || done.Left <= c.MaxSize) {
			continue
		}
		if !c.DryRun {
			err := l.Delete(ctx, x.info)
			if errors.Is(err, store.ErrConflict) {
				continue
			}
			if err != nil {
				return done, err
			}
		}
		done.Removed = append(done.Removed, x)
		done.Bytes += x.Size
		done.Left -= x.Size
	}
	if !c.DryRun {
		done.Litter, _, err = l.Sweep(ctx, c.Now.Add(-cmp.Or(c.Grace, 24*time.Hour)))
	}
	return done, err
}
