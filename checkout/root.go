package checkout

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// openRoot opens the worktree's directory and makes it, with its parents, if it is missing. Up to the cache or volume that it is in the way is the
// user's, and links in it are followed; from there on it is the earlier tasks', and a link is refused. What is there may be cleaned.
func (o *Options) openRoot(dir string) (root *fsx.Dir, mayClean bool, err error) {
	top, below := o.admitted(dir)
	switch {
	case top == "":
		root, err = openOutside(dir)
		if err != nil {
			return nil, false, err
		}
		if at, _ := o.admitted(root.Real()); at != "" {
			root.Close()
			return nil, false, fail.Errorf(fail.Usage, "the way to it goes through a link into %q", at).WithHint("name the directory as it is in the cache or volume")
		}
		return root, false, nil
	case below == ".":
		root, err = openOutside(dir)
		return root, o.MayClean != nil && o.MayClean(dir), err
	}
	root, err = fsx.Open(top)
	for _, name := range strings.Split(below, "/") {
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

// admitted is the first directory on the way to path, or path itself, that is a cache or volume, and what follows; "" if there is none.
func (o *Options) admitted(path string) (top, below string) {
	if path == "" {
		return "", ""
	}
	var admitted []fs.FileInfo
	for _, name := range o.Keep {
		if info, err := os.Stat(name); err == nil {
			admitted = append(admitted, info)
		}
	}
	for i := 0; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' || i == 0 {
			continue
		}
		info, err := os.Stat(path[:i])
		if err != nil {
			return "", ""
		}
		for _, a := range admitted {
			if os.SameFile(info, a) {
				below, err := filepath.Rel(path[:i], path)
				if err != nil {
					return "", ""
				}
				return path[:i], below
			}
		}
	}
	return "", ""
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
