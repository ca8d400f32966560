// Package checkout brings directories to pinned commits: to that commit and no other, byte for byte, or it fails. It runs as
// the task's user and needs no git in the image.
package checkout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"run-task/checkout/internal/wire"
	"run-task/checkout/internal/worktree"
	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
	"run-task/store"
)

// Repo is one checkout. Validate makes it fit for All.
type Repo struct {
	Name  string   // tells several checkouts apart
	Dir   string   // where the worktree is
	URL   string   // may hold credentials: for messages see Secrets
	SHA   string   // 40 hex digits
	Hints []string // full names of refs that may lead to SHA where a server refuses to give it by itself
	Depth int      // commits of history, 0 for all of it
	Clean string   // "all", "keep-ignored" or "none": what happens to files that are not the commit's
	Adopt bool     // clean Dir although run-task did not make it

	Sparse     []string // directories; if there are any, only these and the files beside the way to them are wanted (git's cone mode)
	ReadOnly   bool     // leave the worktree without write permission
	Submodules string   // "none", "top" or "recursive"
	Alternates bool     // leave the objects in the git store and borrow them from there

	Resolve string // a ref that SHA is to be taken from, if SHA is empty
}

// Net is what is said about the network.
type Net struct {
	Home        string // of the task's user, for SSH keys and known hosts
	SSHAuthSock string
	Proxy       func(*http.Request) (*url.URL, error)
	Credentials Credentials
	Limits      Limits
	Tries       int           // of what may pass; 0 for the default
	Budget      time.Duration // no try begins later than this after the first; 0 for the default
}

// What Net consists of.
type (
	Credentials = wire.Credentials
	Login       = wire.Login
	SSHKey      = wire.SSHKey
	Limits      = wire.Limits
)

// Store is where commits are kept for other tasks, on a volume that they share.
type Store struct {
	Dir    string
	Trust  string        // what was fetched under one label is never served under another
	Holder string        // who pins are for: a pipeline
	TTL    time.Duration // how long they hold
}

// Options are all checkouts of a task.
type Options struct {
	Repos    []Repo
	Keep     []string              // caches and volumes: where one is inside a checkout, it is neither cleaned nor in the way
	MayClean func(dir string) bool // tells whether a cache or volume itself may be cleaned; what is in one always may
	Net      Net

	Store         *Store        // nil: each worktree's own .git is all there is
	Seeds         []string      // local repositories, git stores, and locations of stores that a fleet shares, to look in before a server is asked
	Publish       string        // the location of such a store, which gets what was acquired and it lacks
	Stores        store.Options // how these are spoken to
	Trust         string        // the label that keeps what is in them, and in Store, apart
	AlwaysContact bool          // ask the server whether we may read the repository, also where the commit is here
	Wait          time.Duration // how long to wait for a commit that the server does not have yet
	Trees         []string      // paths in the commit whose hashes Result.Trees has

	nesting nesting
}

// Result says what a worktree now holds.
type Result struct {
	Name, Dir string // Dir is absolute
	SHA       string // as pinned
	Commit    string // the commit that HEAD names: another than SHA only where SHA names a tag
	Tree      string
	Source    string // where the objects came from: pin (already here), remote-v2, remote-v0, hint, all, local
	Seconds   float64

	URL            string            // canonical, no credentials
	Trees          map[string]string // git's names of the trees or blobs at Options.Trees
	Objects, Bytes int64             // fetched
	Retries        int
	Phases         Phases
}

// Phases are the parts of a checkout, in seconds.
type Phases struct {
	Wait       float64 // for locks, between tries, and for a commit to appear
	Fetch      float64 // looking for the commit, getting it and proving it
	Files      float64
	Submodules float64
}

// All makes the checkouts in order and stops at the first that fails.
func All(ctx context.Context, log *logs.Log, o Options) ([]Result, error) {
	var done []Result
	for _, r := range o.Repos {
		res, err := o.one(ctx, log, &r)
		if err != nil {
			return done, fmt.Errorf("checkout %q: %w", r.Dir, err)
		}
		done = append(done, res)
	}
	return done, nil
}

func (o *Options) one(ctx context.Context, log *logs.Log, r *Repo) (Result, error) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // to compare what is here makes little garbage, which is not worth a collection
	u, err := wire.ParseURL(r.URL)
	if err != nil {
		return Result{}, err
	}
	if err := o.resolve(ctx, log, u, r); err != nil {
		return Result{}, err
	}
	dir, err := filepath.Abs(r.Dir)
	if err != nil {
		return Result{}, err
	}
	root, mayClean, err := o.openRoot(dir)
	if err != nil {
		return Result{}, err
	}
	defer root.Close()
	return o.at(ctx, log, r, u, root, dir, mayClean)
}

