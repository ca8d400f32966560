package worktree

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"

	"run-task/checkout/internal/treepath"
	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
)

// scan compares what is there with the plan: which files are right, what has to go, and whether we may remove it. It changes
// nothing but the permissions of our own directories that it could not look into otherwise, so that a worktree that we cannot
// make right is left as it was.
type scan struct {
	ctx      context.Context
	plan     *plan
	clean    Clean
	keep     []string
	uid      uint32
	progress *logs.Progress
	early    *Early

	remove  []string // paths; none lies below another
	mounts  []string // strays that stay
	checked int
	buf     []byte
}

// place is an open directory, and what decides whether names in it can be removed.
type place struct {
	*fsx.Dir
	prefix string // "" or ends with "/"
	st     fsx.Stat
}

func newScan(ctx context.Context, p *plan, o Options, progress *logs.Progress) *scan {
	return &scan{ctx: ctx, plan: p, clean: o.Clean, keep: o.Keep, uid: uint32(os.Geteuid()), progress: progress, early: o.Early, buf: make([]byte, 128<<10)}
}

func (s *scan) notOurs(name string, owner uint32) error {
	return fail.Errorf(fail.PurgeCache, "%q belongs to uid %d, uid %d cannot replace it; nothing was removed", name, owner, s.uid).
		WithHint("purge the cache that the checkout is in, or give it to the task's user with --chown")
}

// top scans the worktree. Its .git is never looked at.
func (s *scan) top(root *fsx.Dir) error {
	st, err := root.Stat()
	if err != nil {
		return err
	}
	if err := s.writable(root, ".", st); err != nil {
		return err
	}
	return s.tracked(place{root, "", st})
}

// tracked scans a directory in which the plan has files, or a submodule's.
func (s *scan) tracked(in place) error {
	names, err := in.Names()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if in.prefix == "" && name == ".git" {
			continue
		}
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		st, err := in.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := s.one(in, name, st); err != nil {
			return err
		}
	}
	return nil
}

func (s *scan) one(in place, name string, st fsx.Stat) error {
	f, dir := s.plan.find(in.prefix + name)
	submodule := f != nil && f.mode == treepath.Gitlink
	switch {
	case (dir || submodule) && st.IsDir():
		if submodule && s.clean == None {
			return nil
		}
		return s.descend(in, name, st)
	case dir || submodule:
		return s.inTheWay(in, name, st)
	case f != nil:
		var err error
		if f.keep, err = s.right(in, name, f, st); err != nil || f.keep {
			return err
		}
		return s.inTheWay(in, name, st)
	case s.clean == All && !(in.prefix == "" && IsLostAndFound(name, st)):
		_, err := s.stray(in, name, st)
		return err
	}
	return nil
}

func (s *scan) descend(in place, name string, st fsx.Stat) error {
	full := in.prefix + name
	if slices.Contains(s.keep, full) {
		return mountError(full, nil)
	}
	if mount, err := in.IsMount(name); err != nil || mount {
		return mountError(full, err)
	}
	sub, err := s.enter(in, name, st)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := s.writable(sub, full, st); err != nil {
		return err
	}
	return s.tracked(place{sub, full + "/", st})
}

func mountError(name string, err error) error {
	if err != nil {
		return err
	}
	return fail.Errorf(fail.Usage, "%q is a mount point, cache or volume, and the commit has something else there", name).
		WithHint("put it at a path that the repository does not use")
}

// inTheWay has what stands where the plan has something else removed.
func (s *scan) inTheWay(in place, name string, st fsx.Stat) error {
	mounted, err := s.stray(in, name, st)
	if err != nil || mounted {
		return mountError(in.prefix+name, err)
	}
	return nil
}

