package caches

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"run-task/caches/internal/keys"
	"run-task/caches/internal/pack"
	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
	"run-task/store"
)

// Restore fills the archives' directories from their stores, as whoever we are now: the task's user. An archive is looked for under its key and then under its fallbacks. It is
// proven before any of it can be seen, and its tree then appears at once in its place, together with what is there already; see target.land for where that cannot be.
//
// An archive that is missing, damaged or hostile, a store that cannot be reached in a.Budget, and a key that cannot be told are no errors but with a.Strict: the directory stays
// as it is. What is wrong with a path is fail.Usage. The result goes to Save.
func Restore(ctx context.Context, log *logs.Log, a Archives) ([]*Archive, error) {
	defer lean()()
	budget := cmp.Or(a.Budget, DefaultBudget)
	limited, cancel := limited(ctx, budget)
	defer cancel()
	all := a.Resolve(limited)
	if ctx.Err() != nil {
		return all, context.Cause(ctx)
	}
	for _, x := range all {
		if x.err != nil {
			if fail.Of(x.err) == fail.Usage && !errors.Is(x.err, keys.ErrNoMatch) && x.Key == "" && x.store == nil {
				return all, fmt.Errorf("archive of %q: %w", x.Path, x.err)
			}
			x.Restored = Failed
			a.warn(log, x, "no key for the archive of", x.err)
			continue
		}
		if !a.policy(x.spec).Pulls() {
			continue
		}
		began := time.Now()
		err := a.restore(limited, log, x)
		x.Seconds = time.Since(began).Seconds()
		if ctx.Err() != nil {
			return all, context.Cause(ctx)
		}
		if err == nil {
			x.say(log)
			continue
		}
		if x.Restored = Failed; fail.Of(err) == fail.Usage || a.Damaged && errors.Is(err, pack.ErrDamaged) {
			err = reason(err)
			return all, fmt.Errorf("archive of %q: %w", x.Path, err)
		}
		a.warn(log, x, "restore", reason(err))
	}
	return all, a.first(all)
}

// say is the one line about a restore.
func (x *Archive) say(log *logs.Log) {
	switch x.Restored {
	case Miss:
		log.Infof("miss: nothing for %q under %q in %s", x.Path, x.Key, x.Store)
	case Hit, Fallback:
		log.Infof("%s: %q from %q: %d files, %s (%s) in %.1fs, %s/s", x.Restored, x.Path, x.From, x.Files, logs.Bytes(x.Bytes), logs.Bytes(x.Packed), x.Seconds,
			logs.Bytes(int64(float64(x.Bytes)/max(x.Seconds, 0.001))))
	}
}

// restore looks for an archive and extracts it. A damaged one is as good as none: the next key may do.
func (a *Archives) restore(ctx context.Context, log *logs.Log, x *Archive) error {
	all, err := a.candidates(ctx, x)
	if err != nil && len(all) == 0 {
		return err
	}
	if err != nil {
		log.Warnf("a fallback of %q: %v", x.Path, err)
	}
	var bad error
	for i, c := range all {
		key, err := a.look(ctx, log, x, c)
		if err == nil && key != "" {
			err = a.fetch(ctx, log, x, key)
		}
		switch {
		case err == errMiss || err == nil && key == "":
			continue
		case errors.Is(err, pack.ErrDamaged):
			bad = cmp.Or(bad, fmt.Errorf("%q: %w", key, err))
			x.damaged = x.damaged || key == x.Key
			continue
		case err != nil:
			return cmp.Or(bad, err)
		}
		if x.Restored = Hit; i > 0 && key != x.Key {
			x.Restored = Fallback
		}
		if bad != nil {
			a.warn(log, x, "restore", reason(bad))
		}
		return nil
	}
	if x.Restored = Miss; bad != nil {
		return bad
	}
	return nil
}