// at checks out into a directory that is open: dir is its name. It may be cleaned, or r.Adopt says so, or it is ours or empty.
func (o *Options) at(ctx context.Context, log *logs.Log, r *Repo, u wire.URL, root *fsx.Dir, dir string, mayClean bool) (Result, error) {
	start := time.Now()
	keep := kept(cmp.Or(root.Real(), dir), o.Keep)
	for _, name := range keep {
		if first, _, _ := strings.Cut(name, "/"); first == gitName || first == asideName {
			return Result{}, fail.Errorf(fail.Usage, "the cache or volume %q is in its .git, which is made anew", filepath.Join(dir, name)).WithHint("put it elsewhere")
		}
	}
	g, err := claim(ctx, log, root, keep, r.Adopt || mayClean)
	if err != nil {
		return Result{}, err
	}
	defer g.close()
	if err := g.quarantine(); err != nil {
		return Result{}, err
	}
	in := o.intake(log, u, r, g)
	waited := time.Since(start)
	p, sum, err := o.bring(ctx, in)
	if err != nil {
		return Result{}, err
	}
	defer p.store.Close()
	if err := o.publish(ctx, in, p); err != nil {
		return Result{}, err
	}
	res := in.result(p, dir)
	res.Phases.Wait += waited.Seconds()
	if res.Trees, err = p.paths(o.Trees); err != nil {
		return Result{}, err
	}
	if r.wantsSubmodules() {
		began := time.Now()
		more, err := o.submodules(ctx, log, r, root, dir, p)
		if err != nil {
			return Result{}, err
		}
		res.add(more, began)
	}
	res.Seconds = time.Since(start).Seconds()
	what := res.Commit
	if res.Commit != res.SHA {
		what += " (tag " + res.SHA + ")"
	}
	log.Infof("%q is at %s of %s: %d files, %d written, %d removed, %s, %.1fs", r.Dir, what, u, sum.Files, sum.Written, sum.Removed, res.Source, res.Seconds)
	if st, err := root.Stat(); err == nil && int(st.UID) != os.Getuid() {
		log.Warnf("%q belongs to uid %d: git will not work there as uid %d, unless safe.directory names it", r.Dir, st.UID, os.Getuid())
	}
	for _, w := range slices.Concat(sum.Warnings, sum.Notes) {
		log.Warnf("%q: %s", r.Dir, w)
	}
	return res, nil
}

// result says what was acquired.
func (in *intake) result(p *pin, dir string) Result {
	s := in.options.Stats
	return Result{Name: in.r.Name, Dir: dir, URL: in.u.String(), SHA: in.r.SHA, Commit: p.commit.String(), Tree: p.tree.String(), Source: p.source,
		Objects: s.Objects, Bytes: s.Bytes, Retries: s.Retries, Phases: in.phases}
}

// add counts what was fetched for submodules since a time.
func (r *Result) add(more Result, began time.Time) {
	r.Objects, r.Bytes, r.Retries = r.Objects+more.Objects, r.Bytes+more.Bytes, r.Retries+more.Retries
	r.Phases.Submodules = time.Since(began).Seconds()
}

// bring gets the commit and checks it out. From the first change on HEAD is missing, and it comes back last: a checkout that was killed is no
// repository to git, and is begun again by the next run. The pin's store is open.
func (o *Options) bring(ctx context.Context, in *intake) (p *pin, _ worktree.Summary, err error) {
	g := in.g
	defer func() {
		if err != nil {
			err = errors.Join(err, g.undo())
			if p != nil {
				p.store.Close()
			}
		}
	}()
	if p, err = o.acquire(ctx, in); err != nil {
		return nil, worktree.Summary{}, err
	}
	if g.early != nil {
		g.early.Close()
	}
	start := time.Now()
	defer func() { in.phases.Files = time.Since(start).Seconds() }()
	w := worktree.Options{Clean: cleans[in.r.Clean], Cone: in.r.cone(), ReadOnly: in.r.ReadOnly, Keep: g.keep, Early: g.early, Old: g.old}
	if g.aside {
		w.Keep = append(slices.Clip(w.Keep), asideName)
	}
	if in.r.wantsSubmodules() {
		w.Submodules = func(all []worktree.Submodule) ([]string, error) { return o.pick(in, p, all) }
	}
	begun := false
	w.Begin = func() error {
		begun = true
		return inOrder(g.mounted, g.begin, func() error { return g.publish(p) }, func() error { return g.dress(in.u, p) })
	}
	sum, err := worktree.Write(ctx, in.log, g.root, g.dir, p.tree, p.store, w)
	switch {
	case err != nil:
		return p, sum, err
	case !begun && p.same && g.holds("HEAD", headOf(p.commit)):
		return p, sum, inOrder(g.mounted, func() error { return g.dress(in.u, p) }, g.restoreIndex, func() error { return g.dir.RemoveAll(inDir) })
	case !begun:
		err = inOrder(w.Begin, g.restoreIndex)
	}
	if err == nil {
		err = g.finish(p, sum.Warnings)
	}
	return p, sum, err
}

// cone is nil for all of the tree.
func (r *Repo) cone() *worktree.Cone {
	if len(r.Sparse) == 0 {
		return nil
	}
	return worktree.NewCone(r.Sparse)
}

func inOrder(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
