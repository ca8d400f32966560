package checkout

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/odb"
	"run-task/checkout/internal/wire"
	"run-task/internal/logs"
)

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
	alternates   string   // where the packs are that it borrows
	same         bool     // as the earlier run left it
	source       string
	submodules   []submodule // to be checked out
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

// prove verifies that a commit is complete. boundary may name commits that are not here.
func (p *pin) prove(ctx context.Context, sha plumbing.Hash, boundary []plumbing.Hash) (err error) {
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

// choose keeps the tags that can be written down and lead into the history.
func choose(log *logs.Log, tags map[string]plumbing.Hash, leads func(plumbing.Hash) bool) map[string]plumbing.Hash {
	chosen := map[string]plumbing.Hash{}
	for ref, h := range tags {
		if wire.ValidRef(ref) && strings.HasPrefix(ref, "refs/tags/") && leads(h) {
			chosen[ref] = h
		} else {
			log.Verbosef("left out %q: it does not lead into this history", ref)
		}
	}
	return chosen
}

func hashes(hex []string) []plumbing.Hash {
	var out []plumbing.Hash
	for _, h := range hex {
		out = append(out, plumbing.NewHash(h))
	}
	return out
}
