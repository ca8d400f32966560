package checkout

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"

	"run-task/checkout/internal/odb"
	"run-task/checkout/internal/pack"
	"run-task/checkout/internal/wire"
	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// recall opens the packs of an earlier run if they can be of use. Unless the seal holds they are received again, as if they came from a server: whatever
// is wrong with them only means that we fetch.
func (in *intake) recall(ctx context.Context) (_ *pin, err error) {
	p := in.remember()
	if p == nil {
		return nil, nil
	}
	if p.same {
		err = in.openSealed(p)
	} else {
		err = in.receiveAgain(ctx, p)
	}
	if err == nil {
		return p, nil
	}
	p.store.Close()
	if ctx.Err() != nil {
		return nil, err
	}
	in.log.Warnf("the objects in %q cannot be used, fetching them again: %v", in.g.dir.Name(), err)
	return nil, in.g.emptyQuarantine()
}

// remember reads what an earlier run left, nil if that is of no use: p.same tells whether the packs are as it left them. None is opened.
func (in *intake) remember() *pin {
	raw, err := in.g.dir.ReadFile(stateFile, 64<<20)
	p := &pin{store: &odb.Store{}}
	if err != nil || json.Unmarshal(raw, &p.state) != nil {
		return nil
	}
	fits := p.fits(in.u, in.r)
	if !fits {
		p.Packs = nil
	}
	if in.g.old, p.same = in.g.unseal(raw, p.Packs); !fits {
		return nil
	}
	return p
}

// openSealed opens packs that are as we left them.
func (in *intake) openSealed(p *pin) (err error) {
	if p.store, err = in.g.openPacks(p.Packs); err == nil {
		p.commit, p.tree, err = p.store.Commit(plumbing.NewHash(p.SHA))
	}
	return err
}

// openPacks opens some of the worktree's packs, which are as we left them. On an error the store is an empty one.
func (g *gitdir) openPacks(names []string) (s *odb.Store, err error) {
	if g.packs == nil && len(names) > 0 {
		if g.packs, err = g.dir.OpenDir(packDir); err != nil {
			return &odb.Store{}, err
		}
	}
	if s, err = odb.Open(g.packs, g.in, names); err != nil {
		return &odb.Store{}, err
	}
	return s, nil
}

// receiveAgain receives packs that somebody may have changed.
func (in *intake) receiveAgain(ctx context.Context, p *pin) error {
	for _, name := range p.Packs {
		if err := in.receiveFile(ctx, in.g.dir, packDir+"/"+name+".pack", p.store, pack.Options{}); err != nil {
			return err
		}
	}
	p.Packs = p.store.Names()
	p.arrived = p.Packs
	return p.prove(ctx, plumbing.NewHash(p.SHA), hashes(p.Shallow))
}

// receiveFile receives a pack that is in a file.
func (in *intake) receiveFile(ctx context.Context, dir *fsx.Dir, name string, store *odb.Store, o pack.Options) error {
	return openPack(dir, name, func(r io.Reader) error { return in.receive(ctx, r, store, o) })
}

func openPack(dir *fsx.Dir, name string, use func(io.Reader) error) error {
	f, err := dir.OpenFile(name, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := fsx.FileStat(f); err != nil || !st.IsRegular() {
		return fail.Errorf(fail.BadData, "%q is no regular file", f.Name())
	}
	return use(f)
}

// reuse gives the pin if all that is wanted is in base, or else what of it need not be fetched, nil if that is nothing.
func (in *intake) reuse(ctx context.Context, base *pin) (*pin, *wire.Have, error) {
	var missing []plumbing.Hash
	tags := map[string]plumbing.Hash{}
	if in.r.Depth == 0 {
		listed, err := wire.Tags(ctx, in.log, in.u, in.options)
		if err != nil {
			return nil, nil, err
		}
		missing = base.lacks(listed)
		for name, tag := range listed {
			tags[name] = tag.ID
		}
	}
	sha := plumbing.NewHash(in.r.SHA)
	if base.store.Has(sha) && len(missing) == 0 && (base.SHA == in.r.SHA || base.Whole) {
		ok, err := base.deepEnough(sha)
		if ok {
			base.same = base.same && base.SHA == in.r.SHA && slices.Equal(base.Sparse, in.r.Sparse)
			base.SHA, base.Sparse, base.source = in.r.SHA, in.r.Sparse, here
			base.tags = choose(in.log, tags, base.store.Leads)
			base.commit, base.tree, err = base.store.Commit(sha)
			return base, nil, err
		}
		in.log.Verbosef("%.8s is here, but with less of its history than is wanted: %v", sha, err)
		return nil, nil, empty(in.dir)
	}
	if !base.Whole || len(base.Packs) == maxPacks {
		return nil, nil, empty(in.dir)
	}
	slices.Sort(base.Shallow)
	return nil, &wire.Have{Commit: base.commit, Shallow: hashes(base.Shallow), Tags: missing}, nil
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
