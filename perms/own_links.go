package perms

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A file is owned only if all of its links are in the tree: one to /etc/shadow that somebody planted must not give it
// away. That cannot be told while the tree may change: moving a link ahead of the walk makes one look like two, and unlinking
// one between our open and our fstat leaves a count of one, the one outside. So files with several links, and those touched
// since the walk began, wait for its end, and then are judged by the one clock that their owner cannot set: a directory
// whose ctime has not moved for longer than the file system's tick had all of its names all of that time.

// tick is longer than any kernel's timer tick, the resolution of ctime. Old file systems have whole seconds.
const (
	tick       = 50 * time.Millisecond
	secondTick = 1100 * time.Millisecond
)

// place is one name in one directory, however often the walk comes by.
type place struct {
	dir  file
	name string
}

type link struct {
	name  string
	inode *inode
}

// inode is a file that waits.
type inode struct {
	stat             // as it was when its links were looked at
	confirmed uint64 // links that were all there at that moment
}

// remember keeps what list put off.
func (w *walk) remember(d *dir) {
	if len(d.links) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	d.links = slices.DeleteFunc(d.links, func(l link) bool {
		p := place{d.file, l.name}
		again := w.met[p]
		w.met[p] = true
		return again
	})
	for i, l := range d.links {
		known := w.links[l.inode.file()]
		if known == nil {
			known = l.inode
			w.links[l.inode.file()] = known
		}
		d.links[i].inode = known
	}
	w.linked = append(w.linked, d)
}

// settle owns what waited, as far as it has no link outside.
func (w *walk) settle() error {
	if len(w.linked) == 0 {
		return nil
	}
	pause := tick
	err := w.eachLinked(func(d *dir, fd int) error {
		st, err := look(fd)
		d.ctime = st.ctime()
		if st.CtimeNsec == 0 {
			pause = secondTick
		}
		return err
	})
	if err != nil {
		return err
	}
	select {
	case <-time.After(pause):
	case <-w.ctx.Done():
	}
	if err := w.eachLinked(w.confirm); err != nil {
		return err
	}
	return w.eachLinked(w.changeConfirmed)
}

// confirm counts the links in d. All that are counted for an inode were there when its link count was read: the names since
// the pause began, and each until its directory's ctime was read again, which is later.
func (w *walk) confirm(d *dir, fd int) error {
	var there []*inode
	for _, l := range d.links {
		st, err := lookAt(fd, cString(l.name))
		if err != nil || st.file() != l.inode.file() || !w.sameMount(st) {
			continue
		}
		if l.inode.confirmed == 0 {
			l.inode.stat = st
		}
		there = append(there, l.inode)
	}
	if st, err := look(fd); err != nil || !st.ctime().Equal(d.ctime) {
		return err
	}
	for _, i := range there {
		i.confirmed++
	}
	return nil
}

// changeConfirmed goes by ctime again: linking and unlinking would have moved it, as would a new file with an old number.
func (w *walk) changeConfirmed(d *dir, fd int) error {
	for _, l := range d.links {
		if l.inode.confirmed != l.inode.Nlink {
			w.outside.Add(1)
			continue
		}
		if err := w.changeLink(d, fd, l); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) changeLink(d *dir, dirFD int, l link) error {
	fd, err := openPath(dirFD, l.name)
	if gone(err) {
		return nil
	}
	if err != nil {
		return w.explain(err, d, l.name)
	}
	defer unix.Close(fd)
	st, err := look(fd)
	switch {
	case err != nil:
		return w.explain(err, d, l.name)
	case !w.sameMount(st):
		w.mounts.Add(1)
		return nil
	case st.file() == l.inode.file() && w.right(st): // by another link
		return nil
	case st.Stat != l.inode.Stat || st.IsDir():
		w.outside.Add(1)
		return nil
	}
	return w.count(needs(capChown, chown(fd, w.uid, w.gid)), d, l.name)
}

// eachLinked calls f with the directories that have files which wait, open, where they still are where they were.
func (w *walk) eachLinked(f func(d *dir, fd int) error) error {
	for _, d := range w.linked {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		fd, ok := w.reopen(d)
		if !ok {
			continue
		}
		err := f(d, fd)
		unix.Close(fd)
		if err != nil {
			return w.explain(err, d, "")
		}
	}
	return nil
}

// reopen walks to d again, from the top and by one component at a time.
func (w *walk) reopen(d *dir) (fd int, ok bool) {
	var names []string
	for p := d; p.parent != nil; p = p.parent {
		names = append(names, p.name)
	}
	fd, err := unix.FcntlInt(uintptr(w.top), unix.F_DUPFD_CLOEXEC, 0)
	for _, name := range slices.Backward(names) {
		if err != nil {
			return -1, false
		}
		next, nextErr := openDir(fd, name)
		unix.Close(fd)
		fd, err = next, nextErr
	}
	if err != nil {
		return -1, false
	}
	if st, err := look(fd); err != nil || st.file() != d.file || !w.sameMount(st) {
		unix.Close(fd)
		return -1, false
	}
	return fd, true
}

func cString(s string) *byte {
	b := append([]byte(s), 0)
	return &b[0]
}
