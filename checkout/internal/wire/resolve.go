package wire

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

// Resolved is what a ref leads to.
type Resolved struct {
	Ref    string        // its full name
	ID     plumbing.Hash // a commit, or an annotated tag
	Commit plumbing.Hash
}

// Resolve asks what a ref leads to: HEAD, a full name, or a short one, which may be a branch's or a tag's. A name that leads nowhere, and a short one that leads
// to two commits, are fail.Usage. Tries and limits are those of Fetch, and so are the other failures.
func Resolve(ctx context.Context, log *logs.Log, u URL, o Options, name string) (r Resolved, err error) {
	if name != "HEAD" && !ValidRef("refs/heads/"+name) {
		return r, fail.Errorf(fail.Usage, "%q is not the name of a ref", name).WithHint("give a branch, a tag, HEAD, or a full name such as refs/pull/1/merge")
	}
	names := []string{name}
	if name != "HEAD" && !strings.HasPrefix(name, "refs/") {
		names = []string{"refs/heads/" + name, "refs/tags/" + name}
	}
	err = bounded(ctx, log, u, o, func(ctx context.Context, f *fetcher) error {
		var refs []ref
		if u.Scheme == "file" {
			refs, err = localNamed(ctx, u, names)
		} else {
			_, err = f.try(ctx, func(ctx context.Context) (_ bool, err error) {
				refs, err = f.refs(ctx, names...)
				return false, err
			})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", u, err)
		}
		r, err = choose(u, name, names, refs)
		return err
	})
	return r, err
}

// choose takes the one of the refs that has one of the names, a branch before a tag of the same commit.
func choose(u URL, name string, names []string, refs []ref) (r Resolved, err error) {
	for _, full := range names {
		i := slices.IndexFunc(refs, func(is ref) bool { return is.name == full })
		if i < 0 {
			continue
		}
		found := Resolved{full, refs[i].hash, refs[i].peeled}
		if found.Commit.IsZero() {
			found.Commit = found.ID
		}
		if r.Ref != "" && r.Commit != found.Commit {
			return Resolved{}, fail.Errorf(fail.Usage, "%s: %q is ambiguous: %s is %s, and %s is %s", u, name, r.Ref, r.Commit, found.Ref, found.Commit).
				WithHint("give the full name of the ref")
		}
		if r.Ref == "" {
			r = found
		}
	}
	if r.Ref == "" {
		return r, fail.Errorf(fail.Usage, "%s: there is no ref %s", u, strings.Join(names, " or ")).WithHint("look at what git ls-remote %s prints", u)
	}
	return r, nil
}

// Check asks whether we may read the repository, and nothing else. Tries and limits are those of Fetch, and so are the failures.
func Check(ctx context.Context, log *logs.Log, u URL, o Options) error {
	return bounded(ctx, log, u, o, func(ctx context.Context, f *fetcher) error {
		var err error
		if u.Scheme == "file" {
			_, err = localNamed(ctx, u, nil)
		} else {
			_, err = f.try(ctx, func(ctx context.Context) (_ bool, err error) {
				_, err = f.refs(ctx, "refs/run-task/none") // some servers look at who asks only here
				return false, err
			})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", u, err)
		}
		return nil
	})
}

// ValidRef tells whether a name is that of a ref: it follows git-check-ref-format(1).
func ValidRef(name string) bool {
	for _, c := range []byte(name) {
		if c <= ' ' || c == 0x7f || strings.IndexByte(`~^:?*[\`, c) >= 0 {
			return false
		}
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] == '.' || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return len(name) <= maxRef && strings.HasPrefix(name, "refs/") && !strings.Contains(name, "..") && !strings.Contains(name, "@{") && !strings.HasSuffix(name, ".")
}
