// Package worktree makes a directory hold exactly one tree of git's, and writes git's index for it. It trusts neither the
// tree nor what it finds in the directory: every path is checked before anything is written, a file that stays is one whose
// content was hashed just now, and nothing is ever opened or written through a link.
package worktree

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"

	"run-task/checkout/internal/index"
	"run-task/checkout/internal/odb"
	"run-task/checkout/internal/treepath"
	"run-task/internal/fsx"
	"run-task/internal/logs"
)

// Source gives objects by name, as odb.Store does. The bytes are proven to have that name; they are only read.
type Source interface {
	// Read gives an object whole, but for blobs that are too large for that: odb.ErrLarge.
	Read(id plumbing.Hash) (plumbing.ObjectType, []byte, error)
	// Reader streams an object of any size; the end of one that has not that name is an error and not io.EOF.
	Reader(id plumbing.Hash) (plumbing.ObjectType, int64, io.ReadCloser, error)
}

// Clean says what happens to files that are not in the tree.
type Clean int

const (
	All         Clean = iota // they are removed: strays, ignored files, nested repositories; a volume's own lost+found stays
	KeepIgnored              // those that git ignores stay (gitignore(5)), the rest is removed
	None                     // they stay, unless they stand where the tree has something else
)

// Options are Write's; the zero value cleans all.
type Options struct {
	Clean    Clean
	Cone     *Cone    // what of the tree is wanted, nil for all
	ReadOnly bool     // leave files and directories, root included, without write permission; else what is the tree's gets its owner's
	Keep     []string // paths that are somebody else's, such as a cache inside the worktree: they and what is below them are not looked at

	// Submodules, if not nil, is called with the submodules in the cone, before anything is changed, and tells the paths of those that are the caller's: their
	// directories are made where they are missing, and what is in them is not looked at; what stands in their place and is no directory of ours is
	// replaced. The others become empty directories. Its error ends Write.
	Submodules func([]Submodule) (callers []string, err error)

	Early *Early // what it wrote into root is right, if nil nothing was
	Old   *Old   // what an earlier Write left here, nil if nobody knows

	// Begin, if not nil, is called when all that can be refused was looked at and before anything is changed, and not at all if nothing is to be.
	// Its error ends Write.
	Begin func() error
}

// IsLostAndFound recognises, in a worktree's top directory, the one that every fresh ext4 volume has: it stays.
func IsLostAndFound(name string, st fsx.Stat) bool {
	return name == "lost+found" && st.IsDir() && st.UID == 0
}

// Summary is what Write did.
type Summary struct {
	Files    int      // of the tree, links included, submodules not
	Written  int      // of them, because they were missing or not right
	Removed  int      // strays and what was replaced; a directory counts once
	Bytes    int64    // written
	Changed  bool     // something was, if only the index
	Warnings []string // about the tree
	Notes    []string // about what is in the directory, and what was asked for
}

