package pins

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// Files for flock(2), which are never deleted.
const (
	gcLock   = "gc"    // shared: packs come; exclusive: packs go
	wantLock = "want-" // and a SHA: somebody fetches it
)

// Lock is a lock on a commit, and a quarantine for the packs that its holder fetches.
type Lock struct {
	repo     *Repo
	gc, want *os.File
	incoming string   // the quarantine, in the store; "" if there is none
	own      *os.File // its lock
	packs    *fsx.Dir // where packs go in it
	held     bool     // want is ours
}

// Lock keeps others from fetching the same commit, and GC from the repository, until Close or until the process ends. waiting is called with who holds it if
// somebody does, at most once for each of the two.
func (r *Repo) Lock(ctx context.Context, sha string, waiting func(holder string)) (*Lock, error) {
	for _, dir := range []string{lockDir, incomingDir, pinDir, packDir} {
		if err := r.makeDir(dir); err != nil {
			return nil, denied(err, r.store.dir)
		}
	}
	l := &Lock{repo: r}
	err := l.take(ctx, sha, waiting)
	if err != nil {
		l.Close()
		return nil, err
	}
	r.sweep(time.Now())
	return l, nil
}

func (l *Lock) take(ctx context.Context, sha string, waiting func(string)) (err error) {
	if l.gc, err = l.repo.lockFile(gcLock); err != nil {
		return err
	}
	if err = fsx.LockShared(ctx, l.gc, func() { waiting("a garbage collection") }); err != nil {
		return noLocks(err)
	}
	if l.want, err = l.repo.lockFile(wantLock + sha); err != nil {
		return err
	}
	if err = fsx.Lock(ctx, l.want, func() { waiting(holder(l.want)) }); err != nil {
		return noLocks(err)
	}
	l.held = true
	host, _ := os.Hostname()
	if err = l.want.Truncate(0); err == nil {
		_, err = l.want.WriteAt([]byte(fmt.Sprintf("pid %d on %s, since %s", os.Getpid(), host, time.Now().UTC().Format(time.RFC3339))), 0)
	}
	return err
}

// lockFile opens a file for flock(2).
func (r *Repo) lockFile(name string) (*os.File, error) {
	at := r.in(lockDir, name)
	f, err := r.store.dir.OpenFile(at, unix.O_RDWR|unix.O_CREAT, 0o666)
	if err == nil {
		if st, serr := fsx.FileStat(f); serr != nil || !st.IsRegular() {
			f.Close()
			err = cmp.Or(serr, error(unix.ENXIO))
		}
	}
	if noFile(err) { // it is not replaced: somebody else might, and have the lock by now
		return nil, fail.Errorf(fail.PurgeCache, "%q in the store is no file: %w", at, err).WithHint("purge the store, or remove that when no task runs")
	}
	return f, denied(err, r.store.dir)
}

// holder is what the one that holds a lock wrote into it.
func holder(f *os.File) string {
	buf := make([]byte, 200)
	n, _ := f.ReadAt(buf, 0)
	if n == 0 {
		return "another task"
	}
	return strings.Map(func(c rune) rune { // anybody may have written it
		if unicode.IsPrint(c) && c != utf8.RuneError {
			return c
		}
		return '?'
	}, string(buf[:n]))
}

// noLocks explains a file system that has no flock(2).
func noLocks(err error) error {
	if errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return fail.Errorf(fail.OS, "the store's file system has no locks: %w", err).WithHint("mount it with locks (for NFS, version 4, or local_lock=flock if one host alone uses it), or put the store on a local disk")
	}
	return err
}

// Quarantine makes a directory that is the holder's alone until Close. It is open until then.
func (l *Lock) Quarantine() (*fsx.Dir, error) {
	dir := l.repo.store.dir
	host, _ := os.Hostname()
	for tries := 0; ; tries++ {
		name := l.repo.in(incomingDir, fmt.Sprintf("%s-%d-%x", escape(host), os.Getpid(), rand.Uint64()))
		err := dir.Mkdir(name, 0o777)
		if err == nil {
			l.own, err = dir.OpenFile(name+"/lock", unix.O_RDWR|unix.O_CREAT, 0o666)
		}
		if err == nil {
			l.incoming = name
			err = unix.Flock(int(l.own.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		}
		if err == nil {
			_, err = dir.Lstat(name + "/lock")
		}
		if tries < 100 && (errors.Is(err, fs.ErrNotExist) || err == unix.EWOULDBLOCK) { // somebody took it for a dead one's, or purged the store
			if l.own != nil {
				l.own.Close()
				l.own = nil
			}
			if err := l.repo.makeDir(incomingDir); err != nil {
				return nil, denied(err, dir)
			}
			continue
		}
		if err == nil {
			err = dir.Mkdir(name+"/packs", 0o777)
		}
		if err == nil {
			l.packs, err = dir.OpenDir(name + "/packs")
		}
		return l.packs, denied(noLocks(err), dir)
	}
}

// Publish moves packs from the quarantine to their place, durably, and writes the pin that names them, among others.
func (l *Lock) Publish(packs []string, p *Pin) error {
	dir := l.repo.store.dir
	for _, pack := range packs {
		for _, end := range []string{".pack", ".idx"} { // git looks for packs by their .idx
			if err := l.repo.clear(packDir, pack+end); err != nil {
				return denied(err, dir)
			}
			if err := dir.Rename(l.incoming+"/packs/"+pack+end, l.repo.in(packDir, pack+end)); err != nil {
				return denied(err, dir)
			}
		}
	}
	if err := dir.Sync(l.repo.in(packDir)); err != nil {
		return err
	}
	return l.repo.Write(p)
}

// Close removes the quarantine and lets others go on.
func (l *Lock) Close() (err error) {
	if l.packs != nil {
		l.packs.Close()
	}
	if l.incoming != "" {
		if err = l.repo.store.dir.RemoveAll(l.incoming); errors.Is(err, unix.ENOTEMPTY) { // somebody sweeps it at the same time
			err = nil
		}
	}
	if l.held { // else it says who has it
		l.want.Truncate(0)
	}
	for _, f := range []*os.File{l.own, l.want, l.gc} {
		if f != nil {
			f.Close()
		}
	}
	return err
}

// sweep removes quarantines whose owners are dead. What cannot be removed stays.
func (r *Repo) sweep(now time.Time) {
	names, _ := r.names(r.in(incomingDir))
	for _, n := range names {
		r.sweepOne(r.in(incomingDir, n), now)
	}
}

func (r *Repo) sweepOne(name string, now time.Time) {
	dir := r.store.dir
	st, err := dir.Lstat(name)
	if err != nil {
		return
	}
	if st.IsDir() {
		f, err := dir.OpenFile(name+"/lock", unix.O_RDWR|unix.O_CREAT, 0o666) // one that has none yet is taken from its owner, who makes another one
		if err == nil {
			defer f.Close()
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		} else if noFile(err) && now.Sub(time.Unix(st.MtimeSec, 0)) >= recent { // nobody can have that lock
			err = nil
		}
		if err != nil {
			return
		}
	}
	dir.RemoveAll(name)
}

// noFile tells whether an error of opening a file to write says that something else has its name.
func noFile(err error) bool {
	return errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENXIO)
}
