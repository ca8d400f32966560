package checkout

import (
	"context"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/pack"
	"run-task/checkout/internal/wire"
	"run-task/internal/fail"
	"run-task/internal/logs"
)

// complete fetches the blobs that the worktree needs and a partial pack has left out.
func (g *gitdir) complete(ctx context.Context, log *logs.Log, u wire.URL, r *Repo, options wire.Options, p *pin) error {
	if !p.Partial {
		return nil
	}
	cone := r.cone()
	missing, err := p.store.Missing(ctx, p.tree, cone.Enters, cone.Has)
	if err != nil || len(missing) == 0 {
		return err
	}
	plumbing.HashesSort(missing)
	log.Verbosef("%d of the files are needed and not here", len(missing))
	err = wire.Objects(ctx, log, u, options, missing, func(ctx context.Context, from wire.Pack) (bool, error) {
		o := pack.Options{}
		if g.early != nil {
			o.Object = g.early.Object
		}
		before := p.store.Len()
		err := g.receive(ctx, log, from, p.store, o)
		if fail.Of(err) == fail.BadData {
			return false, fmt.Errorf("%w: %w", wire.ErrDamaged, err)
		}
		if err != nil || p.store.Len() == before {
			return false, err
		}
		p.Packs = p.store.Names()
		p.arrived = append(p.arrived, p.Packs[len(p.Packs)-1])
		return true, nil
	})
	if err != nil {
		return err
	}
	if missing, err = p.store.Missing(ctx, p.tree, cone.Enters, cone.Has); err == nil && len(missing) > 0 {
		err = fail.Errorf(fail.BadData, "%s: the server left out %d files of the commit that it was asked for", u, len(missing))
	}
	return err
}
