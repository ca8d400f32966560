// Package odb is the objects of one checkout: packs that were received, every object of them proven, and what a commit in them
// leads to. What it reads was made by an enemy, and may be changed by one meanwhile.
package odb

import (
	"context"
	"errors"
	"io"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/pack"
	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// Store is some packs. Several goroutines may read at once, as long as none receives.
type Store struct {
	packs  []member
	total  int    // objects
	proven []bool // by number, those that the last Verify has seen

	trees map[plumbing.Hash][]byte // of the worktree, which are needed twice
	kept  int                      // bytes of them
}

// member is one of the packs. Those of an earlier run are whole: whatever their objects name is there, too.
type member struct {
	*pack.Pack
	first int // number in the store of its first object
	whole bool
	links *links // of a pack that was received
}

func (s *Store) add(p *pack.Pack, whole bool, l *links) {
	s.packs = append(s.packs, member{p, s.total, whole, l})
	s.total += p.Len()
}

// ErrLarge is Read's error for a blob that is to be read with Reader (as in errors.Is).
var ErrLarge = pack.ErrLarge

const (
	maxWhole = 256 << 20 // the size of the largest commit, tag or tree: a tree of five million entries
	maxBase  = 64 << 20  // and of the largest base of a thin pack's delta
	maxBases = 16 << 20  // what each opened pack keeps of bases
	maxKept  = 32 << 20  // bytes of trees
)

// Open opens packs of an earlier run, of which the caller knows that nobody changed them since and that they are whole, see Whole. Deltas with large
// contents need to make files in spill. Both directories must stay open until Close.
func Open(dir, spill *fsx.Dir, names []string) (*Store, error) {
	s := &Store{}
	for _, name := range names {
		p, err := pack.Open(dir, name)
		if err != nil {
			s.Close()
			return nil, err
		}
		p.Foreign(spill, maxBases)
		s.add(p, true, nil)
	}
	return s, nil
}

// Add adds a pack that is known to be whole with those that are there, as Open does.
func (s *Store) Add(dir *fsx.Dir, name string) error {
	p, err := pack.Open(dir, name)
	if err == nil {
		p.Foreign(dir, maxBases)
		s.add(p, true, nil)
	}
	return err
}

// Receive reads one pack to the end of r, stores it in dir and adds it; see pack.Receive for its options, promises and errors. dir must stay open
// until Close. A pack may be thin if what it lacks is in the store.
func (s *Store) Receive(ctx context.Context, dir *fsx.Dir, r io.Reader, o pack.Options) error {
	if s.total > 0 {
		o.Base = s.base
	}
	l, next := newLinks(), o.Object
	o.Object = func(object pack.Object) error {
		l.object(object)
		if next == nil {
			return nil
		}
		return next(object)
	}
	p, err := pack.Receive(ctx, dir, r, o)
	if err == nil {
		s.add(p, false, l)
	}
	return err
}

// base reads an object that a delta is of. Few are large: those of more than maxBase make the pack unusable.
func (s *Store) base(id pack.ID) (pack.Base, error) {
	m, n, err := s.find(id)
	if err != nil {
		return pack.Base{}, err
	}
	b, err := m.ReadPacked(n)
	if !errors.Is(err, ErrLarge) {
		return b, changed(err)
	}
	typ, size, r, err := m.Reader(n)
	if err != nil {
		return pack.Base{}, changed(err)
	}
	defer r.Close()
	if size > maxBase {
		return pack.Base{}, fail.Errorf(fail.BadData, "object %s is too large to be the base of a thin pack's delta", id)
	}
	data, err := io.ReadAll(r)
	return pack.Base{Type: typ, Data: data}, changed(err)
}

// Drop closes the pack that was received last and forgets it. Its files stay.
func (s *Store) Drop() error {
	last := s.packs[len(s.packs)-1]
	s.packs = s.packs[:len(s.packs)-1]
	s.total = last.first
	return last.Close()
}

// Names are the names of the packs' files, without their extensions .pack and .idx.
func (s *Store) Names() (names []string) {
	for _, m := range s.packs {
		names = append(names, m.Name())
	}
	return names
}

// Len is the number of objects; one that is in two packs counts twice.
func (s *Store) Len() int { return s.total }

// Close closes the packs. Nothing can be read afterwards.
func (s *Store) Close() error {
	var errs []error
	for _, m := range s.packs {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// Has says whether there is an object of that name.
func (s *Store) Has(id plumbing.Hash) bool {
	_, _, ok := s.lookup(id)
	return ok
}

// lookup finds an object, in a whole pack if it is in one.
func (s *Store) lookup(id plumbing.Hash) (m *member, n int, ok bool) {
	for i := range s.packs {
		if n, ok := s.packs[i].Find(id); ok {
			return &s.packs[i], n, true
		}
	}
	return nil, 0, false
}

func (s *Store) find(id plumbing.Hash) (*member, int, error) {
	m, n, ok := s.lookup(id)
	if !ok {
		return nil, 0, fail.Errorf(fail.BadData, "object %s is missing: %w", id, plumbing.ErrObjectNotFound)
	}
	return m, n, nil
}

// Read reads an object and proves once more that its content has that name: it had when it was received, so one that has not
// is fail.PurgeCache. One that is not there is plumbing.ErrObjectNotFound (and fail.BadData), a blob of more than 8 MiB is ErrLarge.
func (s *Store) Read(id plumbing.Hash) (plumbing.ObjectType, []byte, error) {
	if data, ok := s.trees[id]; ok {
		return plumbing.TreeObject, data, nil
	}
	m, n, err := s.find(id)
	if err != nil {
		return 0, nil, err
	}
	typ, data, err := m.Read(n, nil)
	if errors.Is(err, ErrLarge) && m.Type(n) != plumbing.BlobObject {
		typ, data, err = m.readLarge(n)
	}
	return typ, data, changed(err)
}

func (m *member) readLarge(n int) (plumbing.ObjectType, []byte, error) {
	typ, size, r, err := m.Reader(n)
	if err != nil {
		return typ, nil, err
	}
	defer r.Close()
	if typ == plumbing.BlobObject {
		return typ, nil, ErrLarge
	}
	if size > maxWhole {
		return typ, nil, fail.Errorf(fail.BadData, "object %s is a %s of %d bytes", m.ID(n), typ, size)
	}
	data, err := io.ReadAll(r)
	return typ, data, err
}

// Reader streams an object of any size. The Read that would give io.EOF gives an error if the content has not that name.
// It must be closed.
func (s *Store) Reader(id plumbing.Hash) (plumbing.ObjectType, int64, io.ReadCloser, error) {
	m, n, err := s.find(id)
	if err != nil {
		return 0, 0, nil, err
	}
	typ, size, r, err := m.Reader(n)
	if err != nil {
		return typ, size, nil, changed(err)
	}
	return typ, size, proven{r}, nil
}

type proven struct{ io.ReadCloser }

func (p proven) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	if err != io.EOF {
		err = changed(err)
	}
	return n, err
}

// changed explains bad data in what was good when it was received.
func changed(err error) error {
	if fail.Of(err) != fail.BadData || err == nil {
		return err
	}
	return fail.Errorf(fail.PurgeCache, "an object that was just verified reads back differently: %s", err.Error()).
		WithHint("purge the cache; if it comes back, the disk is broken")
}

func (s *Store) readAs(want plumbing.ObjectType, id plumbing.Hash) ([]byte, error) {
	t, data, err := s.Read(id)
	if errors.Is(err, ErrLarge) {
		t, err = plumbing.BlobObject, nil
	}
	if err == nil && t != want {
		err = isNot(id, t, want)
	}
	return data, err
}

func isNot(id plumbing.Hash, is, want plumbing.ObjectType) error {
	return fail.Errorf(fail.BadData, "object %s is a %s, not a %s", id, is, want)
}
