package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/store"
)

// bucketAt is a store in a bucket that a plain server says that it has.
func bucketAt(t *testing.T, s *server, o store.Options) store.Lister {
	t.Helper()
	o.Env, o.Policy, o.Temp = s3Env(), policyOr(o.Policy), t.TempDir()
	return open(t, "s3://bucket/some/prefix?endpoint="+s.URL, o).(store.Lister)
}

func TestAnOverloadedBucketIsWaitedFor(t *testing.T) {
	for _, status := range []int{http.StatusServiceUnavailable, http.StatusTooManyRequests} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n == 1 {
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(status)
				fmt.Fprint(w, "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
			}
			return n == 1
		})
		s.set("/bucket/some/prefix/k", []byte("x"))
		var waited time.Duration
		p := quick()
		p.Paused = func(d time.Duration) { waited += d }
		if _, _, err := bucketAt(t, s, store.Options{Policy: p}).Get(t.Context(), "k", store.GetOptions{}); err != nil || waited < 7*time.Second {
			t.Errorf("%d: %v, waited %s", status, err, waited)
		}
	}
}

// A server that wants more time than there is is not waited for.
func TestABucketThatIsOverloadedForTooLong(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) bool {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, "<Error><Code>SlowDown</Code></Error>")
		return true
	})
	_, err := put(t, bucketAt(t, s, store.Options{}), "k", "x", store.PutOptions{})
	if fail.Of(err) != fail.Busy || !strings.Contains(err.Error(), "wants 1h0m0s") || len(s.requests) != 1 {
		t.Errorf("%v after %d requests", err, len(s.requests))
	}
}

// flood answers with a body that does not end, and counts what of it is taken.
func flood(w http.ResponseWriter, taken *atomic.Int64) {
	b := []byte(strings.Repeat("x", 64<<10))
	for taken.Load() < 1<<30 {
		n, err := w.Write(b)
		taken.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// What is no object is not read to its end: that may never come.
func TestAnswersWithoutEnd(t *testing.T) {
	for _, status := range []int{200, 400, 403, 404, 503} {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete} {
			var taken atomic.Int64
			s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) bool {
				if r.Method == http.MethodPost && method == http.MethodPost && r.URL.Query().Has("uploads") {
					fmt.Fprint(w, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
					return true
				}
				if r.Method == http.MethodDelete && method == http.MethodPost {
					return true
				}
				if r.Method != method {
					io.Copy(io.Discard, r.Body)
					w.Header().Set("ETag", `"tag"`)
					return true
				}
				w.WriteHeader(status)
				flood(w, &taken)
				return true
			})
			tries := int64(5)
			web := open(t, s.URL, store.Options{Policy: quick(), Temp: t.TempDir()})
			var err error
			switch l := bucketAt(t, s, store.Options{}); method {
			case http.MethodGet:
				_, err = l.List(t.Context(), "")
				if status != 200 {
					web.Get(t.Context(), "k", store.GetOptions{})
				}
			case http.MethodPut:
				put(t, l, "k", "x", store.PutOptions{})
				put(t, web, "k", "x", store.PutOptions{})
			case http.MethodPost:
				_, err = put(t, l, "k", strings.Repeat("x", 17<<20), store.PutOptions{})
			case http.MethodDelete:
				l.Delete(t.Context(), store.Info{Key: "k", Tag: "tag"})
			}
			if got := taken.Load(); got > 2*tries*(20<<20) {
				t.Errorf("%s with %d: %d MiB were taken, %v", method, status, got>>20, err)
			}
			if err != nil && len(err.Error()) > 1000 {
				t.Errorf("%s with %d: an error of %d bytes", method, status, len(err.Error()))
			}
		}
	}
}

