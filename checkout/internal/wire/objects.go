package wire

import (
	"context"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

// maxWanted is how many objects one request asks for: 2.5 MB of it.
const maxWanted = 50_000

// Objects gets objects by their names from a server that left them out of a partial pack, in one pack or more; take's answer is not heeded, as no pack need have all. Tries and
// limits are those of Fetch, and so are the failures; a server that has not all of them is Gone.
func Objects(ctx context.Context, log *logs.Log, u URL, o Options, ids []plumbing.Hash, take Take) error {
	return bounded(ctx, log, u, o, func(ctx context.Context, f *fetcher) error {
		f.take, f.want.Depth = take, 1
		for len(ids) > 0 {
			n := min(len(ids), maxWanted)
			if _, err := f.try(ctx, func(ctx context.Context) (bool, error) { return f.some(ctx, ids[:n]) }); err != nil {
				return fmt.Errorf("%s: %w", u, err)
			}
			ids = ids[n:]
		}
		return nil
	})
}

func (f *fetcher) some(ctx context.Context, ids []plumbing.Hash) (bool, error) {
	if !f.ad.v2 {
		return false, fail.Errorf(fail.Unavailable, "the server no longer speaks protocol version 2")
	}
	ok, said, err := f.get(ctx, ids, 0, Pack{Source: RemoteV2})
	if said != "" {
		return false, fail.Errorf(fail.Gone, "the server does not give out the files of the commit: %q", said)
	}
	return ok, err
}
