package caches

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/otiai10/copy"
	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
)

// CopySpec is one --copy SRC=DST.
type CopySpec struct{ Src, Dst string }

// Copy copies each Src, a directory or a file, to the path Dst, as whoever we are now: the task's user, to whom the copies
// belong. Dst must not exist or be an empty directory, neither inside the other; missing parents of Dst are made. All
// that fails here is fail.Usage, with nothing written, and so is a FIFO, a socket or a device anywhere in Src.
//
// Contents, permissions, times to the nanosecond, links as they are written, names that share a file, holes and the user's extended attributes are kept, and
// blocks are shared where the file system can. Not kept: owners, and setuid and setgid bits (the file's owner changes, so they would grant another identity).
// Src must not change meanwhile.
//
// A new Dst appears whole or not at all. An existing directory is filled from a staging directory inside it, so that it
// may be a mount point; what a killed Copy left there is removed by the next. A cancelled ctx ends it between two files.
func Copy(ctx context.Context, log *logs.Log, specs []CopySpec) error {
	for _, s := range specs {
		c := copying{CopySpec: s, log: log, progress: log.Progress()}
		err := c.run(ctx)
		c.progress.Done()
		if err != nil {
			return fmt.Errorf("copy %q to %q: %w", s.Src, s.Dst, err)
		}
	}
	return nil
}

const stageName = ".run-task-copy"

type copying struct {
	CopySpec
	log      *logs.Log
	progress *logs.Progress

	src, dst string // without links
	total    survey
	done     int
	chmod    error             // the library drops it
	first    map[uint64]string // of names that share a file: where its copy is
}

func (c *copying) run(ctx context.Context) error {
	for _, p := range []string{c.Src, c.Dst} {
		if p == "" || strings.ContainsRune(p, 0) {
			return fail.Errorf(fail.Usage, "%q is no path", p).WithHint("name a directory or file; for the working directory itself that is \".\"")
		}
	}
	info, err := c.source()
	if err != nil {
		return err
	}
	fill, err := c.destination(info)
	if err != nil {
		return err
	}
	if c.total, err = look(ctx, c.src); err != nil {
		return err
	}
	if fill {
		err = c.fill(ctx, info)
	} else {
		err = c.create(ctx)
	}
	if err != nil {
		return err
	}
	c.log.Infof("copied %q to %q: %d entries, %s", c.Src, c.Dst, c.total.entries, logs.Bytes(c.total.bytes))
	if c.total.setid > 0 {
		c.log.Warnf("%d files in %q lost their setuid or setgid bit", c.total.setid, c.Src)
	}
	return nil
}

func (c *copying) source() (info fs.FileInfo, err error) {
	if c.src, err = filepath.Abs(c.Src); err == nil {
		c.src, err = filepath.EvalSymlinks(c.src)
	}
	if err == nil {
		info, err = os.Lstat(c.src)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fail.Errorf(fail.Usage, "%w", err).WithHint("name a directory or file that exists when the copy is made, after the checkout")
	}
	return info, err
}

// destination checks Dst. fill says that it is an empty directory, rather than missing.
func (c *copying) destination(src fs.FileInfo) (fill bool, err error) {
	abs, err := filepath.Abs(c.Dst)
	if err != nil {
		return false, err
	}
	dir, ok := fsx.Physical(filepath.Dir(abs))
	if !ok {
		return false, fail.Errorf(fail.Usage, "%q leads nowhere", filepath.Dir(abs)).WithHint("name a path without broken links")
	}
	c.dst = filepath.Join(dir, filepath.Base(abs))
	dst, err := os.Lstat(c.dst)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return false, err
	}
	// By identity, since a bind mount gives a directory a second path.
	if below(c.dst, []fs.FileInfo{src}) || (!missing && below(c.src, []fs.FileInfo{dst})) {
		return false, fail.Errorf(fail.Usage, "one is inside the other").WithHint("copy to a directory elsewhere")
	}
	if missing {
		return false, nil
	}
	if !dst.IsDir() || !src.IsDir() {
		return false, fail.Errorf(fail.Usage, "the destination exists").WithHint("name a path that does not exist yet")
	}
	return true, c.empty()
}

