package worktree

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"run-task/checkout/internal/index"
	"run-task/checkout/internal/treepath"
	"run-task/internal/fsx"
)

// permOf is what a new file is made with, less the umask.
func permOf(mode uint32, readOnly bool) uint32 {
	perm := uint32(0o666)
	if mode == treepath.Exec {
		perm = 0o777
	}
	if readOnly {
		perm &^= 0o222
	}
	return perm
}

// repair notes which permissions a file that is right needs.
func (f *file) repair(st fsx.Stat, readOnly bool) {
	switch {
	case f.Mode == treepath.Link:
	case readOnly && st.Perm()&0o222 != 0:
		f.perm = st.Perm() &^ 0o222
	case !readOnly && st.Perm()&0o200 == 0:
		f.perm = st.Perm() | 0o200
	}
}

// chmod gives a file the permissions that it needs, through a descriptor: a link that takes its place meanwhile leads nowhere.
func (w *writer) chmod(f *file) error {
	dirName, name := path.Split(f.Path)
	dir, err := w.open(strings.TrimSuffix(dirName, "/"))
	if err != nil {
		return err
	}
	file, err := dir.OpenFile(name, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	before, err := fsx.FileStat(file)
	if err != nil || index.StatOf(before) != f.Stat { // somebody changes it at this moment: the next run looks at it, as what is known of it does not fit
		return err
	}
	if err := unix.Fchmod(int(file.Fd()), f.perm); err != nil {
		return err
	}
	return f.restat(fsx.FileStat(file))
}

// protect takes the write permission from the directories, the lowest first.
func (w *writer) protect(dir *index.Tree, name string) error {
	for _, sub := range dir.Subs {
		if w.plan.shows(sub) {
			if err := w.protect(sub, path.Join(name, sub.Name)); err != nil {
				return err
			}
		}
	}
	if name != "" {
		return w.withoutWrite(name)
	}
	for i := range w.plan.files {
		if f := &w.plan.files[i]; f.Mode == treepath.Gitlink && !f.Skip {
			if err := w.withoutWrite(f.Path); err != nil {
				return err
			}
		}
	}
	err := w.withoutWrite("")
	if errors.Is(err, unix.EPERM) { // all others are ours, the scan sees to that
		w.sum.Notes = append(w.sum.Notes, "the directory itself belongs to somebody else and stays writable")
		err = nil
	}
	return err
}

func (w *writer) withoutWrite(name string) error {
	d, err := w.open(name)
	if err != nil {
		return err
	}
	st, err := d.Stat()
	if err != nil || st.Perm()&0o222 == 0 {
		return err
	}
	return unix.Fchmod(d.Fd(), st.Perm()&^0o222)
}
