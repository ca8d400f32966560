package wire

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/internal/roots"
	"run-task/tests/gitserver"
)

// webClient serves the fixture over HTTP, lets requests go through wrap, and returns a client that wants its tip.
func webClient(t *testing.T, wrap func(next http.Handler, w http.ResponseWriter, r *http.Request)) (*client, gitserver.Commits) {
	t.Helper()
	root, c := fixture(t)
	url := gitserver.HTTP(t, root, gitserver.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { wrap(next, w, r) })
	}})
	return newClient(t, url+"/r.git", c.Tip), c
}

func isPack(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/git-upload-pack") }

// answer is what next says, for the caller to spoil.
func answer(next http.Handler, w http.ResponseWriter, r *http.Request) []byte {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	return rec.Body.Bytes()
}

func TestStatusesAndPages(t *testing.T) {
	for name, c := range map[string]struct {
		handle func(w http.ResponseWriter)
		reason fail.Reason
		words  string
		tries  int
	}{
		"401":  {func(w http.ResponseWriter) { w.WriteHeader(401) }, fail.Denied, "401 Unauthorized", 1},
		"403":  {func(w http.ResponseWriter) { w.WriteHeader(403) }, fail.Denied, "403 Forbidden", 1},
		"404":  {func(w http.ResponseWriter) { w.WriteHeader(404) }, fail.Denied, "repository not found or no access", 1},
		"400":  {func(w http.ResponseWriter) { w.WriteHeader(400) }, fail.Refused, "400 Bad Request", 1},
		"429":  {func(w http.ResponseWriter) { w.Header().Set("Retry-After", "2"); w.WriteHeader(429) }, fail.Busy, "tried 5 times", 5},
		"408":  {func(w http.ResponseWriter) { w.WriteHeader(408) }, fail.Unavailable, "tried 5 times", 5},
		"425":  {func(w http.ResponseWriter) { w.WriteHeader(425) }, fail.Unavailable, "tried 5 times", 5},
		"502":  {func(w http.ResponseWriter) { w.WriteHeader(502) }, fail.Unavailable, "tried 5 times", 5},
		"504":  {func(w http.ResponseWriter) { w.WriteHeader(504) }, fail.Unavailable, "tried 5 times", 5},
		"long": {func(w http.ResponseWriter) { w.Header().Set("Retry-After", "9000"); w.WriteHeader(429) }, fail.Busy, "wants 2h30m0s", 1},
		"500":  {func(w http.ResponseWriter) { w.WriteHeader(500) }, fail.Unavailable, "tried 5 times", 5},
		"501":  {func(w http.ResponseWriter) { w.WriteHeader(501) }, fail.Unavailable, "501", 1},
		"cut":  {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, fail.Unavailable, "EOF", 5},
		"page": {func(w http.ResponseWriter) { io.WriteString(w, "<html>log in</html>") }, fail.Denied, "web page", 1},
		"dumb": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/plain")
			io.WriteString(w, "0123\trefs/heads/main\n")
		}, fail.Usage, "dumb HTTP", 1},
		"json": {func(w http.ResponseWriter) { w.Header().Set("Content-Type", "application/json") }, fail.Unavailable, `"application/json"`, 1},
		"noise": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			io.WriteString(w, "hello world")
		}, fail.Unavailable, "not git's protocol", 5},
		"nowhere": {func(w http.ResponseWriter) { w.Header().Set("Location", "/login"); w.WriteHeader(302) }, fail.Denied, "redirects", 1},
		"scheme":  {func(w http.ResponseWriter) { w.Header().Set("Location", "ftp://h/info/refs"); w.WriteHeader(302) }, fail.Denied, "not allowed", 1},
	} {
		t.Run(name, func(t *testing.T) {
			var tries atomic.Int32
			cl, _ := webClient(t, func(_ http.Handler, w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/login" {
					w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
					return
				}
				tries.Add(1)
				c.handle(w)
			})
			_, err := cl.fetch()
			if fail.Of(err) != c.reason || !strings.Contains(fmt.Sprint(err), c.words) || int(tries.Load()) != c.tries {
				t.Errorf("%v (%v) after %d tries; want %v with %q after %d", err, fail.Of(err), tries.Load(), c.reason, c.words, c.tries)
			}
		})
	}
}