// An object is as long as it likes to be, but ends with the context, and nothing of it stays.
func TestAnObjectWithoutEnd(t *testing.T) {
	var taken atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) bool {
		w.Header().Set("Last-Modified", "Fri, 02 Jan 2026 03:05:05 GMT")
		flood(w, &taken)
		return true
	})
	why := errors.New("enough")
	for name, at := range map[string]string{"web": s.URL, "s3": "s3://bucket?endpoint=" + s.URL} {
		ctx, cancel := context.WithCancelCause(t.Context())
		o := store.Options{Env: s3Env(), Policy: quick(), Temp: t.TempDir()}
		_, _, err := open(t, at, o).Get(ctx, "k", store.GetOptions{Progress: func(done, _ int64) {
			if done > 5<<20 {
				cancel(why)
			}
		}})
		if !errors.Is(err, why) || len(names(t, o.Temp)) > 0 {
			t.Errorf("%s: %v, %q", name, err, names(t, o.Temp))
		}
	}
}

// page is one of a listing.
func page(more string, keys ...string) string {
	p := "<ListBucketResult><EncodingType>url</EncodingType>"
	if more != "" {
		p += "<IsTruncated>true</IsTruncated><NextContinuationToken>" + more + "</NextContinuationToken>"
	}
	for _, k := range keys {
		p += "<Contents><Key>" + k + "</Key><Size>1</Size><ETag>&quot;e&quot;</ETag></Contents>"
	}
	return p + "</ListBucketResult>"
}

// Of what a bucket lists, only what we asked for and what could be ours counts.
func TestListingsOfStrangeKeys(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) bool {
		fmt.Fprint(w, page("", "some/prefix/a-1", "some/prefix/b-1", "some/prefix/a-/../../x", "../x", "a-2", "other/a-3", "some/prefixa-4", "/some/prefix/a-5", "some/prefix/a-%FF", "some/prefix/a-%00",
			"some/prefix/a-%1B%5B2J", "some/prefix/a-%0A", "some/prefix/a-/.x", "some/prefix/a-//x", "some/prefix/a-"+strings.Repeat("x", 600), "some/prefix/a-2"))
		return true
	})
	all, err := bucketAt(t, s, store.Options{}).List(t.Context(), "a-")
	if err != nil || len(all) != 2 || all[0].Key != "a-1" || all[1].Key != "a-2" {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestAListingWithoutEnd(t *testing.T) {
	defer store.LimitListings(5000)()
	s := serve(t, func(w http.ResponseWriter, r *http.Request, n int) bool {
		var keys []string
		for i := range 1000 {
			keys = append(keys, fmt.Sprintf("some/prefix/%d/%d", n, i))
		}
		fmt.Fprint(w, page(fmt.Sprint(n), keys...))
		return true
	})
	if _, err := bucketAt(t, s, store.Options{}).List(t.Context(), ""); fail.Of(err) != fail.Unavailable || len(s.requests) > 7 {
		t.Errorf("%v after %d requests", err, len(s.requests))
	}
}

// Uploads that others make elsewhere in the bucket are not ours to give up, whatever the server takes a prefix for.
func TestSweepWhereTheServerIgnoresThePrefix(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) bool {
		fmt.Fprint(w, "<ListMultipartUploadsResult><EncodingType>url</EncodingType>")
		for _, key := range []string{"some/prefix/k", "other/k", "some/prefixes/k"} {
			fmt.Fprintf(w, "<Upload><Key>%s</Key><UploadId>u</UploadId><Initiated>2020-01-01T00:00:00.000Z</Initiated></Upload>", key)
		}
		fmt.Fprint(w, "</ListMultipartUploadsResult>")
		return true
	})
	if n, _, err := bucketAt(t, s, store.Options{}).Sweep(t.Context(), time.Now()); n != 1 || err != nil {
		t.Errorf("%d, %v, %s", n, err, s.seen(func(r *http.Request) string { return r.URL.Path }))
	}
}