// empty wants nothing in Dst, or a staging directory: then all of it is what a killed Copy left.
func (c *copying) empty() error {
	d, err := fsx.Open(c.dst)
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := contents(d)
	if err != nil || len(names) == 0 {
		return err
	}
	if st, err := d.Lstat(stageName); err == nil && st.IsDir() {
		return sweep(d)
	}
	return fail.Errorf(fail.Usage, "the destination is not empty").WithDetails(sample("it holds", names)).
		WithHint("name an empty or missing directory")
}

// sweep empties a directory, the staging directory last, for it says whose the rest is.
func sweep(d *fsx.Dir) error {
	names, err := contents(d)
	if err != nil {
		return err
	}
	for _, n := range names {
		if n != stageName {
			err = errors.Join(err, d.RemoveAll(n))
		}
	}
	if err != nil {
		return err
	}
	return d.RemoveAll(stageName)
}

// create copies to a name beside Dst and renames.
func (c *copying) create(ctx context.Context) (err error) {
	dir, base := filepath.Split(c.dst)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	d, err := fsx.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	defer d.Close()
	stage := "." + base + stageName
	if err := d.RemoveAll(stage); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.RemoveAll(stage))
		}
	}()
	if err := c.tree(ctx, filepath.Join(dir, stage)); err != nil {
		return err
	}
	return d.Rename(stage, base)
}

// fill copies into a directory inside Dst and moves everything up.
func (c *copying) fill(ctx context.Context, src fs.FileInfo) (err error) {
	d, err := fsx.Open(c.dst)
	if err != nil {
		return err
	}
	defer d.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, sweep(d))
		}
	}()
	stage := filepath.Join(c.dst, stageName)
	if err := c.tree(ctx, stage); err != nil {
		return err
	}
	if err := os.Chmod(stage, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(stage)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.moveUp(d, e.Name()); err != nil {
			return err
		}
	}
	if err := d.Rmdir(stageName); err != nil {
		return err
	}
	err = errors.Join(os.Chmod(c.dst, kept(src.Mode())), os.Chtimes(c.dst, src.ModTime(), src.ModTime()))
	if errors.Is(err, fs.ErrPermission) { // a directory of somebody else's that we may fill
		c.log.Warnf("%q keeps its own mode and time: %v", c.Dst, err)
		return nil
	}
	return err
}

// moveUp moves one name out of the staging directory. A directory's ".." changes with that, for which it must be writable.
func (c *copying) moveUp(d *fsx.Dir, name string) error {
	from := stageName + "/" + name
	st, err := d.Lstat(from)
	if err != nil {
		return err
	}
	if !st.IsDir() || st.Perm()&0o200 != 0 {
		return d.Rename(from, name)
	}
	mode := os.FileMode(st.Perm() & 0o777)
	if err := os.Chmod(filepath.Join(c.dst, from), mode|0o200); err != nil {
		return err
	}
	if err := d.Rename(from, name); err != nil {
		return err
	}
	return os.Chmod(filepath.Join(c.dst, name), mode)
}

// tree copies src to a new name. The library is told no more than what it needs: a buffer size or a wrapped reader would
// end the sharing of extents, and workers make it slower. What it would not keep is copied here.
func (c *copying) tree(ctx context.Context, to string) error {
	c.first = map[uint64]string{}
	err := copy.Copy(c.src, to, copy.Options{
		PreserveTimes: true,
		PermissionControl: func(info fs.FileInfo, at string) (func(*error), error) {
			return c.permissions(info, c.src+at[len(to):], at)
		},
		Skip: func(info fs.FileInfo, from, at string) (bool, error) {
			c.done++
			c.progress.Updatef("copying %q: %d of %d entries", c.Src, c.done, c.total.entries)
			if err := context.Cause(ctx); err != nil {
				return false, err
			}
			return c.special(info, from, at)
		},
	})
	return errors.Join(err, c.chmod)
}

