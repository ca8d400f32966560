package checkout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"

	"run-task/checkout/internal/odb"
	"run-task/checkout/internal/pack"
	"run-task/checkout/internal/wire"
	"run-task/checkout/internal/worktree"
	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
)

// here is the source of a commit that an earlier run left in the worktree's own .git.
const here = "pin"

// state says what the packs in .git are, for the next run. Its atomic rename is the commit point of a fetch. The last task may have written it, too: it
// says where to look, and what it says is believed as far as the seal holds, or else the objects or the server confirm it.
type state struct {
	Version int      `json:"version"` // 2
	URL     string   `json:"url"`     // canonical, no credentials
	SHA     string   `json:"sha"`     // as pinned
	Depth   int      `json:"depth"`   // as asked
	Packs   []string `json:"packs"`   // each complete by itself
	Shallow []string `json:"shallow"` // the boundary: commits whose parents are not here
	Whole   bool     `json:"whole"`   // whatever an object names is here, up to the boundary
	Partial bool     `json:"partial"` // but for blobs, which the server has
	Sparse  []string `json:"sparse"`  // and here are those in these directories
}

// encode gives the content of state.json.
func (s *state) encode() (string, error) {
	raw, err := json.MarshalIndent(s, "", "\t")
	return string(raw) + "\n", err
}

// pin is a commit with all that belongs to it.
type pin struct {
	state
	commit, tree plumbing.Hash
	tags         map[string]plumbing.Hash // with full history: those that lead into it
	store        *odb.Store
	arrived      []string // packs in quarantine
	same         bool     // as the earlier run left it
	source       string
}

var (
	hexID    = regexp.MustCompile(`^[0-9a-f]{40}$`)
	packName = regexp.MustCompile(`^pack-[0-9a-f]{40}$`)
)

// maxPacks is how many packs may gather before all is fetched anew: each fetch leaves one, and what it replaces stays.
const maxPacks = 32

// fits tells whether a state can be one of ours and is about what is wanted.
func (s *state) fits(u wire.URL, r *Repo) bool {
	return s.Version == 2 && s.URL == u.String() && s.Depth == r.Depth && (!s.Partial || len(r.Sparse) > 0) && hexID.MatchString(s.SHA) && len(s.Packs) > 0 && len(s.Packs) <= maxPacks &&
		(s.Depth > 0 || len(s.Shallow) == 0) && all(packName, s.Packs) && all(hexID, s.Shallow)
}

func all(form *regexp.Regexp, list []string) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return !form.MatchString(s) })
}

// acquire finds the commit in the packs that are here, or fetches it, and proves it. Nothing that others see changes.
func (g *gitdir) acquire(ctx context.Context, log *logs.Log, u wire.URL, r *Repo, net Net) (*pin, error) {
	if err := g.quarantine(); err != nil {
		return nil, err
	}
	options := wire.Options{Home: net.Home, SSHAuthSock: net.SSHAuthSock, Proxy: net.Proxy, Temp: g.in}
	want := wire.Want{SHA: plumbing.NewHash(r.SHA), Depth: r.Depth, Hints: r.Hints, NoBlobs: len(r.Sparse) > 0}
	base, err := g.recall(ctx, log, u, r)
	if err != nil {
		return nil, err
	}
	if base != nil {
		got, have, err := g.reuse(ctx, log, u, r, options, base)
		if got != nil && !got.same {
			err = g.complete(ctx, log, u, r, options, got)
		}
		if got != nil || err != nil {
			return got, err
		}
		want.Have = have
	}
	var got *pin
	source, err := wire.Fetch(ctx, log, u, options, want, func(ctx context.Context, pack wire.Pack) (bool, error) {
		from := &pin{state: state{URL: u.String(), Depth: r.Depth}, store: &odb.Store{}}
		if pack.Thin {
			from = base
		}
		p, err := g.ingest(ctx, log, pack, r, from)
		got = p
		return p != nil, err
	})
	if base != nil && (err != nil || got.store != base.store) {
		base.store.Close()
	}
	if err != nil {
		return nil, err
	}
	got.source = source
	if err := g.complete(ctx, log, u, r, options, got); err != nil {
		got.store.Close()
		return nil, err
	}
	if len(r.Sparse) > 0 && !got.Partial && source != wire.Local {
		log.Infof("%s cannot leave out what is not in sparse=: all of it was fetched", u)
	}
	if r.Depth == 0 && len(got.Shallow) > 0 {
		log.Warnf("%s is a shallow repository itself: the history ends at %s", u, got.Shallow[0])
	}
	return got, nil
}