// Whatever is wrong with a server, or with one that it redirects to, no error repeats what a query or a login may have of secrets.
func TestErrorsHaveNoSecrets(t *testing.T) {
	closed := serve(t, nil)
	closed.Close()
	echo := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) bool {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, "bad: %s %s", r.RequestURI, r.Header.Get("Authorization"))
		return true
	})
	for name, to := range map[string]string{
		"closed":           closed.URL + "/k?X-Amz-Credential=qu3ry&X-Amz-Signature=qu3ry",
		"no such host":     "http://host.invalid/?sig=qu3ry",
		"no address":       "http://host:port/?sig=qu3ry",
		"bad escape":       "http://host/%zz?sig=qu3ry",
		"control":          "http://host/\x7f?sig=qu3ry",
		"scheme":           "ftp://user:s3cr3t@host/?sig=qu3ry",
		"no host":          "http:///?sig=qu3ry",
		"not TLS":          "https://" + strings.TrimPrefix(echo.URL, "http://") + "/?sig=qu3ry",
		"echo":             echo.URL + "/?sig=qu3ry",
		"itself":           "?sig=qu3ry",
		"userinfo":         strings.Replace(closed.URL, "://", "://user:s3cr3t@", 1),
		"":                 "",
		"userinfo, closed": "",
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) bool {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusTemporaryRedirect)
			return true
		})
		at := strings.Replace(s.URL, "://", "://me:s3cr3t@", 1) + "/p?token=qu3ry"
		switch name {
		case "":
			at = strings.Replace(echo.URL, "://", "://me:s3cr3t@", 1) + "/p?token=qu3ry"
		case "userinfo, closed":
			at = strings.Replace(closed.URL, "://", "://me:s3cr3t@", 1) + "/p?token=qu3ry"
		}
		var said strings.Builder
		st := open(t, at, store.Options{Policy: quick(), Temp: t.TempDir(), Log: logs.New(&said, logs.Verbose, false)})
		for what, do := range map[string]func() error{
			"get":  func() error { _, _, err := st.Get(t.Context(), "k", store.GetOptions{}); return err },
			"put":  func() error { _, err := put(t, st, "k", "x", store.PutOptions{}); return err },
			"stat": func() error { _, err := st.Stat(t.Context(), "k"); return err },
		} {
			err := do()
			if err == nil {
				t.Errorf("%s of %q: no error", what, name)
				continue
			}
			if all := err.Error() + fail.Hint(err) + said.String(); strings.Contains(all, "s3cr3t") || strings.Contains(all, "qu3ry") {
				t.Errorf("%s of %q: %s", what, name, all)
			}
		}
	}
}

// Another server is shown nothing of what the first one was: no login, and not the address with its signature.
func TestRedirectsTakeNoSecretsAlong(t *testing.T) {
	for _, status := range []int{302, 307, 308} {
		other := serve(t, nil)
		other.set("/k", []byte("content"))
		s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) bool {
			http.Redirect(w, r, other.URL+"/k", status)
			return true
		})
		host := strings.TrimPrefix(s.URL, "http://")
		for _, l := range []store.Login{{Host: host, Header: "PRIVATE-TOKEN", Secret: "s3cr3t", HTTP: true}, {Host: host, User: "u", Secret: "s3cr3t", HTTP: true}} {
			st := open(t, s.URL+"/k?sig=s3cr3t", store.Options{Policy: quick(), Temp: t.TempDir(), Logins: []store.Login{l}})
			f, _, err := st.Get(t.Context(), "k", store.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			if status != 302 {
				if _, err := put(t, st, "k", "content", store.PutOptions{}); err != nil {
					t.Error(err)
				}
			}
		}
		if seen := other.seen(func(r *http.Request) string { return fmt.Sprint(r.RequestURI, r.Header) }); strings.Contains(seen, "s3cr3t") || strings.Contains(seen, "Authorization") || strings.Contains(seen, "Private-Token") || strings.Contains(seen, "Referer") {
			t.Errorf("%d: %s", status, seen)
		}
	}
}

func TestARedirectFromTLSToNone(t *testing.T) {
	plain := serve(t, nil)
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) bool {
		http.Redirect(w, r, plain.URL+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	at, o := tls(t, s)
	if _, err := open(t, at, o).Stat(t.Context(), "k"); fail.Of(err) != fail.Denied {
		t.Errorf("%v", err)
	}
	if len(plain.requests) > 0 {
		t.Errorf("asked without TLS: %s", plain.seen(func(r *http.Request) string { return r.URL.Path }))
	}
}
