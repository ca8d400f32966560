package pins

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"
)

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
		for _, at := range now {
			err = cmp.Or(err, at.err)
			for _, pack := range at.packs() {
				wanted[pack] = true
			}
		}
		if err != nil {
			return errors.Join(err, g.restore(l.Repo))
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
