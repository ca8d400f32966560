package store

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"run-task/internal/fail"
)

// partSize is that of an upload in parts; 10,000 may be sent.
const partSize = 16 << 20

func (s *s3) Put(ctx context.Context, key string, f *os.File, o PutOptions) (i Info, err error) {
	name, err := s.object(key)
	if err != nil {
		return i, err
	}
	st, err := f.Stat()
	if err != nil {
		return i, err
	}
	u := &upload{s3: s, name: name, f: f, size: st.Size(), progress: o.Progress, part: max(partSize, (st.Size()/9000+1<<20)>>20<<20)}
	if o.New {
		if err := refused(ctx, s, key); err != nil {
			return i, err
		}
		u.opts.SetMatchETagExcept("*")
	}
	u.opts.ContentType = "application/zstd"
	// The sum is in the signature. In place of it chunks would be signed without TLS, of which an empty body's last one stays on the connection.
	u.opts.DisableContentSha256 = true
	var done minio.UploadInfo
	if u.size <= u.part {
		done, err = u.whole(ctx)
	} else {
		done, err = u.inParts(ctx)
	}
	if err != nil {
		return i, err
	}
	return Info{Key: key, Size: u.size, Tag: done.ETag, Modified: time.Now()}, nil
}

// upload is a file on its way.
type upload struct {
	*s3
	name       string
	f          *os.File
	size, part int64
	opts       minio.PutObjectOptions
	id         string

	mu       sync.Mutex
	sent     int64
	progress func(done, total int64)
}

// section is a part of the file, read so that the watch and the progress see it, and its SHA-256, which goes into the signature.
func (u *upload) section(w *watch, at, size int64) (io.Reader, string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(u.f, at, size)); err != nil {
		return nil, "", err
	}
	return &reader{io.NewSectionReader(u.f, at, size), w, func(n int) {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.sent = min(u.sent+int64(n), u.size); u.progress != nil {
			u.progress(u.sent, u.size)
		}
	}}, hex.EncodeToString(h.Sum(nil)), nil
}

// taken is a failed conditional write.
func (u *upload) taken(err error) error {
	var e minio.ErrorResponse
	if errors.As(err, &e) && e.StatusCode == http.StatusPreconditionFailed {
		return ErrDuplicate
	}
	return u.explain(err)
}

func (u *upload) whole(ctx context.Context) (done minio.UploadInfo, err error) {
	err = u.try(ctx, func(ctx context.Context, w *watch) error {
		u.sent = 0
		body, sum, err := u.section(w, 0, u.size)
		if err != nil {
			return err
		}
		if u.size == 0 {
			body = bytes.NewReader(nil)
		}
		done, err = u.core.PutObject(ctx, u.bucket.name, u.name, body, u.size, "", sum, u.opts)
		return u.taken(err)
	})
	return done, err
}

// inParts sends a large file. Nothing of it can be seen before the last request; if that is not reached the parts are given up.
func (u *upload) inParts(ctx context.Context) (done minio.UploadInfo, err error) {
	err = u.try(ctx, func(ctx context.Context, _ *watch) (err error) {
		u.id, err = u.core.NewMultipartUpload(ctx, u.bucket.name, u.name, minio.PutObjectOptions{ContentType: u.opts.ContentType})
		return u.explain(err)
	})
	if err != nil {
		return done, err
	}
	defer func() {
		if err != nil {
			// Whoever cancelled us does not wait long; what stays then is for Sweep.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			u.core.AbortMultipartUpload(ctx, u.bucket.name, u.name, u.id)
		}
	}()
	parts, err := u.send(ctx)
	if err != nil {
		return done, err
	}
	err = u.try(ctx, func(ctx context.Context, _ *watch) error {
		done, err = u.core.CompleteMultipartUpload(ctx, u.bucket.name, u.name, u.id, parts, u.opts)
		return u.taken(err)
	})
	if errors.Is(err, fs.ErrNotExist) { // an answer was lost: the upload is there no more because it is complete
		err = u.completed(ctx, parts)
	}
	return done, err
}

// completed tells whether the object is made of the parts that we sent: then its ETag is of theirs.
func (u *upload) completed(ctx context.Context, parts []minio.CompletePart) error {
	sum := md5.New()
	for _, p := range parts {
		b, _ := hex.DecodeString(p.ETag)
		sum.Write(b)
	}
	o, err := u.core.StatObject(ctx, u.bucket.name, u.name, minio.StatObjectOptions{})
	if err == nil && o.Size == u.size && o.ETag == fmt.Sprintf("%x-%d", sum.Sum(nil), len(parts)) {
		return nil
	}
	return fail.Errorf(fail.Unavailable, "the store has forgotten the upload").WithHint("uploads in parts are removed there too soon: see the bucket's lifecycle rules")
}

// send sends the parts, two at a time.
func (u *upload) send(ctx context.Context) ([]minio.CompletePart, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	n := int((u.size + u.part - 1) / u.part)
	parts := make([]minio.CompletePart, n)
	numbers := make(chan int, n)
	for k := range n {
		numbers <- k
	}
	close(numbers)
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for k := range numbers {
				if ctx.Err() != nil {
					return
				}
				p, err := u.sendPart(ctx, k)
				if err != nil {
					cancel(err)
					return
				}
				parts[k] = minio.CompletePart{PartNumber: k + 1, ETag: p.ETag}
			}
		})
	}
	all.Wait()
	return parts, context.Cause(ctx)
}

func (u *upload) sendPart(ctx context.Context, k int) (p minio.ObjectPart, err error) {
	at := int64(k) * u.part
	size := min(u.part, u.size-at)
	err = u.try(ctx, func(ctx context.Context, w *watch) error {
		body, sum, err := u.section(w, at, size)
		if err != nil {
			return err
		}
		p, err = u.core.PutObjectPart(ctx, u.bucket.name, u.name, u.id, k+1, body, size, minio.PutObjectPartOptions{Sha256Hex: sum, DisableContentSha256: true})
		return u.explain(err)
	})
	return p, err
}
