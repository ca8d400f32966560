package worktree

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"

	"run-task/checkout/internal/ignore"
	"run-task/checkout/internal/index"
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
	ignore   *ignore.Matcher // where ignored files stay
	old      *Old
	keep     []string
	readOnly bool
	uid      uint32
	progress *logs.Progress
	early    *Early
	others   *others
	found
	buf []byte
}

// found is what a scan has found.
type found struct {
	remove  []string // paths; none lies below another
	mounts  []string // strays that stay
	changed bool     // the plan's metadata are not those of the index that is there
	checked int
}

func (f *found) add(more found) {
	f.remove, f.mounts = append(f.remove, more.remove...), append(f.mounts, more.mounts...)
	f.changed = f.changed || more.changed
}

// others are goroutines that scan directories of the plan at the same time, each with a scan of its own.
type others struct {
	free chan struct{}
	mu   sync.Mutex
	found
	err error
}

// start lets another goroutine scan, if one is free.
func (s *scan) start(wait *sync.WaitGroup, descend func(*scan) error) bool {
	select {
	case s.others.free <- struct{}{}:
	default:
		return false
	}
	one := *s
	one.found, one.buf = found{}, nil
	if s.ignore != nil {
		one.ignore = s.ignore.Clone()
	}
	wait.Go(func() {
		err := descend(&one)
		<-s.others.free
		s.others.mu.Lock()
		defer s.others.mu.Unlock()
		s.others.add(one.found)
		s.others.err = cmp.Or(s.others.err, err)
	})
	return true
}

// child is what the plan has at a name: a file, link or submodule, or a directory.
type child struct {
	file *file
	dir  *index.Tree
}

// maxPrefix is how long a path may become: no program gets at what has a longer one in one step (PATH_MAX is 4096).
const maxPrefix = 64 << 10

// place is an open directory, and what decides whether names in it can be removed.
type place struct {
	*fsx.Dir
	prefix string // "" or ends with "/"
	depth  int
	st     fsx.Stat
}

func newScan(ctx context.Context, p *plan, o Options, progress *logs.Progress) *scan {
	return &scan{ctx: ctx, plan: p, clean: o.Clean, old: o.Old, keep: o.Keep, readOnly: o.ReadOnly, uid: uint32(os.Geteuid()), progress: progress, early: o.Early,
		others: &others{free: make(chan struct{}, runtime.GOMAXPROCS(0)-1)}}
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
	if s.clean == KeepIgnored {
		rules, err := s.plan.ignoreRules("")
		if err != nil {
			return err
		}
		s.ignore = ignore.New(nil, rules)
	}
	if err := cmp.Or(s.tracked(place{root, "", 0, st}, s.plan.top), s.others.err); err != nil {
		return err
	}
	s.add(s.others.found)
	slices.Sort(s.remove)
	return nil
}

// children are the names that the plan wants in a directory.
func (p *plan) children(dir *index.Tree, prefix string) map[string]child {
	all := make(map[string]child, len(dir.Subs))
	subs := dir.Subs
	for i := dir.First; i < dir.First+dir.Files; {
		if len(subs) > 0 && subs[0].First == i {
			if p.shows(subs[0]) {
				all[subs[0].Name] = child{dir: subs[0]}
			}
			i += subs[0].Files
			subs = subs[1:]
			continue
		}
		if f := &p.files[i]; !f.Skip {
			all[f.Path[len(prefix):]] = child{file: f}
		}
		i++
	}
	return all
}

// tracked scans a directory of the plan's, or a submodule's: then dir is nil.
func (s *scan) tracked(in place, dir *index.Tree) error {
	names, err := in.Names()
	if err != nil {
		return err
	}
	var known map[string]child
	if dir != nil {
		known = s.plan.children(dir, in.prefix)
	}
	var wait sync.WaitGroup // those that use in
	defer wait.Wait()
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
		is := known[name]
		if is.dir != nil && st.IsDir() && st.UID == s.uid && s.start(&wait, func(one *scan) error { return one.descend(in, name, st, is.dir) }) {
			continue
		}
		if err := s.one(in, name, st, is); err != nil {
			return err
		}
	}
	return nil
}

