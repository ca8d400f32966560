package worktree

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"

	"run-task/checkout/internal/pack"
	"run-task/checkout/internal/treepath"
	"run-task/internal/fsx"
)

// Early writes files while the pack that they are in still arrives, into a directory that has nothing else in it. It writes what it knows a place
// for, which is most of a pack that begins with its commits and trees; Write does the rest. No path breaks a rule, and no link is made yet.
type Early struct {
	root   *fsx.Dir
	commit plumbing.Hash
	o      Options
	count  atomic.Int64 // files that are whole
	placed atomic.Bool

	mu      sync.Mutex
	stopped bool
	entries int                        // that have a place
	trees   map[plumbing.Hash][]byte   // that have come
	held    int                        // bytes of trees
	again   map[plumbing.Hash]int      // places of trees that have come
	places  map[plumbing.Hash][]string // of trees that have not come yet: "" or ends with "/"
	blobs   map[plumbing.Hash][]*earlyFile
	files   map[string]*earlyFile
	dirs    []string // made in root
	idle    []*earlyDir
}

type earlyFile struct {
	path string
	mode uint32
	id   plumbing.Hash
	made bool
	lfs  bool
	st   fsx.Stat // zero unless it is whole
}

// earlyDir is the directory that a goroutine used last.
type earlyDir struct {
	*fsx.Dir
	prefix string
}

// Bounds: what is beyond them is left to Write.
const (
	maxHeld  = 8 << 20 // bytes of trees, which may be needed later or again; with all of history most never are
	maxEarly = 1 << 19 // files and directories
	maxDeep  = 200     // directories in each other
	maxAgain = 1000    // places of one tree: with few trees that name each other one could ask for any number of directories
)

// NewEarly prepares for a commit. root must be empty, but for .git. Of the options it heeds Cone and ReadOnly.
func NewEarly(root *fsx.Dir, commit plumbing.Hash, o Options) *Early {
	return &Early{root: root, commit: commit, o: o, trees: map[plumbing.Hash][]byte{}, again: map[plumbing.Hash]int{}, places: map[plumbing.Hash][]string{},
		blobs: map[plumbing.Hash][]*earlyFile{}, files: map[string]*earlyFile{}}
}

// Object takes an object of the pack; it is pack.Options.Object. Its errors are those of the file system.
func (e *Early) Object(o pack.Object) error {
	if o.Data == nil {
		return nil
	}
	switch o.Type {
	case plumbing.CommitObject:
		if o.ID == e.commit && len(o.Data) > 45 && !e.placed.Swap(true) { // it may be there twice
			return e.place(plumbing.NewHash(string(o.Data[5:45])), "")
		}
	case plumbing.TreeObject:
		return e.tree(o)
	case plumbing.BlobObject:
		return e.blob(o)
	}
	return nil
}

// tree notes what a tree has, and enters it if its place is known.
func (e *Early) tree(o pack.Object) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	prefixes := e.places[o.ID]
	if _, twice := e.trees[o.ID]; e.stopped || twice || e.held+len(o.Data) > maxHeld && len(prefixes) == 0 {
		return nil
	}
	e.held += len(o.Data)
	e.trees[o.ID] = slices.Clone(o.Data)
	delete(e.places, o.ID)
	for _, p := range prefixes {
		if err := e.enter(o.ID, p); err != nil {
			return err
		}
	}
	return nil
}

func (e *Early) place(tree plumbing.Hash, prefix string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.put(tree, prefix)
}

func (e *Early) put(tree plumbing.Hash, prefix string) error {
	if _, ok := e.trees[tree]; ok {
		return e.enter(tree, prefix)
	}
	e.places[tree] = append(e.places[tree], prefix)
	return nil
}

