package perms

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

const (
	openDepth = 64 // directories below this depth are left closed while their children are walked
	workers   = 4  // more are slower: they wait for the same directory locks
	batch     = 64 << 10
)

// walk is one run of Own.
type walk struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc
	progress *logs.Progress
	uid, gid int
	name     string
	top      int
	mount    stat      // of the top, to compare mounts with
	calm     time.Time // files untouched since then cannot have lost a link while we looked
	spare    chan []byte
	running  sync.WaitGroup

	entries, changed, mounts, devices, outside, refused atomic.Int64

	mu           sync.Mutex // guards what follows
	firstRefused string
	links        map[file]*inode
	met          map[place]bool
	linked       []*dir // directories with links
}

// dir is a directory on the way. Its parents stay known, so that a path can be told and walked again.
type dir struct {
	parent *dir // nil at the top
	name   string
	file   file
	fd     int // -1 while closed
	subs   []string
	depth  int // below where this goroutine began

	links []link // files in it that wait for the end of the walk
	ctime time.Time
}

// file is what a file is known by while its file system is mounted.
type file struct{ dev, ino uint64 }

func (s stat) file() file       { return file{s.Dev, s.Ino} }
func (s stat) ctime() time.Time { return time.Unix(s.CtimeSec, s.CtimeNsec) }