func (s *scan) one(in place, name string, st fsx.Stat, is child) error {
	f := is.file
	submodule := f != nil && f.Mode == treepath.Gitlink
	switch {
	case (is.dir != nil || submodule) && st.IsDir() && st.UID == s.uid: // or its owner could change what we write
		if submodule {
			f.keep, f.Stat = true, index.StatOf(st) // which git does not compare, and readonly= changes
			if s.clean == None {
				return in.MakeWritable(name)
			}
		}
		return s.descend(in, name, st, is.dir)
	case is.dir != nil || submodule:
		return s.inTheWay(in, name, st)
	case f != nil:
		var err error
		if f.keep, err = s.right(in, name, f, st); err != nil {
			return err
		}
		if f.keep {
			f.repair(st, s.readOnly)
			return nil
		}
		if st.UID == s.uid && (st.IsRegular() || st.IsSymlink()) {
			return s.makeRoom(in, name, f)
		}
		return s.inTheWay(in, name, st)
	case in.prefix == "" && IsLostAndFound(name, st):
		return nil
	}
	if fate := s.fate(in.prefix+name, name, st.IsDir()); fate != stays {
		_, err := s.stray(in, name, st, fate)
		return err
	}
	return nil
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

// restat notes what the metadata of a file are now, which is right.
func (s *scan) restat(f *file, st fsx.Stat) {
	now := index.StatOf(st)
	s.changed = s.changed || f.Stat != now
	f.Stat = now
}

func (s *scan) descend(in place, name string, st fsx.Stat, dir *index.Tree) error {
	full := in.prefix + name
	if slices.Contains(s.keep, full) {
		return mountError(full, nil)
	}
	if mount, err := in.IsMount(name); err != nil || mount {
		return mountError(full, err)
	}
	if s.ignore != nil {
		rules, err := s.plan.ignoreRules(full + "/")
		if err != nil {
			return err
		}
		s.ignore.Enter(name, rules)
		defer s.ignore.Leave()
	}
	sub, err := s.enter(in, name, st)
	if err != nil {
		return err
	}
	defer sub.Close()
	return s.tracked(place{sub, full + "/", in.depth + 1, st}, dir)
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

// right says whether a file is what git would have written: type, x bit and content, and it is ours alone, so that nobody changes it through another
// link or as its owner. Metadata that are still those of an earlier run say so, too.
func (s *scan) right(in place, name string, f *file, st fsx.Stat) (bool, error) {
	if s.checked++; s.checked%100 == 0 {
		s.progress.Updatef("comparing files, %d in all, now %q", len(s.plan.files), in.prefix+name)
	}
	if st.UID != s.uid || st.Nlink != 1 {
		return false, nil
	}
	if f.Mode == treepath.Link {
		return s.sameTarget(in, name, f, st)
	}
	if s.early.wrote(f, st) {
		s.restat(f, st)
		f.early = true
		return true, nil
	}
	if !st.IsRegular() || st.Perm()&0o7000 != 0 || st.Perm()&0o100 != 0 != (f.Mode == treepath.Exec) {
		return false, nil
	}
	if f.known && f.Stat == index.StatOf(st) {
		return true, nil
	}
	return s.sameContent(in, name, f)
}

func (s *scan) sameTarget(in place, name string, f *file, st fsx.Stat) (bool, error) {
	if !st.IsSymlink() {
		return false, nil
	}
	if f.known && f.Stat == index.StatOf(st) {
		return true, nil
	}
	want, err := s.plan.target(f)
	if err != nil {
		return false, err
	}
	target, err := in.Readlink(name)
	s.restat(f, st)
	return target == want, err
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
	if s.buf == nil {
		s.buf = make([]byte, 128<<10)
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
	after, err := fsx.FileStat(r)
	s.restat(f, after)
	return h.Sum() == f.ID && after == before, err
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
