package wire

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"context"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/hash"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"run-task/internal/fail"
)

// walk collects names of objects, each once, in the order of the pack: commits first, then trees before what is in them.
type walk struct {
	*repository
	ctx  context.Context
	seen map[plumbing.Hash]bool
	list []plumbing.Hash
}

func (w *walk) add(h plumbing.Hash) bool {
	if w.seen[h] {
		return false
	}
	w.seen[h] = true
	w.list = append(w.list, h)
	return true
}

// collect names what the pack for a want consists of.
func (r *repository) collect(ctx context.Context, want Want) (Pack, []plumbing.Hash, error) {
	w := &walk{repository: r, ctx: ctx, seen: map[plumbing.Hash]bool{}}
	pack := Pack{Source: Local}
	commit, err := w.peel(want.SHA)
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return pack, nil, fail.Errorf(fail.Gone, "commit %.8s is not in repository %q", want.SHA, r.path).
			WithHint("fetch it there first; no other commit is ever used in its place")
	}
	if err != nil {
		return pack, nil, err
	}
	trees, shallow, err := w.commits(commit, want.Depth)
	pack.Shallow = shallow
	if err == nil && want.Depth == 0 {
		pack.Refs, err = w.tags()
	}
	for _, t := range trees {
		if err == nil {
			err = w.tree(t)
		}
	}
	return pack, w.list, err
}

// peel adds the annotated tags that lead to a commit, and returns it.
func (w *walk) peel(h plumbing.Hash) (plumbing.Hash, error) {
	for {
		o, err := w.object(h)
		if err != nil {
			return h, err
		}
		switch o.Type() {
		case plumbing.CommitObject:
			return h, nil
		case plumbing.TagObject:
			targets, err := w.headers(o, "object")
			if err == nil && len(targets) != 1 {
				err = errors.New("a tag of nothing")
			}
			if err != nil {
				return h, w.objectError(h, err)
			}
			if !w.add(h) {
				return h, w.objectError(h, errors.New("a tag of itself"))
			}
			h = targets[0]
		default:
			return h, fail.Errorf(fail.BadData, "%s names a %s, not a commit", h, o.Type()).WithHint("give the commit's full SHA")
		}
	}
}

// commits adds the history level by level, so that a commit's depth is that of the shortest way to it, as in git.
func (w *walk) commits(tip plumbing.Hash, depth int) (trees, shallow []plumbing.Hash, err error) {
	level := []plumbing.Hash{tip}
	for d := 1; len(level) > 0; d++ {
		var next []plumbing.Hash
		for _, h := range level {
			if !w.add(h) {
				continue
			}
			tree, parents, err := w.commit(h)
			if err != nil {
				return nil, nil, w.stopped(h, err)
			}
			trees = append(trees, tree)
			if w.shallow[h] || d == depth && len(parents) > 0 {
				shallow = append(shallow, h)
			} else {
				next = append(next, parents...)
			}
		}
		level = next
	}
	return trees, shallow, nil
}

func (w *walk) commit(h plumbing.Hash) (tree plumbing.Hash, parents []plumbing.Hash, err error) {
	o, err := w.object(h)
	if err != nil {
		return tree, nil, err
	}
	trees, err := w.headers(o, "tree")
	if err == nil && (o.Type() != plumbing.CommitObject || len(trees) != 1) {
		err = errors.New("not a commit")
	}
	if err == nil {
		parents, err = w.headers(o, "parent")
	}
	if err != nil {
		return tree, nil, err
	}
	return trees[0], parents, w.ctx.Err()
}

// headers are the objects that a commit or tag names in the header lines of one kind.
func (w *walk) headers(o plumbing.EncodedObject, kind string) (names []plumbing.Hash, err error) {
	content, err := readAll(o)
	if err != nil {
		return nil, err
	}
	head, _, _ := bytes.Cut(content, []byte("\n\n"))
	for line := range bytes.Lines(head) {
		name, value, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		if name != kind {
			continue
		}
		h, ok := parseHash(value)
		if !ok {
			return nil, fmt.Errorf("%.100q in its header", line)
		}
		names = append(names, h)
	}
	return names, nil
}

func readAll(o plumbing.EncodedObject) ([]byte, error) {
	r, err := o.Reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func (w *walk) stopped(h plumbing.Hash, err error) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	return w.objectError(h, err)
}