// recall opens the packs of an earlier run if they can be of use. Unless the seal holds they are received again, as if they came from a server: whatever
// is wrong with them only means that we fetch.
func (g *gitdir) recall(ctx context.Context, log *logs.Log, u wire.URL, r *Repo) (_ *pin, err error) {
	raw, err := g.dir.ReadFile(stateFile, 64<<20)
	p := &pin{store: &odb.Store{}}
	if err != nil || json.Unmarshal(raw, &p.state) != nil {
		return nil, nil
	}
	fits := p.fits(u, r)
	if !fits {
		p.Packs = nil
	}
	if g.old, p.same = g.unseal(raw, p.Packs); !fits {
		return nil, nil
	}
	if p.same {
		if p.commit, p.tree, err = g.openPacks(p); err == nil {
			return p, nil
		}
	} else if err = g.receiveAgain(ctx, log, p); err == nil {
		return p, nil
	}
	p.store.Close()
	if ctx.Err() != nil {
		return nil, err
	}
	log.Warnf("the objects in %q cannot be used, fetching them again: %v", g.dir.Name(), err)
	return nil, g.emptyQuarantine()
}

// openPacks opens packs that are as we left them.
func (g *gitdir) openPacks(p *pin) (commit, tree plumbing.Hash, err error) {
	if g.packs == nil {
		if g.packs, err = g.dir.OpenDir(packDir); err != nil {
			return commit, tree, err
		}
	}
	if p.store, err = odb.Open(g.packs, g.in, p.Packs); err != nil {
		p.store = &odb.Store{}
		return commit, tree, err
	}
	return p.store.Commit(plumbing.NewHash(p.SHA))
}

