package checkout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/odb"
	"run-task/checkout/internal/pack"
	"run-task/checkout/internal/pins"
	"run-task/checkout/internal/wire"
	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// fetchBudget is how long we wait for another task that fetches the same commit, or for a store's garbage collection.
const fetchBudget = time.Hour

// shared is the git store as one checkout uses it: the commit is fetched into the store if it is not pinned there, and the worktree gets packs of its own.
type shared struct {
	*intake
	o     *Options
	store *pins.Store
	repo  *pins.Repo
}

func (o *Options) shared(in *intake) (*shared, error) {
	store, err := pins.Open(o.Store.Dir)
	if err != nil {
		return nil, fmt.Errorf("git store %q: %w", o.Store.Dir, err)
	}
	return &shared{intake: in, o: o, store: store, repo: store.Repo(in.u.String(), o.Store.Trust)}, nil
}

func shapeOf(r *Repo) pins.Shape {
	return pins.Shape{Depth: r.Depth, Sparse: slices.Sorted(slices.Values(r.Sparse))}
}

// acquire gives the commit in packs that are the worktree's own, or the store's if there is no worktree or it borrows. What turns out to be damaged is set
// aside and fetched once more, and so is what went while we looked.
func (s *shared) acquire(ctx context.Context) (*pin, error) {
	damaged := false
	for tries := 1; ; tries++ {
		found, got, err := s.find(ctx)
		if err != nil {
			return nil, err
		}
		p, err := s.take(ctx, found, got)
		switch {
		case err == nil || ctx.Err() != nil:
			return p, err
		case errors.Is(err, fs.ErrNotExist) && tries < 10:
			s.log.Verbosef("a pack went while it was read: %v", err)
		case fail.Of(err) != fail.BadData && fail.Of(err) != fail.PurgeCache:
			return nil, err
		case damaged:
			return nil, fail.Errorf(fail.PurgeCache, "the git store %q gives back something else than was put into it, twice: %w", s.repo.Path(), err).
				WithHint("purge the store; if it comes back, its disk is broken")
		default:
			damaged = true
			s.log.Warnf("what the git store has of %.8s is damaged, fetching it again: %v", s.r.SHA, err)
			if err := s.repo.SetAside(found); err != nil {
				return nil, fmt.Errorf("set damaged packs aside: %w", err)
			}
		}
		if s.g != nil {
			if err := s.g.emptyQuarantine(); err != nil {
				return nil, err
			}
		}
	}
}

// find gives the commit's pin. got is what was fetched for it, if that was needed: its packs are closed.
func (s *shared) find(ctx context.Context) (found *pins.Pin, got *pin, err error) {
	found, err = s.repo.Find(s.r.SHA, shapeOf(s.r), time.Now(), false)
	if found == nil && err == nil {
		return s.fetchOnce(ctx)
	}
	if err == nil {
		err = s.claim(ctx, found)
	}
	if errors.Is(err, fs.ErrNotExist) { // it went in this moment
		return s.fetchOnce(ctx)
	}
	return found, nil, err
}

// claim makes sure that we may use a pin, and that it stays for our holder.
func (s *shared) claim(ctx context.Context, found *pins.Pin) error {
	if s.o.AlwaysContact {
		if err := wire.Check(ctx, s.log, s.u, s.options); err != nil {
			return err
		}
	}
	mine := *found
	s.date(&mine)
	err := s.repo.Write(&mine)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && (fail.Of(err) == fail.IO || fail.Of(err) == fail.PurgeCache) {
		s.log.Warnf("the commit is pinned until %s and no longer: %v", found.Expires.UTC().Format(time.RFC3339), err)
		return nil
	}
	return err
}

// date gives a pin to our holder for its time, up to a full hour: not every task of a pipeline need write it.
func (s *shared) date(p *pins.Pin) {
	p.Holder = s.o.Store.Holder
	p.Expires = time.Now().UTC().Add(s.o.Store.TTL + time.Hour - 1).Truncate(time.Hour)
}

