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
	"run-task/internal/logs"
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

	Sparse   []string // directories; if there are any, only these and the files beside the way to them are wanted (git's cone mode)
	ReadOnly bool     // leave the worktree without write permission
}

// Net is what the environment says about the network.
type Net struct {
	Home        string // of the task's user, for SSH keys and known hosts
	SSHAuthSock string
	Proxy       func(*http.Request) (*url.URL, error)
}

// Options are all checkouts of a task.
type Options struct {
	Repos    []Repo
	Keep     []string              // caches and volumes: where one is inside a checkout, it is neither cleaned nor in the way
	MayClean func(dir string) bool // tells whether a cache or volume itself may be cleaned; what is in one always may
	Net      Net
}

// Result says what a worktree now holds.
type Result struct {
	Name, Dir string // Dir is absolute
	SHA       string // as pinned
	Commit    string // the commit that HEAD names: another than SHA only where SHA names a tag
	Tree      string
	Source    string // where the objects came from: pin (already here), remote-v2, remote-v0, hint, all, local
	Seconds   float64
}

// All makes the checkouts in order and stops at the first that fails.
func All(ctx context.Context, log *logs.Log, o Options) ([]Result, error) {
	var done []Result
	for i := range o.Repos {
		r, err := o.one(ctx, log, &o.Repos[i])
		if err != nil {
			return done, fmt.Errorf("checkout %q: %w", o.Repos[i].Dir, err)
		}
		done = append(done, r)
	}
	return done, nil
}

func (o *Options) one(ctx context.Context, log *logs.Log, r *Repo) (Result, error) {
	start := time.Now()
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // to compare what is here makes little garbage, which is not worth a collection
	u, err := wire.ParseURL(r.URL)
	if err != nil {
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
	pin, sum, err := g.bring(ctx, log, u, r, o.Net)
	if err != nil {
		return Result{}, err
	}
	res := Result{Name: r.Name, Dir: dir, SHA: r.SHA, Commit: pin.commit.String(), Tree: pin.tree.String(), Source: pin.source, Seconds: time.Since(start).Seconds()}
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

// bring gets the commit and checks it out. From the first change on HEAD is missing, and it comes back last: a checkout that was killed is no
// repository to git, and is begun again by the next run.
func (g *gitdir) bring(ctx context.Context, log *logs.Log, u wire.URL, r *Repo, net Net) (_ *pin, _ worktree.Summary, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, g.undo())
		}
	}()
	p, err := g.acquire(ctx, log, u, r, net)
	if err != nil {
		return nil, worktree.Summary{}, err
	}
	defer p.store.Close()
	if g.early != nil {
		g.early.Close()
	}
	o := worktree.Options{Clean: cleans[r.Clean], Cone: r.cone(), ReadOnly: r.ReadOnly, Keep: g.keep, Early: g.early, Old: g.old}
	if g.aside {
		o.Keep = append(slices.Clip(o.Keep), asideName)
	}
	begun := false
	o.Begin = func() error {
		begun = true
		return inOrder(g.mounted, g.begin, func() error { return g.publish(p) }, func() error { return g.dress(u, p) })
	}
	sum, err := worktree.Write(ctx, log, g.root, g.dir, p.tree, p.store, o)
	switch {
	case err != nil:
		return nil, sum, err
	case !begun && p.same && g.holds("HEAD", headOf(p.commit)):
		return p, sum, inOrder(g.mounted, func() error { return g.dress(u, p) }, g.restoreIndex, func() error { return g.dir.RemoveAll(inDir) })
	case !begun:
		err = inOrder(o.Begin, g.restoreIndex)
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
