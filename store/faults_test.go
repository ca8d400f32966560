package store_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"run-task/internal/fail"
	"run-task/internal/retry"
	"run-task/store"
)

func newTLS(s *server) *httptest.Server { return httptest.NewTLSServer(s) }

// read gets an object by a store's first location.
func read(t *testing.T, s *server, o store.Options, get store.GetOptions) (string, store.Info, error) {
	t.Helper()
	o.Policy, o.Temp = policyOr(o.Policy), t.TempDir()
	f, info, err := open(t, s.URL, o).Get(t.Context(), "k", get)
	if err != nil {
		return "", info, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	if err != nil {
		t.Fatal(err)
	}
	return string(b), info, nil
}

func policyOr(p retry.Policy) retry.Policy {
	if p.Sleep == nil {
		return quick()
	}
	return p
}

func ranges(r *http.Request) string { return r.Header.Get("Range") }

func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 / 3)
	}
	return b
}

func TestACutDownloadGoesOnWhereItWasCut(t *testing.T) {
	body := content(300_000)
	var s *server
	s = serve(t, func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n == 1 {
			cut(w, http.Header{"Etag": {s.objects["/k"].tag}}, 200, body[:100_000], len(body))
		}
		return n == 1
	})
	s.set("/k", body)
	got, info, err := read(t, s, store.Options{}, store.GetOptions{})
	if err != nil || got != string(body) || info.Size != int64(len(body)) {
		t.Errorf("%d bytes, %+v, %v", len(got), info, err)
	}
	if seen := s.seen(ranges); seen != "GET, GET bytes=100000-" {
		t.Errorf("asked for %s", seen)
	}
}

// A server may send less than it was asked for (RFC 9110, section 15.3.7): what came is not all.
func TestAServerThatSendsSmallParts(t *testing.T) {
	body := content(300_000)
	for name, open := range map[string]func(s *server) store.Store{
		"web": func(s *server) store.Store { return open(t, s.URL, store.Options{Policy: quick(), Temp: t.TempDir()}) },
		"s3":  func(s *server) store.Store { return bucketAt(t, s, store.Options{}) },
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request, n int) bool {
			var from int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			to := min(from+100_000, len(body))
			w.Header().Set("ETag", `"one"`)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(body)))
			w.Header().Set("Last-Modified", "Fri, 02 Jan 2026 03:05:05 GMT")
			w.WriteHeader(http.StatusPartialContent)
			w.Write(body[from:to])
			return true
		})
		f, info, err := open(s).Get(t.Context(), "k", store.GetOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		defer f.Close()
		if got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40)); string(got) != string(body) || info.Size != int64(len(body)) || err != nil {
			t.Errorf("%s: %d bytes, %+v, %v; asked for %s", name, len(got), info, err, s.seen(ranges))
		}
	}
}

// A server that knows no ranges gives the whole once more.
func TestAServerWithoutRanges(t *testing.T) {
	body := content(200_000)
	s := serve(t, func(w http.ResponseWriter, r *http.Request, n int) bool {
		h := http.Header{"Etag": {`"one"`}}
		if n == 1 {
			cut(w, h, 200, body[:100_000], len(body))
		} else {
			w.Header().Set("ETag", `"one"`)
			w.Write(body)
		}
		return true
	})
	if got, info, err := read(t, s, store.Options{}, store.GetOptions{}); err != nil || got != string(body) || info.Size != int64(len(body)) {
		t.Errorf("%d bytes, %+v, %v", len(got), info, err)
	}
}

func TestAStalledDownloadIsTriedAgain(t *testing.T) {
	body := content(100_000)
	var s *server
	s = serve(t, func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n == 1 {
			w.Header().Set("ETag", s.objects["/k"].tag)
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			w.Write(body[:50_000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
		return n == 1
	})
	s.set("/k", body)
	if got, _, err := read(t, s, store.Options{Stall: 100 * time.Millisecond}, store.GetOptions{}); err != nil || got != string(body) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestAStalledUploadIsTriedAgain(t *testing.T) {
	again := make(chan bool) // a server does not see that a client is gone while it leaves its body unread
	s := serve(t, func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n == 1 {
			io.ReadFull(r.Body, make([]byte, 10))
			<-again
		} else if n == 2 {
			close(again)
		}
		return n == 1
	})
	big := strings.Repeat("x", 20<<20) // more than connections hold
	st := open(t, s.URL, store.Options{Policy: quick(), Temp: t.TempDir(), Stall: time.Second})
	if _, err := put(t, st, "k", big, store.PutOptions{}); err != nil || string(s.objects["/k"].content) != big {
		t.Errorf("%v", err)
	}
}

func TestAnOverloadedServerIsWaitedFor(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n == 1 {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return n == 1
	})
	s.set("/k", []byte("x"))
	var waited time.Duration
	p := quick()
	p.Paused = func(d time.Duration) { waited += d }
	if got, _, err := read(t, s, store.Options{Policy: p}, store.GetOptions{}); err != nil || got != "x" || waited < 7*time.Second {
		t.Errorf("%q, %v, waited %s", got, err, waited)
	}
}

func TestAChecksumThatTheServerTellsIsVerified(t *testing.T) {
	for name, c := range map[string]struct {
		sum string
		ok  bool
	}{"right": {fmt.Sprintf("%X", sha256.Sum256([]byte("content"))), true}, "wrong": {strings.Repeat("0", 64), false}} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request, n int) bool {
			w.Header().Set("X-Checksum-SHA256", c.sum)
			return false
		})
		s.set("/k", []byte("content"))
		got, _, err := read(t, s, store.Options{}, store.GetOptions{})
		if (err == nil) != c.ok || c.ok && got != "content" || !c.ok && fail.Of(err) != fail.Unavailable {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
