package caches

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
)

// admissionTo is an admission to a directory as it is when its cache is open.
func admissionTo(t *testing.T, dir string) *admission {
	t.Helper()
	d, err := fsx.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return &admission{Options: task(dir), log: logs.New(io.Discard, logs.Normal, false), dir: d, name: dir}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// calm waits until a directory that was just changed is as good as one that was not.
func calm(t *testing.T, dir string) {
	t.Helper()
	<-time.After(tickOf(must[fsx.Stat](t)(admissionTo(t, dir).dir.Stat())))
}

// A link to a victim is opened, and removed before its names are counted: what the count says then is no proof.
func TestAnOpenFileIsProved(t *testing.T) {
	for name, c := range map[string]struct {
		before, after func(log, victim string) error // the file is opened
		seen          string                         // what Lstat told of, where it is not the log
		still         bool                           // the directory's ctime tells nothing
		want          fail.Reason                    // -1: to be looked at again
	}{
		"nothing happens": {},
		"a link put in its place, and removed": {
			before: func(l, v string) error { os.Remove(l); return os.Link(v, l) },
			after:  func(l, v string) error { return os.Remove(l) }, want: -1},
		"the same, in a directory that seems to be as it was": {
			before: func(l, v string) error { os.Remove(l); return os.Link(v, l) },
			after:  func(l, v string) error { return os.Remove(l) }, still: true, want: -1},
		"the same, and the link was there already when it was looked at": {
			before: func(l, v string) error { os.Remove(l); return os.Link(v, l) },
			after:  func(l, v string) error { return os.Remove(l) }, seen: "victim", want: -1},
		"a link put in its place": {
			before: func(l, v string) error { os.Remove(l); return os.Link(v, l) }, want: fail.PurgeCache},
		"a second name":                {after: func(l, v string) error { return os.Link(l, v+"2") }, want: fail.PurgeCache},
		"another name in the meantime": {after: func(l, v string) error { return os.Symlink("x", l+"2") }, want: -1},
		"another file in its place": {
			before: func(l, v string) error { return os.Rename(write(t, "", l+"2"), l) }, want: -1},
	} {
		tmp := tempDir(t)
		dir, victim := mkdir(t, tmp, "c"), write(t, "secret", tmp, "victim")
		log := write(t, "", dir, logName)
		a := admissionTo(t, dir)
		calm(t, dir)
		at := must[fsx.Stat](t)(a.dir.Stat())
		was := must[fsx.Stat](t)(a.dir.Lstat(logName))
		if c.seen != "" {
			outer := admissionTo(t, tmp)
			was = must[fsx.Stat](t)(outer.dir.Lstat(c.seen))
		}
		if c.before != nil {
			do(t, c.before(log, victim))
		}
		f := must[*os.File](t)(a.dir.OpenFile(logName, unix.O_RDWR|unix.O_APPEND, 0))
		if c.after != nil {
			do(t, c.after(log, victim))
		}
		if c.still {
			at = must[fsx.Stat](t)(a.dir.Stat())
		}
		_, err := a.prove(logName, f, was, at)
		f.Close()
		if got := fail.Of(err); c.want == -1 && err != errMoved || c.want > 0 && got != c.want || c.want == 0 && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// paused has f called whenever a file is to be opened in a directory that was changed just now.
func paused(t *testing.T, f func(time.Duration)) {
	old := pause
	pause = f
	t.Cleanup(func() { pause = old })
}

func TestAYoungDirectoryIsWaitedFor(t *testing.T) {
	dir := mkdir(t, tempDir(t), "c")
	write(t, "x", dir, logName)
	a, waited := admissionTo(t, dir), 0
	really := pause
	paused(t, func(d time.Duration) { waited++; really(d) })
	f, _, err := a.openOurs(logName, unix.O_RDONLY)
	if err != nil || waited > 1 { // none if this machine is slow
		t.Fatalf("%v, waited %d times", err, waited)
	}
	f.Close()
	waited = 0
	f, _, err = a.openOurs(logName, unix.O_RDONLY)
	if err != nil || waited > 0 {
		t.Fatalf("%v, waited %d times", err, waited)
	}
	f.Close()
	// Where a file server's clock is ahead of ours a directory is young for long: it is enough that it did not change.
	write(t, "", dir, "new")
	paused(t, func(time.Duration) { waited++ })
	f, _, err = a.openOurs(logName, unix.O_RDONLY)
	if err != nil || waited > 1 {
		t.Fatalf("%v, waited %d times", err, waited)
	}
	f.Close()
}

func TestADirectoryThatChangesAllTheTime(t *testing.T) {
	dir := mkdir(t, tempDir(t), "c")
	o := task(dir)
	write(t, fmt.Sprintf("uid=%d\ngid=%d", o.UID, o.GID), dir, requiresName)
	really := pause
	paused(t, func(d time.Duration) {
		really(d)
		do(t, os.Mkdir(dir+"/x", 0o755), os.Remove(dir+"/x"))
	})
	var err error
	for range 50 { // a machine that stands still after a change sees a directory that has not changed for long
		if _, err = check(o); err != nil {
			break
		}
	}
	wantReason(t, err, fail.Busy)
}

// Somebody who shares the cache links a file of root's in and out while root opens its own. That one never changes.
func TestLogRace(t *testing.T) {
	tmp := tempDir(t)
	dir, victim := mkdir(t, tmp, "c"), write(t, "secret", tmp, "victim")
	log := dir + "/" + logName
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				os.WriteFile(log, nil, 0o644)
				os.Link(victim, dir+"/x")
				os.Rename(dir+"/x", log)
				os.Remove(log)
			}
		}
	})
	a := admissionTo(t, dir)
	for range 20 {
		f, _, err := a.openOurs(logName, unix.O_RDWR|unix.O_APPEND)
		if err != nil {
			continue
		}
		f.WriteString("x")
		f.Close()
	}
	if got := read(t, victim); got != "secret" {
		t.Errorf("root wrote to it: %q", got)
	}
}

