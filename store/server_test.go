package store_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// object is what a server holds under a path.
type object struct {
	content []byte
	tag     string
	at      time.Time
}

// server is a web server that takes PUT, HEAD and GET with all their conditions. first may answer a request in its place, and says so.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	objects  map[string]object
	puts     int
	requests []*http.Request
	first    func(w http.ResponseWriter, r *http.Request, n int) bool
}

func serve(t *testing.T, first func(w http.ResponseWriter, r *http.Request, n int) bool) *server {
	s := &server{objects: map[string]object{}, first: first}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r)
	n := len(s.requests)
	s.mu.Unlock()
	if s.first != nil && s.first(w, r, n) {
		return
	}
	if r.Method == http.MethodPut {
		s.put(w, r)
		return
	}
	s.mu.Lock()
	o, ok := s.objects[r.URL.Path]
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", o.tag)
	http.ServeContent(w, r, "", o.at, bytes.NewReader(o.content))
}

func (s *server) put(w http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[r.URL.Path]; ok && r.Header.Get("If-None-Match") == "*" {
		w.WriteHeader(http.StatusPreconditionFailed)
		return
	}
	w.Header().Set("ETag", s.setLocked(r.URL.Path, content))
	w.WriteHeader(http.StatusCreated)
}

func (s *server) setLocked(path string, content []byte) string {
	s.puts++
	tag := fmt.Sprintf(`"%d-%x"`, s.puts, sha256.Sum256(content))
	s.objects[path] = object{content, tag, time.Now()}
	return tag
}

func (s *server) set(path string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setLocked(path, content)
}

// seen are the requests until now, with a value of each.
func (s *server) seen(value func(*http.Request) string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, r := range s.requests {
		all = append(all, strings.TrimSpace(r.Method+" "+value(r)))
	}
	return strings.Join(all, ", ")
}

// cut answers with the beginning of a body and then breaks the connection.
func cut(w http.ResponseWriter, headers http.Header, status int, body []byte, length int) {
	for name, values := range headers {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", fmt.Sprint(length))
	w.WriteHeader(status)
	w.Write(body)
	w.(http.Flusher).Flush()
	if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
		c.Close()
	}
}
