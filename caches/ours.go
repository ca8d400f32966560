package caches

import (
	"errors"
	"os"
	"time"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// The ctime of a directory changes with every name in it, and its owner cannot set it: while it stays the same for longer than
// the clock's tick, all names were there all the time. Old file systems have whole seconds.
const (
	tick       = 50 * time.Millisecond
	secondTick = 1100 * time.Millisecond
)

var pause = func(d time.Duration) { <-time.After(d) } // a variable so that a test can see to it that something happens meanwhile

// errMoved means that names in the cache changed while one was opened.
var errMoved = errors.New("it was exchanged while it was opened")

// openOurs opens one of the two files that run-task keeps in a cache. The task owns the directory and can have put anything
// there: links, FIFOs and devices are not opened, and a file with a second name may be somebody else's. Those are
// fail.PurgeCache. A directory in which something changes names all the time is fail.Busy: there a link to another's file,
// removed before its names are counted, would look like a file of the cache's own.
func (a *admission) openOurs(name string, flags int) (*os.File, fsx.Stat, error) {
	var last time.Time
	for range 20 {
		dir, err := a.dir.Stat()
		if err != nil {
			return nil, fsx.Stat{}, err
		}
		was, err := a.dir.Lstat(name)
		if err == nil {
			err = a.plain(name, was)
		}
		if err != nil {
			return nil, was, err
		}
		// A file server's clock may differ from ours: what stayed the same over a pause is as good.
		if c := changed(dir); !c.Equal(last) && time.Since(c) < tickOf(dir) {
			last = c
			pause(tickOf(dir))
			continue
		}
		f, err := a.dir.OpenFile(name, flags, 0)
		if err != nil {
			return nil, was, err
		}
		st, err := a.prove(name, f, was, dir)
		if err == nil {
			return f, st, nil
		}
		f.Close()
		if err != errMoved {
			return nil, st, err
		}
	}
	return nil, fsx.Stat{}, fail.Errorf(fail.Busy, "%s cannot be told from a link to elsewhere: the directory changes all the time", name).
		WithHint("run again when no other task makes or removes files at the top of the cache")
}

// prove makes sure that f, opened at name, is what was looked at, is plain, and that all of that was while the directory had
// the same names. Then the one name that a plain file has is the one in the cache.
func (a *admission) prove(name string, f *os.File, was, dir fsx.Stat) (fsx.Stat, error) {
	st, err := fsx.FileStat(f)
	if err == nil {
		err = a.plain(name, st)
	}
	if err != nil {
		return st, err
	}
	now, err := a.dir.Stat()
	if err == nil && (st.Dev != was.Dev || st.Ino != was.Ino || !changed(now).Equal(changed(dir))) {
		err = errMoved
	}
	return st, err
}

func changed(st fsx.Stat) time.Time { return time.Unix(st.CtimeSec, st.CtimeNsec) }

func tickOf(st fsx.Stat) time.Duration {
	if st.CtimeNsec == 0 {
		return secondTick
	}
	return tick
}

func (a *admission) plain(name string, st fsx.Stat) error {
	if !st.IsRegular() {
		return a.purge("%s is a %s", name, st.Kind())
	}
	if st.Nlink != 1 {
		return a.purge("%s has %d names and may be a file from elsewhere", name, st.Nlink)
	}
	return nil
}
