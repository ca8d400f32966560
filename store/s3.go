package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
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
	core, err := minio.NewCore(b.endpoint, &minio.Options{Creds: creds, Secure: !b.plain, Transport: guard{t, true}, Region: region, BucketLookup: b.lookup, MaxRetries: 1})
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
	if known := (*fail.Error)(nil); errors.As(err, &known) { // guard's
		return known
	}
	if !errors.As(err, &e) || e.StatusCode == 0 {
		return retry.Net(err)
	}
	what := fmt.Sprintf("the store answered %d", e.StatusCode)
	if code := strings.TrimPrefix(e.Code, strconv.Itoa(e.StatusCode)); code != "" { // without XML it is the status once more
		what += " " + short(strings.TrimSpace(code))
	}
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
	return fail.Errorf(fail.Unavailable, "%s: %s", what, short(e.Message))
}

// short is the beginning of what a server says.
func short(text string) string {
	if len(text) > 300 {
		text = text[:300] + "..."
	}
	return text
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
			p.isPart(part)
		}
		return p, nil
	})
}