// enter gives a tree's files their place.
func (e *Early) enter(tree plumbing.Hash, prefix string) error {
	entries, err := treepath.Entries(e.trees[tree])
	if err != nil { // Verify says why, if it is a tree of the wanted commit
		return nil
	}
	e.entries += len(entries)
	if e.again[tree]++; e.again[tree] > maxAgain || e.entries > maxEarly || strings.Count(prefix, "/") > maxDeep {
		e.stopped = true
	}
	if e.stopped {
		return nil
	}
	if dir := strings.TrimSuffix(prefix, "/"); dir != "" {
		if err := e.root.Mkdir(dir, 0o777); err != nil {
			return e.stop(err)
		}
		if !strings.Contains(dir, "/") {
			e.dirs = append(e.dirs, dir)
		}
	}
	for _, x := range entries {
		path := prefix + x.Name
		switch x.Mode {
		case treepath.Dir:
			if !e.o.Cone.Enters(path) {
				continue
			}
			if err := e.put(x.ID, path+"/"); err != nil {
				return err
			}
		case treepath.File, treepath.Exec:
			if !e.o.Cone.Has(path) {
				continue
			}
			f := &earlyFile{path: path, mode: x.Mode, id: x.ID}
			e.files[path] = f
			e.blobs[x.ID] = append(e.blobs[x.ID], f)
		}
	}
	return nil
}

// stop leaves the rest to Write where something is in the way.
func (e *Early) stop(err error) error {
	if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		e.stopped = true
		return nil
	}
	return err
}

func (e *Early) blob(o pack.Object) error {
	e.mu.Lock()
	files := e.blobs[o.ID]
	if e.stopped {
		files = nil
	}
	delete(e.blobs, o.ID)
	var d *earlyDir
	if n := len(e.idle); n > 0 {
		d, e.idle = e.idle[n-1], e.idle[:n-1]
	} else {
		d = &earlyDir{}
	}
	e.mu.Unlock()
	var err error
	for _, f := range files {
		if err == nil {
			err = d.write(e.root, f, o.Data, e.o)
			e.count.Add(1)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.idle = append(e.idle, d)
	if err != nil {
		return e.stop(err)
	}
	return nil
}

func (d *earlyDir) write(root *fsx.Dir, f *earlyFile, data []byte, o Options) error {
	at := strings.LastIndexByte(f.path, '/') + 1
	if prefix := f.path[:at]; d.Dir == nil || prefix != d.prefix {
		d.close(root)
		d.Dir, d.prefix = root, prefix
		if prefix != "" {
			sub, err := root.OpenDir(strings.TrimSuffix(prefix, "/"))
			if err != nil {
				d.Dir = nil
				return err
			}
			d.Dir = sub
		}
	}
	st, err := d.Create(f.path[at:], data, permOf(f.mode, o.ReadOnly))
	if f.made = !errors.Is(err, fs.ErrExist); err == nil {
		f.st, f.lfs = st, isPointer(data, int64(len(data)))
	}
	return err
}

func (d *earlyDir) close(root *fsx.Dir) {
	if d.Dir != nil && d.Dir != root {
		d.Dir.Close()
	}
	d.Dir = nil
}

// Written tells how many files there are so far, for a line of progress: "" if none.
func (e *Early) Written() string {
	if e == nil || e.count.Load() == 0 {
		return ""
	}
	return fmt.Sprintf(", %d files written", e.count.Load())
}

// Pause is called when a pack has come. There may be another one.
func (e *Early) Pause() {
	for _, d := range e.idle {
		d.close(e.root)
	}
	e.idle = nil
}

// Close is called when all has come.
func (e *Early) Close() {
	e.Pause()
	e.trees, e.places, e.blobs = nil, nil, nil
}

// Undo removes all that was written.
func (e *Early) Undo() error {
	e.Close()
	names := e.dirs
	for _, f := range e.files {
		if f.made && !strings.Contains(f.path, "/") {
			names = append(names, f.path)
		}
	}
	for _, name := range names {
		if err := e.root.RemoveAll(name); err != nil {
			return err
		}
	}
	e.dirs, e.files = nil, nil
	return nil
}

// wrote tells whether what stands there is the file that Early wrote.
func (e *Early) wrote(f *file, st fsx.Stat) bool {
	if e == nil {
		return false
	}
	w := e.files[f.Path]
	if w == nil || w.id != f.ID || w.mode != f.Mode || w.st != st {
		return false
	}
	f.lfs = w.lfs
	return true
}
