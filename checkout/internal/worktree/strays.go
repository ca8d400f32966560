package worktree

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
)

// maxPrefix is how long a path may become: no program gets at what has a longer one in one step (PATH_MAX is 4096).
const maxPrefix = 64 << 10

func (s *scan) notOurs(name string, owner uint32) error {
	return fail.Errorf(fail.PurgeCache, "%q belongs to uid %d, uid %d cannot replace it; nothing was removed", name, owner, s.uid).
		WithHint("purge the cache that the checkout is in, or give it to the task's user with --chown")
}

// fate is what becomes of a name that the plan does not have.
type fate int

const (
	goes    fate = iota
	depends      // a directory that goes unless something in it stays
	stays
)

// fate follows git clean and git checkout: what was the earlier commit's and is not this one's goes in any case, and so does what stands where the
// commit has a file outside of the cone, which git would take for a changed one.
func (s *scan) fate(full, name string, dir bool) fate {
	switch {
	case s.clean == All || s.plan.find(full) != nil:
		return goes
	case name == ".git" && s.old.hasSubmodule(path.Dir(full)) && s.plan.hasDir(path.Dir(full)): // git would take the files beside it for those of a repository of their own
		return goes
	case s.clean == KeepIgnored && !s.ignore.Ignored(name, dir):
		if dir {
			return depends
		}
		return goes
	case dir && (s.old.hasDir(full) || s.old.hasFile(full) || s.plan.hasDir(full)): // a "file" that is a directory was a submodule
		return depends
	case !dir && s.old.hasFile(full):
		return goes
	}
	return stays
}

func mountError(name string, err error) error {
	if err != nil {
		return err
	}
	return fail.Errorf(fail.Usage, "%q is a mount point, cache or volume, and the commit has something else there", name).
		WithHint("put it at a path that the repository does not use")
}

// makeRoom has a file of ours replaced when the new one is written.
func (s *scan) makeRoom(in place, name string, f *file) error {
	if mount, err := in.IsMount(name); err != nil || mount || slices.Contains(s.keep, f.Path) {
		return mountError(f.Path, err)
	}
	f.replace = true
	return nil
}

// inTheWay has what stands where the plan has something else removed.
func (s *scan) inTheWay(in place, name string, st fsx.Stat) error {
	mounted, err := s.stray(in, name, st, goes)
	if err != nil || mounted {
		return mountError(in.prefix+name, err)
	}
	return nil
}

// stray has a name and all below it removed, but for mount points, what stays by its fate, and what leads to these: some says that there are such.
func (s *scan) stray(in place, name string, st fsx.Stat, f fate) (some bool, err error) {
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
		if some, err = s.inside(in, name, st, f); err != nil || some {
			return some, err
		}
	}
	s.remove = append(s.remove[:before], full) // instead of what is below it
	return false, nil
}

// inside looks through a stray directory. An empty one can be removed whoever owns it.
func (s *scan) inside(in place, name string, st fsx.Stat, f fate) (some bool, err error) {
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
	if f == depends && s.ignore != nil {
		if slices.Contains(names, ".git") { // a repository of its own is no part of this one
			f = goes
		}
		s.ignore.Enter(name, s.strayRules(sub, full))
		defer s.ignore.Leave()
	}
	for _, n := range names {
		below, err := sub.Lstat(n)
		if err != nil {
			return false, err
		}
		fate := goes
		if f == depends {
			fate = s.fate(full+"/"+n, n, below.IsDir())
		}
		more := fate == stays
		if !more {
			if more, err = s.stray(place{sub, full + "/", in.depth + 1, st}, n, below, fate); err != nil {
				return false, err
			}
		}
		some = some || more
	}
	return some, nil
}

// enter opens a directory; one of ours that lacks permissions gets them first.
func (s *scan) enter(in place, name string, st fsx.Stat) (*fsx.Dir, error) {
	if in.depth > fsx.TooDeep || len(in.prefix) > maxPrefix {
		return nil, fail.Errorf(fail.PurgeCache, "%.100q and more: directories are too deep in each other to be looked through", in.prefix).WithHint("purge the cache that the checkout is in")
	}
	err := error(nil)
	if s.uid == st.UID && st.Perm()&0o700 != 0o700 { // root needs no permission in others'
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

// writable is about directories of others: ours have been made writable.
func (s *scan) writable(d *fsx.Dir, name string, st fsx.Stat) error {
	if s.uid == st.UID {
		return nil
	}
	err := d.Writable()
	if errors.Is(err, fs.ErrPermission) {
		return s.notOurs(name, st.UID)
	}
	return err
}

// delete removes what the scan found, and says so where --verbose asks.
func (s *scan) delete(log *logs.Log, root *fsx.Dir) error {
	for _, name := range s.remove {
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		log.Verbosef("remove %q", name)
		if err := root.RemoveAll(name); err != nil {
			return removeError(path.Join(root.Name(), name), err)
		}
	}
	return nil
}

func removeError(name string, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fail.Errorf(fail.PurgeCache, "%q cannot be removed: %w", name, err).WithHint("purge the cache that the checkout is in")
}
