package pack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"run-task/internal/fsx"
)

const (
	bigFile = 512 << 10 // from here on a file has frames of its own
	// What may wait open with one job: directories that it is the first to read from, and files.
	maxOpen = 100
)

// held is a directory that stays open until the last job that reads from it is done.
type held struct {
	*fsx.Dir
	users atomic.Int32
}

func hold(d *fsx.Dir) *held {
	h := &held{Dir: d}
	h.users.Store(1)
	return h
}

func (h *held) share() *held {
	h.users.Add(1)
	return h
}

func (h *held) release() {
	if h.users.Add(-1) == 0 {
		h.Close()
	}
}

// item is an entry that shares a frame with others.
type item struct {
	Entry
	dir   *held    // of a file whose content is to be read
	base  string   // its name there
	stat  fsx.Stat // as the walk saw it
	file  *os.File // it, if it is open: other names of it will lead to this one
	known bool     // Sum is set
	gone  bool     // it vanished
}

func (it *item) release() {
	if it.dir != nil {
		it.dir.release()
		it.dir = nil
	}
	if it.file != nil {
		it.file.Close()
		it.file = nil
	}
}

type inode struct{ dev, ino uint64 }

// walk meets all names in the order of the archive.
type walk struct {
	*writer
	ctx   context.Context
	names map[inode]string // the first of those that share a file
	next  *job
	size  int64 // of the frame that next becomes, at most
	last  *held // that a file of next is in
}

func (w *writer) walk(ctx context.Context, root *fsx.Dir) error {
	k := &walk{writer: w, ctx: ctx, names: map[inode]string{}, next: &job{}}
	defer func() { k.next.drop() }()
	st, err := root.Stat()
	if err != nil {
		return err
	}
	top := hold(root)
	top.share() // it is the caller's, and stays open
	it := item{Entry: Entry{Type: Dir}, dir: top.share(), base: "", stat: st}
	it.Entry.of(st)
	if err := k.directory(it, top, 0); err != nil {
		return err
	}
	if err := k.flush(); err != nil {
		return err
	}
	if w.w == nil {
		return nil
	}
	return w.submit(ctx, &job{end: true})
}

// of takes what an entry has of the metadata.
func (e *Entry) of(st fsx.Stat) { e.Mode, e.Sec, e.Nsec = st.Perm(), st.MtimeSec, uint32(st.MtimeNsec) }

func (k *walk) directory(it item, d *held, depth int) error {
	name := it.Name
	defer d.release()
	if k.Xattrs {
		var err error
		if it.Xattrs, err = fsx.UserXattrs(d.Fd()); err != nil {
			return k.unread(d.Dir, "", err)
		}
	}
	it.dir.release()
	it.dir = nil
	if err := k.add(it); err != nil {
		return err
	}
	names, err := d.Names()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, base := range names {
		if err := k.visit(d, path.Join(name, base), base, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// visit meets one name.
func (k *walk) visit(d *held, name, base string, depth int) error {
	if err := context.Cause(k.ctx); err != nil {
		return err
	}
	st, err := d.Lstat(base)
	if errors.Is(err, fs.ErrNotExist) {
		k.Warn("%q vanished while it was read: left out", name)
		return nil
	}
	if err != nil {
		return err
	}
	if len(name) > maxName || depth > fsx.TooDeep {
		return fmt.Errorf("%q is deeper than directories are looked into", d.Name())
	}
	it := item{Entry: Entry{Name: name}, base: base, stat: st}
	it.Entry.of(st)
	switch {
	case st.IsDir():
		it.Type = Dir
		sub, err := d.OpenDir(base)
		if err != nil {
			return k.lost(name, err)
		}
		h := hold(sub)
		it.dir = h.share()
		return k.directory(it, h, depth)
	case st.IsSymlink():
		it.Type = Symlink
		if it.Target, err = d.Readlink(base); err != nil {
			return k.lost(name, err)
		}
		return k.add(it)
	case st.IsRegular():
		it.Type = File
		return k.regular(d, it)
	}
	k.Warn("%q is a %s: left out", name, st.Kind())
	return nil
}

func (k *walk) regular(d *held, it item) (err error) {
	if it.stat.Nlink > 1 {
		id := inode{it.stat.Dev, it.stat.Ino}
		if first, ok := k.names[id]; ok {
			it.Type, it.Target = Link, first
			return k.add(it)
		}
		defer func() {
			if err == nil && !it.gone {
				k.names[id] = it.Name
			}
		}()
	}
	it.Size = it.stat.Size
	if k.w == nil && k.Known != nil {
		known, err := k.Known.find(it.Name, it.stat)
		if err != nil {
			return err
		}
		if known != nil {
			it.Sum, it.Data, it.Xattrs, it.known = known.Sum, known.Data, known.Xattrs, true
			return k.add(it)
		}
	}
	if big := it.stat.Size >= bigFile || it.stat.Holes(); big || it.stat.Nlink > 1 {
		// Open, it cannot vanish.
		if it.file, err = d.OpenFile(it.base, unix.O_RDONLY, 0); err != nil {
			it.gone = true
			return k.lost(it.Name, err)
		}
		st, err := fsx.FileStat(it.file)
		if err != nil || st.Ino != it.stat.Ino || st.Dev != it.stat.Dev {
			it.gone = true
			it.release()
			return k.lost(it.Name, cmp.Or(err, fs.ErrNotExist))
		}
		if big {
			return k.big(it)
		}
	} else {
		it.dir = d.share()
	}
	return k.add(it)
}

// lost is for a name that was there a moment ago.
func (k *walk) lost(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		k.Warn("%q vanished while it was read: left out", name)
		return nil
	}
	return err
}

func (k *walk) unread(d *fsx.Dir, base string, err error) error {
	return fmt.Errorf("read %q: %w", path.Join(d.Name(), base), err)
}

// add puts an item into the next frame.
func (k *walk) add(it item) error {
	size := block + it.Size
	if k.w != nil {
		header, body := it.appendHeader(nil)
		size = int64(len(header)) + body
	}
	if it.known {
		size = 0
	}
	if k.Xattrs && it.Type == File && !it.known {
		size += 2 * maxXattrs
	}
	if k.size+size > frameBytes || k.next.opened >= maxOpen {
		if err := k.flush(); err != nil {
			it.release()
			return err
		}
	}
	if it.dir != nil && it.dir != k.last {
		k.last = it.dir
		k.next.opened++
	}
	if it.file != nil {
		k.next.opened++
	}
	k.size += size
	k.next.items = append(k.next.items, it)
	if len(k.next.items) == 4096 {
		return k.flush()
	}
	return nil
}

func (k *walk) flush() error {
	if len(k.next.items) == 0 {
		return nil
	}
	j := k.next
	k.next, k.size, k.last = &job{}, 0, nil
	return k.submit(k.ctx, j)
}
