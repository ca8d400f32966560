package checkout

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"

	"run-task/checkout/internal/pins"
	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
	"run-task/store"
)

// bundle is what a commit is in a store that a fleet shares: an object whose first line is this as JSON, after which the packs follow each other. A commit in one shape is one
// object, so it is there as a whole or not at all, and never changes. Nothing in it is believed: packs are received, and the commit is proven, as if a server had sent them.
type bundle struct {
	pins.Pin
	Sizes []int64 `json:"sizes"` // bytes of each pack
}

// maxBundleLine bounds the first line: a million tags.
const maxBundleLine = 64 << 20

// isStore tells whether a seed is a store's location, and no repository's directory.
func isStore(seed string) bool {
	return strings.Contains(seed, "://") || strings.HasPrefix(seed, "dir:")
}

// bundleKey is the object's: one for each repository, trust label, commit and shape.
func (in *intake) bundleKey() string {
	repo := sha256.Sum256([]byte(in.u.String() + "\x00" + in.trust))
	shape := shapeOf(in.r)
	key := fmt.Sprintf("git/%s/%s.depth-%d", hex.EncodeToString(repo[:20]), in.r.SHA, shape.Depth)
	if len(shape.Sparse) > 0 {
		dirs := sha256.Sum256([]byte(strings.Join(shape.Sparse, "\n")))
		key += "-" + hex.EncodeToString(dirs[:8])
	}
	return key + ".bundle"
}

func (in *intake) openFleet(location string) (store.Store, error) {
	o := in.stores
	o.Log = in.log
	return store.Open(location, o)
}

// fromFleet gets the commit from a store.
func (in *intake) fromFleet(ctx context.Context, location string) (*pin, error) {
	s, err := in.openFleet(location)
	if err != nil {
		return nil, err
	}
	progress := in.log.Progress()
	f, info, err := s.Get(ctx, in.bundleKey(), store.GetOptions{Progress: func(done, total int64) {
		progress.Updatef("getting %.8s from %s: %s of %s", in.r.SHA, s, logs.Bytes(done), logs.Bytes(max(0, total)))
	}})
	progress.Done()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, at, err := readBundle(f, info.Size)
	if err != nil {
		return nil, err
	}
	if b.URL != in.u.String() || b.Trust != in.trust || b.SHA != in.r.SHA || b.Depth != in.r.Depth || !slices.Equal(b.Sparse, shapeOf(in.r).Sparse) {
		return nil, fail.Errorf(fail.BadData, "the object in %s is about another commit", s)
	}
	in.options.Stats.Bytes += info.Size
	found := b.Pin
	return in.receiveAll(ctx, &found, func(i int, receive func(io.Reader) error) error {
		err := receive(io.NewSectionReader(f, at, b.Sizes[i]))
		at += b.Sizes[i]
		return err
	})
}

// readBundle reads the first line, and tells where the packs begin.
func readBundle(f *os.File, size int64) (*bundle, int64, error) {
	bad := func(err error) error {
		return fail.Errorf(fail.BadData, "the object is no commit of a fleet's: %w", err)
	}
	line, err := bufio.NewReader(io.NewSectionReader(f, 0, min(size, maxBundleLine))).ReadBytes('\n')
	if err != nil {
		return nil, 0, bad(err)
	}
	p, err := pins.Parse(line)
	if err != nil {
		return nil, 0, bad(err)
	}
	b := &bundle{Pin: *p}
	if err := json.Unmarshal(line, &struct{ Sizes *[]int64 }{&b.Sizes}); err != nil {
		return nil, 0, bad(err)
	}
	left := size - int64(len(line))
	for _, n := range b.Sizes {
		if n <= 0 || n > left {
			left = -1
			break
		}
		left -= n
	}
	if left != 0 || len(b.Sizes) != len(b.Packs) {
		return nil, 0, bad(errors.New("its packs have not the sizes that it tells of"))
	}
	return b, int64(len(line)), nil
}

// publish puts what was acquired into the fleet's store, if it is not there. That it cannot is no reason to fail: others ask the server then.
func (o *Options) publish(ctx context.Context, in *intake, p *pin) error {
	if o.Publish == "" {
		return nil
	}
	err := o.tryPublish(ctx, in, p)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		in.log.Warnf("%.8s is not published: %v", in.r.SHA, err)
		if hint := fail.Hint(err); hint != "" {
			in.log.Infof("hint: %s", hint)
		}
	}
	return nil
}

