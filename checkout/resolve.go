package checkout

import (
	"context"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/treepath"
	"run-task/checkout/internal/wire"
	"run-task/internal/fail"
	"run-task/internal/logs"
)

// resolve gives r the SHA that its ref has now, if it has none.
func (o *Options) resolve(ctx context.Context, log *logs.Log, u wire.URL, r *Repo) error {
	if r.SHA != "" {
		return nil
	}
	is, err := wire.Resolve(ctx, log, u, o.intake(log, u, r, nil).options, r.Resolve)
	if err != nil {
		return err
	}
	r.SHA = is.ID.String()
	if strings.HasPrefix(is.Ref, "refs/") {
		r.Hints = append([]string{is.Ref}, r.Hints...)
	}
	log.Infof("%s of %s is %s", is.Ref, u, r.SHA)
	return nil
}

// paths gives git's names of what is at paths in the commit: git rev-parse COMMIT:PATH.
func (p *pin) paths(paths []string) (map[string]string, error) {
	ids := map[string]string{}
	for _, path := range paths {
		id, err := p.path(path)
		if err != nil {
			return nil, err
		}
		ids[path] = id.String()
	}
	return ids, nil
}

func (p *pin) path(path string) (plumbing.Hash, error) {
	at, dir := p.tree, true
	if path == "." {
		return at, nil
	}
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if !dir {
			return at, absent(p, path)
		}
		_, data, err := p.store.Read(at)
		if err != nil {
			return at, err
		}
		entries, err := treepath.Parse(data)
		if err != nil {
			return at, err
		}
		found := false
		for _, e := range entries {
			if e.Name == name {
				at, dir, found = e.ID, e.Mode == treepath.Dir, true
			}
		}
		if !found {
			return at, absent(p, path)
		}
	}
	return at, nil
}

func absent(p *pin, path string) error {
	return fail.Errorf(fail.Usage, "commit %s has no %q, whose tree was to be exported", p.commit, path).WithHint("check the path: it is from the repository's top, without a slash before it")
}
