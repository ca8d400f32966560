package caches

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/perms"
)

const (
	stagePrefix = ".run-task-restore-" // of trees that are not complete yet; who fills one holds a lock on it
	landingName = ".run-task-landing"  // of a tree that is complete, and whose entries move up to where it is
)

// target is where an archive's tree goes, or comes from.
type target struct {
	path   string // as it was said
	parent *fsx.Dir
	base   string
}

// openTarget opens the directory that a target is in, and makes it if need be. Up to base, or to what only root can change, the way is the user's and links are followed; from
// there on a checkout or an earlier task may have made them, and none is.
func openTarget(base, path string, make bool) (*target, error) {
	trusted, rest := base, filepath.Clean(path)
	if filepath.IsAbs(rest) {
		trusted, rest = rootsPart(rest)
	}
	names := strings.Split(rest, "/")
	d, err := fsx.Open(trusted)
	if err != nil {
		return nil, err
	}
	for _, name := range names[:len(names)-1] {
		var sub *fsx.Dir
		if make {
			if err = d.Mkdir(name, 0o777); errors.Is(err, fs.ErrExist) {
				err = nil
			}
		}
		if err == nil {
			sub, err = d.OpenDir(name)
		}
		d.Close()
		if err != nil {
			return nil, linked(path, err)
		}
		d = sub
	}
	return &target{path, d, names[len(names)-1]}, nil
}

// rootsPart cuts an absolute path where what others than root can change begins, before its last name at the latest.
func rootsPart(path string) (trusted, rest string) {
	trusted, rest = "/", strings.TrimPrefix(path, "/")
	for {
		name, more, ok := strings.Cut(rest, "/")
		next := filepath.Join(trusted, name)
		if !ok || !perms.RootsAlone(next) {
			return trusted, rest
		}
		if _, err := os.Stat(next); err != nil {
			return trusted, rest
		}
		trusted, rest = next, more
	}
}

func linked(path string, err error) error {
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return fail.Errorf(fail.Usage, "a part of the way to %q is a symbolic link or no directory", path).WithHint("name the directory that is meant; an earlier task or the repository may have made the link")
	}
	return err
}

func (t *target) close() { t.parent.Close() }

// open opens the directory at the target. fs.ErrNotExist: there is none.
func (t *target) open() (*fsx.Dir, error) {
	d, err := t.parent.OpenDir(t.base)
	return d, linked(t.path, err)
}
