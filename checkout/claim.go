package checkout

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"run-task/checkout/internal/worktree"
	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
)

// Below .git, run-task/ is ours: its being there says that the worktree is ours to clean.
const (
	gitName  = ".git"
	ownDir   = "run-task"
	markName = gitName + "/" + ownDir
	lockFile = ownDir + "/lock"

	// asideName is where our .git grows as long as the directory is somebody else's.
	asideName = ".git.run-task"
)

// lockBudget is how long we wait for another checkout into the same directory.
const lockBudget = 10 * time.Minute

// gitdir is a worktree's .git directory, of which everything is ours and nothing of what we find there is trusted: packs are received again, the rest is
// written anew.
type gitdir struct {
	root  *fsx.Dir
	dir   *fsx.Dir
	early *worktree.Early
	aside bool     // dir is called asideName until begin
	in    *fsx.Dir // quarantine of packs
	packs *fsx.Dir // where packs are, if one was opened
	old   *worktree.Old
	held  *os.File // the lock, or one that we wait for
	alone bool     // it is ours
	keep  []string // paths in the worktree that are not ours to touch
}

// claim makes sure that we may clean the directory, marks it as ours if nobody else has anything in it, and locks it. What somebody else has there is
// not touched before begin.
func claim(ctx context.Context, log *logs.Log, root *fsx.Dir, keep []string, mayClean bool) (*gitdir, error) {
	for tries := 0; ; tries++ {
		g, err := open(root, keep, mayClean)
		current := false
		if err == nil {
			if err = g.lock(ctx, log); err == nil {
				current, err = g.current()
			}
			if g.alone = current; current && g.aside { // or another one put its .git in place after we looked
				var ours bool
				ours, _, err = g.look()
				current = !ours
			}
			if current && err == nil {
				err = g.distrust()
			}
			if current && err == nil {
				return g, nil
			}
			g.close()
		}
		if err != nil && (tries == 1000 || !errors.Is(err, fs.ErrNotExist)) { // or another checkout put it elsewhere while we looked or waited
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

func open(root *fsx.Dir, keep []string, mayClean bool) (*gitdir, error) {
	g := &gitdir{root: root, keep: keep}
	ours, names, err := g.look()
	switch {
	case err != nil:
		return nil, foreign(root, gitName, err)
	case !ours && len(names) > 0 && !mayClean:
		return nil, fail.Errorf(fail.Usage, "the directory is not empty and run-task did not make it: it holds %q", names[:min(len(names), 5)]).
			WithHint("choose a missing or empty directory, or --adopt to have it cleaned: all that is not the commit's is removed")
	}
	g.aside = !ours && len(names) > 0
	if g.aside {
		if err := g.mayStandAside(); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{g.name(), g.name() + "/" + ownDir} {
		if err := directory(root, name); err != nil {
			return nil, foreign(root, g.name(), err)
		}
	}
	if g.dir, err = root.OpenDir(g.name()); err != nil {
		return nil, err
	}
	return g, nil
}

// mayStandAside looks whether the name is free or ours, and whether we shall be able to put our .git in the place of what is there.
func (g *gitdir) mayStandAside() error {
	free, err := g.asideIsFree()
	if err != nil {
		return err
	}
	if !free {
		return fail.Errorf(fail.Usage, "%q is in the way, and run-task did not make it", asideName).WithHint("remove or rename it")
	}
	in, err := g.root.Stat()
	if err != nil {
		return err
	}
	st, err := g.root.Lstat(gitName)
	if err == nil && in.Mode&unix.S_ISVTX != 0 && os.Geteuid() != 0 && os.Geteuid() != int(in.UID) && os.Geteuid() != int(st.UID) {
		return foreign(g.root, gitName, &fs.PathError{Op: "remove", Path: g.root.Name() + "/" + gitName, Err: fs.ErrPermission})
	}
	return nil
}

// asideIsFree tells whether there is nothing of the name, or what a run made or has just begun to make or to remove: a directory with our mark, or an
// empty one.
func (g *gitdir) asideIsFree() (bool, error) {
	st, err := g.root.Lstat(asideName)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil || !st.IsDir() {
		return false, err
	}
	if mount, err := g.root.IsMount(asideName); err != nil || mount {
		return false, err
	}
	d, err := g.root.OpenDir(asideName)
	if errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer d.Close()
	names, err := d.Names()
	if err != nil || !slices.Contains(names, ownDir) {
		return len(names) == 0, err
	}
	mount, err := d.IsMount(ownDir)
	return !mount, err
}

func (g *gitdir) name() string {
	if g.aside {
		return asideName
	}
	return gitName
}

// others are the names in the directory that are neither ours nor kept nor a volume's own.
func (g *gitdir) others() ([]string, error) {
	names, err := g.root.Names()
	slices.Sort(names)
	return slices.DeleteFunc(names, func(n string) bool {
		st, err := g.root.Lstat(n)
		return err == nil && worktree.IsLostAndFound(n, st) || leadsTo(g.root, n, g.keep)
	}), err
}

// look tells whether the directory has our mark, or else what is in it. A .git that is empty is a mark, too: what a kill between two mkdirs leaves,
// or another checkout that has just begun.
func (g *gitdir) look() (ours bool, names []string, err error) {
	for range 2 { // the second look sees what that other one made after we looked for the mark
		st, err := g.root.Lstat(markName)
		if errors.Is(err, fs.ErrPermission) && g.root.MakeWritable(gitName) == nil {
			st, err = g.root.Lstat(markName)
		}
		if err == nil && st.IsDir() && int(st.UID) == os.Geteuid() {
			top, err := g.root.Lstat(gitName)
			if err == nil && int(top.UID) == os.Geteuid() {
				return true, nil, nil
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			return false, nil, err
		}
		names, err = g.others()
		if err != nil || len(names) == 0 {
			return false, nil, err
		}
		if slices.Equal(names, []string{gitName}) && isEmpty(g.root, gitName) {
			return true, nil, nil
		}
	}
	return false, names, nil
}

func isEmpty(d *fsx.Dir, name string) bool {
	sub, err := d.OpenDir(name)
	if err != nil {
		return false
	}
	defer sub.Close()
	names, err := sub.Names()
	return err == nil && len(names) == 0
}

// directory makes a directory of ours that can be listed and changed, also where there is something else of that name.
func directory(d *fsx.Dir, name string) error {
	if st, err := d.Lstat(name); err == nil && (!st.IsDir() || int(st.UID) != os.Geteuid()) {
		if err := d.RemoveAll(name); err != nil {
			return err
		}
	}
	if err := d.Mkdir(name, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.MakeWritable(name)
}

// foreign explains an EACCES by whose the file is: a cache that another user filled.
func foreign(d *fsx.Dir, name string, err error) error {
	if errors.Is(err, fsx.ErrTooDeep) {
		return fail.Errorf(fail.PurgeCache, "%.200s and more: %w", path.Join(d.Name(), name), fsx.ErrTooDeep).WithHint("purge the cache that the checkout is in")
	}
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	st, lerr := d.Lstat(name)
	if lerr != nil {
		st, lerr = d.Stat()
	}
	if lerr == nil && int(st.UID) != os.Getuid() {
		return fail.Errorf(fail.PurgeCache, "%w: it belongs to uid %d, we are uid %d", err, st.UID, os.Getuid()).WithHint("purge the cache, or give it to the user with --chown")
	}
	return err
}

func (g *gitdir) close() {
	if g.alone && g.aside { // it came to nothing
		g.dir.RemoveAll(inDir) // the lock goes last: what is there then may be the next one's
		g.root.RemoveAll(asideName)
	}
	if g.held != nil {
		g.held.Close()
	}
	for _, d := range []*fsx.Dir{g.in, g.packs} {
		if d != nil {
			d.Close()
		}
	}
	g.dir.Close()
}

// lock keeps two checkouts out of one worktree.
func (g *gitdir) lock(ctx context.Context, log *logs.Log) error {
	if st, err := g.dir.Lstat(lockFile); err == nil && (!st.IsRegular() || int(st.UID) != os.Geteuid()) {
		if err := g.dir.RemoveAll(lockFile); err != nil {
			return foreign(g.dir, lockFile, err)
		}
	}
	f, err := g.dir.OpenFile(lockFile, unix.O_RDWR|unix.O_CREAT, 0o666)
	if errors.Is(err, fs.ErrPermission) && g.dir.RemoveAll(lockFile) == nil { // see current
		f, err = g.dir.OpenFile(lockFile, unix.O_RDWR|unix.O_CREAT, 0o666)
	}
	if err != nil {
		return foreign(g.dir, lockFile, err)
	}
	g.held = f
	limited, cancel := context.WithTimeout(ctx, lockBudget)
	defer cancel()
	err = fsx.Lock(limited, f, func() { log.Infof("waiting for another checkout into %q", g.root.Name()) })
	if errors.Is(err, context.DeadlineExceeded) {
		return fail.Errorf(fail.Busy, "another checkout into this directory took longer than %s", lockBudget).WithHint("give each task a directory of its own")
	}
	return err
}

// current tells whether the lock that we hold is the one that stands there.
func (g *gitdir) current() (bool, error) {
	ours, err := fsx.FileStat(g.held)
	if err != nil {
		return false, err
	}
	st, err := g.root.Lstat(g.name() + "/" + lockFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return st.Dev == ours.Dev && st.Ino == ours.Ino, err
}

// distrust takes the seal away if anything that it stands for is another user's: all of it is received again then, and written anew.
func (g *gitdir) distrust() error {
	for _, name := range []string{"objects", packDir, "index", stateFile, sealFile} {
		if st, err := g.dir.Lstat(name); err == nil && int(st.UID) != os.Geteuid() {
			return foreign(g.dir, ownDir, g.dir.RemoveAll(sealFile))
		}
	}
	return nil
}

// begin takes HEAD away, or puts our .git in the place of what is there: from here until finish this is no repository.
func (g *gitdir) begin() error {
	if !g.aside {
		if err := g.dir.RemoveAll("HEAD"); err != nil {
			return foreign(g.dir, "HEAD", err)
		}
		return g.dir.Sync(".")
	}
	if err := g.root.RemoveAll(gitName); err != nil {
		return foreign(g.root, gitName, err)
	}
	if err := g.root.Rename(asideName, gitName); err != nil {
		return err
	}
	g.aside = false
	*g.dir = *fsx.FromFd(g.dir.Fd(), g.root.Name()+"/"+gitName)
	return g.root.Sync(".")
}

// mounted finds what would be in the way halfway through the .git that is to be made anew: something mounted, or what we cannot remove.
func (g *gitdir) mounted() error {
	for _, name := range []string{gitName, asideName} {
		at, err := mountIn(g.root, name, fsx.TooDeep)
		if err != nil {
			return err
		}
		if at != "" {
			return fail.Errorf(fail.Usage, "%q is a mount point, and .git is made anew", at).WithHint("mount it elsewhere")
		}
	}
	return nil
}

// mountIn changes nothing but the permissions of our own directories that it could not look into otherwise. Its errors are about what we cannot remove.
func mountIn(d *fsx.Dir, name string, levels int) (string, error) {
	st, err := d.Lstat(name)
	if err != nil || !st.IsDir() {
		return "", ignoreMissing(err)
	}
	if mount, err := d.IsMount(name); err != nil || mount {
		return name, err
	}
	if levels == 0 {
		return "", foreign(d, name, fsx.ErrTooDeep)
	}
	ours := int(st.UID) == os.Geteuid()
	if ours {
		err = d.MakeWritable(name)
	}
	var sub *fsx.Dir
	if err == nil {
		sub, err = d.OpenDir(name)
	}
	if err != nil {
		return "", foreign(d, name, ignoreMissing(err))
	}
	defer sub.Close()
	names, err := sub.Names()
	if err != nil {
		return "", ignoreMissing(err)
	}
	for _, n := range names {
		at, err := mountIn(sub, n, levels-1)
		if at != "" {
			at = name + "/" + at
		}
		if err != nil || at != "" {
			return at, err
		}
	}
	if len(names) == 0 || ours {
		return "", nil
	}
	if err = sub.Writable(); err == nil && os.Geteuid() != 0 && st.Mode&unix.S_ISVTX != 0 {
		err = &fs.PathError{Op: "empty", Path: sub.Name(), Err: fs.ErrPermission}
	}
	return "", foreign(d, name, err)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
