package wire

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/tests/gitserver"
)

func TestTags(t *testing.T) {
	root, c := fixture(t)
	all := append(servers(), server{"local", false, func(*testing.T, string, []string) (string, Options) { return root + "/r.git", Options{} }})
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			url, o := s.url(t, root, nil)
			cl := newClient(t, url, c.Tip)
			tags, err := Tags(t.Context(), logs.New(&cl.log, logs.Verbose, false), cl.u, o)
			if err != nil || len(tags) != 2 || tags["refs/tags/light"] != (Tag{ID: plumbing.NewHash(c.First)}) ||
				tags["refs/tags/v1"] != (Tag{plumbing.NewHash(c.Tag), plumbing.NewHash(c.First)}) {
				t.Errorf("%v, %v", tags, err)
			}
			cl = newClient(t, strings.Replace(url, "r.git", "none.git", 1), c.Tip)
			o.Retry = cl.o.Retry
			want := fail.Denied
			if s.name == "local" {
				want = fail.Usage
			}
			if tags, err := Tags(t.Context(), logs.New(&cl.log, logs.Verbose, false), cl.u, o); fail.Of(err) != want || tags != nil {
				t.Errorf("no repository: %v, %v", tags, err)
			}
		})
	}
}

func TestTagsAreTriedAgainWithinLimits(t *testing.T) {
	var n atomic.Int32
	cl, _ := webClient(t, func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if k := n.Add(1); k == 1 || k == 3 {
			w.WriteHeader(503)
			return
		}
		next.ServeHTTP(w, r)
	})
	log := logs.New(&cl.log, logs.Normal, false)
	if tags, err := Tags(t.Context(), log, cl.u, cl.o); err != nil || len(tags) != 2 {
		t.Errorf("%v, %v", tags, err)
	}
	cl.o.Limits.Total = 50 * time.Millisecond
	cl.o.Retry.Sleep = func(ctx context.Context, _ time.Duration) error { <-ctx.Done(); return ctx.Err() }
	busy, _ := webClient(t, func(_ http.Handler, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	if tags, err := Tags(t.Context(), log, busy.u, cl.o); fail.Of(err) != fail.Unavailable || !strings.Contains(err.Error(), "not done after 50ms") || tags != nil {
		t.Errorf("%v, %v", tags, err)
	}
}

// Before version 2 a server lists all its refs, whatever one wants.
func TestManyRefs(t *testing.T) {
	from, c := fixture(t)
	root := t.TempDir()
	gitserver.Git(t, root, "clone", "-q", "--mirror", from+"/r.git", "r.git")
	gitserver.Git(t, root+"/r.git", "pack-refs", "--all")
	packed := filepath.Join(root, "r.git", "packed-refs")
	old, err := os.ReadFile(packed)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	const refs = 200_000
	for i := range refs {
		fmt.Fprintf(&b, "%s refs/keep-around/%040d\n", c.Ancestor, i)
	}
	head, rest, _ := bytes.Cut(old, []byte("\n")) // refs/heads/... come before, all others after
	var heads, others []byte
	for line := range bytes.Lines(rest) {
		if bytes.Contains(line, []byte(" refs/heads/")) {
			heads = append(heads, line...)
		} else {
			others = append(others, line...)
		}
	}
	if err := os.WriteFile(packed, bytes.Join([][]byte{head, []byte("\n"), heads, b.Bytes(), others}, nil), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, url := range map[string]string{
		"git":  gitserver.Daemon(t, root, gitserver.Options{V0: true}),
		"http": gitserver.HTTP(t, root, gitserver.Options{V0: true}),
	} {
		cl := newClient(t, url+"/r.git", c.Ancestor)
		if got, err := cl.fetch(); err != nil || got != RemoteV0 {
			t.Errorf("%s: %s, %v", name, got, err)
		}
		if tags, err := Tags(t.Context(), logs.New(&cl.log, logs.Normal, false), cl.u, cl.o); err != nil || len(tags) != 2 {
			t.Errorf("%s: %v, %v", name, tags, err)
		}
	}
}