func (o *Options) tryPublish(ctx context.Context, in *intake, p *pin) error {
	s, err := in.openFleet(o.Publish)
	if err != nil {
		return err
	}
	key := in.bundleKey()
	if _, err := s.Stat(ctx, key); err == nil {
		in.log.Verbosef("%.8s is in %s already", in.r.SHA, s)
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	packs, names, err := o.packsOf(in, p)
	if err != nil {
		return err
	}
	defer packs.Close()
	f, err := s.Temp()
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := writeBundle(ctx, f, packs, in.bundleOf(p, names))
	if err != nil {
		return err
	}
	_, err = s.Put(ctx, key, f, store.PutOptions{New: true})
	if errors.Is(err, store.ErrDuplicate) {
		return nil
	}
	if err == nil {
		in.log.Infof("%.8s is published in %s: %s", in.r.SHA, s, logs.Bytes(size))
	}
	return err
}

func (in *intake) bundleOf(p *pin, names []string) *bundle {
	b := &bundle{Pin: pins.Pin{Version: 1, URL: in.u.String(), Trust: in.trust, SHA: in.r.SHA, Commit: p.commit.String(), Tree: p.tree.String(), Shape: shapeOf(in.r), Packs: names,
		Shallow: p.Shallow, Whole: p.Whole, Partial: p.Partial, Created: time.Now().UTC()}}
	for name, id := range p.tags {
		b.Tags = append(b.Tags, pins.Tag{Name: name, ID: id.String()})
	}
	slices.SortFunc(b.Tags, func(x, y pins.Tag) int { return cmp.Compare(x.Name, y.Name) })
	return b
}

// packsOf is where the packs of a commit are: in the git store, or in the worktree's own .git.
func (o *Options) packsOf(in *intake, p *pin) (*fsx.Dir, []string, error) {
	if o.Store == nil {
		packs, err := in.g.dir.OpenDir(packDir)
		return packs, p.Packs, err
	}
	s, err := o.shared(in)
	if err != nil {
		return nil, nil, err
	}
	defer s.store.Close()
	found, err := s.repo.Find(in.r.SHA, shapeOf(in.r), time.Now(), true)
	if err != nil || found == nil {
		return nil, nil, cmp.Or(err, errors.New("its pin has gone from the git store"))
	}
	packs, err := s.repo.Packs()
	return packs, found.Packs, err
}

func writeBundle(ctx context.Context, to *os.File, packs *fsx.Dir, b *bundle) (size int64, err error) {
	for _, name := range b.Packs {
		st, err := packs.Lstat(name + ".pack")
		if err != nil {
			return 0, err
		}
		b.Sizes = append(b.Sizes, st.Size)
	}
	line, err := json.Marshal(b)
	if err != nil {
		return 0, err
	}
	n, err := to.Write(append(line, '\n'))
	size = int64(n)
	for i, name := range b.Packs {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = copyPackTo(to, packs, name, b.Sizes[i])
		}
		size += b.Sizes[i]
	}
	return size, err
}

func copyPackTo(to io.Writer, packs *fsx.Dir, name string, size int64) error {
	f, err := packs.OpenFile(name+".pack", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(to, f, size)
	return err
}

// receiveAll receives the packs of a pin that is found elsewhere, and proves the commit. next gives the i-th pack.
func (in *intake) receiveAll(ctx context.Context, found *pins.Pin, next func(i int, receive func(io.Reader) error) error) (*pin, error) {
	p := stateOf(found)
	o, done, err := in.early(false)
	if err != nil {
		return nil, err
	}
	defer done()
	for i := range found.Packs {
		if err == nil {
			err = next(i, func(r io.Reader) error { return in.receive(ctx, r, p.store, o) })
		}
	}
	if err == nil {
		p.Packs, p.arrived = p.store.Names(), p.store.Names()
		err = p.prove(ctx, plumbing.NewHash(p.SHA), hashes(p.Shallow))
	}
	if err != nil {
		return nil, errors.Join(err, p.store.Close()) // what has come stays in quarantine, where base may have the same
	}
	p.tags = choose(in.log, tagsOf(found), p.store.Leads)
	return p, nil
}