// receiveAgain receives packs that somebody may have changed.
func (g *gitdir) receiveAgain(ctx context.Context, log *logs.Log, p *pin) error {
	for _, name := range p.Packs {
		err := func() error {
			f, err := g.dir.OpenFile(packDir+"/"+name+".pack", unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			if st, err := fsx.FileStat(f); err != nil || !st.IsRegular() {
				return fail.Errorf(fail.BadData, "%q is no regular file", f.Name())
			}
			return g.receive(ctx, log, f, p.store, pack.Options{})
		}()
		if err != nil {
			return err
		}
	}
	p.Packs = p.store.Names()
	p.arrived = p.Packs
	return g.prove(ctx, p, plumbing.NewHash(p.SHA), hashes(p.Shallow))
}

// reuse gives the pin if all that is wanted is in base, or else what of it need not be fetched, nil if that is nothing.
func (g *gitdir) reuse(ctx context.Context, log *logs.Log, u wire.URL, r *Repo, options wire.Options, base *pin) (*pin, *wire.Have, error) {
	var missing []plumbing.Hash
	tags := map[string]plumbing.Hash{}
	if r.Depth == 0 {
		listed, err := wire.Tags(ctx, log, u, options)
		if err != nil {
			return nil, nil, err
		}
		missing = base.lacks(listed)
		for name, tag := range listed {
			tags[name] = tag.ID
		}
	}
	sha := plumbing.NewHash(r.SHA)
	if base.store.Has(sha) && len(missing) == 0 && (base.SHA == r.SHA || base.Whole) {
		ok, err := base.deepEnough(sha)
		if ok {
			base.same = base.same && base.SHA == r.SHA && slices.Equal(base.Sparse, r.Sparse)
			base.SHA, base.Sparse, base.source = r.SHA, r.Sparse, here
			base.tags = choose(log, tags, base.store.Leads)
			base.commit, base.tree, err = base.store.Commit(sha)
			return base, nil, err
		}
		log.Verbosef("%.8s is here, but with less of its history than is wanted: %v", sha, err)
		return nil, nil, g.emptyQuarantine()
	}
	if !base.Whole || len(base.Packs) == maxPacks {
		return nil, nil, g.emptyQuarantine()
	}
	slices.Sort(base.Shallow)
	return nil, &wire.Have{Commit: base.commit, Shallow: hashes(base.Shallow), Tags: missing}, nil
}

// lacks lists new annotated tags of what is here.
func (p *pin) lacks(tags map[string]wire.Tag) (ids []plumbing.Hash) {
	for _, tag := range tags {
		if !tag.Target.IsZero() && !p.store.Has(tag.ID) && p.store.Has(tag.Target) {
			ids = append(ids, tag.ID)
		}
	}
	plumbing.HashesSort(ids)
	return slices.Compact(ids)
}

// deepEnough tells whether the boundary is not nearer than what was asked for.
func (p *pin) deepEnough(sha plumbing.Hash) (bool, error) {
	commit, _, err := p.store.Commit(sha)
	if err != nil {
		return false, err
	}
	nearest, err := p.store.Nearest(commit, hashes(p.Shallow), p.Depth)
	return err == nil && nearest >= p.Depth, err
}

// ingest receives one pack, on top of base if it is a thin one, and proves that the wanted commit is complete. No pin and no error means that the pack
// does not have the commit. A failure leaves base as it was.
func (g *gitdir) ingest(ctx context.Context, log *logs.Log, from wire.Pack, r *Repo, base *pin) (*pin, error) {
	if err := g.undo(); err != nil {
		return nil, err
	}
	options := pack.Options{}
	if !from.Thin && g.fresh() {
		g.early = worktree.NewEarly(g.root, plumbing.NewHash(r.SHA), worktree.Options{Cone: r.cone(), ReadOnly: r.ReadOnly})
		defer g.early.Pause()
		options.Object = g.early.Object
	}
	err := g.receive(ctx, log, from, base.store, options)
	if fail.Of(err) == fail.BadData {
		return nil, fmt.Errorf("%w: %w", wire.ErrDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	p := &pin{state: base.state, store: base.store}
	p.Version, p.SHA, p.Packs = 2, r.SHA, base.store.Names()
	p.Partial, p.Sparse = base.Partial || from.Partial, r.Sparse
	p.arrived = append(slices.Clip(base.arrived), p.Packs[len(p.Packs)-1])
	sha := plumbing.NewHash(r.SHA)
	if !p.store.Has(sha) {
		return nil, g.discard(p)
	}
	if err := g.prove(ctx, p, sha, append(hashes(base.Shallow), from.Shallow...)); err != nil {
		g.discard(p)
		return nil, err
	}
	p.tags = choose(log, from.Refs, p.store.Leads)
	return p, nil
}

// receive adds a pack to a store.
func (g *gitdir) receive(ctx context.Context, log *logs.Log, stream io.Reader, store *odb.Store, o pack.Options) error {
	debug.SetGCPercent(100)
	progress, before := log.Progress(), store.Len()
	defer progress.Done()
	o.Progress = func(n, total uint32, bytes int64) {
		progress.Updatef("receiving objects: %d of %d, %s, %s/s%s", n, total, logs.Bytes(bytes), logs.Bytes(int64(float64(bytes)/progress.Elapsed().Seconds())), g.early.Written())
	}
	err := store.Receive(ctx, g.in, stream, o)
	if err == nil {
		log.Verbosef("received %d objects in %.1fs", store.Len()-before, progress.Elapsed().Seconds())
	}
	return err
}

// prove verifies that a commit is complete. boundary may name commits that are not here.
func (g *gitdir) prove(ctx context.Context, p *pin, sha plumbing.Hash, boundary []plumbing.Hash) (err error) {
	plumbing.HashesSort(boundary)
	boundary = slices.DeleteFunc(slices.Compact(boundary), func(h plumbing.Hash) bool { return !p.store.Has(h) })
	p.Shallow = nil
	for _, h := range boundary {
		p.Shallow = append(p.Shallow, h.String())
	}
	if p.commit, p.tree, err = p.store.Commit(sha); err != nil {
		return err
	}
	err = p.store.Verify(ctx, sha, boundary, p.Partial)
	p.Whole = err == nil && p.store.Whole()
	return err
}

// fresh tells whether there is nothing in the directory, and no repository to git.
func (g *gitdir) fresh() bool {
	names, err := g.root.Names()
	_, head := g.dir.Lstat("HEAD")
	return err == nil && slices.Equal(names, []string{gitName}) && errors.Is(head, fs.ErrNotExist)
}

// undo removes the files that were written early for a pack that came to nothing.
func (g *gitdir) undo() error {
	if g.early == nil {
		return nil
	}
	e := g.early
	g.early = nil
	return e.Undo()
}

// choose keeps the tags that can be written down and lead into the history.
func choose(log *logs.Log, tags map[string]plumbing.Hash, leads func(plumbing.Hash) bool) map[string]plumbing.Hash {
	chosen := map[string]plumbing.Hash{}
	for ref, h := range tags {
		if validRef(ref) && strings.HasPrefix(ref, "refs/tags/") && leads(h) {
			chosen[ref] = h
		} else {
			log.Verbosef("left out %q: it does not lead into this history", ref)
		}
	}
	return chosen
}

// discard makes room for another pack in the place of the last one.
func (g *gitdir) discard(p *pin) error {
	if err := p.store.Drop(); err != nil {
		return err
	}
	name := p.arrived[len(p.arrived)-1]
	if slices.Contains(p.store.Names(), name) { // the same once more
		return nil
	}
	if err := g.in.Unlink(name + ".pack"); err != nil {
		return err
	}
	return g.in.Unlink(name + ".idx")
}

func hashes(hex []string) []plumbing.Hash {
	var out []plumbing.Hash
	for _, h := range hex {
		out = append(out, plumbing.NewHash(h))
	}
	return out
}
