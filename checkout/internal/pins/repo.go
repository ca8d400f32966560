package pins

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"run-task/internal/fsx"
)

// Repo is the pins and packs of one repository.
type Repo struct {
	store      *Store
	id         string
	url, trust string
}

// Path is the repository's directory.
func (r *Repo) Path() string { return filepath.Join(r.store.path, r.id) }

// in is a path in the store.
func (r *Repo) in(names ...string) string { return r.id + "/" + strings.Join(names, "/") }

// Packs opens the directory of packs for reading. The caller closes it.
func (r *Repo) Packs() (*fsx.Dir, error) { return r.store.dir.OpenDir(r.in(packDir)) }

// size is that of a pack and its index, as far as they are there.
func (r *Repo) size(pack string) (n int64) {
	for _, end := range []string{".pack", ".idx"} {
		if st, err := r.store.dir.Lstat(r.in(packDir, pack+end)); err == nil {
			n += st.Size
		}
	}
	return n
}

// Find gives a pin of the commit and shape, the one that expires last. Without expired, only one that has not expired is given, and no lock is needed for
// what it names: GC leaves it Grace.
func (r *Repo) Find(sha string, shape Shape, now time.Time, expired bool) (*Pin, error) {
	places, err := r.of(sha)
	if err != nil {
		return nil, err
	}
	var best *Pin
	for _, at := range places {
		if at.pin == nil || at.pin.suffix() != shape.suffix() || !slices.Equal(at.pin.Sparse, shape.Sparse) || !expired && !at.pin.Expires.After(now) || best != nil && !at.pin.Expires.After(best.Expires) {
			continue
		}
		if there, _ := r.see(at.pin); there {
			best = at.pin
		}
	}
	return best, nil
}

// Newest gives the complete (Whole, not Partial) live pin of the depth that was created last, whatever its commit, nil if there is none.
func (r *Repo) Newest(depth int, now time.Time) (*Pin, error) {
	places, err := r.places()
	if err != nil {
		return nil, err
	}
	suffix := Shape{Depth: depth}.suffix()
	places = slices.DeleteFunc(places, func(at place) bool {
		p := at.pin
		return p == nil || p.suffix() != suffix || !p.Whole || p.Partial || !p.Expires.After(now)
	})
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(b.pin.Created.Compare(a.pin.Created), cmp.Compare(a.path, b.path))
	})
	for _, at := range places {
		if there, _ := r.see(at.pin); there {
			return at.pin, nil
		}
	}
	return nil, nil
}

// Write writes a pin for its holder, unless what is there says the same and expires no earlier. If a pack of it is gone it is fs.ErrNotExist.
func (r *Repo) Write(p *Pin) error {
	if is := r.at(p.SHA, p.file()).pin; is == nil || !is.says(p) || is.Expires.Before(p.Expires) {
		if err := r.write(p); err != nil {
			return denied(err, r.store.dir)
		}
	}
	there, err := r.see(p)
	if !there {
		r.store.dir.Unlink(r.in(pinDir, p.SHA, p.file()))
		err = cmp.Or(err, error(&fs.PathError{Op: "pin", Path: filepath.Join(r.Path(), packDir), Err: fs.ErrNotExist}))
	}
	return err
}

// makeDir makes a directory of the repository, and its parents, also where somebody put something else.
func (r *Repo) makeDir(names ...string) error {
	at := ""
	for _, name := range strings.Split(r.in(names...), "/") {
		at = path.Join(at, name)
		if st, err := r.store.dir.Lstat(at); err == nil && !st.IsDir() {
			r.store.dir.Unlink(at) // if that fails, so does what comes
		}
	}
	return r.store.dir.MkdirAll(at, 0o777)
}

// clear removes a directory that is in the way of a file.
func (r *Repo) clear(names ...string) error {
	if st, err := r.store.dir.Lstat(r.in(names...)); err != nil || !st.IsDir() {
		return nil
	}
	return r.store.dir.RemoveAll(r.in(names...))
}

// write makes GC keep the packs, and then says that they are pinned.
func (r *Repo) write(p *Pin) error {
	for _, pack := range p.Packs {
		if err := r.store.dir.RemoveAll(r.in(packDir, pack+condemned)); err != nil {
			return err
		}
	}
	raw, err := json.MarshalIndent(p, "", "\t")
	for tries := 0; err == nil; tries++ {
		if err = r.makeDir(pinDir, p.SHA); err == nil {
			err = r.clear(pinDir, p.SHA, p.file())
		}
		if err == nil {
			err = r.store.dir.WriteFile(r.in(pinDir, p.SHA, p.file()), append(raw, '\n'), 0o644)
		}
		if tries == 100 || !errors.Is(err, fs.ErrNotExist) { // or a GC removed the empty directory
			return err
		}
		err = nil
	}
	return err
}

// Remove removes the pins of a commit that a holder has, or all holders' if holder is "", and says how many.
func (r *Repo) Remove(sha, holder string) (n int, err error) {
	places, err := r.of(sha)
	for _, at := range places {
		err = errors.Join(err, denied(at.err, r.store.dir)) // it may be one of them
		if at.pin == nil || holder != "" && at.pin.Holder != holder {
			continue
		}
		switch uerr := r.store.dir.Unlink(at.path); {
		case uerr == nil:
			n++
		case !errors.Is(uerr, fs.ErrNotExist):
			err = errors.Join(err, denied(uerr, r.store.dir))
		}
	}
	return n, err
}
