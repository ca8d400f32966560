// Package odb is the objects of one checkout: a pack that was just received, every object of it proven, and what a commit in it
// leads to. What it reads was made by an enemy, and may be changed by one meanwhile.
package odb

import (
	"context"
	"errors"
	"io"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/pack"
	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// Store is a pack. It is not for use by several goroutines at once.
type Store struct{ pack *pack.Pack }

// ErrLarge is Read's error for a blob that is to be read with Reader (as in errors.Is).
var ErrLarge = pack.ErrLarge

// maxWhole is the size of the largest commit, tag or tree: a tree of five million entries.
const maxWhole = 256 << 20

// Receive reads one pack to the end of r and stores it in dir, a directory of ours alone that must stay open until Close; see
// pack.Receive for its options, promises and errors.
func Receive(ctx context.Context, dir *fsx.Dir, r io.Reader, o pack.Options) (*Store, error) {
	p, err := pack.Receive(ctx, dir, r, o)
	if err != nil {
		return nil, err
	}
	return &Store{p}, nil
}

// Name is the name of the pack's files, without their extensions .pack and .idx.
func (s *Store) Name() string { return s.pack.Name() }

// Len is the number of objects.
func (s *Store) Len() int { return s.pack.Len() }

// Close closes the pack. Nothing can be read afterwards.
func (s *Store) Close() error { return s.pack.Close() }

// Has says whether there is an object of that name.
func (s *Store) Has(id plumbing.Hash) bool {
	_, ok := s.pack.Find(id)
	return ok
}

func (s *Store) find(id plumbing.Hash) (int, error) {
	n, ok := s.pack.Find(id)
	if !ok {
		return 0, fail.Errorf(fail.BadData, "object %s is missing: %w", id, plumbing.ErrObjectNotFound)
	}
	return n, nil
}

// Read reads an object and proves once more that its content has that name: it had when it was received, so one that has not
// is fail.PurgeCache. One that is not there is plumbing.ErrObjectNotFound (and fail.BadData), a blob of more than 8 MiB is ErrLarge.
func (s *Store) Read(id plumbing.Hash) (plumbing.ObjectType, []byte, error) {
	n, err := s.find(id)
	if err != nil {
		return 0, nil, err
	}
	typ, data, err := s.pack.Read(n, nil)
	if errors.Is(err, ErrLarge) && s.pack.Type(n) != plumbing.BlobObject {
		typ, data, err = s.readLarge(n)
	}
	return typ, data, changed(err)
}

func (s *Store) readLarge(n int) (plumbing.ObjectType, []byte, error) {
	typ, size, r, err := s.pack.Reader(n)
	if err != nil {
		return typ, nil, err
	}
	defer r.Close()
	if size > maxWhole {
		return typ, nil, fail.Errorf(fail.BadData, "object %s is a %s of %d bytes", s.pack.ID(n), typ, size)
	}
	data, err := io.ReadAll(r)
	return typ, data, err
}

// Reader streams an object of any size. The Read that would give io.EOF gives an error if the content has not that name.
// It must be closed.
func (s *Store) Reader(id plumbing.Hash) (plumbing.ObjectType, int64, io.ReadCloser, error) {
	n, err := s.find(id)
	if err != nil {
		return 0, 0, nil, err
	}
	typ, size, r, err := s.pack.Reader(n)
	if err != nil {
		return typ, size, nil, changed(err)
	}
	return typ, size, proven{r}, nil
}

type proven struct{ io.ReadCloser }

func (p proven) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	if err != io.EOF {
		err = changed(err)
	}
	return n, err
}

// changed explains bad data in what was good when it was received.
func changed(err error) error {
	if fail.Of(err) != fail.BadData || err == nil {
		return err
	}
	return fail.Errorf(fail.PurgeCache, "an object that was just verified reads back differently: %s", err.Error()).
		WithHint("purge the cache; if it comes back, the disk is broken")
}

func (s *Store) readAs(want plumbing.ObjectType, id plumbing.Hash) ([]byte, error) {
	t, data, err := s.Read(id)
	if errors.Is(err, ErrLarge) {
		t, err = plumbing.BlobObject, nil
	}
	if err == nil && t != want {
		err = isNot(id, t, want)
	}
	return data, err
}

func isNot(id plumbing.Hash, is, want plumbing.ObjectType) error {
	return fail.Errorf(fail.BadData, "object %s is a %s, not a %s", id, is, want)
}
