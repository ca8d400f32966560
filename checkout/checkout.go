// Package checkout brings directories to pinned commits: to that commit and no other, byte for byte, or it fails. It runs as
// the task's user and needs no git in the image.
package checkout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/odb"
	"run-task/checkout/internal/wire"
	"run-task/checkout/internal/worktree"
	"run-task/internal/fail"
	"run-task/internal/fsx"
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
	Clean string   // "all" or "none": what happens to files that are not the commit's
	Adopt bool     // clean Dir although run-task did not make it
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
	MayClean func(dir string) bool // tells whether a directory that run-task did not make may be cleaned all the same: one in a checked cache or volume
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
	u, err := wire.ParseURL(r.URL)
	if err != nil {
		return Result{}, err
	}
	dir, err := filepath.Abs(r.Dir)
	if err != nil {
		return Result{}, err
	}
	root, err := openRoot(dir)
	if err != nil {
		return Result{}, err
	}
	defer root.Close()
	keep := kept(dir, o.Keep)
	g, err := claim(root, keep, r.Adopt || o.MayClean != nil && o.MayClean(dir))
	if err != nil {
		return Result{}, err
	}
	defer g.close()
	g.keep = keep
	if err := g.lock(ctx, log); err != nil {
		return Result{}, err
	}
	pin, sum, err := g.bring(ctx, log, root, u, r, o.Net)
	if err != nil {
		return Result{}, err
	}
	res := Result{Name: r.Name, Dir: dir, SHA: r.SHA, Commit: pin.commit.String(), Tree: pin.tree.String(), Source: pin.source, Seconds: time.Since(start).Seconds()}
	what := res.Commit
	if res.Commit != res.SHA {
		what += " (tag " + res.SHA + ")"
	}
	log.Infof("%q is at %s of %s: %d files, %d written, %d removed, %s, %.1fs", r.Dir, what, u, sum.Files, sum.Written, sum.Removed, res.Source, res.Seconds)
	for _, w := range sum.Warnings {
		log.Warnf("%q: %s", r.Dir, w)
	}
	return res, nil
}

// openRoot opens the worktree's directory and makes it, with its parents, if it is missing.
func openRoot(dir string) (*fsx.Dir, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil, fail.Errorf(fail.IO, "make the directory: %w (uid %d)", err, os.Getuid()).WithHint("name the directory on the command line, so that it is made before the drop, or choose one that the user can write")
		}
		return nil, err
	}
	return fsx.Open(dir)
}

// here is the source of a commit that an earlier run left in the worktree's own .git.
const here = "pin"

// pin is a commit with all that belongs to it, in the packs of a store.
type pin struct {
	state
	commit, tree plumbing.Hash
	store        *odb.Store
	source       string
	incoming     string // quarantine that the packs are still in, "" once they are published
}

// bring gets the commit and checks it out. Objects of an earlier run that turn out to be damaged are fetched once more; freshly fetched and verified
// ones that read back differently mean a disk that cannot be used.
func (g *gitdir) bring(ctx context.Context, log *logs.Log, root *fsx.Dir, u wire.URL, r *Repo, net Net) (*pin, worktree.Summary, error) {
	for {
		p, err := g.acquire(ctx, log, u, r, net)
		if err != nil {
			return nil, worktree.Summary{}, err
		}
		sum, err := g.checkout(ctx, log, root, u, p, r.Clean)
		p.store.Close()
		switch {
		case err == nil:
			return p, sum, nil
		case !errors.Is(err, odb.ErrDamaged):
			return nil, sum, err
		case p.source != here:
			return nil, sum, fail.Errorf(fail.PurgeCache, "objects that were just verified read back differently: %w", err).WithHint("purge the cache; if it comes back, the disk is broken")
		}
		log.Warnf("the objects in %q are damaged, fetching them again: %v", r.Dir, err)
		if err := g.dir.RemoveAll(stateFile); err != nil {
			return nil, sum, err
		}
	}
}

