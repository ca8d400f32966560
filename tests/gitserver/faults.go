package gitserver

import (
	"bytes"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Kind is what a client asks of a git server over HTTP.
type Kind string

// The kinds of requests.
const (
	Advert Kind = "info/refs"
	Refs   Kind = "ls-refs"
	Fetch  Kind = "fetch" // also that of version 0
)

func kindOf(path string, body []byte) Kind {
	switch {
	case !strings.HasSuffix(path, "/git-upload-pack"):
		return Advert
	case bytes.Contains(body, []byte("command=ls-refs")):
		return Refs
	}
	return Fetch
}

// Fault answers a request as a broken server would. next gives the right answer.
type Fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

// Faults spoils some of a server's answers, and counts what all of them are for: its Wrap is for Options. The zero value spoils none.
type Faults struct {
	mu    sync.Mutex
	on    Kind
	left  int
	fault Fault
	asked map[Kind]int
	sent  map[Kind]int64
}

// Set spoils the first answers of one kind from now on, or all of them if first is 0. A nil fault makes the server whole. Counting begins anew.
func (f *Faults) Set(on Kind, first int, fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if first == 0 {
		first = 1 << 30
	}
	f.on, f.left, f.fault = on, first, fault
	f.asked, f.sent = nil, nil
}

// Asked is how many requests of each kind came since Set.
func (f *Faults) Asked() map[Kind]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.asked)
}

// Sent is how many bytes of answers to one kind of request were sent since Set, without their heads.
func (f *Faults) Sent(kind Kind) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sent[kind]
}

// Wrap is the handler around the right one.
func (f *Faults) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		kind := kindOf(r.URL.Path, body)
		fault := f.next(kind)
		w = &metered{w, f, kind}
		if fault == nil {
			next.ServeHTTP(w, r)
			return
		}
		fault(w, r, next)
	})
}

func (f *Faults) next(kind Kind) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked == nil {
		f.asked, f.sent = map[Kind]int{}, map[Kind]int64{}
	}
	f.asked[kind]++
	if f.fault == nil || kind != f.on || f.left == 0 {
		return nil
	}
	f.left--
	return f.fault
}

type metered struct {
	http.ResponseWriter
	f    *Faults
	kind Kind
}

func (m *metered) Write(p []byte) (int, error) {
	n, err := m.ResponseWriter.Write(p)
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	if m.f.sent != nil { // else Set was called since the request
		m.f.sent[m.kind] += int64(n)
	}
	return n, err
}

// Unwrap is for http.ResponseController.
func (m *metered) Unwrap() http.ResponseWriter { return m.ResponseWriter }

// whole sends the head of the right answer, and gives its body. Without a length in the head only the body's own end tells where it ends.
func whole(w http.ResponseWriter, r *http.Request, next http.Handler) []byte {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	maps.Copy(w.Header(), rec.Header())
	w.Header().Del("Content-Length")
	w.WriteHeader(rec.Code)
	return rec.Body.Bytes()
}

// upTo is that part of a body, 1 for all of it but its last byte.
func upTo(part float64, body []byte) int {
	return max(0, min(len(body)-1, int(part*float64(len(body)))))
}

func flush(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() }

// Truncate ends the answer after a part of it, in good order: as a proxy does that lost its own server.
func Truncate(part float64) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		body := whole(w, r, next)
		w.Write(body[:upTo(part, body)])
	}
}

// Cut resets the connection after a part of the answer.
func Cut(part float64) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		body := whole(w, r, next)
		w.Write(body[:upTo(part, body)])
		flush(w)
		Reset(w, r, next)
	}
}

// Reset resets the connection with no answer.
func Reset(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

// Flip changes one bit where that part of the answer ends.
func Flip(part float64) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		body := whole(w, r, next)
		body[upTo(part, body)] ^= 1
		w.Write(body)
	}
}

// Stall sends a part of the answer and then nothing more, until the client goes.
func Stall(part float64) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		body := whole(w, r, next)
		w.Write(body[:upTo(part, body)])
		flush(w)
		<-r.Context().Done()
	}
}

// Hang never answers.
func Hang(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() }

// Drip sends the answer byte by byte with a pause before each, until the client goes.
func Drip(pause time.Duration) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		tick := time.NewTicker(max(pause, 1))
		defer tick.Stop()
		for _, b := range whole(w, r, next) {
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
			w.Write([]byte{b})
			flush(w)
		}
	}
}

// Status answers with that code, body and headers, which are names and values in turn.
func Status(code int, body string, header ...string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		io.WriteString(w, body)
	}
}

// Redirect sends clients to the same path below another server's root.
func Redirect(root string) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		http.Redirect(w, r, root+r.URL.RequestURI(), http.StatusFound)
	}
}

// SHA256 makes root/name, a bare repository with SHA-256 names and one commit, whose name it returns.
func SHA256(t testing.TB, root, name string) string {
	t.Helper()
	Git(t, root, "init", "-q", "--bare", "--object-format=sha256", name)
	bare := root + "/" + name
	tree := GitInput(t, bare, strings.NewReader(""), "mktree")
	commit := Git(t, bare, "commit-tree", "-m", "a commit", tree)
	Git(t, bare, "update-ref", "refs/heads/main", commit)
	return commit
}
