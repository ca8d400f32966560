package checkout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
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

// state says what the pack in .git is, for the next run. Its atomic rename is the commit point of a fetch. The last task may have written it, too: it
// says where to look, and nothing is believed of it but what the objects or the server confirm.
type state struct {
	Version int      `json:"version"` // 1
	URL     string   `json:"url"`     // canonical, no credentials
	SHA     string   `json:"sha"`     // as pinned
	Depth   int      `json:"depth"`   // as asked
	Pack    string   `json:"pack"`    // complete by itself, up to the boundary
	Shallow []string `json:"shallow"` // the boundary: commits whose parents are not here
}

// pin is a commit with all that belongs to it, in a pack in quarantine.
type pin struct {
	state
	commit, tree plumbing.Hash
	tags         map[string]plumbing.Hash // with full history: those that lead into it
	store        *odb.Store
	source       string
}

var (
	hexID    = regexp.MustCompile(`^[0-9a-f]{40}$`)
	packName = regexp.MustCompile(`^pack-[0-9a-f]{40}$`)
)

// fits tells whether a state can be one of ours and is about what is wanted.
func (s *state) fits(u wire.URL, r *Repo) bool {
	return s.Version == 1 && s.URL == u.String() && s.Depth == r.Depth && (s.Depth == 0 || s.SHA == r.SHA) && packName.MatchString(s.Pack) &&
		(s.Depth > 0 || len(s.Shallow) == 0) && !slices.ContainsFunc(s.Shallow, func(h string) bool { return !hexID.MatchString(h) })
}

// acquire finds the commit in the pack that is here, or fetches it, and proves it. Nothing that others see changes.
func (g *gitdir) acquire(ctx context.Context, log *logs.Log, u wire.URL, r *Repo, net Net) (*pin, error) {
	if err := g.quarantine(); err != nil {
		return nil, err
	}
	options := wire.Options{Home: net.Home, SSHAuthSock: net.SSHAuthSock, Proxy: net.Proxy, Temp: g.in}
	got, err := g.reuse(ctx, log, u, r, options)
	if err != nil || got != nil {
		return got, err
	}
	want := wire.Want{SHA: plumbing.NewHash(r.SHA), Depth: r.Depth, Hints: r.Hints}
	source, err := wire.Fetch(ctx, log, u, options, want, func(ctx context.Context, pack wire.Pack) (bool, error) {
		p, err := g.ingest(ctx, log, pack, r, pack.Shallow, pack.Refs)
		if p != nil {
			p.URL = u.String()
			got = p
		}
		return p != nil, err
	})
	if err != nil {
		return nil, err
	}
	got.source = source
	if r.Depth == 0 && len(got.Shallow) > 0 {
		log.Warnf("%s is a shallow repository itself: the history ends at %s", u, got.Shallow[0])
	}
	return got, nil
}

// reuse takes the pack that an earlier run left here as if it came from a server. Whatever is wrong with it only means that we fetch.
func (g *gitdir) reuse(ctx context.Context, log *logs.Log, u wire.URL, r *Repo, options wire.Options) (*pin, error) {
	raw, err := g.dir.ReadFile(stateFile, 64<<20)
	var s state
	if err != nil || json.Unmarshal(raw, &s) != nil || !s.fits(u, r) {
		return nil, nil
	}
	pack, err := g.dir.OpenFile(packDir+"/"+s.Pack+".pack", unix.O_RDONLY, 0)
	if err != nil {
		return nil, nil
	}
	defer pack.Close()
	if st, err := fsx.FileStat(pack); err != nil || !st.IsRegular() {
		return nil, nil
	}
	var listed map[string]wire.Tag
	tags := map[string]plumbing.Hash{}
	if r.Depth == 0 {
		if listed, err = wire.Tags(ctx, log, u, options); err != nil {
			return nil, err
		}
		for name, tag := range listed {
			tags[name] = tag.ID
		}
	}
	p, err := g.ingest(ctx, log, pack, r, hashes(s.Shallow), tags)
	if err == nil && p != nil {
		if p.lacks(listed) {
			return nil, g.discard(p)
		}
		if err = p.deepEnough(); err != nil {
			g.discard(p)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		log.Warnf("the objects in %q cannot be used, fetching them again: %v", g.dir.Name(), err)
		return nil, nil
	}
	if p != nil {
		p.URL, p.source = u.String(), here
	}
	return p, nil
}

// lacks tells whether there are new annotated tags of what is here.
func (p *pin) lacks(tags map[string]wire.Tag) bool {
	for _, tag := range tags {
		if !tag.Target.IsZero() && !p.store.Has(tag.ID) && p.store.Has(tag.Target) {
			return true
		}
	}
	return false
}

// deepEnough checks that the boundary is not nearer than what was asked for.
func (p *pin) deepEnough() error {
	nearest, err := p.store.Nearest(p.commit, hashes(p.Shallow), p.Depth)
	if err == nil && nearest < p.Depth {
		err = fail.Errorf(fail.BadData, "the history ends after %d commits, not %d", nearest, p.Depth)
	}
	return err
}

// ingest receives one pack and proves that the wanted commit is complete. No pin and no error means that the pack does not have the commit.
func (g *gitdir) ingest(ctx context.Context, log *logs.Log, stream io.Reader, r *Repo, shallow []plumbing.Hash, tags map[string]plumbing.Hash) (_ *pin, err error) {
	if err := g.undo(); err != nil {
		return nil, err
	}
	progress := log.Progress()
	options := pack.Options{Progress: func(n, total uint32, bytes int64) {
		progress.Updatef("receiving objects: %d of %d, %s, %s/s", n, total, logs.Bytes(bytes), logs.Bytes(int64(float64(bytes)/progress.Elapsed().Seconds())))
	}}
	if g.fresh() {
		g.early = worktree.NewEarly(g.root, plumbing.NewHash(r.SHA))
		defer g.early.Close()
		options.Object = g.early.Object
	}
	store, err := odb.Receive(ctx, g.in, stream, options)
	progress.Done()
	if fail.Of(err) == fail.BadData {
		return nil, fmt.Errorf("%w: %w", wire.ErrDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	log.Verbosef("received %d objects in %.1fs", store.Len(), progress.Elapsed().Seconds())
	p := &pin{store: store, state: state{Version: 1, SHA: r.SHA, Depth: r.Depth, Pack: store.Name()}}
	sha := plumbing.NewHash(r.SHA)
	if !store.Has(sha) {
		return nil, g.discard(p)
	}
	var boundary []plumbing.Hash
	for _, h := range shallow {
		if store.Has(h) {
			boundary = append(boundary, h)
			p.Shallow = append(p.Shallow, h.String())
		}
	}
	if p.commit, p.tree, err = store.Commit(sha); err == nil {
		var leads func(plumbing.Hash) bool
		if leads, err = store.Verify(ctx, sha, boundary); err == nil {
			p.tags = choose(log, tags, leads)
		}
	}
	if err != nil {
		g.discard(p)
		return nil, err
	}
	return p, nil
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

// discard makes room for another pack.
func (g *gitdir) discard(p *pin) error {
	p.store.Close()
	if err := g.in.Unlink(p.Pack + ".pack"); err != nil {
		return err
	}
	return g.in.Unlink(p.Pack + ".idx")
}

func hashes(hex []string) []plumbing.Hash {
	var out []plumbing.Hash
	for _, h := range hex {
		out = append(out, plumbing.NewHash(h))
	}
	return out
}