// Write brings root to exactly tree and then writes gitdir's "index", atomically; root's .git is not touched otherwise. A
// file that is there, ours, with one link, and has the right x bit and content stays as it is, mtime included.
// New files get 0666 or 0777 less the umask. On an error the index is the old one and root may hold anything.
//
// Nothing is changed if the tree breaks a path rule or has objects of the wrong type for its directories and links
// (fail.BadData), if something that has to go belongs to another uid (fail.PurgeCache) or is a mount point or kept (fail.Usage). Mount
// points among strays are left alone. Full and read-only disks are fail.IO; ctx ends it between files.
//
// Summary.Warnings and Notes have one line for each class of thing that git would have done and Write does not: they are for the caller to
// print. .gitattributes are read, but no content is converted.
func Write(ctx context.Context, log *logs.Log, root, gitdir *fsx.Dir, tree plumbing.Hash, objects Source, o Options) (Summary, error) {
	p, err := makePlan(ctx, tree, objects, o.Old, o.Cone)
	if err != nil {
		return Summary{}, err
	}
	if err := p.handOver(o.Submodules); err != nil {
		return Summary{}, err
	}
	progress := log.Progress()
	defer progress.Done()
	s := newScan(ctx, p, o, progress)
	if err := s.top(root); err != nil {
		return Summary{}, err
	}
	w := &writer{ctx: ctx, root: root, plan: p, readOnly: o.ReadOnly, progress: progress, done: &tally{}}
	w.sum.Notes = slices.Concat(class("mount points among what is not in the commit, left alone", slices.Sorted(slices.Values(s.mounts))),
		class("directories in sparse= that the commit does not have", o.Cone.missing(p)), class("submodules, left as empty directories", p.paths(p.emptied)))
	w.sum.Changed = !p.same || s.changed || len(s.remove) > 0 || slices.ContainsFunc(p.files, func(f file) bool { return !f.keep || f.perm != 0 })
	if o.Begin != nil && w.sum.Changed {
		if err := o.Begin(); err != nil {
			return Summary{}, err
		}
	}
	if err := s.delete(log, root); err != nil {
		return Summary{}, err
	}
	w.sum.Removed = len(s.remove) + replaced(p)
	defer w.close()
	if err := w.all(); err != nil {
		return w.sum, err
	}
	if o.ReadOnly {
		if err := w.protect(p.top, ""); err != nil {
			return w.sum, err
		}
	}
	if p.same {
		w.sum.Warnings = o.Old.Warnings
	} else {
		w.sum.Warnings, err = p.warnings()
	}
	if err == nil && w.sum.Changed {
		err = writeIndex(gitdir, p)
	}
	return w.sum, err
}

// writer is one of the goroutines that write.
type writer struct {
	ctx      context.Context
	root     *fsx.Dir
	plan     *plan
	readOnly bool
	progress *logs.Progress
	done     *tally
	sum      Summary

	dir     *fsx.Dir // the directory last used
	dirPath string
}

// tally is what all writers have done so far, for the line of progress.
type tally struct{ files, bytes atomic.Int64 }

// writers is how many goroutines write: creating files is the file system's work, which may be done for several at a time also on one core.
const writers = 4

// all writes regular files and submodules' directories, and then the links: while files are written there is none of the tree's.
func (w *writer) all() error {
	for _, links := range []bool{false, true} {
		var todo []*file
		for i := range w.plan.files {
			f := &w.plan.files[i]
			if f.Mode != treepath.Gitlink && !f.Skip && !links {
				w.sum.Files++
			}
			if f.early && !links {
				w.sum.Written++
				w.sum.Bytes += int64(f.Stat.Size())
			}
			if links == (f.Mode == treepath.Link) && (!f.keep || f.perm != 0) {
				todo = append(todo, f)
			}
		}
		if err := w.together(todo); err != nil {
			return err
		}
	}
	return nil
}

// together has several goroutines write files, each a run of neighbours at a time.
func (w *writer) together(todo []*file) error {
	const run = 32
	var next atomic.Int64
	var wait sync.WaitGroup
	some := make([]writer, min(writers, (len(todo)+run-1)/run))
	errs := make([]error, len(some))
	for i := range some {
		some[i] = writer{ctx: w.ctx, root: w.root, plan: w.plan, readOnly: w.readOnly, progress: w.progress, done: w.done}
		wait.Go(func() {
			defer some[i].close()
			for errs[i] == nil {
				from := int(next.Add(run)) - run
				if from >= len(todo) {
					return
				}
				for _, f := range todo[from:min(from+run, len(todo))] {
					if errs[i] = cmp.Or(context.Cause(w.ctx), errs[i]); errs[i] == nil {
						errs[i] = some[i].one(f)
					}
				}
			}
			next.Add(int64(len(todo))) // the others end, too
		})
	}
	wait.Wait()
	for i := range some {
		w.sum.Written += some[i].sum.Written
		w.sum.Bytes += some[i].sum.Bytes
	}
	return cmp.Or(errs...)
}

