package caches

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"time"

	"run-task/caches/internal/keys"
	"run-task/caches/internal/pack"
	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
	"run-task/store"
)

// Ending is what a save needs to know of how the command ended.
type Ending struct {
	Failed    bool // it did not exit with 0
	TimedOut  bool // a time limit ended it
	Cancelled bool // somebody ended it
}

// allows tells whether an archive is to be saved after it. What was cancelled is never saved: nobody knows how far it got.
func (e Ending) allows(w keys.When) bool {
	switch {
	case e.Cancelled:
		return false
	case e.TimedOut:
		return w == keys.Always
	case e.Failed:
		return w != keys.OnSuccess
	}
	return w != keys.OnFailure
}

// Save puts the archives' directories into their stores, each by itself and whole or not at all: until an archive is complete there, the old one is. Content that the store has already is not sent
// again. all is what Restore gave. What fails is a warning, and with a.Strict an error after all was tried. A ctx that ends leaves the stores as they were.
func Save(ctx context.Context, log *logs.Log, a Archives, all []*Archive, end Ending) error {
	defer lean()()
	for _, x := range all {
		if !a.policy(x.spec).Pushes() {
			continue
		}
		if x.Saved = Skipped; x.store == nil || !end.allows(x.spec.When) {
			log.Verbosef("%q is not saved", x.Path)
			continue
		}
		began := time.Now()
		err := a.save(ctx, log, x)
		if x.Seconds = time.Since(began).Seconds(); err != nil {
			x.Saved = Failed
			a.warn(log, x, "save", err)
			continue
		}
		x.saySaved(log)
	}
	return a.first(all)
}

func (x *Archive) saySaved(log *logs.Log) {
	switch x.Saved {
	case Unchanged:
		log.Infof("unchanged: %q is in %s as %q, nothing is sent (%.1fs)", x.Path, x.Store, x.Key, x.Seconds)
	case Saved:
		log.Infof("saved: %q as %q: %d files, %s (%s) in %.1fs, %s/s", x.Path, x.Key, x.Files, logs.Bytes(x.Bytes), logs.Bytes(x.Packed), x.Seconds,
			logs.Bytes(int64(float64(x.Bytes)/max(x.Seconds, 0.001))))
	}
}

// save puts one directory into its store.
func (a *Archives) save(ctx context.Context, log *logs.Log, x *Archive) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	root, err := a.opened(ctx, x)
	if err != nil {
		return err
	}
	defer root.Close()
	p := log.Progress()
	defer p.Done()
	o := pack.Options{Level: pack.Level(x.spec.Level), Xattrs: x.spec.Xattrs, Known: x.index, Warn: log.Warnf, Progress: func(entries, bytes int64) {
		p.Updatef("reading %q: %d entries, %s", x.Path, entries, logs.Bytes(bytes))
	}}
	if same, err := a.unchanged(ctx, x, root, o); err != nil || same {
		return err
	}
	f, err := x.store.Temp()
	if err != nil {
		return err
	}
	defer f.Close()
	footer, err := pack.Write(ctx, f, root, o)
	if err != nil {
		return err
	}
	info, err := x.store.Put(ctx, x.Key+suffix, f, store.PutOptions{Progress: func(done, total int64) {
		p.Updatef("putting %q: %s of %s", x.Key, logs.Bytes(done), logs.Bytes(total))
	}})
	if err != nil && !errors.Is(err, store.ErrDuplicate) {
		return err
	}
	x.Saved, x.Files, x.Bytes, x.Packed = Saved, footer.Files, footer.Bytes, info.Size
	return nil
}

// opened opens the directory that is to be saved.
func (a *Archives) opened(ctx context.Context, x *Archive) (*fsx.Dir, error) {
	t, err := openTarget(a.dir(), x.Path, false)
	if err == nil {
		defer t.close()
		var root *fsx.Dir
		if root, err = t.open(); err == nil {
			if err = errors.Join(resume(ctx, root), sweepStages(root)); err == nil {
				return root, nil
			}
			root.Close()
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fail.Errorf(fail.Usage, "there is no such directory").WithHint("let the command make it, or correct the archive's path")
	}
	return nil, err
}

// unchanged tells whether the store has the tree's content under its key already. It reads what may have changed, and is only asked where the store has something.
func (a *Archives) unchanged(ctx context.Context, x *Archive, root *fsx.Dir, o pack.Options) (bool, error) {
	content, ok := a.stored(ctx, x)
	if !ok || x.damaged {
		return false, context.Cause(ctx)
	}
	is, err := pack.Digest(ctx, root, o)
	if err != nil || is.Content != content {
		return false, err
	}
	x.Saved, x.Files, x.Bytes = Unchanged, is.Files, is.Bytes
	return true, nil
}

// stored is the content that the store has under the archive's key, if that can be told cheaply.
func (a *Archives) stored(ctx context.Context, x *Archive) (content [32]byte, ok bool) {
	info, err := x.store.Stat(ctx, x.Key+suffix)
	if err != nil {
		return content, false
	}
	if x.known && x.tag != "" && info.Tag == x.tag {
		return x.content, true
	}
	if info.Size < pack.FooterSize {
		return content, false
	}
	f, _, err := x.store.Get(ctx, x.Key+suffix, store.GetOptions{Last: pack.FooterSize})
	if err != nil {
		return content, false
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return content, false
	}
	end := make([]byte, pack.FooterSize)
	if _, err := f.ReadAt(end, max(0, st.Size()-pack.FooterSize)); err != nil {
		return content, false
	}
	footer, err := pack.ReadFooter(end)
	return footer.Content, err == nil
}

// SaveContext is a context for saves: it ends after d, with an error that says so.
func SaveContext(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return limited(ctx, cmp.Or(d, DefaultBudget))
}
