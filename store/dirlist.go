package store

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fsx"
)

func (d *dir) List(ctx context.Context, prefix string) (all []Info, err error) {
	err = d.walk(ctx, func(_ *fsx.Dir, key string, st *unix.Stat_t) error {
		if strings.HasPrefix(key, prefix) && st.Mode&unix.S_IFMT == unix.S_IFREG && ValidKey(key) == nil {
			all = append(all, infoOf(key, st))
		}
		return nil
	}, func(in string) bool { return strings.HasPrefix(in+"/", prefix) || strings.HasPrefix(prefix, in+"/") })
	slices.SortFunc(all, func(a, b Info) int { return cmp.Compare(a.Key, b.Key) })
	return all, err
}

// Sweep goes by the later of modification and change: a file that was just renamed may have old content.
func (d *dir) Sweep(ctx context.Context, before time.Time) (n int, bytes int64, err error) {
	err = d.walk(ctx, func(parent *fsx.Dir, name string, st *unix.Stat_t) error {
		base := path.Base(name)
		if !strings.HasPrefix(base, tempPrefix) || st.Mode&unix.S_IFMT != unix.S_IFREG ||
			!time.Unix(st.Mtim.Unix()).Before(before) || !time.Unix(st.Ctim.Unix()).Before(before) {
			return nil
		}
		err := parent.Unlink(base)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			n, bytes = n+1, bytes+st.Size
		}
		return err
	}, func(string) bool { return true })
	return n, bytes, err
}

// walk visits what is below the root, directories that enter does not want left out. What vanishes meanwhile is passed over.
func (d *dir) walk(ctx context.Context, visit func(parent *fsx.Dir, name string, st *unix.Stat_t) error, enter func(in string) bool) error {
	root, err := fsx.Open(d.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	return walk(ctx, root, "", visit, enter)
}

func walk(ctx context.Context, at *fsx.Dir, in string, visit func(*fsx.Dir, string, *unix.Stat_t) error, enter func(string) bool) error {
	names, err := at.Names()
	for _, base := range names {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		name := path.Join(in, base)
		var st unix.Stat_t
		err := unix.Fstatat(at.Fd(), base, &st, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case err == unix.ENOENT:
		case err != nil:
			return &fs.PathError{Op: "lstat", Path: path.Join(at.Name(), base), Err: err}
		case st.Mode&unix.S_IFMT != unix.S_IFDIR:
			if err := visit(at, name, &st); err != nil {
				return err
			}
		case ValidKey(name) == nil && enter(name): // no key leads into any other
			if err := descend(ctx, at, base, name, visit, enter); err != nil {
				return err
			}
		}
	}
	return err
}

func descend(ctx context.Context, at *fsx.Dir, base, name string, visit func(*fsx.Dir, string, *unix.Stat_t) error, enter func(string) bool) error {
	sub, err := at.OpenDir(base)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer sub.Close()
	return walk(ctx, sub, name, visit, enter)
}

// Delete takes the object out of the way before it looks at it for the last time, and puts it back if it is another one: so none that was put meanwhile is lost.
func (d *dir) Delete(ctx context.Context, i Info) error {
	if err := ready(ctx, i.Key); err != nil {
		return err
	}
	root, err := fsx.Open(d.root)
	if err != nil {
		return unlessMissing(d.missing(i.Key, err))
	}
	defer root.Close()
	now, err := d.stat(root, i.Key)
	if err != nil {
		return unlessMissing(err)
	}
	if now.Tag != i.Tag {
		return ErrConflict
	}
	tmp := path.Join(path.Dir(i.Key), tempName())
	if err := root.Rename(i.Key, tmp); err != nil {
		return unlessMissing(err)
	}
	var st unix.Stat_t
	if err := lstat(root, tmp, &st); err != nil {
		return unlessMissing(err)
	}
	if infoOf(i.Key, &st).Tag != i.Tag {
		if err = root.Link(tmp, i.Key); errors.Is(err, fs.ErrExist) {
			err = nil // an even newer one
		}
		if err == nil {
			err = root.Unlink(tmp)
		}
		return cmp.Or(err, ErrConflict)
	}
	if err := root.Unlink(tmp); err != nil {
		return unlessMissing(err)
	}
	for in := path.Dir(i.Key); in != "."; in = path.Dir(in) {
		if root.Rmdir(in) != nil {
			break
		}
	}
	return nil
}

func unlessMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
