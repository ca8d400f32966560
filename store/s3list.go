package store

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"run-task/internal/fail"
)

// mostListed is how many objects a listing may have: what a server says that never ends would fill our memory.
var mostListed = 4 << 20

func (s *s3) List(ctx context.Context, prefix string) (all []Info, err error) {
	at := prefix
	if s.prefix != "" {
		at = s.prefix + "/" + prefix
	}
	err = s.try(ctx, func(ctx context.Context, w *watch) error {
		all = nil
		left := mostListed
		for o := range s.core.Client.ListObjects(ctx, s.name, minio.ListObjectsOptions{Prefix: at, Recursive: true}) {
			w.moved()
			if o.Err != nil {
				return s.explain(o.Err)
			}
			if left--; left < 0 {
				return fail.Errorf(fail.Unavailable, "%s lists more than %d objects", s, mostListed).WithHint("give tasks that have nothing in common prefixes of their own")
			}
			if i := s.info(o); strings.HasPrefix(o.Key, at) && ValidKey(i.Key) == nil {
				all = append(all, i)
			}
		}
		return nil
	})
	slices.SortFunc(all, func(a, b Info) int { return cmp.Compare(a.Key, b.Key) })
	return all, err
}

func (s *s3) Delete(ctx context.Context, i Info) error {
	now, err := s.Stat(ctx, i.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if now.Tag != i.Tag {
		return ErrConflict
	}
	name, _ := s.object(i.Key)
	return s.try(ctx, func(ctx context.Context, _ *watch) error {
		return s.explain(s.core.RemoveObject(ctx, s.name, name, minio.RemoveObjectOptions{}))
	})
}

func (s *s3) Sweep(ctx context.Context, before time.Time) (n int, size int64, err error) {
	at := s.prefix
	if at != "" {
		at += "/"
	}
	err = s.try(ctx, func(ctx context.Context, w *watch) error {
		for o := range s.core.ListIncompleteUploads(ctx, s.name, at, true) {
			w.moved()
			if o.Err != nil {
				return s.explain(o.Err)
			}
			if !strings.HasPrefix(o.Key, at) || !o.Initiated.Before(before) {
				continue
			}
			if err := s.core.AbortMultipartUpload(ctx, s.name, o.Key, o.UploadID); err != nil {
				if err = s.explain(err); !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			n++
			size += max(0, o.Size)
		}
		return nil
	})
	return n, size, err
}
