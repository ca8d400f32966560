package checkout

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// maxLinks is how many links may be on the way to a directory, as for the kernel (path_resolution(7)).
const maxLinks = 40

// openRoot opens the worktree's directory and makes it, with its parents, if it is missing. Up to the cache or volume that it is in the way is the
// user's, and links in it are followed; from there on it is the earlier tasks', and a link is refused. What is there may be cleaned.
func (o *Options) openRoot(dir string) (root *fsx.Dir, mayClean bool, err error) {
	top, below, err := o.admitted(dir)
	switch {
	case err != nil:
		return nil, false, err
	case top == "":
		root, err = openOutside(dir)
		return root, false, err
	case len(below) == 0:
		root, err = openOutside(top)
		return root, o.MayClean != nil && o.MayClean(dir), err
	}
	root, err = fsx.Open(top)
	for _, name := range below {
		if err != nil {
			break
		}
		var sub *fsx.Dir
		sub, err = enter(root, name)
		root.Close()
		root = sub
	}
	return root, true, err
}

// admitted is the first directory on the way to path, or path itself, that is a cache or volume, and the names that follow; "" if there is none. It
// follows links one by one, for what is behind the last one says nothing about where the others lead. top has no link in it.
func (o *Options) admitted(path string) (top string, below []string, err error) {
	var admitted []fs.FileInfo
	for _, name := range o.Keep {
		if info, err := os.Stat(name); err == nil {
			admitted = append(admitted, info)
		}
	}
	at, rest, linked := "/", names(path), 0 // the first names of rest may be a link's
	for links := 0; ; {
		info, err := os.Lstat(at)
		if err == nil && slices.ContainsFunc(admitted, func(a fs.FileInfo) bool { return os.SameFile(info, a) }) {
			if linked > 0 {
				return "", nil, fail.Errorf(fail.Usage, "the way to it goes through a link into %q", at).WithHint("name the directory as it is in the cache or volume")
			}
			return at, rest, nil
		}
		if err != nil || len(rest) == 0 {
			return "", nil, nil // what cannot be looked at cannot be opened
		}
		next := filepath.Join(at, rest[0])
		rest, linked = rest[1:], max(0, linked-1)
		target, err := os.Readlink(next)
		if err != nil {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", nil, nil // as above
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest, linked = append(names(target), rest...), len(names(target))+linked
	}
}

// names are the components of a path.
func names(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" || s == "." })
}

func openOutside(dir string) (*fsx.Dir, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, notMade(err)
	}
	return fsx.OpenOwn(dir)
}

func notMade(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fail.Errorf(fail.IO, "make the directory: %w (uid %d)", err, os.Getuid()).WithHint("name the directory on the command line, so that it is made before the drop, or choose one that the user can write")
}

// enter opens a directory that an earlier task may have made, or makes it.
func enter(in *fsx.Dir, name string) (*fsx.Dir, error) {
	if err := in.Mkdir(name, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, notMade(err)
	}
	if st, err := in.Lstat(name); err != nil {
		return nil, err
	} else if st.IsSymlink() {
		return nil, fail.Errorf(fail.Usage, "%q in the cache or volume is a symbolic link, which an earlier task may have made", filepath.Join(in.Name(), name)).
			WithHint("purge the cache, or name the directory that is meant")
	} else if st.IsDir() && int(st.UID) == os.Geteuid() {
		if err := in.MakeWritable(name); err != nil {
			return nil, err
		}
	}
	return in.OpenDir(name)
}