// stray has a name and all below it removed, but for mount points and what leads to them: mounted says that there are some.
func (s *scan) stray(in place, name string, st fsx.Stat) (mounted bool, err error) {
	if s.ctx.Err() != nil {
		return false, context.Cause(s.ctx)
	}
	full := in.prefix + name
	if slices.Contains(s.keep, full) {
		return true, nil
	}
	if mount, err := in.IsMount(name); err != nil {
		return false, err
	} else if mount {
		s.mounts = append(s.mounts, full)
		return true, nil
	}
	if in.st.Mode&unix.S_ISVTX != 0 && s.uid != 0 && s.uid != in.st.UID && s.uid != st.UID {
		return false, s.notOurs(full, st.UID)
	}
	before := len(s.remove)
	if st.IsDir() {
		if mounted, err = s.inside(in, name, st); err != nil || mounted {
			return mounted, err
		}
	}
	s.remove = append(s.remove[:before], full) // instead of what is below it
	return false, nil
}

// inside looks through a stray directory. An empty one can be removed whoever owns it.
func (s *scan) inside(in place, name string, st fsx.Stat) (mounted bool, err error) {
	full := in.prefix + name
	sub, err := s.enter(in, name, st)
	if err != nil {
		return false, err
	}
	defer sub.Close()
	names, err := sub.Names()
	if err != nil || len(names) == 0 {
		return false, err
	}
	if err := s.writable(sub, full, st); err != nil {
		return false, err
	}
	for _, n := range names {
		below, err := sub.Lstat(n)
		if err != nil {
			return false, err
		}
		m, err := s.stray(place{sub, full + "/", st}, n, below)
		if err != nil {
			return false, err
		}
		mounted = mounted || m
	}
	return mounted, nil
}

// enter opens a directory; one of ours that lacks permissions gets them first.
func (s *scan) enter(in place, name string, st fsx.Stat) (*fsx.Dir, error) {
	err := error(nil)
	if s.uid == 0 || s.uid == st.UID {
		err = in.MakeWritable(name)
	}
	var sub *fsx.Dir
	if err == nil {
		sub, err = in.OpenDir(name)
	}
	if errors.Is(err, fs.ErrPermission) {
		err = s.notOurs(in.prefix+name, st.UID)
	}
	return sub, err
}

func (s *scan) writable(d *fsx.Dir, name string, st fsx.Stat) error {
	err := d.Writable()
	if errors.Is(err, fs.ErrPermission) {
		return s.notOurs(name, st.UID)
	}
	return err
}

// right says whether a file is what git would have written, whatever its times say: type, x bit and content, and it is ours
// alone, so that nobody changes it through another link or as its owner.
func (s *scan) right(in place, name string, f *file, st fsx.Stat) (bool, error) {
	s.checked++
	s.progress.Updatef("%d of %d files compared", s.checked, len(s.plan.files))
	if st.UID != s.uid || st.Nlink != 1 {
		return false, nil
	}
	if f.mode == treepath.Link {
		if !st.IsSymlink() {
			return false, nil
		}
		target, err := in.Readlink(name)
		f.st = st
		return target == f.link, err
	}
	if s.early.wrote(f, st) {
		f.st, f.early = st, true
		return true, nil
	}
	if !st.IsRegular() || st.Perm()&0o7000 != 0 || st.Perm()&0o100 != 0 != (f.mode == treepath.Exec) {
		return false, nil
	}
	return s.sameContent(in, name, f)
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
	f.st, err = fsx.FileStat(r)
	return h.Sum() == f.id && f.st == before, err
}

// delete removes what the scan found, and says so where --verbose asks.
func (s *scan) delete(log *logs.Log, root *fsx.Dir) error {
	for _, name := range s.remove {
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		log.Verbosef("remove %q", name)
		if err := root.RemoveAll(name); err != nil {
			if !errors.Is(err, fs.ErrPermission) {
				return err
			}
			return fail.Errorf(fail.PurgeCache, "%q cannot be removed: %w", path.Join(root.Name(), name), err).
				WithHint("purge the cache that the checkout is in")
		}
	}
	return nil
}