// acquire finds the commit in the packs that are here, or fetches it into quarantine. Nothing that others see changes.
func (g *gitdir) acquire(ctx context.Context, log *logs.Log, u wire.URL, r *Repo, net Net) (*pin, error) {
	sha := plumbing.NewHash(r.SHA)
	if p := g.probe(ctx, log, u, sha, r.Depth); p != nil {
		return p, nil
	}
	if err := g.sweep(); err != nil {
		return nil, err
	}
	var got *pin
	take := func(ctx context.Context, pack wire.Pack) (bool, error) {
		p, err := g.ingest(ctx, log, pack, sha)
		if p != nil {
			p.URL, p.SHA, p.Depth = u.String(), r.SHA, r.Depth
			got = p
		}
		return p != nil, err
	}
	want := wire.Want{SHA: sha, Depth: r.Depth, Hints: r.Hints}
	source, err := wire.Fetch(ctx, log, u, wire.Options{Home: net.Home, SSHAuthSock: net.SSHAuthSock, Proxy: net.Proxy}, want, take)
	if err != nil {
		return nil, err
	}
	got.source = source
	return got, nil
}

// ingest puts one pack into a fresh quarantine and proves that the wanted commit is complete. No pin and no error means that the pack does not have the commit.
func (g *gitdir) ingest(ctx context.Context, log *logs.Log, pack wire.Pack, sha plumbing.Hash) (*pin, error) {
	name, dir, err := g.quarantine()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	progress := log.Progress()
	packName, objects, err := odb.Ingest(ctx, dir, pack, func(n, total uint32, bytes int64) {
		progress.Updatef("receiving objects: %d of %d, %s, %s/s", n, total, logs.Bytes(bytes), logs.Bytes(int64(float64(bytes)/progress.Elapsed().Seconds())))
	})
	progress.Done()
	if err != nil {
		return nil, err
	}
	log.Verbosef("received %d objects in %.1fs", objects, progress.Elapsed().Seconds())
	store, err := odb.Open(dir, []string{packName})
	if err != nil {
		return nil, err
	}
	if !store.Has(sha) {
		return nil, store.Close()
	}
	p := &pin{store: store, incoming: name}
	p.Packs = []string{packName}
	for _, h := range pack.Shallow {
		if store.Has(h) {
			p.Shallow = append(p.Shallow, h.String())
		}
	}
	p.Tags = map[string]string{}
	for ref, h := range pack.Refs {
		if validRef(ref) && strings.HasPrefix(ref, "refs/tags/") && store.Has(h) {
			p.Tags[ref] = h.String()
		}
	}
	if err := p.prove(ctx, sha); err != nil {
		store.Close()
		return nil, err
	}
	return p, nil
}

// prove checks the closure of the commit that sha names: every commit up to the boundary, every tree, every blob.
func (p *pin) prove(ctx context.Context, sha plumbing.Hash) (err error) {
	if p.commit, p.tree, err = p.store.Commit(sha); err != nil {
		return err
	}
	return p.store.Verify(ctx, sha, hashes(p.Shallow), tagHashes(p.Tags))
}

// checkout publishes the packs and brings the worktree to the commit. From the first change on HEAD is missing, and it comes back last: a checkout
// that was killed is no repository to git, and is begun again by the next run.
func (g *gitdir) checkout(ctx context.Context, log *logs.Log, root *fsx.Dir, u wire.URL, p *pin, clean string) (worktree.Summary, error) {
	if err := g.begin(); err != nil {
		return worktree.Summary{}, err
	}
	if err := g.publish(p); err != nil {
		return worktree.Summary{}, err
	}
	if err := g.dress(u, p); err != nil {
		return worktree.Summary{}, err
	}
	mode := worktree.All
	if clean == "none" {
		mode = worktree.None
	}
	sum, err := worktree.Write(ctx, log, root, g.dir, p.tree, p.store, worktree.Options{Clean: mode, Keep: g.keep})
	if err != nil {
		return sum, err
	}
	return sum, g.finish(p.commit)
}