// A log can be read by everybody, whatever the umask.
func TestLogAndUmask(t *testing.T) {
	dir := mkdir(t, tempDir(t), "c")
	old := syscall.Umask(0o777)
	defer syscall.Umask(old)
	if _, err := check(task(dir)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{logName: 0o644, requiresName: 0o444} {
		if i, err := os.Lstat(dir + "/" + name); err != nil || i.Mode() != want {
			t.Errorf("%s: %v, %v", name, i.Mode(), err)
		}
	}
}

// onLine calls do once, when a line with that text is printed.
type onLine struct {
	text string
	do   func()
}

func (o *onLine) Write(p []byte) (int, error) {
	if do := o.do; do != nil && strings.Contains(string(p), o.text) {
		o.do = nil
		do()
	}
	return len(p), nil
}

// A cache whose re-own was killed is half one user's and half another's: for neither, until the work is finished.
func TestInterruptedReown(t *testing.T) {
	needRoot(t)
	for _, theirs := range []string{"gid=1001\nuid=1001\nversion=1", "uid=1001\r\nversion=1\r\n", "gid=1001"} {
		dir := mkdir(t, tempDir(t), "c")
		write(t, theirs, dir, requiresName)
		write(t, "", dir, "data")
		for _, name := range []string{"", "/data", "/" + requiresName} {
			do(t, os.Chown(dir+name, 1001, 1001))
		}
		o := task(dir)
		o.Untrusted = true
		ctx, cancel := context.WithCancelCause(t.Context())
		interrupts := &onLine{"caches are untrusted", func() { cancel(fail.ErrInterrupted) }}
		if err := Check(ctx, logs.New(interrupts, logs.Normal, false), o); fail.Of(err) != fail.Interrupted {
			t.Fatal(err)
		}
		old := o
		old.UID, old.GID, old.Untrusted = 1001, 1001, false
		_, err := check(old)
		wantReason(t, err, fail.PurgeCache)
		if !strings.Contains(fail.Hint(err), "was interrupted") {
			t.Errorf("hint %q", fail.Hint(err))
		}
		if code, out := checkAs(t, 1001, old); code != fail.PurgeCache {
			t.Errorf("the old user: %d %s", code, out)
		}
		o.Untrusted = false
		_, err = check(o)
		wantReason(t, err, fail.PurgeCache)
		// What any other run-task sees of it: nothing is missing but an owner.
		left := must[[]string](t)(parseRequires([]byte(read(t, dir, requiresName))))
		if missing := minus(left, must[[]string](t)(o.Requirements())); fmt.Sprint(missing) != "[gid=-1 uid=-1]" {
			t.Errorf("missing %q", missing)
		}
		o.Untrusted, o.UID, o.GID = true, 1002, 1002
		if _, err := check(o); err != nil {
			t.Fatal(err)
		}
		if read(t, dir, requiresName) != wholeRequires(o) || owner(t, dir, "data") != 1002 || owner(t, dir) != 1002 {
			t.Error("the next untrusted task did not finish the work")
		}
	}
}

// What is re-owned is the directory that was looked at, whatever has its name by then.
func TestReownKeepsToTheOpenDirectory(t *testing.T) {
	needRoot(t)
	tmp := tempDir(t)
	dir, victim := mkdir(t, tmp, "c"), mkdir(t, tmp, "victim")
	write(t, "gid=1001\nuid=1001\nversion=1", dir, requiresName)
	write(t, "", dir, "data")
	write(t, "", victim, "data")
	o := task(dir)
	o.Untrusted = true
	swap := &onLine{"caches are untrusted", func() { do(t, os.Rename(dir, tmp+"/moved"), os.Rename(victim, dir)) }}
	if err := Check(t.Context(), logs.New(swap, logs.Normal, false), o); err != nil {
		t.Fatal(err)
	}
	if owner(t, dir, "data") != 0 || owner(t, dir) != 0 {
		t.Error("another directory was given away")
	}
	if owner(t, tmp, "moved/data") != 1000 || read(t, tmp, "moved", requiresName) != wholeRequires(o) {
		t.Error("the cache was not re-owned")
	}
}
