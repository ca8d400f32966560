package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"run-task/internal/fail"
	"run-task/store"
)

// A project that the token may not write to looks to GitLab's clients as if it was not there. That is no missing object.
func TestAnUploadThatIsNotFoundIsDenied(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) bool { http.NotFound(w, r); return true })
	_, err := put(t, open(t, s.URL, store.Options{Policy: quick(), Temp: t.TempDir()}), "k", "x", store.PutOptions{})
	if fail.Of(err) != fail.Denied || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// GitLab takes a second file of a name by default, and its answers have weak tags of their own.
func TestNewWhereTheServerKnowsNoConditions(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) bool {
		r.Header.Del("If-None-Match")
		return false
	})
	st := open(t, s.URL, store.Options{Policy: quick(), Temp: t.TempDir()})
	if _, err := put(t, st, "k", "first", store.PutOptions{New: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := put(t, st, "k", "second", store.PutOptions{New: true}); !errors.Is(err, store.ErrDuplicate) {
		t.Errorf("%v", err)
	}
	if got, _, err := read(t, s, store.Options{}, store.GetOptions{}); got != "first" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestARefusedRedirectIsNotTriedAgain(t *testing.T) {
	s := serve(t, nil)
	s.first = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		http.Redirect(w, r, "/k", http.StatusFound)
		return true
	}
	if _, _, err := read(t, s, store.Options{}, store.GetOptions{}); fail.Of(err) != fail.Denied {
		t.Errorf("%v", err)
	}
	if n := len(s.requests); n > 12 {
		t.Errorf("%d requests", n)
	}
}

func TestTheLastBytesCutGoOnWhereTheyWereCut(t *testing.T) {
	body := content(300_000)
	var s *server
	s = serve(t, func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n == 1 {
			cut(w, http.Header{"Etag": {s.objects["/k"].tag}, "Content-Range": {"bytes 200000-299999/300000"}}, 206, body[200_000:250_000], 100_000)
		}
		return n == 1
	})
	s.set("/k", body)
	got, info, err := read(t, s, store.Options{}, store.GetOptions{Last: 100_000})
	if err != nil || got != string(body[200_000:]) || info.Size != int64(len(body)) {
		t.Errorf("%d bytes, right: %v, %+v, %v", len(got), got == string(body[200_000:]), info, err)
	}
}

// Two halves of two objects are none.
func TestAnObjectThatIsReplacedBetweenTwoRanges(t *testing.T) {
	for name, tags := range map[string]bool{"with tags": true, "without": false} {
		old, now := bytes.Repeat([]byte("o"), 300_000), bytes.Repeat([]byte("n"), 300_000)
		var s *server
		s = serve(t, func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n == 1 {
				h := http.Header{}
				if tags {
					h.Set("ETag", s.objects["/k"].tag)
				}
				s.set("/k", now)
				cut(w, h, 200, old[:100_000], len(old))
			}
			return n == 1
		})
		s.set("/k", old)
		got, _, err := read(t, s, store.Options{}, store.GetOptions{})
		if err != nil || got != string(now) {
			t.Errorf("%s: %d bytes, %d old ones, %v", name, len(got), strings.Count(got, "o"), err)
		}
	}
}

// As long as a download gets on, no number of cuts ends it.
func TestManyCuts(t *testing.T) {
	const part = 2 << 20
	body := content(10 * part)
	s := serve(t, func(w http.ResponseWriter, r *http.Request, n int) bool {
		var from int
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
		h := http.Header{"Etag": {`"one"`}}
		status := 200
		if from > 0 {
			status = 206
			h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(body)-1, len(body)))
		}
		cut(w, h, status, body[from:min(from+part, len(body))], len(body)-from)
		return true
	})
	if got, _, err := read(t, s, store.Options{}, store.GetOptions{}); err != nil || got != string(body) {
		t.Errorf("%d of %d bytes, %v", len(got), len(body), err)
	}
}

// A client that follows such a redirect with GET takes what it gets for the upload's success.
func TestAnUploadIsNotMadeAGet(t *testing.T) {
	for _, status := range []int{301, 302, 303} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) bool {
			if r.Method == http.MethodPut {
				http.Redirect(w, r, "/login", status)
				return true
			}
			w.WriteHeader(http.StatusOK)
			return true
		})
		if _, err := put(t, open(t, s.URL, store.Options{Policy: quick(), Temp: t.TempDir()}), "k", "x", store.PutOptions{}); err == nil {
			t.Errorf("%d: nothing was stored, and that is a success", status)
		}
	}
}

func TestAKeyInTheQuery(t *testing.T) {
	s := serve(t, nil)
	open(t, s.URL+"/p?name=x%2F{key}&y=", store.Options{Policy: quick(), Temp: t.TempDir()}).Stat(t.Context(), "a+b/c")
	if got := s.seen(func(r *http.Request) string { return r.URL.Path + "?" + r.URL.RawQuery }); got != "HEAD /p?name=x%2Fa%2Bb%2Fc&y=" {
		t.Errorf("%q", got)
	}
}

func TestS3Login(t *testing.T) {
	b, host := bucket(t), strings.TrimPrefix(s3Server(t), "http://")
	for secret, want := range map[string]fail.Reason{s3Secret: 0, "wrong": fail.Denied} {
		o := store.Options{Policy: quick(), Temp: t.TempDir(), Logins: []store.Login{{Host: host, User: s3Key, Secret: secret}}}
		_, err := put(t, open(t, location(t, b), o), "k", "x", store.PutOptions{})
		if (err == nil) != (want == 0) || err != nil && fail.Of(err) != want {
			t.Errorf("%v", err)
		}
	}
}

// A key that the server does not know: versitygw answers 404 then. That is no missing object.
func TestS3UnknownKey(t *testing.T) {
	o := store.Options{Policy: quick(), Temp: t.TempDir(), Env: env(map[string]string{"AWS_ACCESS_KEY_ID": "unknown", "AWS_SECRET_ACCESS_KEY": "no"})}
	if _, err := put(t, open(t, location(t, bucket(t)), o), "k", "x", store.PutOptions{}); fail.Of(err) != fail.Denied || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// The size is the object's, however little of it was wanted.
func TestTheLastBytesTellTheWholeSize(t *testing.T) {
	s := serve(t, nil)
	s.set("/k", content(5000))
	if got, info, err := read(t, s, store.Options{}, store.GetOptions{Last: 10}); len(got) != 10 || info.Size != 5000 || err != nil {
		t.Errorf("%d bytes, %+v, %v", len(got), info, err)
	}
}

// What an upload leaves on its connection is the beginning of the next request's answer.
func TestS3EmptyObjects(t *testing.T) {
	s := open(t, location(t, bucket(t)), store.Options{Env: s3Env(), Policy: quick(), Temp: t.TempDir()})
	for i := range 50 {
		if _, err := put(t, s, "k", "", store.PutOptions{}); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if _, err := s.Stat(t.Context(), "k"); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
}