func (w *walk) all(opened bool) error {
	st, err := look(w.top)
	if err != nil {
		return err
	}
	w.mount = st
	fd, err := unix.FcntlInt(uintptr(w.top), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil { // the descriptors share how far was listed
		unix.Close(fd)
		return err
	}
	w.entries.Add(1)
	w.spare = make(chan []byte, workers)
	for range min(workers, 2*runtime.NumCPU()) - 1 {
		w.spare <- make([]byte, batch)
	}
	top := &dir{fd: fd, file: st.file()}
	err = w.own(top, st, opened)
	if err == nil {
		err = w.tree(top, make([]byte, batch))
	} else {
		top.close()
	}
	if err != nil {
		w.cancel(err)
	}
	w.running.Wait()
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	return w.settle()
}

func (w *walk) summary() string {
	s := fmt.Sprintf("%d entries, %d changed, %.1fs", w.entries.Load(), w.changed.Load(), w.progress.Elapsed().Seconds())
	for _, c := range []struct {
		n    int64
		what string
	}{
		{w.mounts.Load(), "mounted there and skipped"},
		{w.devices.Load(), "skipped: devices"},
		{w.outside.Load(), "skipped: linked from elsewhere"},
		{w.refused.Load(), "refused by the file system"},
	} {
		if c.n > 0 {
			s += fmt.Sprintf(", %d %s", c.n, c.what)
		}
	}
	return s
}

// tree walks what is in base, and closes it. It goes down and back up with one descriptor a level, none below openDepth.
func (w *walk) tree(base *dir, buf []byte) (err error) {
	d := base
	defer func() {
		for ; d != base.parent; d = d.parent {
			d.close()
		}
	}()
	if err := w.list(d, buf); err != nil {
		return err
	}
	for {
		if len(d.subs) == 0 {
			if d == base {
				return nil
			}
			if err := w.up(d); err != nil {
				return err
			}
			d = d.parent
			continue
		}
		name := d.subs[len(d.subs)-1]
		d.subs = d.subs[:len(d.subs)-1]
		sub, err := w.enter(d, name)
		if err != nil {
			return err
		}
		if sub == nil || w.handOver(sub) {
			continue
		}
		if sub.depth = d.depth + 1; sub.depth > openDepth {
			d.close()
		}
		d = sub
		if err := w.list(d, buf); err != nil {
			return err
		}
	}
}

// handOver has another goroutine walk d if one is free.
func (w *walk) handOver(d *dir) bool {
	select {
	case buf := <-w.spare:
		w.running.Go(func() {
			if err := w.tree(d, buf); err != nil {
				w.cancel(err)
			}
			w.spare <- buf
		})
		return true
	default:
		return false
	}
}

func (d *dir) close() {
	if d.fd >= 0 {
		unix.Close(d.fd)
		d.fd = -1
	}
}

// up closes d and makes sure that its parent is open: "..", if that still is the parent.
func (w *walk) up(d *dir) error {
	defer d.close()
	p := d.parent
	if p.fd >= 0 {
		return nil
	}
	fd, err := openDir(d.fd, "..")
	if err != nil {
		return w.explain(err, d, "..")
	}
	p.fd = fd
	// Whoever moves d while we are below it has ".." lead where he likes.
	if st, err := look(fd); err != nil || st.file() != p.file || !w.sameMount(st) {
		return fail.Errorf(fail.IO, "own %q: a directory was moved away meanwhile", w.name)
	}
	return nil
}

// list looks at all names in d: files are owned now, directories are noted in d.subs.
func (w *walk) list(d *dir, buf []byte) error {
	for {
		n, err := readNames(d.fd, buf)
		if err != nil {
			return w.explain(err, d, "")
		}
		if n == 0 {
			break
		}
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		w.progress.Updatef("%q: %d entries", w.name, w.entries.Load())
		for name, rest := []byte(nil), buf[:n]; len(rest) > 0; {
			name, rest = nextName(rest)
			if s := string(name); s == ".\x00" || s == "..\x00" {
				continue
			}
			if err := w.entry(d, name); err != nil {
				return err
			}
		}
	}
	w.remember(d)
	return nil
}

// entry looks at one name, which is NUL-terminated.
func (w *walk) entry(d *dir, name []byte) error {
	st, err := lookAt(d.fd, &name[0])
	if gone(err) {
		return nil
	}
	if err != nil {
		return w.explain(err, d, string(name[:len(name)-1]))
	}
	w.entries.Add(1)
	switch {
	case !w.sameMount(st):
		w.mounts.Add(1)
	case st.IsDir():
		d.subs = append(d.subs, string(name[:len(name)-1]))
	case st.Kind() == "device": // to own it is to use it
		w.devices.Add(1)
	case w.right(st):
	case st.Nlink != 1 || !st.ctime().Before(w.calm):
		d.links = append(d.links, link{name: string(name[:len(name)-1]), inode: &inode{stat: st}})
	default:
		return w.change(d, string(name[:len(name)-1]), st)
	}
	return nil
}

// change owns one file that is not a directory, if it still is what was looked at. If it is not, it waits for the end of
// the walk like those that have several links.
func (w *walk) change(d *dir, name string, was stat) error {
	fd, err := openPath(d.fd, name)
	if gone(err) {
		return nil
	}
	if err != nil {
		return w.explain(err, d, name)
	}
	defer unix.Close(fd)
	st, err := look(fd)
	switch {
	case err != nil:
		return w.explain(err, d, name)
	case !w.sameMount(st):
		w.mounts.Add(1)
		return nil
	case st.Stat != was.Stat:
		d.links = append(d.links, link{name: name, inode: &inode{stat: st}})
		return nil
	}
	return w.count(needs(capChown, chown(fd, w.uid, w.gid)), d, name)
}

// enter opens and owns a directory; nil if it is gone, is no directory any more, or something is mounted there.
func (w *walk) enter(d *dir, name string) (*dir, error) {
	fd, opened, err := openAnyDir(d.fd, name)
	if gone(err) || err == unix.ELOOP || err == unix.ENOTDIR {
		return nil, nil
	}
	if err != nil {
		return nil, w.explain(err, d, name)
	}
	sub := &dir{parent: d, name: name, fd: fd}
	st, err := look(fd)
	if err == nil && !w.sameMount(st) {
		w.mounts.Add(1)
		sub.close()
		return nil, nil
	}
	sub.file = st.file()
	if err == nil {
		err = w.own(sub, st, opened)
	}
	if err != nil {
		sub.close()
		return nil, w.explain(err, d, name)
	}
	return sub, nil
}

// own owns a directory; opened says that its mode is changed already.
func (w *walk) own(d *dir, st stat, opened bool) error {
	changed, err := ownDir(d.fd, st.Stat, w.uid, w.gid)
	if !changed && !opened && err == nil {
		return nil
	}
	return w.count(err, d, "")
}

func (w *walk) right(st stat) bool { return int(st.UID) == w.uid && int(st.GID) == w.gid }

// sameMount compares devices where the kernel does not tell mounts: there, a file bind mount is found when it is opened.
func (w *walk) sameMount(st stat) bool {
	if st.mount == 0 || w.mount.mount == 0 {
		return st.Dev == w.mount.Dev
	}
	return st.mount == w.mount.mount
}

// count takes the result of a write: what an immutable file refuses is counted, not an error.
func (w *walk) count(err error, d *dir, name string) error {
	var r *refusal
	switch {
	case err == nil:
		w.changed.Add(1)
		return nil
	case gone(err):
		return nil
	case errors.Is(err, unix.EPERM) && errors.As(err, &r) && hasCap(int(r.needs)):
		if w.refused.Add(1) == 1 {
			w.mu.Lock()
			w.firstRefused = w.path(d, name)
			w.mu.Unlock()
		}
		return nil
	}
	return w.explain(err, d, name)
}

func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) }

// path is for messages only.
func (w *walk) path(d *dir, name string) string {
	parts := []string{name}
	for ; d != nil; d = d.parent {
		parts = append(parts, d.name)
	}
	parts[len(parts)-1] = w.name
	slices.Reverse(parts)
	return strings.TrimSuffix(strings.Join(parts, "/"), "/")
}

func (w *walk) explain(err error, d *dir, name string) error {
	return explain(err, fmt.Sprintf("own %q", w.path(d, name)), w.uid, w.gid)
}
