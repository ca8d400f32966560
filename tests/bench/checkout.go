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
	root := filepath.Join(dir, "srv")
	sha, err := goSource(root)
	if err != nil {
		return err
	}
	backend, err := httpBackend(root)
	if err != nil {
		return err
	}
	live := httptest.NewServer(backend)
	defer live.Close()
	replayed := httptest.NewServer(&replay{next: backend, seen: map[string]*httptest.ResponseRecorder{}})
	defer replayed.Close()
	for _, place := range []struct{ name, dir string }{{"tmpfs", "/dev/shm"}, {"disk", dir}} {
		// A fresh directory for every run, removed at the end: ext4 is slow to reuse inodes that were just deleted.
		work, err := os.MkdirTemp(place.dir, "run-task-bench")
		if err != nil {
			fmt.Printf("%s: %v: left out\n", place.dir, err)
			continue
		}
		defer os.RemoveAll(work)
		for _, server := range []struct{ name, url string }{{"replaying server", replayed.URL}, {"live server", live.URL}} {
			url := server.url + "/go.git"
			fresh := func(who string) func(int) string {
				return func(run int) string {
					return filepath.Join(work, fmt.Sprintf("%s-%s-%d", who, strings.Fields(server.name)[0], run))
				}
			}
			git, us := fresh("git"), fresh("run-task")
			err := compare(fmt.Sprintf("checkout, depth 1, %s, %s", server.name, place.name), runs, depthOne(binary, url, sha, git, us)...)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// depthOne is git's way to check one commit out, and ours.
func depthOne(binary, url, sha string, git, us func(run int) string) []*side {
	return []*side{
		{name: "git init, fetch, checkout", prepare: func(run int) ([][]string, error) {
			d := git(run)
			return [][]string{{"git", "init", "-q", d}, {"git", "-C", d, "fetch", "-q", "--depth=1", url, sha}, {"git", "-C", d, "checkout", "-q", "FETCH_HEAD"}}, nil
		}},
		{name: "run-task", prepare: func(run int) ([][]string, error) {
			args := []string{binary, "checkout", "--repo", url, "--sha", sha}
			if os.Getuid() == 0 {
				args = append(args, "--user", "root")
			}
			return [][]string{append(args, us(run))}, nil
		}},
	}
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
	backend, err := httpBackend(root)
	if err != nil {
		return err
	}
	live := httptest.NewServer(backend)
	defer live.Close()
	fresh := func(who string) func(int) string {
		return func(run int) string { return filepath.Join(dir, fmt.Sprintf("%s-blob-%d", who, run)) }
	}
	return compare("checkout, depth 1, one file of 256 MB, live server, disk", runs, depthOne(binary, live.URL+"/blob.git", sha, fresh("git"), fresh("run-task"))...)
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