func TestPassingFailuresPass(t *testing.T) {
	var mu sync.Mutex
	for name, spoil := range map[string]func(w http.ResponseWriter, r *http.Request, answer []byte){
		"503": func(w http.ResponseWriter, _ *http.Request, _ []byte) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(503)
		},
		"truncated": func(w http.ResponseWriter, _ *http.Request, b []byte) { w.Write(b[:len(b)*2/3]) },
		"cut": func(w http.ResponseWriter, _ *http.Request, b []byte) {
			w.Write(b[:len(b)*2/3])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"flipped": func(w http.ResponseWriter, _ *http.Request, b []byte) { b[len(b)/2] ^= 1; w.Write(b) },
		"stalled": func(w http.ResponseWriter, r *http.Request, b []byte) {
			w.Write(b[:len(b)/2])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
		"band 3": func(w http.ResponseWriter, _ *http.Request, _ []byte) {
			io.WriteString(w, "000dpackfile\n000a\x03oops\n0000")
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, bad := range []int{1, 9} { // the first answers, or all
				n := 0
				cl, _ := webClient(t, func(next http.Handler, w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					defer mu.Unlock()
					if !isPack(r) {
						next.ServeHTTP(w, r)
						return
					}
					b := answer(next, w, r)
					w.Header().Del("Content-Length")
					if n++; n <= bad {
						spoil(w, r, b)
						return
					}
					w.Write(b)
				})
				cl.o.Limits = Limits{Stall: 50 * time.Millisecond}
				var pauses []time.Duration
				cl.o.Retry.Sleep = func(_ context.Context, d time.Duration) error { pauses = append(pauses, d); return nil }
				_, err := cl.fetch()
				switch {
				case bad == 1 && (err != nil || len(pauses) != 1):
					t.Errorf("one bad answer: %v after pauses %v", err, pauses)
				case bad == 1 && name == "503" && pauses[0] != 7*time.Second:
					t.Errorf("pause %v, want what Retry-After says", pauses[0])
				case bad > 1 && name == "flipped" && (fail.Of(err) != fail.BadData || len(pauses) != 1):
					t.Errorf("bad content for ever: %v after pauses %v", err, pauses)
				case bad > 1 && name != "flipped" && (fail.Of(err) != fail.Unavailable || len(pauses) != 4):
					t.Errorf("for ever: %v after pauses %v", err, pauses)
				}
			}
		})
	}
}

func TestNoConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, scheme := range []string{"http", "https", "git", "ssh"} {
		cl := newClient(t, scheme+"://"+l.Addr().String()+"/r.git", strings.Repeat("1", 40))
		if _, err := cl.fetch(); fail.Of(err) != fail.Unavailable || !strings.Contains(err.Error(), "tried 5 times") {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

// A server that accepts connections and then says nothing.
func TestSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	spokenTo, end := make(chan struct{}, 100), make(chan struct{})
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				conn.Read(make([]byte, 1))
				spokenTo <- struct{}{}
				<-end
			})
		}
	})
	t.Cleanup(func() { l.Close(); close(end); wg.Wait() })
	for _, scheme := range []string{"http", "https", "git", "ssh"} {
		t.Run(scheme, func(t *testing.T) {
			cl := newClient(t, scheme+"://"+l.Addr().String()+"/r.git", strings.Repeat("1", 40))
			cl.o.Limits = Limits{Answer: time.Hour, TLS: time.Hour}
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() { <-spokenTo; cancel(fail.ErrInterrupted) }()
			if _, err := Fetch(ctx, logs.New(&cl.log, logs.Verbose, false), cl.u, cl.o, cl.want, cl.take); fail.Of(err) != fail.Interrupted {
				t.Errorf("cancelled: %v", err)
			}
			cl.o.Limits = Limits{Answer: 20 * time.Millisecond, TLS: 20 * time.Millisecond}
			if _, err := cl.fetch(); fail.Of(err) != fail.Unavailable {
				t.Errorf("time limit: %v", err)
			}
			for len(spokenTo) > 0 {
				<-spokenTo
			}
		})
	}
}

