package checkout

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"run-task/checkout/internal/pins"
	"run-task/checkout/internal/wire"
	"run-task/internal/fsx"
	"run-task/internal/logs"
	"run-task/store"
)

// Where a commit comes from, besides what package wire says.
const (
	here = "pin"  // an earlier run left it in the worktree's own .git, or it is pinned in the store
	seed = "seed" // Options.Seeds
)

// intake makes what gets one commit. g may be nil.
func (o *Options) intake(log *logs.Log, u wire.URL, r *Repo, g *gitdir) *intake {
	n := o.Net
	in := &intake{log: log, u: u, r: r, g: g, seeds: o.Seeds, wait: o.Wait, options: wire.Options{Home: n.Home, SSHAuthSock: n.SSHAuthSock, Proxy: n.Proxy,
		Credentials: n.Credentials, Limits: n.Limits, Stats: &wire.Stats{}}}
	in.stores, in.trust = o.Stores, o.Trust
	in.options.Retry.Tries, in.options.Retry.Budget = n.Tries, n.Budget
	if g != nil {
		in.enter(g.in)
	}
	return in
}

// enter chooses the quarantine.
func (in *intake) enter(dir *fsx.Dir) { in.dir, in.options.Temp = dir, dir }

// acquire finds the commit in the packs that are here or in the store, or fetches it, and proves it. Nothing that others see in the worktree changes.
func (o *Options) acquire(ctx context.Context, in *intake) (*pin, error) {
	start := time.Now()
	defer func() {
		in.phases.Wait += in.options.Stats.Waited.Seconds()
		in.phases.Fetch = time.Since(start).Seconds() - in.phases.Wait
	}()
	if o.Store != nil {
		s, err := o.shared(in)
		if err != nil {
			return nil, err
		}
		defer s.store.Close()
		return s.acquire(ctx)
	}
	base, err := in.recall(ctx)
	if err != nil {
		return nil, err
	}
	var have *wire.Have
	if base != nil {
		var got *pin
		got, have, err = in.reuse(ctx, base)
		if got != nil && o.AlwaysContact && in.r.Depth > 0 { // else it was asked for its tags
			err = wire.Check(ctx, in.log, in.u, in.options)
		}
		if got != nil && !got.same && err == nil {
			err = in.complete(ctx, got)
		}
		if got != nil || err != nil {
			return got, err
		}
	}
	return in.fetch(ctx, base, have)
}

// fromSeeds looks for the commit on this machine. What is wrong with a seed is no reason to fail.
func (in *intake) fromSeeds(ctx context.Context, want wire.Want) (*pin, error) {
	want.Have, want.Wait = nil, 0
	for _, dir := range in.seeds {
		got, err := in.fromSeed(ctx, dir, want)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if got != nil {
			got.source = seed
			return got, nil
		}
		if isStore(dir) && !errors.Is(err, fs.ErrNotExist) {
			in.log.Warnf("%s is of no use: %v", store.Address(dir), err)
		} else {
			in.log.Verbosef("seed %q: %v", store.Address(dir), err)
		}
	}
	return nil, nil
}

func (in *intake) fromSeed(ctx context.Context, dir string, want wire.Want) (*pin, error) {
	if isStore(dir) {
		return in.fromFleet(ctx, dir)
	}
	if pins.Is(dir) {
		return in.fromStore(ctx, dir)
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return in.from(ctx, wire.URL{Scheme: "file", Path: path}, want, nil)
}

// fromStore receives the packs of a pin of another store.
func (in *intake) fromStore(ctx context.Context, dir string) (*pin, error) {
	store, err := pins.Open(dir)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	repo := store.Repo(in.u.String(), in.trust)
	found, err := repo.Find(in.r.SHA, shapeOf(in.r), time.Now(), true)
	if err != nil || found == nil {
		return nil, cmp.Or(err, errors.New("no pin for the commit"))
	}
	packs, err := repo.Packs()
	if err != nil {
		return nil, err
	}
	defer packs.Close()
	return in.receivePin(ctx, packs, found)
}

// receivePin receives the packs of a pin, and proves the commit.
func (in *intake) receivePin(ctx context.Context, packs *fsx.Dir, found *pins.Pin) (*pin, error) {
	return in.receiveAll(ctx, found, func(i int, receive func(io.Reader) error) error {
		return openPack(packs, found.Packs[i]+".pack", receive)
	})
}
