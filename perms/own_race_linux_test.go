package perms

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

// Somebody who shares the tree swaps things while root owns it. Whatever he does, nothing outside of it changes.
func TestOwnRaces(t *testing.T) {
	needRoot(t)
	base := t.TempDir()
	top := base + "/top"
	secretDir, secret := base+"/secrets", write(t, base+"/secrets/secret")
	linked, moved := write(t, base+"/linked"), write(t, base+"/moved")
	do(t, os.Link(moved, base+"/moved2"))

	write(t, top+"/swap/secret")
	do(t, os.Symlink(secretDir, top+"/swap-link"), os.Mkdir(top+"/left", 0o755), os.Mkdir(top+"/right", 0o755),
		os.Symlink(secret, top+"/file-link"), os.Rename(base+"/moved2", top+"/left/moved"))
	write(t, top+"/file")
	for i := range 200 { // the walk takes a while
		write(t, fmt.Sprintf("%s/%d/file", top, i))
	}

	attacks := []func(){
		func() { exchange(top+"/swap", top+"/swap-link") },
		func() { exchange(top+"/file", top+"/file-link") },
		func() { // a link that comes and goes
			os.Link(linked, top+"/linked")
			os.Remove(top + "/linked")
		},
		func() { // one link that is met twice
			os.Rename(top+"/left/moved", top+"/right/moved")
			os.Rename(top+"/right/moved", top+"/left/moved")
		},
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, attack := range attacks {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					attack()
				}
			}
		})
	}
	rounds := 60
	if testing.Short() {
		rounds = 5
	}
	for i := range rounds {
		if err := Own(t.Context(), logs.New(&bytes.Buffer{}, logs.Normal, false), top, me+i%2, me); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	wg.Wait()
	wantOwner(t, secretDir, roots(0o755))
	for _, name := range []string{secret, linked, moved} {
		wantOwner(t, name, roots(0o644))
	}
}

// walkOf is a walk that has just begun, and its top.
func walkOf(t *testing.T, top string) (*walk, *dir) {
	t.Helper()
	fd, err := openDir(unix.AT_FDCWD, top)
	do(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	st, err := look(fd)
	do(t, err)
	w := &walk{ctx: t.Context(), progress: logs.New(&bytes.Buffer{}, logs.Normal, false).Progress(), uid: me, gid: me, name: top, top: fd, mount: st, calm: time.Now().Add(-tick),
		links: map[file]*inode{}, met: map[place]bool{}}
	return w, &dir{fd: fd, file: st.file()}
}

// What was touched since the walk began, and what is not what was looked at, waits for the end.
func TestOwnPutsOff(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	write(t, top+"/file")
	write(t, top+"/other")
	calm(t)
	for _, young := range []bool{true, false} {
		w, d := walkOf(t, top)
		if young {
			w.calm = time.Unix(0, 0)
			do(t, w.entry(d, []byte("file\x00")))
		} else {
			was, err := lookAt(d.fd, cString("other"))
			do(t, err, w.change(d, "file", was))
		}
		if len(d.links) != 1 || w.changed.Load() != 0 {
			t.Errorf("young %v: %d put off, %d changed", young, len(d.links), w.changed.Load())
		}
		wantOwner(t, top+"/file", roots(0o644))
	}
}

// The steps that end a walk, with the tree changing between them.
func TestOwnSettles(t *testing.T) {
	needRoot(t)
	buf := make([]byte, batch)
	for name, c := range map[string]struct {
		beforeConfirm, beforeChange func(top string)
		owned                       bool
	}{
		"nothing happens":  {owned: true},
		"a name was moved": {beforeConfirm: func(top string) { do(t, os.Rename(top+"/other", top+"/renamed")) }},
		"a link was made":  {beforeChange: func(top string) { do(t, os.Link(top+"/file", top+"/../elsewhere")) }},
		"one for another": {beforeChange: func(top string) {
			write(t, top+"/../other")
			do(t, os.Rename(top+"/../other", top+"/file"))
		}},
	} {
		top := t.TempDir() + "/top"
		write(t, top+"/file")
		write(t, top+"/other")
		w, d := walkOf(t, top)
		do(t, w.list(d, buf))
		again := &dir{fd: d.fd, file: d.file} // the same directory, met by another path
		calm(t)
		if _, err := unix.Seek(d.fd, 0, 0); err != nil {
			t.Fatal(err)
		}
		do(t, w.list(again, buf))
		if len(d.links) != 2 || len(again.links) != 0 {
			t.Errorf("%s: %d and %d links", name, len(d.links), len(again.links))
		}
		st, err := look(d.fd)
		do(t, err)
		d.ctime = st.ctime()
		if c.beforeConfirm != nil {
			c.beforeConfirm(top)
		}
		do(t, w.confirm(d, d.fd))
		if c.beforeChange != nil {
			c.beforeChange(top)
		}
		do(t, w.changeConfirmed(d, d.fd))
		want := roots(0o644)
		if c.owned {
			want = mine(0o644)
		}
		if got := owner(t, top+"/file"); got != want {
			t.Errorf("%s: %s, not %s", name, got, want)
		}
	}
}

// ".." of a directory that was moved leads where its owner likes.
func TestOwnMovedAway(t *testing.T) {
	needRoot(t)
	base := t.TempDir()
	do(t, os.MkdirAll(base+"/top/a/b", 0o755), os.Mkdir(base+"/elsewhere", 0o755))
	w, _ := walkOf(t, base+"/top")
	for _, moved := range []bool{false, true} {
		_, a := walkOf(t, base+"/top/a")
		fd, err := openDir(a.fd, "b")
		do(t, err)
		b := &dir{parent: &dir{file: a.file, fd: -1}, fd: fd}
		if moved {
			do(t, os.Rename(base+"/top/a/b", base+"/elsewhere/b"))
		}
		if err := w.up(b); moved != (fail.Of(err) == fail.IO) || (err != nil) != moved {
			t.Errorf("moved %v: %v", moved, err)
		}
		b.parent.close()
	}
}

func exchange(a, b string) {
	unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}
