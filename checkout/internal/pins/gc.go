package pins

import (
	"cmp"
	"context"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// condemned is the end of a file that says since when no live pin names a pack.
const condemned = ".condemned"

// recent is how old what has no name of ours may get: its writer may be between two calls. It is no part of Grace, which is for who reads what a pin named;
// nobody reads these.
const recent = time.Hour

// GC says what may be removed.
type GC struct {
	Now     time.Time
	Grace   time.Duration // how long packs stay after they were first seen without a live pin
	MaxSize int64         // pins that expire next are given up until the packs are no more than this, in bytes; 0 for no limit
	DryRun  bool
}

// Freed is what a GC did.
type Freed struct {
	Busy      []string // repositories that were skipped because a task fetches
	Pins      int      // that have expired, or were given up
	Packs     int
	Bytes     int64
	Condemned int   // packs that go after Grace
	Left      int64 // bytes of packs
}

// GC removes what no live pin needs, in two phases: a pack that no live pin names is marked, and goes when Grace is over, so that who has just found a pin can
// read its packs. A repository in which a task fetches is skipped. So is one of which something cannot be read: nobody knows what its pins need. The error says
// so when the others are done.
func (s *Store) GC(ctx context.Context, o GC) (Freed, error) {
	g := &collection{GC: o, store: s}
	defer g.release()
	repos, err := s.repos()
	for _, r := range repos {
		if ctx.Err() == nil {
			err = cmp.Or(err, g.enter(r))
		}
	}
	if ctx.Err() == nil {
		err = cmp.Or(err, g.giveUp())
	}
	for _, r := range g.repos {
		if ctx.Err() == nil {
			err = cmp.Or(err, g.collect(r))
		}
	}
	if ctx.Err() != nil {
		return g.freed, context.Cause(ctx)
	}
	return g.freed, denied(err, s.dir)
}

type collection struct {
	GC
	store *Store
	repos []*locked
	freed Freed
}

// locked is a repository that is ours alone.
type locked struct {
	*Repo
	lock *os.File
	live []place
}

func (g *collection) release() {
	for _, r := range g.repos {
		r.release()
	}
}

func (l *locked) release() {
	if l.lock != nil {
		l.lock.Close()
	}
}

// enter locks a repository and looks into it, unless a task fetches there.
func (g *collection) enter(r *Repo) error {
	f, err := g.lockFile(r)
	if err != nil && none(err) && g.DryRun { // nobody has it
		f, err = nil, nil
	}
	if err != nil {
		return err
	}
	if err := flock(f); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			g.freed.Busy = append(g.freed.Busy, r.Path())
			return nil
		}
		return noLocks(os.NewSyscallError("flock", err))
	}
	l := &locked{Repo: r, lock: f}
	if err := g.look(l); err != nil {
		l.release()
		return err
	}
	g.repos = append(g.repos, l)
	return nil
}

// look finds the live pins of a repository, and removes the others and what the dead left.
func (g *collection) look(l *locked) error {
	if !g.DryRun {
		l.sweep(g.Now)
		if err := g.restore(l.Repo); err != nil {
			return err
		}
		if err := g.store.dir.RemoveAll(l.in(damagedDir)); err != nil {
			return err
		}
	}
	places, err := l.places()
	var others []place
	for _, at := range places {
		live := false
		if err = cmp.Or(err, at.err); err == nil && at.pin != nil && at.pin.Expires.After(g.Now) {
			live, err = l.see(at.pin)
		}
		if live {
			l.live = append(l.live, at)
		} else {
			others = append(others, at)
		}
	}
	for _, at := range others {
		if err == nil && (at.pin != nil || !g.young(at.path)) { // what is young may be on its way to a name
			err = g.drop(l, at)
		}
	}
	return err
}

// lockFile opens the lock for packs that go. Who changes nothing makes none.
func (g *collection) lockFile(r *Repo) (*os.File, error) {
	if g.DryRun {
		return g.store.dir.OpenFile(r.in(lockDir, gcLock), unix.O_RDONLY, 0)
	}
	if err := r.makeDir(lockDir); err != nil {
		return nil, err
	}
	return r.lockFile(gcLock)
}

// flock takes a lock that is free; no file is one that nobody has.
func flock(f *os.File) error {
	if f == nil {
		return nil
	}
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

// young tells whether a file was made or changed lately.
func (g *collection) young(path string) bool {
	st, err := g.store.dir.Lstat(path)
	return err == nil && g.Now.Sub(time.Unix(st.MtimeSec, 0)) < recent
}

// drop removes what is no live pin, or shall be none.
func (g *collection) drop(l *locked, at place) error {
	if at.pin != nil {
		g.freed.Pins++
	}
	if g.DryRun {
		return nil
	}
	return l.forget(at)
}

// giveUp removes the pins that expire next until what the others need is not too much.
func (g *collection) giveUp() error {
	if g.MaxSize <= 0 {
		return nil
	}
	type candidate struct {
		of *locked
		at place
	}
	var all []candidate
	total, sizes, users := int64(0), map[string]int64{}, map[string]int{}
	for _, r := range g.repos {
		for pack := range r.needed() {
			sizes[r.in(pack)] = r.size(pack)
			total += sizes[r.in(pack)]
		}
		for _, at := range r.live {
			all = append(all, candidate{r, at})
			for _, pack := range unique(at.pin.Packs) {
				users[r.in(pack)]++
			}
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return a.at.pin.Expires.Compare(b.at.pin.Expires) })
	gone := map[string]bool{}
	for _, c := range all {
		if total <= g.MaxSize {
			break
		}
		if err := g.drop(c.of, c.at); err != nil {
			return err
		}
		gone[c.at.path] = true
		for _, pack := range unique(c.at.pin.Packs) {
			if key := c.of.in(pack); users[key] == 1 {
				total -= sizes[key]
			}
			users[c.of.in(pack)]--
		}
	}
	for _, r := range g.repos {
		r.live = slices.DeleteFunc(r.live, func(at place) bool { return gone[at.path] })
	}
	return nil
}

func unique(packs []string) []string { return slices.Compact(slices.Sorted(slices.Values(packs))) }

func (l *locked) needed() map[string]bool {
	packs := map[string]bool{}
	for _, at := range l.live {
		for _, pack := range at.pin.Packs {
			packs[pack] = true
		}
	}
	return packs
}