func (w *writer) one(f *file) error {
	if f.perm != 0 {
		return w.chmod(f)
	}
	if f.Mode == treepath.Gitlink {
		dir, err := w.open(f.Path)
		if err != nil {
			return err
		}
		return f.restat(dir.Stat())
	}
	w.sum.Written++
	dirName, name := path.Split(f.Path)
	dir, err := w.open(strings.TrimSuffix(dirName, "/"))
	if err != nil {
		return err
	}
	if f.replace {
		if err := dir.Unlink(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removeError(path.Join(w.root.Name(), f.Path), err)
		}
	}
	if f.Mode == treepath.Link {
		return w.link(dir, name, f)
	}
	return w.file(dir, name, f)
}

func (w *writer) link(dir *fsx.Dir, name string, f *file) error {
	target, err := w.plan.target(f)
	if err != nil {
		return err
	}
	if err := dir.Symlink(target, name); err != nil {
		return err
	}
	return f.restat(dir.Lstat(name))
}

// restat notes the metadata of what was just written.
func (f *file) restat(st fsx.Stat, err error) error {
	f.Stat = index.StatOf(st)
	return err
}

func (w *writer) file(dir *fsx.Dir, name string, f *file) error {
	data, err := readAs(w.plan.objects, plumbing.BlobObject, f.ID)
	if errors.Is(err, odb.ErrLarge) {
		return w.large(dir, name, f)
	}
	if err != nil {
		return err
	}
	f.lfs = isPointer(data, int64(len(data)))
	err = f.restat(dir.Create(name, data, permOf(f.Mode, w.readOnly)))
	w.count(len(data))
	return err
}

func (w *writer) large(dir *fsx.Dir, name string, f *file) error {
	out, err := dir.OpenFile(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, permOf(f.Mode, w.readOnly))
	if err != nil {
		return err
	}
	if err = w.stream(out, f.ID); err == nil {
		err = f.restat(fsx.FileStat(out))
	}
	return errors.Join(err, out.Close())
}

func (w *writer) count(n int) {
	w.sum.Bytes += int64(n)
	bytes := w.done.bytes.Add(int64(n))
	if files := w.done.files.Add(1); files%16 == 0 || n > 1<<16 {
		w.progress.Updatef("writing files: %d, %s", files, logs.Bytes(bytes))
	}
}

// stream writes a blob that is too large to be held in memory.
func (w *writer) stream(out *os.File, id plumbing.Hash) error {
	_, _, r, err := w.plan.objects.Reader(id)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(counted{w, out}, r, make([]byte, 256<<10))
	return errors.Join(err, r.Close())
}

// counted writes to a file until the context ends, and counts.
type counted struct {
	*writer
	out *os.File
}

func (c counted) Write(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.out.Write(b)
	c.count(n)
	return n, err
}

// open gives a directory below root, made where it is missing. No component is a link. It is valid until the next call.
func (w *writer) open(name string) (*fsx.Dir, error) {
	if name == "" {
		return w.root, nil
	}
	if w.dir != nil && w.dirPath == name {
		return w.dir, nil
	}
	w.close()
	dir := w.root
	for part := range strings.SplitSeq(name, "/") {
		sub, err := dir.OpenDir(part)
		if errors.Is(err, fs.ErrNotExist) {
			if err = dir.Mkdir(part, 0o777); err == nil || errors.Is(err, os.ErrExist) {
				sub, err = dir.OpenDir(part)
			}
		}
		if dir != w.root {
			dir.Close()
		}
		if err != nil {
			return nil, err
		}
		dir = sub
	}
	w.dir, w.dirPath = dir, name
	return dir, nil
}

func (w *writer) close() {
	if w.dir != nil {
		w.dir.Close()
		w.dir = nil
	}
}
