package wire

import (
	"context"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/logs"
)

// Tag is a tag as a repository lists it.
type Tag struct {
	ID     plumbing.Hash
	Target plumbing.Hash // what it leads to in the end, where the repository says so of an annotated tag; else it is zero
}

// Tags lists the repository's refs/tags/... and fetches nothing: for when all of the history is here, and only tags may have
// moved. The names are as the server gives them. Tries and limits are those of Fetch, and so are the failures.
func Tags(ctx context.Context, log *logs.Log, u URL, o Options) (tags map[string]Tag, err error) {
	err = bounded(ctx, log, u, o, func(ctx context.Context, f *fetcher) error {
		if u.Scheme == "file" {
			tags, err = localTags(ctx, u)
			return err
		}
		var refs []ref
		if _, err := f.try(ctx, func(ctx context.Context) (_ bool, err error) {
			refs, err = f.refs(ctx, "refs/tags/")
			return false, err
		}); err != nil {
			return fmt.Errorf("%s: %w", u, err)
		}
		tags = make(map[string]Tag, len(refs))
		for _, r := range refs {
			tags[r.name] = Tag{r.hash, r.peeled}
		}
		return nil
	})
	return tags, err
}

func localTags(ctx context.Context, u URL) (map[string]Tag, error) {
	r, err := openRepository(u.Path, nil)
	if err != nil {
		return nil, err
	}
	defer r.close()
	refs, err := r.tagRefs()
	tags := make(map[string]Tag, len(refs))
	for name, id := range refs {
		tag := Tag{ID: id}
		chain := &walk{repository: r, ctx: ctx, seen: map[plumbing.Hash]bool{}}
		if target, err := chain.peel(id); err == nil && target != id { // a broken tag is no worse than one that is not there
			tag.Target = target
		}
		tags[name] = tag
	}
	return tags, err
}
