package checkout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"run-task/checkout/internal/pins"
	"run-task/checkout/internal/wire"
	"run-task/internal/fail"
	"run-task/internal/logs"
)

// What a store holds, and what its garbage collection is told and tells.
type (
	Pinned = pins.Held
	GC     = pins.GC
	Freed  = pins.Freed
)

// Broken is a pin whose commit is not complete any more.
type Broken struct {
	Pinned
	Err error
}

// Pin resolves a ref, if that is what r has, and brings the commit into the store, if there is one, with the submodules that are wanted: nothing is checked out.
// Without a store the result says no more than the SHA.
func (o Options) Pin(ctx context.Context, log *logs.Log, r Repo) (Result, error) {
	u, err := wire.ParseURL(r.URL)
	if err == nil {
		err = o.resolve(ctx, log, u, &r)
	}
	if err != nil {
		return Result{}, err
	}
	if o.Store == nil {
		return Result{Name: r.Name, URL: u.String(), SHA: r.SHA}, nil
	}
	return o.pin(ctx, log, &r, u)
}

func (o *Options) pin(ctx context.Context, log *logs.Log, r *Repo, u wire.URL) (Result, error) {
	start := time.Now()
	in := o.intake(log, u, r, nil)
	p, err := o.acquire(ctx, in)
	if err != nil {
		return Result{}, err
	}
	defer p.store.Close()
	if err := o.publish(ctx, in, p); err != nil {
		return Result{}, err
	}
	res := in.result(p, "")
	if res.Trees, err = p.paths(o.Trees); err != nil {
		return Result{}, err
	}
	if r.wantsSubmodules() {
		began := time.Now()
		more, err := o.pinSubmodules(ctx, log, in, p)
		if err != nil {
			return Result{}, err
		}
		res.add(more, began)
	}
	res.Seconds = time.Since(start).Seconds()
	log.Infof("%s of %s is pinned in %q, %s, %.1fs", r.SHA, u, o.Store.Dir, res.Source, res.Seconds)
	return res, nil
}

// Pins lists the pins of the store in dir, those that have expired, too.
func Pins(dir string) (all []Pinned, err error) {
	err = within(dir, func(s *pins.Store) error {
		all, err = s.Pins()
		return err
	})
	return all, err
}

// within opens the store in dir, which must be there, for a moment.
func within(dir string, do func(*pins.Store) error) error {
	if !pins.Is(dir) {
		return fail.Errorf(fail.Usage, "there is no git store in %q", dir).WithHint("the first task with --git-store makes it")
	}
	store, err := pins.Open(dir)
	if err == nil {
		defer store.Close()
		err = do(store)
	}
	if err != nil {
		err = fmt.Errorf("git store %q: %w", dir, err)
	}
	return err
}

// Unpin removes the pins of a commit that a holder has, all holders' if holder is "", and says how many. What they alone needed goes with the next
// CollectGarbage.
func Unpin(dir, repo, sha, trust, holder string) (n int, err error) {
	u, err := wire.ParseURL(repo)
	if err != nil {
		return 0, err
	}
	err = within(dir, func(s *pins.Store) error {
		n, err = s.Repo(u.String(), trust).Remove(sha, holder)
		return err
	})
	return n, err
}

// CollectGarbage removes what no live pin needs.
func CollectGarbage(ctx context.Context, dir string, o GC) (freed Freed, err error) {
	err = within(dir, func(s *pins.Store) error {
		freed, err = s.GC(ctx, o)
		return err
	})
	return freed, err
}

// VerifyStore reads every object that a pin needs, and lists the pins that are not complete. It needs as much space in the store as the largest of them takes,
// where the file system cannot share blocks, and keeps others from fetching the commit that it looks at.
func VerifyStore(ctx context.Context, log *logs.Log, dir string) (broken []Broken, err error) {
	err = within(dir, func(s *pins.Store) error {
		all, err := s.Pins()
		results := map[string]error{} // of the same packs, that other holders have pinned, too
		for _, held := range all {
			what := fmt.Sprint(held.Repo.Path(), held.SHA, held.Packs, held.Shallow)
			bad, known := results[what]
			if !known && err == nil {
				bad, err = verify(ctx, log, &held)
				results[what] = bad
			}
			if bad != nil {
				broken = append(broken, Broken{held, bad})
			}
		}
		return err
	})
	return broken, err
}

// verify receives a pin's packs once more. bad is what is wrong with them, err why that cannot be told.
func verify(ctx context.Context, log *logs.Log, held *Pinned) (bad, err error) {
	u, err := wire.ParseURL(held.URL)
	if err != nil {
		return err, nil
	}
	lock, err := held.Repo.Lock(ctx, held.SHA, func(who string) { log.Infof("waiting for %s, which works on %.8s", who, held.SHA) })
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	in := (&Options{}).intake(log, u, &Repo{SHA: held.SHA, Depth: held.Depth, Sparse: held.Sparse}, nil)
	dir, err := lock.Quarantine()
	if err != nil {
		return nil, err
	}
	in.enter(dir)
	packs, err := held.Repo.Packs()
	if err != nil {
		return nil, err
	}
	defer packs.Close()
	p, bad := in.receivePin(ctx, packs, &held.Pin)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case bad == nil:
		return p.store.Close(), nil
	case fail.Of(bad) == fail.BadData || fail.Of(bad) == fail.PurgeCache || errors.Is(bad, fs.ErrNotExist):
		return bad, nil
	}
	return nil, bad
}

// StorePath is the directory in the store in which a repository is, whether it exists or not.
func StorePath(dir, repo, trust string) (path string, err error) {
	u, err := wire.ParseURL(repo)
	if err != nil {
		return "", err
	}
	path, err = filepath.Abs(dir)
	return pins.Path(path, u.String(), trust), err
}

// DefaultTTL is how long pins hold if nothing else is said.
const DefaultTTL = 7 * 24 * time.Hour