// fetchOnce fetches the commit into the store, unless another task does: then it waits for that one.
func (s *shared) fetchOnce(ctx context.Context) (found *pins.Pin, got *pin, err error) {
	lock, err := s.lock(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	found, err = s.repo.Find(s.r.SHA, shapeOf(s.r), time.Now(), true)
	if found != nil && err == nil {
		if err = s.claim(ctx, found); !errors.Is(err, fs.ErrNotExist) {
			return found, nil, err
		}
	} else if err != nil {
		return nil, nil, err
	}
	in := *s.intake
	dir, err := lock.Quarantine()
	if err != nil {
		return nil, nil, err
	}
	in.enter(dir)
	if got, err = s.fetch(ctx, &in); err != nil {
		return nil, nil, s.lost(err)
	}
	found = s.pinOf(got)
	if err = errors.Join(got.store.Close(), lock.Publish(got.arrived, found)); err != nil {
		err = fmt.Errorf("git store %q: %w", s.o.Store.Dir, err)
	}
	return found, got, err
}

func (s *shared) lock(ctx context.Context) (*pins.Lock, error) {
	start := time.Now()
	defer func() { s.phases.Wait += time.Since(start).Seconds() }()
	limited, cancel := context.WithTimeout(ctx, fetchBudget)
	defer cancel()
	holder := ""
	lock, err := s.repo.Lock(limited, s.r.SHA, func(who string) {
		holder = who
		s.log.Infof("waiting for %s, until %.8s can be had from the git store", who, s.r.SHA)
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, fail.Errorf(fail.Busy, "%.8s cannot be had from the git store: %s still works there after %s", s.r.SHA, holder, fetchBudget).WithHint("look what it does there; run the task again")
	}
	if err != nil {
		err = fmt.Errorf("git store %q: %w", s.o.Store.Dir, err)
	}
	return lock, err
}

// fetch gets the commit into the quarantine, as far as it is not in the store with another one.
func (s *shared) fetch(ctx context.Context, in *intake) (*pin, error) {
	base, err := s.base(in.dir)
	if base == nil || err != nil {
		return in.fetch(ctx, nil, nil)
	}
	got, have, err := in.reuse(ctx, base)
	if err == nil && got != nil {
		err = in.complete(ctx, got)
	}
	if err != nil {
		base.store.Close()
	}
	if got != nil || err != nil {
		return got, err
	}
	return in.fetch(ctx, base, have)
}

// base is the newest complete commit in the store, the same for every task; nil if there is none.
func (s *shared) base(spill *fsx.Dir) (*pin, error) {
	newest, err := s.repo.Newest(s.r.Depth, time.Now())
	if err != nil || newest == nil {
		return nil, err
	}
	p := stateOf(newest)
	packs, err := s.repo.Packs()
	if err == nil {
		defer packs.Close()
		p.store, err = odb.Open(packs, spill, newest.Packs)
	}
	if err == nil {
		p.commit, p.tree, err = p.store.Commit(plumbing.NewHash(newest.SHA))
	}
	if err != nil {
		s.log.Verbosef("the newest pin cannot be used to fetch less: %v", err)
		return nil, nil
	}
	return p, nil
}

// take gives the worktree packs of its own for a pin: those that it has already, copies of what was fetched and proven just now, and copies that are proven
// while they are made.
func (s *shared) take(ctx context.Context, found *pins.Pin, got *pin) (*pin, error) {
	p := stateOf(found)
	p.source = here
	if got != nil {
		p.source = got.source
	}
	packs, err := s.repo.Packs()
	if err != nil {
		return nil, err
	}
	defer packs.Close()
	if s.g == nil || s.r.Alternates {
		err = s.borrow(ctx, p, packs, found.Packs)
	} else {
		err = s.own(ctx, p, packs, found.Packs, got)
	}
	if err != nil {
		p.store.Close()
		return nil, err
	}
	p.tags = choose(s.log, tagsOf(found), p.store.Leads)
	return p, nil
}

// borrow leaves the packs where they are. What is read of them is verified then.
func (s *shared) borrow(ctx context.Context, p *pin, packs *fsx.Dir, names []string) (err error) {
	if p.store, err = odb.Open(packs, s.dir, names); err != nil {
		p.store = &odb.Store{}
		return err
	}
	p.Packs, p.alternates = nil, filepath.Join(s.repo.Path(), "objects")
	return s.prove(ctx, p)
}

func (s *shared) own(ctx context.Context, p *pin, packs *fsx.Dir, names []string, got *pin) error {
	var had []string // of them, in the worktree's .git as an earlier run left them
	if old := s.remember(); old != nil && old.same && (old.Whole || old.SHA == p.SHA) {
		had = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !slices.Contains(old.Packs, n) })
		p.same = old.SHA == p.SHA && slices.Equal(old.Packs, names) && slices.Equal(old.Sparse, p.Sparse) && slices.Equal(old.Shallow, p.Shallow) && old.Partial == p.Partial && old.Whole == p.Whole
	}
	var err error
	if p.store, err = s.g.openPacks(had); err != nil {
		return err
	}
	var o pack.Options
	if got == nil { // else files were written as it came
		var done func()
		if o, done, err = s.early(len(had) > 0); err != nil {
			return err
		}
		defer done()
	}
	for _, name := range names {
		switch {
		case slices.Contains(had, name):
			continue
		case got != nil && slices.Contains(got.arrived, name):
			err = s.copyPack(p.store, packs, name)
		default:
			err = s.receiveFile(ctx, packs, name+".pack", p.store, o)
		}
		if err != nil {
			return err
		}
		p.arrived = append(p.arrived, name)
	}
	if p.Packs = slices.Sorted(slices.Values(p.store.Names())); !slices.Equal(p.Packs, slices.Sorted(slices.Values(names))) {
		return fail.Errorf(fail.BadData, "a pack in the store is not what its name says")
	}
	p.Packs = names
	return s.prove(ctx, p)
}