func TestRequestsAreTheSameBytes(t *testing.T) {
	var sent []string
	cl, _ := webClient(t, func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		b, _ := httputil.DumpRequest(r, true)
		sent = append(sent, string(b))
		next.ServeHTTP(w, r)
	})
	for range 2 {
		if _, err := cl.fetch(); err != nil {
			t.Fatal(err)
		}
	}
	if len(sent) != 4 || sent[0] != sent[2] || sent[1] != sent[3] {
		t.Errorf("%d requests:\n%s", len(sent), strings.Join(sent, "\n---\n"))
	}
	_, body, _ := strings.Cut(sent[1], "\r\n\r\n")
	want := "0012command=fetch\n0013agent=run-task\n0017object-format=sha1\n00010010no-progress\n000eofs-delta\n000ddeepen 1\n" +
		"0032want " + cl.want.SHA.String() + "\n0009done\n0000"
	if body != want {
		t.Errorf("got  %q\nwant %q", body, want)
	}
}

func TestGzippedAnswers(t *testing.T) {
	cl, _ := webClient(t, func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		b := answer(next, w, r)
		if r.Header.Get("Accept-Encoding") != "gzip" {
			t.Errorf("Accept-Encoding %q", r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Del("Content-Length")
		z := gzip.NewWriter(w)
		z.Write(b)
		z.Close()
	})
	if got, err := cl.fetch(); err != nil || got != RemoteV2 {
		t.Errorf("%s, %v", got, err)
	}
}

// One connection carries both requests of a fetch.
func TestConnectionIsUsedAgain(t *testing.T) {
	var from []string
	cl, _ := webClient(t, func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		from = append(from, r.RemoteAddr)
		b := answer(next, w, r)
		w.Header().Del("Content-Length")
		w.Write(b)
		w.(http.Flusher).Flush() // so that the answer's end comes by itself
	})
	if _, err := cl.fetch(); err != nil || len(slices.Compact(from)) != 1 {
		t.Errorf("%v, connections %v", err, from)
	}
}

func TestCredentials(t *testing.T) {
	const secret = "hunter2hunter2"
	cl, _ := webClient(t, func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != "joe" || p != secret {
			http.Error(w, "who?", http.StatusUnauthorized)
			return
		}
		if r.URL.Path == "/moved/info/refs" { // on the same host they go along
			http.Redirect(w, r, "/r.git/info/refs?"+r.URL.RawQuery, http.StatusMovedPermanently)
			return
		}
		next.ServeHTTP(w, r)
	})
	host := cl.u.address()
	for url, want := range map[string]fail.Reason{
		"http://joe:" + secret + "@" + host + "/r.git":        0,
		"http://joe:" + secret + "@" + host + "/moved":        0,
		"http://joe:wrong" + secret + "@" + host + "/r.git":   fail.Denied,
		"http://joe" + secret + "@" + host + "/r.git":         fail.Denied,
		"http://joe:" + secret + "@" + host + "/nothing.git/": fail.Denied,
	} {
		c := newClient(t, url, cl.want.SHA.String())
		_, err := c.fetch()
		if want == 0 && err != nil || want != 0 && fail.Of(err) != want {
			t.Errorf("%v, want %v", err, want)
		}
		if said := c.log.String() + fmt.Sprint(err) + fail.Hint(err); strings.Contains(said, secret) {
			t.Errorf("a secret is in %s", said)
		}
	}
}

func TestRedirects(t *testing.T) {
	var seen []string
	target, c := webClient(t, func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Method+" "+r.Header.Get("Authorization"))
		next.ServeHTTP(w, r)
	})
	to := target.u.String()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			t.Error("the host that is named in the URL must get the credentials")
		}
		http.Redirect(w, r, strings.Replace(to, "http://", "http://eve:pw@", 1)+"/info/refs?"+r.URL.RawQuery, http.StatusFound)
	})
	from, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	t.Cleanup(from.Close)
	t.Cleanup(secure.Close)

	cl := newClient(t, strings.Replace(from.URL, "http://", "http://joe:pw@", 1)+"/x.git", c.Tip)
	if got, err := cl.fetch(); err != nil || got != RemoteV2 || !slices.Equal(seen, []string{"GET ", "POST "}) {
		t.Errorf("%s, %v, other host saw %q: want no credentials, and the POST there", got, err, seen)
	}
	if !strings.Contains(cl.log.String(), "redirected to "+to+"\n") {
		t.Errorf("log %s", &cl.log)
	}

	cl = newClient(t, strings.Replace(secure.URL, "https://", "https://joe:pw@", 1)+"/x.git", c.Tip)
	cl.o.TLS = secure.Client().Transport.(*http.Transport).TLSClientConfig
	if _, err := cl.fetch(); fail.Of(err) != fail.Denied || !strings.Contains(err.Error(), "from https to http") {
		t.Errorf("%v", err)
	}
}