// special copies links, names that share a file, and files with holes.
func (c *copying) special(info fs.FileInfo, from, to string) (done bool, err error) {
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		return true, cmp.Or(err, os.Symlink(target, to), setTime(to, info))
	}
	if !info.Mode().IsRegular() {
		return false, nil
	}
	in, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	defer in.Close()
	st, err := fsx.FileStat(in)
	if err != nil || st.Nlink == 1 && !st.Holes() {
		return false, err
	}
	if first, ok := c.first[st.Ino]; ok && st.Nlink > 1 {
		return true, os.Link(first, to)
	}
	c.first[st.Ino] = to
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return false, err
	}
	err = cmp.Or(fsx.CopyContent(out, in, st.Size), copyXattrs(out, in), out.Chmod(kept(info.Mode())))
	return true, errors.Join(err, out.Close(), setTime(to, info))
}

func setTime(path string, info fs.FileInfo) error {
	d, err := fsx.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.SetTime(filepath.Base(path), info.ModTime().Unix(), int64(info.ModTime().Nanosecond()))
}

// copyXattrs copies the user's extended attributes, where both file systems have any.
func copyXattrs(to, from *os.File) error {
	all, err := fsx.UserXattrs(int(from.Fd()))
	for _, x := range all {
		if err == nil {
			err = fsx.SetXattr(int(to.Fd()), x)
		}
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// permissions makes directories private and writable until they are complete. The library's own control would give a file
// that was setuid for its owner the same bit for us.
func (c *copying) permissions(info fs.FileInfo, from, to string) (func(*error), error) {
	if info.IsDir() {
		if err := os.Mkdir(to, 0o700); err != nil {
			return func(*error) {}, err
		}
	}
	err := withBoth(from, to, copyXattrs)
	return func(*error) { c.chmod = errors.Join(c.chmod, os.Chmod(to, kept(info.Mode()))) }, err
}

// withBoth opens two files or directories.
func withBoth(from, to string, do func(to, from *os.File) error) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Open(to)
	if err != nil {
		return err
	}
	defer out.Close()
	return do(out, in)
}

func kept(mode fs.FileMode) fs.FileMode {
	if mode.IsDir() {
		return mode & (fs.ModePerm | fs.ModeSticky)
	}
	return mode & fs.ModePerm
}

// survey is what a walk before the copy finds.
type survey struct {
	entries, setid int
	bytes          int64
}

// look walks a tree and refuses what cannot be copied, before anything is.
func look(ctx context.Context, root string) (s survey, err error) {
	d, err := fsx.Open(filepath.Dir(root))
	if err != nil {
		return s, err
	}
	defer d.Close()
	err = s.add(ctx, d, filepath.Base(root))
	return s, err
}

func (s *survey) add(ctx context.Context, d *fsx.Dir, name string) error {
	st, err := d.Lstat(name)
	if err := errors.Join(err, context.Cause(ctx)); err != nil {
		return err
	}
	s.entries++
	switch {
	case st.IsSymlink():
		return nil
	case st.IsDir():
		return s.addDir(ctx, d, name)
	case !st.IsRegular():
		return fail.Errorf(fail.Usage, "%q is a %s", filepath.Join(d.Name(), name), st.Kind()).WithHint("remove it from what is copied")
	}
	s.bytes += st.Size
	if st.Perm()&0o6000 != 0 {
		s.setid++
	}
	return nil
}

func (s *survey) addDir(ctx context.Context, d *fsx.Dir, name string) error {
	sub, err := d.OpenDir(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	names, err := sub.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := s.add(ctx, sub, n); err != nil {
			return err
		}
	}
	return nil
}
