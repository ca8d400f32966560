package pins

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// condemned is the end of a file that says since when no live pin names a pack.
const condemned = ".condemned"

// recent is how old what has no name yet may be: its writer is between two calls.
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
// read its packs. A repository in which a task fetches is skipped.
func (s *Store) GC(ctx context.Context, o GC) (Freed, error) {
	g := &collection{GC: o, store: s}
	defer g.release()
	repos, err := s.repos()
	for _, r := range repos {
		if err == nil {
			err = g.enter(r)
		}
	}
	if err == nil {
		err = g.giveUp()
	}
	for _, r := range g.repos {
		if ctx.Err() != nil {
			return g.freed, context.Cause(ctx)
		}
		if err == nil {
			err = g.collect(r)
		}
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
		if r.lock != nil {
			r.lock.Close()
		}
	}
}

// enter locks a repository and removes what is no live pin.
func (g *collection) enter(r *Repo) error {
	f, err := g.lockFile(r)
	if errors.Is(err, fs.ErrNotExist) && g.DryRun { // nobody has ever locked it
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
	g.repos = append(g.repos, l)
	if !g.DryRun {
		r.sweep()
		if err := g.restore(r); err != nil {
			return err
		}
		if err := g.store.dir.RemoveAll(r.in(damagedDir)); err != nil {
			return err
		}
	}
	places, err := r.places()
	for _, at := range places {
		switch {
		case err != nil:
		case at.pin != nil && at.pin.Expires.After(g.Now) && r.hasAll(at.pin.Packs):
			l.live = append(l.live, at)
		case at.pin == nil && g.young(at.path): // it may be on its way to a name
		default:
			err = g.drop(at)
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

func (g *collection) drop(at place) error {
	if at.pin != nil {
		g.freed.Pins++
	}
	if g.DryRun {
		return nil
	}
	return g.store.dir.RemoveAll(at.path)
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
		if err := g.drop(c.at); err != nil {
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

// collect removes what the live pins of a repository do not need.
func (g *collection) collect(l *locked) error {
	shas, err := l.names(l.in(pinDir))
	for _, sha := range shas {
		at := l.in(pinDir, sha)
		if st, err := g.store.dir.Lstat(at); err == nil && !g.DryRun && st.IsDir() {
			g.store.dir.Rmdir(at) // if it is empty
		} else if err == nil && !g.DryRun && !g.young(at) {
			g.store.dir.Unlink(at)
		}
	}
	if err != nil {
		return err
	}
	names, err := l.names(l.in(packDir))
	if err != nil {
		return err
	}
	needed, seen := l.needed(), map[string]bool{}
	var doomed []string
	for _, n := range names {
		pack, end, _ := strings.Cut(n, ".")
		if !packName.MatchString(pack) || !slices.Contains([]string{"pack", "idx", condemned[1:]}, end) {
			if path := l.in(packDir, n); !g.young(path) && !g.DryRun {
				err = g.store.dir.RemoveAll(path)
			}
		} else if !seen[pack] {
			seen[pack] = true
			var dooms bool
			if dooms, err = g.judge(l, pack, needed[pack]); dooms {
				doomed = append(doomed, pack)
			}
		}
		if err != nil {
			return err
		}
	}
	return g.remove(l, doomed)
}

// judge marks a pack, takes the mark away, or says that it goes.
func (g *collection) judge(l *locked, pack string, needed bool) (dooms bool, err error) {
	dir, mark, size := g.store.dir, l.in(packDir, pack+condemned), l.size(pack)
	since, marked := g.markedAt(mark)
	switch {
	case !needed && (g.Grace <= 0 || marked && g.Now.Sub(since) >= g.Grace):
		return true, nil
	case !needed:
		g.freed.Condemned++
		g.freed.Left += size
		if marked || g.DryRun {
			return false, nil
		}
		if err := l.clear(packDir, pack+condemned); err != nil {
			return false, err
		}
		return false, dir.WriteFile(mark, []byte(g.Now.UTC().Format(time.RFC3339Nano)+"\n"), 0o644)
	}
	g.freed.Left += size
	if g.DryRun {
		return false, nil
	}
	return false, dir.RemoveAll(mark)
}

// dying is the end of an index that GC has taken away and not removed yet.
const dying = ".dying"

// remove removes packs that nobody needs. Who pins some of them meanwhile writes the pin and then looks for the packs; we take the indexes away and then look
// for pins: one of the two sees the other.
func (g *collection) remove(l *locked, doomed []string) error {
	sizes := map[string]int64{}
	for _, pack := range doomed {
		sizes[pack] = l.size(pack)
		if idx := l.in(packDir, pack+".idx"); !g.DryRun && l.clear(packDir, pack+".idx"+dying) == nil {
			if err := g.store.dir.Rename(idx, idx+dying); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	if len(doomed) == 0 {
		return nil
	}
	wanted := map[string]bool{}
	if !g.DryRun {
		now, err := l.places()
		if err != nil {
			return errors.Join(err, g.restore(l.Repo))
		}
		for _, at := range now {
			for _, pack := range at.packs() {
				wanted[pack] = true
			}
		}
	}
	for _, pack := range doomed {
		idx := l.in(packDir, pack+".idx")
		if wanted[pack] {
			g.freed.Left += sizes[pack]
			if err := g.store.dir.Rename(idx+dying, idx); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			continue
		}
		g.freed.Packs++
		g.freed.Bytes += sizes[pack]
		for _, end := range []string{".idx" + dying, ".pack", condemned} {
			if g.DryRun {
				break
			}
			if err := g.store.dir.RemoveAll(l.in(packDir, pack+end)); err != nil {
				return err
			}
		}
	}
	return nil
}

// packs are what a pin needs, if it is one.
func (p place) packs() []string {
	if p.pin == nil {
		return nil
	}
	return p.pin.Packs
}

// restore gives indexes back that a GC took away before it was killed.
func (g *collection) restore(r *Repo) error {
	names, err := r.names(r.in(packDir))
	for _, n := range names {
		idx, is := strings.CutSuffix(n, dying)
		if !is || !strings.HasSuffix(idx, ".idx") {
			continue
		}
		if _, lerr := g.store.dir.Lstat(r.in(packDir, idx)); errors.Is(lerr, fs.ErrNotExist) {
			err = errors.Join(err, g.store.dir.Rename(r.in(packDir, n), r.in(packDir, idx)))
		} else {
			err = errors.Join(err, g.store.dir.RemoveAll(r.in(packDir, n)))
		}
	}
	return err
}

// markedAt reads a mark. One of the future says nothing: the clock was wrong then, or is now.
func (g *collection) markedAt(mark string) (since time.Time, ok bool) {
	raw, err := g.store.dir.ReadFile(mark, 100)
	if err == nil {
		since, err = time.Parse(time.RFC3339Nano, strings.TrimSpace(string(raw)))
	}
	return since, err == nil && !since.After(g.Now)
}