func TestWhereRedirectsMayLead(t *testing.T) {
	for location, want := range map[string]fail.Reason{
		"ftp://h/r.git/info/refs": fail.Denied, "file:///r.git/info/refs": fail.Denied, "git://h/r.git": fail.Denied, "ssh://h/r.git": fail.Denied, "mailto:joe": fail.Denied,
		"javascript:alert(1)": fail.Denied, "http:///r.git/info/refs": fail.Unavailable,
	} {
		var tries atomic.Int32
		cl, _ := webClient(t, func(_ http.Handler, w http.ResponseWriter, _ *http.Request) {
			tries.Add(1)
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusFound)
		})
		_, err := cl.fetch()
		if fail.Of(err) != want || !strings.Contains(err.Error(), "redirects") || want == fail.Denied && fail.Hint(err) == "" || tries.Load() != 1 {
			t.Errorf("%s: %v (%v) after %d requests, want %v", location, err, fail.Of(err), tries.Load(), want)
		}
	}
}

func TestWhoGetsCredentials(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"http://h/x", "http://h/y", true}, {"http://h/x", "http://H:80/y", true}, {"http://h/x", "https://h/x", true}, {"https://h:8443/x", "https://h:8443/y", true},
		{"http://h/x", "http://g/x", false}, {"https://h/x", "https://h.g/x", false}, {"https://h/x", "https://sub.h/x", false}, {"https://h/x", "https://h:8443/x", false},
		{"http://h:8080/x", "https://h/x", false}, {"https://h/x", "http://h/x", false},
	} {
		u, err := ParseURL(c.from)
		to, err2 := url.Parse(c.to)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if got := (&web{u: u}).mayHaveCredentials(to); got != c.want {
			t.Errorf("from %s to %s: %v", c.from, c.to, got)
		}
	}
}

func TestHTTPS(t *testing.T) {
	root, c := fixture(t)
	var cert *x509.Certificate
	url := gitserver.HTTP(t, root, gitserver.Options{TLS: true, Config: nil})
	conn, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	cert = conn.ConnectionState().PeerCertificates[0]
	conn.Close()

	cl := newClient(t, url+"/r.git", c.Tip)
	if _, err := cl.fetch(); fail.Of(err) != fail.Denied || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
	cl.o.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	cl.o.TLS.RootCAs.AddCert(cert)
	if got, err := cl.fetch(); err != nil || got != RemoteV2 {
		t.Errorf("%s, %v", got, err)
	}
}

// An image without certificate files: a child process, because roots are loaded once.
func TestEmbeddedRoots(t *testing.T) {
	if os.Getenv("WIRE_TEST_ROOTS") != "" {
		roots.Embed()
		n := 0
		for root := range bundle.Roots() {
			cert, err := x509.ParseCertificate(root.Certificate)
			if err != nil || root.Constraint != nil {
				continue
			}
			if _, err := cert.Verify(x509.VerifyOptions{CurrentTime: cert.NotBefore.Add(time.Hour)}); err != nil {
				t.Errorf("%s: %v", cert.Subject, err)
			}
			n++
		}
		fmt.Println("verified", n > 50)
		return
	}
	dir := t.TempDir()
	own := dir + "/own.pem"
	s := httptest.NewTLSServer(nil)
	t.Cleanup(s.Close)
	if err := os.WriteFile(own, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]bool{dir + "/none": true, own: false} { // system roots, where there are some, are all that counts
		cmd := exec.Command(os.Args[0], "-test.run=^TestEmbeddedRoots$")
		cmd.Env = append(os.Environ(), "WIRE_TEST_ROOTS=1", "SSL_CERT_FILE="+file, "SSL_CERT_DIR="+dir+"/none")
		out, err := cmd.CombinedOutput()
		if (err == nil && bytes.Contains(out, []byte("verified true"))) != want {
			t.Errorf("SSL_CERT_FILE=%s: %v\n%.2000s", file, err, out)
		}
	}
}
