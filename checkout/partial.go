package checkout

import (
	"context"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/pack"
	"run-task/checkout/internal/wire"
	"run-task/internal/fail"
)

// complete fetches the blobs that the worktree needs and a partial pack has left out.
func (in *intake) complete(ctx context.Context, p *pin) error {
	if !p.Partial {
		return nil
	}
	cone := in.r.cone()
	missing, err := p.store.Missing(ctx, p.tree, cone.Enters, cone.Has)
	if err != nil || len(missing) == 0 {
		return err
	}
	plumbing.HashesSort(missing)
	in.log.Verbosef("%d of the files are needed and not here", len(missing))
	err = wire.Objects(ctx, in.log, in.u, in.options, missing, func(ctx context.Context, from wire.Pack) (bool, error) {
		o := pack.Options{}
		if in.g != nil && in.g.early != nil {
			o.Object = in.g.early.Object
		}
		before := p.store.Len()
		err := in.receive(ctx, from, p.store, o)
		if fail.Of(err) == fail.BadData {
			return false, fmt.Errorf("%w: %w", wire.ErrDamaged, err)
		}
		if err != nil || p.store.Len() == before {
			return false, err
		}
		in.options.Stats.Objects += int64(p.store.Len() - before)
		p.Packs = p.store.Names()
		p.arrived = append(p.arrived, p.Packs[len(p.Packs)-1])
		return true, nil
	})
	if err != nil {
		return err
	}
	if missing, err = p.store.Missing(ctx, p.tree, cone.Enters, cone.Has); err == nil && len(missing) > 0 {
		err = fail.Errorf(fail.BadData, "%s: the server left out %d files of the commit that it was asked for", in.u, len(missing))
	}
	return err
}
