package store

import (
	"io"
	"net/http"
	"time"

	"run-task/internal/fail"
	"run-task/internal/retry"
)

// guard stands between minio-go and a server, a bucket's or one that has credentials. It tells the watch how long the server wants not to be asked, which
// minio-go drops, and bounds what is no object, which minio-go reads to its end.
type guard struct {
	http.RoundTripper
	objects bool // what a GET without a query gives is one
}

// mostAnswer is longer than a page of a listing: 1000 keys of 1024 bytes, each of which may be escaped with three.
const mostAnswer = 16 << 20

func (g guard) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := g.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if w, ok := r.Context().Value(watchKey{}).(*watch); ok {
		w.after.Store(int64(retry.After(res.Header, time.Now())))
	}
	if object := g.objects && r.Method == http.MethodGet && r.URL.RawQuery == "" && res.StatusCode/100 == 2; !object {
		res.Body = &bounded{res.Body, mostAnswer}
	}
	return res, nil
}

// bounded is a body that fails where it is longer than what is left.
type bounded struct {
	io.ReadCloser
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, fail.Errorf(fail.Unavailable, "the store's answer is longer than any that it should give").WithHint("check that the endpoint is an S3 server")
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
