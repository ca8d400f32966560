package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// checkouts measures depth-1 checkouts of the Go toolchain's own source over HTTP, with a server that replays its answers (the client's side
// alone) and with the live git http-backend.
func checkouts(binary, dir string, runs int) error {
	return depthOne(binary, dir, runs, "checkout, depth 1", nil, false)
}

// oneCore measures the same with each side on one core; the server may have the others.
func oneCore(binary, dir string, runs int) error {
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		fmt.Println("\ntaskset is not installed: one core is left out")
		return nil
	}
	return depthOne(binary, dir, runs, "checkout, depth 1, one core", []string{taskset, "-c", "0"}, true)
}

// depthOne measures in every place and with every server, or in the first place with the first server only. The first of both leave most to the client.
func depthOne(binary, dir string, runs int, title string, wrap []string, first bool) error {
	_, sha, all, err := theSource(dir, title)
	if err != nil {
		return err
	}
	defer closeAll(all)
	m := move{title: title, to: sha, depth: 1, wrap: wrap, git: []gitWay{toFetchHead}}
	for _, p := range places(dir) {
		for _, s := range all {
			if err := m.measure(runs, binary, p, s, "go.git"); err != nil || first {
				return err
			}
		}
	}
	return nil
}

// blob measures a checkout whose one file is of 256 MB and cannot be compressed.
func blob(binary, dir string, runs int) error {
	root := filepath.Join(dir, "blob")
	repo := filepath.Join(root, "blob.git")
	git := func(stdin io.Reader, args ...string) string {
		c := exec.Command("git", append([]string{"-C", repo, "-c", "user.name=bench", "-c", "user.email=bench@localhost"}, args...)...)
		c.Stdin, c.Stderr = stdin, os.Stderr
		out, err := c.Output()
		if err != nil {
			log.Fatalf("bench: git %s: %v", args[0], err)
		}
		return strings.TrimSpace(string(out))
	}
	if err := os.MkdirAll(repo, 0o755); err != nil {
		return err
	}
	git(nil, "init", "-q", "--bare")
	id := git(io.LimitReader(rand.NewChaCha8([32]byte{}), 256<<20), "hash-object", "-w", "--stdin")
	tree := git(strings.NewReader("100644 blob "+id+"\tlarge\n"), "mktree")
	sha := git(nil, "commit-tree", "-m", "large", tree)
	git(nil, "update-ref", "refs/heads/main", sha)
	all, err := servers(root)
	if err != nil {
		return err
	}
	defer closeAll(all)
	if err := describe("one file of 256 MB", repo, sha, 1); err != nil {
		return err
	}
	m := move{title: "checkout, depth 1, one file of 256 MB", to: sha, depth: 1, git: []gitWay{toFetchHead}}
	return m.measure(runs, binary, places(dir)[1], live(all), "blob.git")
}

// server is a git server; replay is nil when it is live.
type server struct {
	name string
	*httptest.Server
	replay *replay
}

// servers are one that replays its answers, so that it is the client that is measured, and the live git http-backend.
func servers(root string) ([]*server, error) {
	backend, err := httpBackend(root)
	if err != nil {
		return nil, err
	}
	r := &replay{next: backend, seen: map[string]*httptest.ResponseRecorder{}}
	return []*server{{"replaying server", httptest.NewServer(r), r}, {"live server", httptest.NewServer(backend), nil}}, nil
}

func live(all []*server) *server { return all[1] }

func closeAll(all []*server) {
	for _, s := range all {
		s.Close()
	}
}

// compare is compare, and fails if a replaying server was asked something new after the warm-up: then it was the live one that was measured.
func (s *server) compare(title string, runs int, sides ...*side) error {
	if s.replay == nil {
		return compare(title, runs, sides...)
	}
	warm := 0
	prepare := sides[0].prepare
	sides[0].prepare = func(run int) ([][]string, error) {
		if run == 0 {
			warm = s.replay.requests()
		}
		return prepare(run)
	}
	err := compare(title, runs, sides...)
	if n := s.replay.requests() - warm; err == nil && n > 0 {
		return fmt.Errorf("%s: %d requests were not replayed", title, n)
	}
	return err
}

// httpBackend serves the repositories in a directory as a server does that is configured for protocol version 2.
func httpBackend(root string) (http.Handler, error) {
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return nil, err
	}
	return protocol(&cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}), nil
}

// protocol passes the Git-Protocol header on.
func protocol(backend *cgi.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := *backend
		h.Env = append(append([]string{}, h.Env...), "GIT_PROTOCOL="+r.Header.Get("Git-Protocol"))
		h.ServeHTTP(w, r)
	})
}

// replay answers a request that it has seen before with what the server said then.
type replay struct {
	next http.Handler
	mu   sync.Mutex
	seen map[string]*httptest.ResponseRecorder
}

func (p *replay) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	key := r.Method + r.URL.String() + r.Header.Get("Git-Protocol") + r.Header.Get("Content-Encoding") + string(body)
	p.mu.Lock()
	defer p.mu.Unlock()
	rec := p.seen[key]
	if rec == nil {
		rec = httptest.NewRecorder()
		r.Body = io.NopCloser(bytes.NewReader(body))
		p.next.ServeHTTP(rec, r)
		p.seen[key] = rec
	}
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	w.Write(rec.Body.Bytes())
}

// requests is how many different requests there were.
func (p *replay) requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.seen)
}
