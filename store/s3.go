package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"run-task/internal/fail"
	"run-task/internal/retry"
)

// s3 is a bucket, or a part of one, of anything that speaks Amazon's S3 API (docs.aws.amazon.com/AmazonS3/latest/API).
type s3 struct {
	Options
	bucket
	core *minio.Core
}

// bucket is what an s3:// location tells.
type bucket struct {
	name, prefix, region string
	endpoint             string // host, or host:port
	plain                bool   // without TLS
	lookup               minio.BucketLookupType
	iam                  bool // ask the instance's or container's own service for credentials
}

// bucketOf reads s3://BUCKET/PREFIX?endpoint=URL&region=NAME&path-style=true&iam=true.
func bucketOf(u *url.URL) (b bucket, err error) {
	b = bucket{name: u.Host, prefix: strings.Trim(u.Path, "/"), endpoint: "s3.amazonaws.com", lookup: minio.BucketLookupAuto}
	if b.prefix != "" {
		if err := ValidKey(b.prefix); err != nil {
			return b, err
		}
	}
	if u.User != nil {
		return b, fail.Errorf(fail.Usage, "an s3:// location takes no user and password").WithHint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return b, fail.Errorf(fail.Usage, "the location's part after ? cannot be read").WithHint(hint)
	}
	for name, values := range q {
		value := values[len(values)-1]
		yes := value == "true"
		switch name {
		case "endpoint":
			e, err := url.Parse(value)
			if err != nil || e.Host == "" || e.Scheme != "https" && e.Scheme != "http" || strings.Trim(e.Path, "/") != "" || e.User != nil {
				return b, fail.Errorf(fail.Usage, "endpoint= is no https://host").WithHint("say endpoint=https://minio.example.org:9000")
			}
			b.endpoint, b.plain = e.Host, e.Scheme == "http"
		case "region":
			b.region = value
		case "path-style":
			if b.lookup = minio.BucketLookupDNS; yes {
				b.lookup = minio.BucketLookupPath
			}
		case "iam":
			b.iam = yes
		default:
			return b, fail.Errorf(fail.Usage, "an s3:// location takes no %q", name).WithHint("endpoint, region, path-style and iam are known")
		}
	}
	return b, nil
}

func openS3(u *url.URL, o Options) (Store, error) {
	b, err := bucketOf(u)
	if err != nil {
		return nil, err
	}
	t, err := o.transport()
	if err != nil {
		return nil, err
	}
	creds, err := o.credentials(b, t)
	if err != nil {
		return nil, err
	}
	region := cmp.Or(b.region, o.Env("AWS_REGION"), o.Env("AWS_DEFAULT_REGION"))
	if region == "" && b.endpoint != "s3.amazonaws.com" {
		region = "us-east-1" // what servers that have none go by; asking costs a request
	}
	core, err := minio.NewCore(b.endpoint, &minio.Options{Creds: creds, Secure: !b.plain, Transport: t, Region: region, BucketLookup: b.lookup, MaxRetries: 1})
	if err != nil {
		return nil, fail.Errorf(fail.Usage, "%w", err).WithHint(hint)
	}
	return &s3{o, b, core}, nil
}

func (s *s3) String() string {
	name := "s3://" + path.Join(s.name, s.prefix)
	if s.endpoint != "s3.amazonaws.com" {
		name += " at " + s.endpoint
	}
	return name
}

func (s *s3) Temp() (*os.File, error) { return s.temp() }

func (s *s3) object(key string) (string, error) { return path.Join(s.prefix, key), ValidKey(key) }

// explain gives an error its reason, and marks it where it may pass.
func (s *s3) explain(err error) error {
	var e minio.ErrorResponse
	if err == nil || errors.Is(err, ErrDuplicate) {
		return err
	}
	if !errors.As(err, &e) || e.StatusCode == 0 {
		return retry.Net(err)
	}
	what := fmt.Sprintf("the store answered %d %s", e.StatusCode, e.Code)
	switch {
	case e.StatusCode == http.StatusNotModified:
		return ErrUnchanged
	case e.Code == "NoSuchBucket":
		return fail.Errorf(fail.Usage, "there is no bucket %q", s.name).WithHint("make it, or correct its name")
	case e.Code == "NoSuchKey" || e.Code == "NoSuchUpload":
		return fmt.Errorf("%s: %w", what, fs.ErrNotExist)
	case e.StatusCode == http.StatusNotFound || e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden:
		return fail.Errorf(fail.Denied, "%s for bucket %q", what, s.name).WithHint("check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and the rights that they have")
	case e.StatusCode == http.StatusPreconditionFailed || e.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return changed()
	case e.Code == "SlowDown" || e.StatusCode == http.StatusConflict: // of two conditional writers one is asked to try again
		return retry.Again(fail.Errorf(fail.Busy, "%s", what), 0)
	}
	if err := retry.Status(e.StatusCode, nil, time.Now()); err != nil {
		return err
	}
	return fail.Errorf(fail.Unavailable, "%s: %s", what, e.Message)
}

func (s *s3) info(o minio.ObjectInfo) Info {
	return Info{Key: strings.TrimPrefix(strings.TrimPrefix(o.Key, s.prefix), "/"), Size: o.Size, Tag: o.ETag, Modified: o.LastModified}
}

func (s *s3) Stat(ctx context.Context, key string) (i Info, err error) {
	name, err := s.object(key)
	if err != nil {
		return i, err
	}
	err = s.try(ctx, func(ctx context.Context, _ *watch) error {
		o, err := s.core.StatObject(ctx, s.name, name, minio.StatObjectOptions{})
		i = s.info(o)
		i.Key = key
		return s.explain(err)
	})
	return i, err
}

func (s *s3) Get(ctx context.Context, key string, o GetOptions) (*os.File, Info, error) {
	name, err := s.object(key)
	if err != nil {
		return nil, Info{}, err
	}
	return s.download(ctx, o.Progress, func(ctx context.Context, have int64, tag string) (*piece, error) {
		var ask minio.GetObjectOptions
		var err error
		switch {
		case o.Last > 0:
			err = ask.SetRange(0, -o.Last)
		case have > 0 && tag != "":
			err = errors.Join(ask.SetRange(have, 0), ask.SetMatchETag(tag))
		}
		if o.Unless != "" && have == 0 {
			err = errors.Join(err, ask.SetMatchETagExcept(o.Unless))
		}
		if err != nil {
			return nil, err
		}
		body, info, header, err := s.core.GetObject(ctx, s.name, name, ask)
		if err != nil {
			if err = s.explain(err); errors.Is(err, errChanged) {
				o.Last = 0 // 416: an empty object has no last bytes
			}
			return nil, err
		}
		p := &piece{ReadCloser: body, Info: s.info(info)}
		p.Key = key
		switch part := header.Get("Content-Range"); {
		case part == "":
		case o.Last > 0:
			p.total = total(part)
		default:
			p.from = start(part)
		}
		return p, nil
	})
}

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

func (s *s3) List(ctx context.Context, prefix string) (all []Info, err error) {
	at := prefix
	if s.prefix != "" {
		at = s.prefix + "/" + prefix
	}
	err = s.try(ctx, func(ctx context.Context, w *watch) error {
		all = nil
		for o := range s.core.Client.ListObjects(ctx, s.name, minio.ListObjectsOptions{Prefix: at, Recursive: true}) {
			w.moved()
			if o.Err != nil {
				return s.explain(o.Err)
			}
			if i := s.info(o); ValidKey(i.Key) == nil {
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
			if !o.Initiated.Before(before) {
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