// look gives the key that a candidate stands for, "" if there is none.
func (a *Archives) look(ctx context.Context, log *logs.Log, x *Archive, c candidate) (string, error) {
	if !c.prefix {
		return c.key, nil
	}
	l, ok := x.store.(store.Lister)
	if !ok {
		log.Warnf("%s lists nothing: the fallback %q of %q is of no use there", x.Store, c.key, x.Path)
		return "", nil
	}
	found, err := l.List(ctx, c.key)
	if err != nil {
		return "", err
	}
	found = slices.DeleteFunc(found, func(i store.Info) bool { return !strings.HasSuffix(i.Key, suffix) })
	if len(found) == 0 {
		return "", nil
	}
	newest := slices.MaxFunc(found, func(a, b store.Info) int { return cmp.Or(a.Modified.Compare(b.Modified), cmp.Compare(a.Key, b.Key)) })
	return strings.TrimSuffix(newest.Key, suffix), nil
}

// errMiss is that a store has nothing under a key, and not that something else is missing.
var errMiss = errors.New("there is no such archive")

// fetch gets an archive and lands it; errMiss if there is none.
func (a *Archives) fetch(ctx context.Context, log *logs.Log, x *Archive, key string) error {
	p := log.Progress()
	defer p.Done()
	f, info, err := x.store.Get(ctx, key+suffix, store.GetOptions{Progress: func(done, total int64) {
		p.Updatef("getting %q: %s of %s", key, logs.Bytes(done), logs.Bytes(max(total, 0)))
	}})
	if isMissing(err) {
		return errMiss
	}
	if err != nil {
		return err
	}
	defer f.Close()
	archive, err := openArchive(f)
	if err != nil {
		return err
	}
	t, err := openTarget(a.dir(), x.Path, true)
	if err != nil {
		return err
	}
	defer t.close()
	s, err := t.newStage(ctx)
	if err != nil {
		return err
	}
	defer s.discard()
	if free := s.dir.Free(); free >= 0 && archive.Bytes > free {
		return fail.Errorf(fail.IO, "it needs %s, and there are %s free", logs.Bytes(archive.Bytes), logs.Bytes(free)).WithHint("give the task more disk, or keep less in the archive")
	}
	err = archive.Extract(ctx, s.dir, pack.Extraction{Xattrs: x.spec.Xattrs, SetID: os.Geteuid() != 0, Progress: func(entries, bytes int64) {
		p.Updatef("extracting %q: %d of %d entries, %s", key, entries, archive.Entries, logs.Bytes(bytes))
	}})
	if err != nil {
		return err
	}
	d, err := s.land(ctx, a.durable(x.Path))
	if err != nil {
		return err
	}
	defer d.Close()
	x.From, x.Files, x.Bytes, x.Packed = key, archive.Files, archive.Bytes, archive.Size
	if key == x.Key {
		x.tag, x.content, x.known = info.Tag, archive.Content, true
	}
	if a.policy(x.spec).Pushes() {
		a.remember(ctx, log, x, archive, d)
	}
	return nil
}

func openArchive(f *os.File) (*pack.Archive, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return pack.Open(f, st.Size(), pack.Limits{})
}

// remember notes what the restored files are like, so that a save need not read what has not changed. Without it all is read.
func (a *Archives) remember(ctx context.Context, log *logs.Log, x *Archive, archive *pack.Archive, d *fsx.Dir) {
	f, err := fsx.Temp(cmp.Or(a.Store.Temp, os.TempDir()))
	if err == nil {
		x.index, err = archive.Record(ctx, d, f)
	}
	if err != nil {
		log.Verbosef("the files of %q are not remembered: %v", x.Path, err)
		x.index = nil
	}
}

// Present tells whether each archive's key is in its store; see Err for what could not be told.
func Present(ctx context.Context, a Archives) ([]*Archive, error) {
	limited, cancel := limited(ctx, cmp.Or(a.Budget, DefaultBudget))
	defer cancel()
	all := a.Resolve(limited)
	for _, x := range all {
		if x.err != nil {
			continue
		}
		info, err := x.store.Stat(limited, x.Key+suffix)
		switch {
		case err == nil:
			x.Restored, x.Packed = Hit, info.Size
		case errors.Is(err, fs.ErrNotExist):
			x.Restored = Miss
		default:
			x.Restored, x.err = Failed, err
		}
	}
	return all, context.Cause(ctx)
}
