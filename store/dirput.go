package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fsx"
)

// tempPrefix begins the names of files that are being written or removed; Sweep removes what is left of them.
const tempPrefix = ".tmp-"

func tempName() string { return fmt.Sprintf("%s%016x", tempPrefix, rand.Uint64()) }

// Temp makes the file on the store's own file system, where Put only gives it its name. File systems that have no files without one (NFS, many FUSE) get
// one with a hidden name.
func (d *dir) Temp() (*os.File, error) {
	near := d.root
	for f, err := openUnnamed(near, d.unnamed(), 0o644); ; f, err = openUnnamed(near, d.unnamed(), 0o644) {
		if err == nil || errors.Is(err, fs.ErrPermission) {
			return f, err
		}
		if !errors.Is(err, fs.ErrNotExist) || near == "/" {
			break
		}
		near = path.Dir(near) // the root is only made when something is put
	}
	root, err := d.make()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.OpenFile(tempName(), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o644)
}

// unnamed is what a file without a name is called, by which Put knows it.
func (d *dir) unnamed() string { return path.Join(d.root, tempPrefix) }

// make opens the root, which need not be there yet.
func (d *dir) make() (*fsx.Dir, error) {
	root, err := fsx.Open(d.root)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(d.root, 0o777); err == nil {
			root, err = fsx.Open(d.root)
		}
	}
	return root, err
}

func (d *dir) Put(ctx context.Context, key string, f *os.File, o PutOptions) (Info, error) {
	if err := ready(ctx, key); err != nil {
		return Info{}, err
	}
	root, err := d.make()
	if err != nil {
		return Info{}, err
	}
	defer root.Close()
	if o.New {
		if _, err := d.stat(root, key); err == nil {
			return Info{}, duplicate(key)
		}
	}
	p := &putting{d: d, root: root, key: key, f: f, o: o}
	// Who deletes an object removes its directory, too, perhaps after we saw or made it.
	for range 100 {
		if err = p.put(ctx); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		if e := d.blame(root, path.Dir(key), err); !errors.Is(e, fs.ErrNotExist) {
			err = e
		}
	}
	return p.info, err
}

// putting is one Put: the file gets a hidden name beside its key, is made durable, and then gets the key.
type putting struct {
	d    *dir
	root *fsx.Dir
	key  string
	f    *os.File
	o    PutOptions
	info Info
}

func (p *putting) put(ctx context.Context) error {
	if err := p.parents(); err != nil {
		return err
	}
	tmp := path.Join(path.Dir(p.key), tempName())
	staged, err := p.stage(ctx, tmp)
	if err == nil {
		err = p.publish(ctx, tmp, staged)
	}
	if staged != nil && staged != p.f {
		staged.Close()
	}
	if err != nil {
		p.root.Unlink(tmp)
	}
	return err
}

// parents makes the key's directories, durably.
func (p *putting) parents() error {
	in := path.Dir(p.key)
	if in == "." {
		return nil
	}
	sub, err := p.root.OpenDir(in)
	if err == nil {
		return sub.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = p.root.MkdirAll(in, 0o777)
	for in = path.Dir(in); err == nil; in = path.Dir(in) {
		if err = p.root.Sync(in); in == "." {
			break
		}
	}
	return err
}

// stage gives the content the name tmp: the file itself if it came from Temp, else a copy.
func (p *putting) stage(ctx context.Context, tmp string) (*os.File, error) {
	st, err := fsx.FileStat(p.f)
	if err != nil {
		return nil, err
	}
	name := p.f.Name()
	switch {
	case name == p.d.unnamed() && st.Nlink == 0:
		parent, base, done, err := within(p.root, tmp)
		if err != nil {
			return nil, err
		}
		defer done()
		if link(p.f, parent, base) == nil {
			return p.f, nil
		}
	case strings.HasPrefix(name, p.d.unnamed()):
		own, err := p.root.Lstat(path.Base(name))
		if err == nil && own.Ino == st.Ino && own.Dev == st.Dev && p.root.Rename(path.Base(name), tmp) == nil {
			return p.f, nil
		}
	}
	// No /proc, or another file system is mounted here, or it is somebody else's file.
	return p.copy(ctx, tmp, st.Size)
}

func (p *putting) copy(ctx context.Context, tmp string, size int64) (*os.File, error) {
	out, err := p.root.OpenFile(tmp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o644)
	if err != nil || fsx.Clone(out, p.f) == nil {
		return out, err
	}
	in := io.NewSectionReader(p.f, 0, size)
	for done := int64(0); done < size; {
		n, err := io.CopyN(out, in, min(size-done, 4<<20))
		if done += n; err == io.EOF {
			err = &fs.PathError{Op: "read", Path: p.f.Name(), Err: io.ErrUnexpectedEOF}
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return out, err
		}
		if p.o.Progress != nil {
			p.o.Progress(done, size)
		}
	}
	return out, nil
}

// publish makes the staged file the object.
func (p *putting) publish(ctx context.Context, tmp string, staged *os.File) error {
	// The clock of file systems ticks every few milliseconds, and inode numbers are used again: only our own clock makes tags different.
	now := time.Now()
	err := cmp.Or(p.root.SetTime(tmp, now.Unix(), int64(now.Nanosecond())), staged.Sync())
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if !p.o.New {
		err = p.root.Rename(tmp, p.key)
	} else if err = p.root.Link(tmp, p.key); err == nil {
		err = p.root.Unlink(tmp)
	} else if errors.Is(err, fs.ErrExist) {
		return duplicate(p.key)
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(staged.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: p.key, Err: err}
	}
	p.info = infoOf(p.key, &st)
	return p.sync()
}

// sync makes the name durable. Somebody may have deleted the object and its directory again.
func (p *putting) sync() error {
	if err := p.root.Sync(path.Dir(p.key)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