func (w *walk) tree(h plumbing.Hash) error {
	if !w.add(h) {
		return nil
	}
	o, err := w.object(h)
	if err == nil && o.Type() != plumbing.TreeObject {
		err = errors.New("not a tree")
	}
	var content []byte
	if err == nil {
		content, err = readAll(o)
	}
	if err == nil {
		err = w.ctx.Err()
	}
	for err == nil && len(content) > 0 {
		// mode, space, name, NUL, the object's 20 bytes
		i := bytes.IndexByte(content, 0)
		if i < 0 || len(content) < i+1+len(h) {
			err = errors.New("a tree that ends within an entry")
			break
		}
		entry := plumbing.Hash(content[i+1 : i+1+len(h)])
		switch mode, _, _ := bytes.Cut(content[:i], []byte(" ")); string(mode) {
		case "40000":
			if err := w.tree(entry); err != nil {
				return err
			}
		case "160000": // a submodule: its commit is in another repository
		default:
			w.add(entry)
		}
		content = content[i+1+len(h):]
	}
	if err != nil {
		return w.stopped(h, err)
	}
	return nil
}

// tags adds the annotated tags of the history that was collected, and names all tags of it.
func (w *walk) tags() (map[string]plumbing.Hash, error) {
	s := filesystem.NewStorage(osfs.New(w.common), cache.NewObjectLRU(cache.MiByte))
	defer s.Close()
	iter, err := s.IterReferences()
	if err != nil {
		return nil, w.error(err)
	}
	tags := map[string]plumbing.Hash{}
	err = iter.ForEach(func(r *plumbing.Reference) error {
		if !r.Name().IsTag() || r.Type() != plumbing.HashReference {
			return nil
		}
		chain := &walk{repository: w.repository, ctx: w.ctx, seen: map[plumbing.Hash]bool{}}
		commit, err := chain.peel(r.Hash())
		if err != nil || !w.seen[commit] { // a tag of a tree, or a broken one, is not part of this history
			return nil
		}
		for _, h := range chain.list {
			w.add(h)
		}
		tags[r.Name().String()] = r.Hash()
		return nil
	})
	if err != nil {
		return nil, w.error(err)
	}
	return tags, nil
}

// writePack writes a pack without deltas (gitformat-pack), one object in memory at a time. (go-git's encoder holds them
// all.) Each object's content is compared with its name: the receiver could only say that one is missing.
func (r *repository) writePack(ctx context.Context, out io.Writer, list []plumbing.Hash) error {
	sum := hash.New(crypto.SHA1)
	buf := bufio.NewWriterSize(io.MultiWriter(out, sum), 64<<10)
	head := []byte("PACK\x00\x00\x00\x02")
	buf.Write(binary.BigEndian.AppendUint32(head, uint32(len(list))))
	z, err := zlib.NewWriterLevel(buf, zlib.BestSpeed)
	if err != nil {
		return err
	}
	for _, h := range list {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		o, err := r.object(h)
		if err != nil {
			return r.objectError(h, err)
		}
		buf.Write(entryHeader(o.Type(), o.Size()))
		z.Reset(buf)
		if err := r.writeObject(z, o, h); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
	}
	if err := buf.Flush(); err != nil {
		return err
	}
	_, err = out.Write(sum.Sum(nil))
	return err
}

func (r *repository) writeObject(w io.Writer, o plumbing.EncodedObject, h plumbing.Hash) error {
	content, err := o.Reader()
	if err != nil {
		return r.objectError(h, err)
	}
	defer content.Close()
	sum := plumbing.NewHasher(o.Type(), o.Size())
	if n, err := io.Copy(io.MultiWriter(w, sum), content); errors.Is(err, errEnough) {
		return err
	} else if err != nil || n != o.Size() {
		return r.objectError(h, fmt.Errorf("%d of %d bytes: %w", n, o.Size(), noNil(err)))
	}
	if sum.Sum() != h {
		return r.objectError(h, fmt.Errorf("its content has the name %s", sum.Sum()))
	}
	return nil
}

func noNil(err error) error {
	if err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}

// entryHeader is an entry's type and size: four bits of the size with the type, then seven a byte.
func entryHeader(t plumbing.ObjectType, size int64) []byte {
	b := []byte{byte(t)<<4 | byte(size&15)}
	for size >>= 4; size > 0; size >>= 7 {
		b[len(b)-1] |= 0x80
		b = append(b, byte(size&0x7f))
	}
	return b
}
