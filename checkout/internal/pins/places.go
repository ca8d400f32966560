package pins

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"

	"golang.org/x/sys/unix"

	"run-task/internal/fsx"
)

// identity tells files apart that have had the same name. A rename keeps it.
type identity struct {
	ino       uint64
	size      int64
	sec, nsec int64 // of the last change of its content
}

func identify(st fsx.Stat) identity { return identity{st.Ino, st.Size, st.MtimeSec, st.MtimeNsec} }

// none tells whether an error says that nothing of ours has a name. Any other one, such as EIO, leaves that open.
func none(err error) bool {
	for _, e := range []error{fs.ErrNotExist, unix.ENOTDIR, unix.ELOOP, unix.EINVAL, unix.EFBIG} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// see tells whether all packs of a pin and their indexes are there, and remembers which files they are. An error leaves it open.
func (r *Repo) see(p *Pin) (there bool, err error) {
	seen := make(map[string]identity, 2*len(p.Packs))
	for _, pack := range p.Packs {
		for _, end := range []string{".pack", ".idx"} {
			st, err := r.store.dir.Lstat(r.in(packDir, pack+end))
			if err != nil && !none(err) {
				return false, err
			}
			if err != nil || !st.IsRegular() {
				return false, nil
			}
			seen[pack+end] = identify(st)
		}
	}
	p.seen = seen
	return true, nil
}

// place is a file where a pin may be.
type place struct {
	path string // in the store
	id   identity
	pin  *Pin  // nil if it is none
	err  error // why that is not known
}

// at reads a file where a pin may be: one counts that says what its place says.
func (r *Repo) at(sha, name string) place {
	p := place{path: r.in(pinDir, sha, name)}
	st, err := r.store.dir.Lstat(p.path)
	var raw []byte
	if err == nil {
		p.id = identify(st)
		if !st.IsRegular() {
			return p
		}
		raw, err = r.store.dir.ReadFile(p.path, maxPin)
	}
	if err != nil {
		if !none(err) {
			p.err = err
		}
		return p
	}
	if pin, err := Parse(raw); err == nil && pin.SHA == sha && pin.file() == name && digest(pin.URL+"\x00"+pin.Trust) == r.id {
		p.pin = pin
	}
	return p
}

// of lists the places of a commit's pins, in order.
func (r *Repo) of(sha string) (all []place, err error) {
	names, err := r.names(r.in(pinDir, sha))
	for _, n := range names {
		all = append(all, r.at(sha, n))
	}
	return all, err
}

// places lists those of all commits. A directory that cannot be listed is one of them, with the error.
func (r *Repo) places() (all []place, err error) {
	shas, err := r.names(r.in(pinDir))
	for _, sha := range shas {
		more, err := r.of(sha)
		if err != nil {
			more = append(more, place{path: r.in(pinDir, sha), err: err})
		}
		all = append(all, more...)
	}
	return all, err
}

// names are what is in a directory of the store, sorted: nothing if there is none.
func (r *Repo) names(dir string) ([]string, error) {
	d, err := r.store.dir.OpenDir(dir)
	if err != nil && none(err) { // what somebody put there is none of ours
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Names()
	slices.Sort(names)
	return names, err
}

// take renames a file if it is the one that was seen. Another one that got its name meanwhile stays, or is back in a moment.
func (r *Repo) take(from, to string, seen identity) (ours bool, err error) {
	dir := r.store.dir
	if st, err := dir.Lstat(from); err != nil || identify(st) != seen {
		if err != nil && none(err) {
			err = nil
		}
		return false, err
	}
	if err := dir.Rename(from, to); err != nil {
		if none(err) {
			err = nil
		}
		return false, err
	}
	if st, err := dir.Lstat(to); err != nil || identify(st) == seen {
		return err == nil, err
	}
	if _, err := dir.Lstat(from); errors.Is(err, fs.ErrNotExist) {
		return false, dir.Rename(to, from)
	}
	return false, dir.RemoveAll(to) // there is a third one by now
}

// forget removes what is at a place, unless somebody has written another pin there since it was read.
func (r *Repo) forget(at place) error {
	aside := fmt.Sprintf("%s.tmp%x", at.path, rand.Uint64())
	ours, err := r.take(at.path, aside, at.id)
	if ours {
		err = r.store.dir.RemoveAll(aside)
	}
	return err
}

// SetAside gets the packs of a pin, which are damaged, out of the way, and all pins that name one. The pin must be as Find, Newest, Write or Publish left it:
// packs that somebody has replaced since stay, and so do pins that somebody has written since.
func (r *Repo) SetAside(p *Pin) error {
	places, err := r.places() // before the look at the packs: who brings packs back writes his pin last
	if err != nil {
		return denied(err, r.store.dir)
	}
	damaged := map[string]bool{}
	for _, pack := range p.Packs {
		st, err := r.store.dir.Lstat(r.in(packDir, pack+".pack"))
		damaged[pack] = err == nil && identify(st) == p.seen[pack+".pack"]
	}
	for _, at := range places {
		if slices.ContainsFunc(at.packs(), func(pack string) bool { return damaged[pack] }) {
			if err := r.forget(at); err != nil {
				return denied(err, r.store.dir)
			}
		}
	}
	if err := r.makeDir(damagedDir); err != nil {
		return denied(err, r.store.dir)
	}
	for _, pack := range p.Packs {
		for _, end := range []string{".idx", ".pack"} {
			if !damaged[pack] {
				continue
			}
			err := r.clear(damagedDir, pack+end)
			if err == nil {
				_, err = r.take(r.in(packDir, pack+end), r.in(damagedDir, pack+end), p.seen[pack+end])
			}
			if err != nil {
				return denied(err, r.store.dir)
			}
		}
	}
	return nil
}
