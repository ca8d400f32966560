package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// dir keeps objects as files below a directory. Others may write there, too: below the root no link is followed. Names that begin with a dot are no objects.
type dir struct {
	root string // links in it are followed: the user gave it
}

func (d *dir) String() string { return "dir:" + d.root }

func (d *dir) Get(ctx context.Context, key string, o GetOptions) (*os.File, Info, error) {
	if err := ready(ctx, key); err != nil {
		return nil, Info{}, err
	}
	root, err := fsx.Open(d.root)
	if err != nil {
		return nil, Info{}, d.missing(key, err)
	}
	defer root.Close()
	parent, base, done, err := within(root, key)
	if err != nil {
		return nil, Info{}, d.blame(root, key, err)
	}
	defer done()
	f, err := parent.OpenFile(base, unix.O_RDONLY, 0)
	if err != nil {
		return nil, Info{}, d.blame(root, key, err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &st); err == nil {
		err = d.object(key, &st)
	}
	if err != nil {
		f.Close()
		return nil, Info{}, err
	}
	noteUse(parent, base, time.Now())
	info := infoOf(key, &st)
	if o.Unless != "" && o.Unless == info.Tag {
		f.Close()
		return nil, info, ErrUnchanged
	}
	return f, info, nil
}

func (d *dir) Stat(ctx context.Context, key string) (Info, error) {
	if err := ready(ctx, key); err != nil {
		return Info{}, err
	}
	root, err := fsx.Open(d.root)
	if err != nil {
		return Info{}, d.missing(key, err)
	}
	defer root.Close()
	return d.stat(root, key)
}

func (d *dir) stat(root *fsx.Dir, key string) (Info, error) {
	var st unix.Stat_t
	if err := lstat(root, key, &st); err != nil {
		return Info{}, d.blame(root, key, err)
	}
	if err := d.object(key, &st); err != nil {
		return Info{}, err
	}
	return infoOf(key, &st), nil
}

// ready tells why there is nothing to begin with.
func ready(ctx context.Context, key string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return ValidKey(key)
}

// within is the directory below root that a name stands in, and the name there. done must be called.
func within(root *fsx.Dir, name string) (parent *fsx.Dir, base string, done func(), err error) {
	in, base := path.Split(name)
	if in == "" {
		return root, base, func() {}, nil
	}
	parent, err = root.OpenDir(strings.TrimSuffix(in, "/"))
	if err != nil {
		return nil, "", nil, err
	}
	return parent, base, func() { parent.Close() }, nil
}

func lstat(root *fsx.Dir, name string, st *unix.Stat_t) error {
	parent, base, done, err := within(root, name)
	if err != nil {
		return err
	}
	defer done()
	if err := unix.Fstatat(parent.Fd(), base, st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "lstat", Path: path.Join(root.Name(), name), Err: err}
	}
	return nil
}

// infoOf makes the tag of what changes when a file is put anew, and not when it is read: Put gives each a modification time of its own.
func infoOf(key string, st *unix.Stat_t) Info {
	return Info{
		Key: key, Size: st.Size, Tag: fmt.Sprintf("%x-%x-%x", st.Ino, st.Size, st.Mtim.Nano()),
		Modified: time.Unix(st.Mtim.Unix()), Used: time.Unix(st.Atim.Unix()),
	}
}

// object refuses what is no regular file.
func (d *dir) object(key string, st *unix.Stat_t) error {
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		return nil
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR { // of objects whose keys begin so
		return none(key, d.String())
	}
	return d.foreign(key, fsx.Stat{Mode: uint32(st.Mode)}.Kind())
}

func (d *dir) foreign(name, kind string) error {
	return fail.Errorf(fail.IO, "%q in %s is a %s, and no file", name, d, kind).WithHint("remove it: a store has files and directories only")
}

// missing is an error of opening the root.
func (d *dir) missing(key string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return none(key, d.String())
	}
	return err
}

// blame tells what stands where a key should be. A file in a directory's place means that the key is not there.
func (d *dir) blame(root *fsx.Dir, key string, err error) error {
	if !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
		return d.missing(key, err)
	}
	for i := range len(key) + 1 {
		if i < len(key) && key[i] != '/' {
			continue
		}
		st, e := root.Lstat(key[:i])
		switch {
		case e != nil, st.IsRegular():
			return none(key, d.String())
		case !st.IsDir():
			return d.foreign(key[:i], st.Kind())
		}
	}
	return err
}
