package checkout

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/odb"
	"run-task/checkout/internal/pack"
	"run-task/checkout/internal/wire"
	"run-task/checkout/internal/worktree"
	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
	"run-task/store"
)

// intake gets the packs of one commit into a quarantine and proves what they hold.
type intake struct {
	log     *logs.Log
	u       wire.URL
	r       *Repo
	options wire.Options
	seeds   []string
	trust   string // the label under which a seed's pins are looked up
	stores  store.Options
	wait    time.Duration
	dir     *fsx.Dir // the quarantine
	phases  Phases
	g       *gitdir // whose files may be written while they arrive; nil if there is no worktree
}

// fetch gets the commit from the first seed that has it, else from the server. base, if not nil, is what need not come again.
func (in *intake) fetch(ctx context.Context, base *pin, have *wire.Have) (*pin, error) {
	want := wire.Want{SHA: plumbing.NewHash(in.r.SHA), Depth: in.r.Depth, Hints: in.r.Hints, NoBlobs: len(in.r.Sparse) > 0, Have: have, Wait: in.wait}
	got, err := in.fromSeeds(ctx, want)
	if got == nil && err == nil {
		got, err = in.from(ctx, in.u, want, base)
	}
	if base != nil && (err != nil || got.store != base.store) {
		base.store.Close()
	}
	if err != nil {
		return nil, err
	}
	if err := in.complete(ctx, got); err != nil {
		got.store.Close()
		return nil, err
	}
	if len(in.r.Sparse) > 0 && !got.Partial && got.source != wire.Local && got.source != seed {
		in.log.Infof("%s cannot leave out what is not in sparse=: all of it was fetched", in.u)
	}
	if in.r.Depth == 0 && len(got.Shallow) > 0 {
		in.log.Warnf("%s is a shallow repository itself: the history ends at %s", in.u, got.Shallow[0])
	}
	return got, nil
}

// from gets the commit from one repository.
func (in *intake) from(ctx context.Context, u wire.URL, want wire.Want, base *pin) (got *pin, err error) {
	source, err := wire.Fetch(ctx, in.log, u, in.options, want, func(ctx context.Context, pack wire.Pack) (bool, error) {
		onto := in.nothing()
		if pack.Thin {
			onto = base
		}
		p, err := in.ingest(ctx, pack, onto)
		got = p
		return p != nil, err
	})
	if err != nil {
		return nil, err
	}
	got.source = source
	return got, nil
}

// nothing is a pin to begin with.
func (in *intake) nothing() *pin {
	return &pin{state: state{URL: in.u.String(), Depth: in.r.Depth}, store: &odb.Store{}}
}

// ingest receives one pack, on top of base if it is a thin one, and proves that the wanted commit is complete. No pin and no error means that the pack
// does not have the commit. A failure leaves base as it was.
func (in *intake) ingest(ctx context.Context, from wire.Pack, base *pin) (*pin, error) {
	options, done, err := in.early(from.Thin)
	if err != nil {
		return nil, err
	}
	defer done()
	before := base.store.Len()
	err = in.receive(ctx, from, base.store, options)
	if fail.Of(err) == fail.BadData {
		return nil, fmt.Errorf("%w: %w", wire.ErrDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	p := &pin{state: base.state, store: base.store}
	p.Version, p.SHA, p.Packs = 2, in.r.SHA, base.store.Names()
	p.Partial, p.Sparse = base.Partial || from.Partial, in.r.Sparse
	p.arrived = append(slices.Clip(base.arrived), p.Packs[len(p.Packs)-1])
	in.options.Stats.Objects += int64(base.store.Len() - before)
	sha := plumbing.NewHash(in.r.SHA)
	if !p.store.Has(sha) {
		return nil, in.discard(p)
	}
	if err := p.prove(ctx, sha, append(hashes(base.Shallow), from.Shallow...)); err != nil {
		in.discard(p)
		return nil, err
	}
	p.tags = choose(in.log, from.Refs, p.store.Leads)
	return p, nil
}

// early has files written while their pack arrives, where there is a worktree with nothing in it. What a pack before this one wrote is taken back.
func (in *intake) early(thin bool) (o pack.Options, done func(), err error) {
	done = func() {}
	if in.g == nil {
		return o, done, nil
	}
	if err := in.g.undo(); err != nil {
		return o, done, err
	}
	if !thin && in.g.fresh() {
		in.g.early = worktree.NewEarly(in.g.root, plumbing.NewHash(in.r.SHA), worktree.Options{Cone: in.r.cone(), ReadOnly: in.r.ReadOnly})
		o.Object, done = in.g.early.Object, in.g.early.Pause
	}
	return o, done, nil
}

// receive adds a pack to a store.
func (in *intake) receive(ctx context.Context, stream io.Reader, store *odb.Store, o pack.Options) error {
	debug.SetGCPercent(100)
	progress, before := in.log.Progress(), store.Len()
	defer progress.Done()
	written := func() string { return "" }
	if in.g != nil {
		written = in.g.early.Written
	}
	o.Progress = func(n, total uint32, bytes int64) {
		progress.Updatef("receiving objects: %d of %d, %s, %s/s%s", n, total, logs.Bytes(bytes), logs.Bytes(int64(float64(bytes)/progress.Elapsed().Seconds())), written())
	}
	err := store.Receive(ctx, in.dir, stream, o)
	if err == nil {
		in.log.Verbosef("received %d objects in %.1fs", store.Len()-before, progress.Elapsed().Seconds())
	}
	return err
}

// discard makes room for another pack in the place of the last one.
func (in *intake) discard(p *pin) error {
	if err := p.store.Drop(); err != nil {
		return err
	}
	name := p.arrived[len(p.arrived)-1]
	if slices.Contains(p.store.Names(), name) { // the same once more
		return nil
	}
	if err := in.dir.Unlink(name + ".pack"); err != nil {
		return err
	}
	return in.dir.Unlink(name + ".idx")
}
