package store_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"run-task/internal/fail"
	"run-task/store"
	"run-task/store/storetest"
)

var buckets atomic.Int64

// client is a bare one, for what a store does not do.
func client(t *testing.T) *minio.Core {
	t.Helper()
	s3Server(t)
	c, err := s3.Client()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func bucket(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("bucket-%d", buckets.Add(1))
	if err := client(t).MakeBucket(t.Context(), name, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return name
}

func env(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func s3Env() func(string) string {
	return env(map[string]string{"AWS_ACCESS_KEY_ID": s3Key, "AWS_SECRET_ACCESS_KEY": s3Secret})
}

func location(t *testing.T, bucket string) string {
	return fmt.Sprintf("s3://%s/some/prefix?endpoint=%s", bucket, s3Server(t))
}

func TestS3(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Store {
		return open(t, location(t, bucket(t)), store.Options{Env: s3Env(), Temp: t.TempDir(), Policy: quick()})
	})
}

func TestS3Credentials(t *testing.T) {
	b := bucket(t)
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".aws"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(home, ".aws", "credentials"), "# mine\n[other]\naws_access_key_id = "+s3Key+"\naws_secret_access_key="+s3Secret+"\n[default]\naws_access_key_id = no\naws_secret_access_key = no\n")
	for name, c := range map[string]struct {
		o    store.Options
		want fail.Reason
	}{
		"none":      {store.Options{}, fail.Denied},
		"variables": {store.Options{Env: s3Env()}, 0},
		"wrong":     {store.Options{Env: env(map[string]string{"AWS_ACCESS_KEY_ID": s3Key, "AWS_SECRET_ACCESS_KEY": "wrong-secret"})}, fail.Denied},
		"file":      {store.Options{Home: home, Env: env(map[string]string{"AWS_PROFILE": "other"})}, 0},
	} {
		c.o.Policy, c.o.Temp = quick(), t.TempDir()
		_, err := put(t, open(t, location(t, b), c.o), "k", "x", store.PutOptions{})
		if err == nil && c.want != 0 || err != nil && fail.Of(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (strings.Contains(err.Error(), "wrong-secret") || strings.Contains(err.Error(), s3Secret)) {
			t.Errorf("%s: the error has a secret: %v", name, err)
		}
	}
}

// Keys are sent and kept as they are, also by servers that read a + as a blank.
func TestS3Keys(t *testing.T) {
	const key = "a+b/c~d@e=f,g_h.i-j"
	b := bucket(t)
	at := strings.Replace(location(t, b), "some/prefix", "p+q/r~@=,", 1)
	s := open(t, at, store.Options{Env: s3Env(), Policy: quick(), Temp: t.TempDir()}).(store.Lister)
	if _, err := put(t, s, key, "content", store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if o, err := client(t).StatObject(t.Context(), b, "p+q/r~@=,/"+key, minio.StatObjectOptions{}); err != nil || o.Size != 7 {
		t.Errorf("%+v, %v", o, err)
	}
	all, err := s.List(t.Context(), "a+")
	if err != nil || len(all) != 1 || all[0].Key != key {
		t.Errorf("%+v, %v", all, err)
	}
	f, _, err := s.Get(t.Context(), key, store.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	plain := serve(t, nil)
	open(t, "s3://bucket/p+q?endpoint="+plain.URL, store.Options{Env: s3Env(), Policy: quick(), Temp: t.TempDir()}).Stat(t.Context(), key)
	if got, want := plain.seen(func(r *http.Request) string { return r.RequestURI }), "HEAD /bucket/p%2Bq/a%2Bb/c~d%40e%3Df%2Cg_h.i-j"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestS3BucketThatIsNotThere(t *testing.T) {
	s := open(t, location(t, "no-such-bucket"), store.Options{Env: s3Env(), Policy: quick(), Temp: t.TempDir()})
	_, err := put(t, s, "k", "x", store.PutOptions{})
	if fail.Of(err) != fail.Usage || fail.Hint(err) == "" {
		t.Errorf("%v", err)
	}
}

// What a writer that was killed left of an upload in parts.
func TestS3Sweep(t *testing.T) {
	b := bucket(t)
	s := open(t, location(t, b), store.Options{Env: s3Env(), Policy: quick(), Temp: t.TempDir()}).(store.Lister)
	for _, key := range []string{"some/prefix/a", "some/prefix/d/b", "some/other"} {
		if _, err := client(t).NewMultipartUpload(t.Context(), b, key, minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if n, _, err := s.Sweep(t.Context(), time.Now().Add(-time.Hour)); n != 0 || err != nil {
		t.Errorf("what is being written now: %d, %v", n, err)
	}
	if n, _, err := s.Sweep(t.Context(), time.Now().Add(time.Hour)); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	left := 0
	for range client(t).ListIncompleteUploads(t.Context(), b, "", true) {
		left++
	}
	if left != 1 {
		t.Errorf("%d uploads are left: one is not below our prefix", left)
	}
}