// prove verifies the commit once more in packs of the store, of which some may be known to be whole.
func (s *shared) prove(ctx context.Context, p *pin) error {
	whole := p.Whole
	err := p.prove(ctx, plumbing.NewHash(p.SHA), hashes(p.Shallow))
	p.Whole = p.Whole && whole
	return err
}

// copyPack copies a pack that was proven a moment ago.
func (s *shared) copyPack(store *odb.Store, packs *fsx.Dir, name string) error {
	for _, end := range []string{".pack", ".idx"} {
		if err := fsx.Copy(s.dir, packs, name+end, 0o444); err != nil {
			return err
		}
	}
	return store.Add(s.dir, name)
}

// lost says what the store knows, below an error that the commit cannot be had.
func (s *shared) lost(err error) error {
	var e *fail.Error
	if errors.As(err, &e) && (e.Reason == fail.Gone || e.Reason == fail.Refused) {
		e.WithDetails(fmt.Sprintf("store   no pin for it in %q", s.o.Store.Dir))
	}
	return err
}

// stateOf is what a pin says, without its packs opened.
func stateOf(p *pins.Pin) *pin {
	return &pin{state: state{Version: 2, URL: p.URL, SHA: p.SHA, Depth: p.Depth, Packs: p.Packs, Shallow: p.Shallow, Whole: p.Whole, Partial: p.Partial, Sparse: p.Sparse}, store: &odb.Store{}}
}

// pinOf is the pin of what was fetched, for our holder.
func (s *shared) pinOf(p *pin) *pins.Pin {
	out := &pins.Pin{Version: 1, URL: p.URL, Trust: s.o.Store.Trust, SHA: p.SHA, Commit: p.commit.String(), Tree: p.tree.String(), Shape: shapeOf(s.r), Packs: p.Packs, Shallow: p.Shallow,
		Whole: p.Whole, Partial: p.Partial, Created: time.Now().UTC()}
	for name, id := range p.tags {
		out.Tags = append(out.Tags, pins.Tag{Name: name, ID: id.String()})
	}
	slices.SortFunc(out.Tags, func(a, b pins.Tag) int { return cmp.Compare(a.Name, b.Name) })
	s.date(out)
	return out
}

func tagsOf(p *pins.Pin) map[string]plumbing.Hash {
	tags := make(map[string]plumbing.Hash, len(p.Tags))
	for _, t := range p.Tags {
		tags[t.Name] = plumbing.NewHash(t.ID)
	}
	return tags
}
