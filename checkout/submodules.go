package checkout

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"run-task/checkout/internal/wire"
	"run-task/checkout/internal/worktree"
	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
)

// Repositories may be in each other as submodules without end, or many times over.
const (
	maxLevels     = 32
	maxSubmodules = 10000 // in one checkout
)

// nesting is where we are among submodules in each other.
type nesting struct {
	level int
	total *int // submodules so far
}

// submodule is one that is to be checked out.
type submodule struct {
	worktree.Submodule
	url wire.URL
}

// wantsSubmodules tells whether what gitlinks name is to be checked out, too.
func (r *Repo) wantsSubmodules() bool { return r.Submodules == "top" || r.Submodules == "recursive" }

// pick decides which submodules of a commit are checked out, before anything of the commit is, and gives their paths.
func (o *Options) pick(in *intake, p *pin, all []worktree.Submodule) (paths []string, err error) {
	for _, s := range all {
		if s.Update == "none" {
			continue
		}
		u, err := locate(in.u, p, s)
		if err != nil {
			return nil, err
		}
		p.submodules, paths = append(p.submodules, submodule{s, u}), append(paths, s.Path)
	}
	if len(paths) > 0 && o.nesting.level == maxLevels {
		err = fail.Errorf(fail.BadData, "commit %s has submodule %q, and it is itself in %d others", p.commit, paths[0], maxLevels).
			WithHint("is a repository its own submodule? submodules=top checks out those of the first repository alone")
	}
	return paths, err
}

// locate says where a submodule is. Nothing of what its settings ask for is run (gitmodules(5): update).
func locate(parent wire.URL, p *pin, s worktree.Submodule) (wire.URL, error) {
	refuse := func(what string) error {
		return fail.Errorf(fail.BadData, "submodule %q of commit %s %s", s.Path, p.commit, what).WithHint("correct .gitmodules, or check out with submodules=none")
	}
	switch {
	case s.Commit.IsZero():
		return wire.URL{}, refuse("has no commit")
	case strings.HasPrefix(s.Update, "!"):
		return wire.URL{}, refuse("asks for a command to be run, which is never done")
	case s.Update != "" && s.Update != "checkout" && s.Update != "rebase" && s.Update != "merge":
		return wire.URL{}, refuse(fmt.Sprintf("has the update mode %q, which git does not know", s.Update))
	case s.URL == "":
		return wire.URL{}, refuse("has no URL in .gitmodules")
	}
	u, err := parent.Join(s.URL)
	if err != nil {
		err = fmt.Errorf("submodule %q of commit %s: %w", s.Path, p.commit, err)
	}
	return u, err
}

// submodules checks out what was chosen, each in a directory of the parent's worktree and as any other commit. The result has what was fetched.
func (o *Options) submodules(ctx context.Context, log *logs.Log, parent *Repo, root *fsx.Dir, dir string, p *pin) (Result, error) {
	return o.each(parent, p, func(inner *Options, r *Repo, s *submodule) (Result, error) {
		if err := root.MakeWritable(s.Path); err != nil { // the parent's may be read-only by now
			return Result{}, err
		}
		at, err := root.OpenDir(s.Path)
		if err != nil {
			return Result{}, err
		}
		defer at.Close()
		return inner.at(ctx, log, r, s.url, at, filepath.Join(dir, s.Path), true)
	})
}

// pinSubmodules brings them into the store alone.
func (o *Options) pinSubmodules(ctx context.Context, log *logs.Log, in *intake, p *pin) (Result, error) {
	all, err := worktree.Submodules(ctx, p.tree, p.store)
	if err == nil {
		_, err = o.pick(in, p, all)
	}
	if err != nil {
		return Result{}, err
	}
	return o.each(in.r, p, func(inner *Options, r *Repo, s *submodule) (Result, error) { return inner.pin(ctx, log, r, s.url) })
}

// each does something with every submodule that was chosen. The result has what was fetched.
func (o *Options) each(parent *Repo, p *pin, do func(*Options, *Repo, *submodule) (Result, error)) (sum Result, err error) {
	inner := *o
	inner.Trees = nil
	inner.nesting.level++
	if inner.nesting.total == nil {
		inner.nesting.total = new(int)
	}
	for i := range p.submodules {
		s := &p.submodules[i]
		var res Result
		if *inner.nesting.total++; *inner.nesting.total > maxSubmodules {
			err = fail.Errorf(fail.BadData, "there are more than %d submodules in all", maxSubmodules).WithHint("submodules=top takes those of the first repository alone")
		} else {
			res, err = do(&inner, s.repo(parent), s)
		}
		if err != nil {
			return sum, fmt.Errorf("submodule %q of commit %s, %s: %w", s.Path, p.commit, s.url, err)
		}
		sum.Objects, sum.Bytes, sum.Retries = sum.Objects+res.Objects, sum.Bytes+res.Bytes, sum.Retries+res.Retries
	}
	return sum, nil
}

// repo is what is wanted of a submodule: what is wanted of its parent.
func (s *submodule) repo(parent *Repo) *Repo {
	r := &Repo{Dir: path.Join(parent.Dir, s.Path), URL: s.url.String(), SHA: s.Commit.String(), Depth: parent.Depth, Clean: parent.Clean, ReadOnly: parent.ReadOnly, Alternates: parent.Alternates}
	if hint := "refs/heads/" + s.Branch; s.Branch != "" && wire.ValidRef(hint) { // "." is that of the parent, which has none
		r.Hints = []string{hint}
	}
	if parent.Submodules == "recursive" {
		r.Submodules = "recursive"
	}
	return r
}

// modulesConfig has git know the submodules that are checked out, as git submodule init does.
func modulesConfig(all []submodule) string {
	var b strings.Builder
	for _, s := range all {
		fmt.Fprintf(&b, "[submodule %s]\n\tactive = true\n\turl = %s\n", quoteConfig(s.Name), quoteConfig(s.url.String()))
		if s.Update != "" {
			fmt.Fprintf(&b, "\tupdate = %s\n", s.Update)
		}
	}
	return b.String()
}
