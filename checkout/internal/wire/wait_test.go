package wire

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/tests/gitserver"
)

// clocked makes the client's pauses take no time, and tells each to during.
func (c *client) clocked(during func(d time.Duration)) *time.Time {
	now := time.Unix(1e9, 0)
	c.o.Retry.Now = func() time.Time { return now }
	c.o.Retry.Rand = func(n int64) int64 { return n - 1 }
	c.o.Retry.Sleep = func(ctx context.Context, d time.Duration) error {
		now = now.Add(d)
		during(d)
		return ctx.Err()
	}
	return &now
}

// lateFixture is a repository that lacks a commit until appear is called.
func lateFixture(t *testing.T) (root, sha string, appear func()) {
	t.Helper()
	root = t.TempDir()
	gitserver.Repo(t, root, "r.git")
	repo := root + "/r.git"
	tree := gitserver.Git(t, repo, "rev-parse", "main^{tree}")
	other := t.TempDir()
	gitserver.Git(t, other, "clone", "-q", "--bare", "file://"+repo, "late.git")
	sha = gitserver.Git(t, other+"/late.git", "commit-tree", "-m", "late", tree)
	gitserver.Git(t, other+"/late.git", "update-ref", "refs/heads/late", sha)
	return root, sha, func() { gitserver.Git(t, other+"/late.git", "push", "-q", repo, "refs/heads/late") }
}

func TestWaitForCommit(t *testing.T) {
	for _, name := range []string{"http-v2", "git-v0", "local"} {
		t.Run(name, func(t *testing.T) {
			root, sha, appear := lateFixture(t)
			for _, s := range allServers(root) {
				if s.name != name {
					continue
				}
				url, o := s.url(t, root, nil)
				cl := newClient(t, url, sha)
				cl.o, cl.want.Wait, cl.want.Hints = o, time.Hour, []string{"refs/heads/late"}
				stats := &Stats{}
				cl.o.Stats = stats
				pauses, slept := 0, time.Duration(0)
				cl.clocked(func(d time.Duration) {
					slept += d
					if pauses++; pauses == 6 {
						appear()
					}
				})
				_, err := cl.fetch()
				if err != nil || pauses != 6 || stats.Waited != slept || stats.Retries != 0 || stats.Bytes == 0 {
					t.Errorf("%v after %d pauses, %+v", err, pauses, *stats)
				}
				if got := gitserver.Git(t, cl.dir, "cat-file", "-t", sha); got != "commit" {
					t.Error(got)
				}
				// Pauses of 2 s, 4 s, 8 s, 16 s, 30 s, 30 s.
				if log := cl.log.String(); strings.Count(log, "waiting for the commit") != 4 || strings.Count(log, " up to 1h0m0s") != 1 {
					t.Errorf("log %s", log)
				}
			}
		})
	}
}

// What led nowhere is not sent again while nothing has changed.
func TestWaitingCostsLittle(t *testing.T) {
	var packs, rounds atomic.Int32
	root, sha, _ := lateFixture(t)
	url := gitserver.HTTP(t, root, gitserver.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(b))
			switch {
			case !isPack(r):
				rounds.Add(1)
			case bytes.Contains(b, []byte("command=fetch")) && !bytes.Contains(b, []byte("want "+sha)):
				packs.Add(1)
			}
			next.ServeHTTP(w, r)
		})
	}})
	cl := newClient(t, url+"/r.git", sha)
	cl.want.Wait, cl.want.Hints = 10*time.Minute, []string{"refs/heads/topic"}
	cl.clocked(func(time.Duration) {})
	_, err := cl.fetch()
	var b bytes.Buffer
	fail.Print(&b, err)
	if fail.Of(err) != fail.Gone || !strings.Contains(b.String(), "\n  waited  10m0s\n") || strings.Count(b.String(), "not reachable") != 1 {
		t.Errorf("%s", &b)
	}
	if packs.Load() != 3 || rounds.Load() < 15 { // the hint at depth 50 and whole, all
		t.Errorf("%d packs in %d rounds", packs.Load(), rounds.Load())
	}
}

// A failure that passes is tried again in a late round as in the first one.
func TestRoundsHaveTheirOwnBudget(t *testing.T) {
	root, sha, appear := lateFixture(t)
	var failing atomic.Bool
	url := gitserver.HTTP(t, root, gitserver.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if failing.Swap(false) {
				w.WriteHeader(503)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	cl := newClient(t, url+"/r.git", sha)
	cl.want.Wait, cl.want.Hints = time.Hour, []string{"refs/heads/late"}
	cl.o.Retry.Min, cl.o.Retry.Max, cl.o.Stats = 4*time.Minute, 4*time.Minute, &Stats{}
	pauses := 0
	cl.clocked(func(time.Duration) {
		if pauses++; pauses == 3 {
			appear()
			failing.Store(true)
		}
	})
	if _, err := cl.fetch(); err != nil || pauses != 4 || cl.o.Stats.Retries != 1 {
		t.Errorf("%v after %d pauses, %+v", err, pauses, *cl.o.Stats)
	}
}

func TestWhatIsNotWaitedFor(t *testing.T) {
	for name, c := range map[string]struct {
		handle func(w http.ResponseWriter)
		reason fail.Reason
	}{
		"denied":      {func(w http.ResponseWriter) { w.WriteHeader(403) }, fail.Denied},
		"unavailable": {func(w http.ResponseWriter) { w.WriteHeader(501) }, fail.Unavailable},
	} {
		cl, _ := webClient(t, func(_ http.Handler, w http.ResponseWriter, _ *http.Request) { c.handle(w) })
		cl.want.Wait = time.Hour
		cl.clocked(func(time.Duration) { t.Errorf("%s was waited for", name) })
		if _, err := cl.fetch(); fail.Of(err) != c.reason {
			t.Errorf("%s: %v", name, err)
		}
	}
	root, sha, _ := lateFixture(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cl := newClient(t, root+"/r.git", sha)
	cl.want.Wait = time.Hour
	cl.clocked(func(time.Duration) { cancel(fail.ErrInterrupted) })
	if _, err := Fetch(ctx, logs.New(io.Discard, logs.Normal, false), cl.u, cl.o, cl.want, cl.take); fail.Of(err) != fail.Interrupted {
		t.Errorf("cancelled: %v", err)
	}
}

func TestStats(t *testing.T) {
	var n atomic.Int32
	cl, _ := webClient(t, func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if n.Add(1) < 3 {
			w.WriteHeader(503)
			return
		}
		next.ServeHTTP(w, r)
	})
	stats := &Stats{}
	cl.o.Stats = stats
	slept := time.Duration(0)
	cl.clocked(func(d time.Duration) { slept += d })
	var size int64
	_, err := Fetch(t.Context(), logs.New(io.Discard, logs.Normal, false), cl.u, cl.o, cl.want, func(_ context.Context, p Pack) (bool, error) {
		size, _ = io.Copy(io.Discard, p)
		return true, nil
	})
	if err != nil || size == 0 || *stats != (Stats{Bytes: size, Retries: 2, Waited: slept}) {
		t.Errorf("%v, %+v; want %d bytes, 2 retries, %s", err, *stats, size, slept)
	}
}

func TestAllSize(t *testing.T) {
	from, c := fixture(t)
	root := t.TempDir()
	repo := root + "/r.git"
	gitserver.Git(t, root, "clone", "-q", "--mirror", from+"/r.git", "r.git")
	url := gitserver.Daemon(t, root, gitserver.Options{V0: true}) + "/r.git"
	for size, want := range map[int64]fail.Reason{100: fail.Refused, 1 << 20: 0} {
		cl := newClient(t, url, c.Ancestor)
		cl.o.Limits.AllSize = size
		cl.want.Wait = time.Minute
		cl.clocked(func(time.Duration) { // what was too large is not asked for again when it has grown
			gitserver.Git(t, repo, "update-ref", "refs/heads/new", gitserver.Git(t, repo, "commit-tree", "-m", "new", c.Tip+"^{tree}"))
		})
		_, err := cl.fetch()
		var b bytes.Buffer
		if err != nil {
			fail.Print(&b, err)
		}
		if want == 0 && err != nil || want != 0 && (fail.Of(err) != want || !strings.Contains(b.String(), "branches and tags: more than 100 B: name a ref that leads to the commit") || len(cl.packs) != 1) {
			t.Errorf("%d: %s (%d packs)", size, &b, len(cl.packs))
		}
	}
}

func TestLimitsAreChecked(t *testing.T) {
	if err := (Limits{Connect: 1, TLS: 1, Answer: 1, Prepare: 1, Stall: 1, Total: 1, LowSpeed: 1, AllSize: 1}).Check(); err != nil {
		t.Error(err)
	}
	for name, l := range map[string]Limits{
		"connect": {Connect: -1}, "tls": {TLS: -1}, "answer": {Answer: -1}, "prepare": {Prepare: -1}, "stall": {Stall: -1}, "total": {Total: -1},
		"low-speed": {LowSpeed: -1}, "all-size": {AllSize: -1},
	} {
		err := l.Check()
		if fail.Of(err) != fail.Usage || !strings.Contains(err.Error(), `"`+name+`"`) {
			t.Errorf("%s: %v", name, err)
		}
		if err := Check(t.Context(), logs.New(io.Discard, logs.Normal, false), URL{Scheme: "file", Path: "/"}, Options{Limits: l}); fail.Of(err) != fail.Usage || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLowSpeed(t *testing.T) {
	packet := "0fa5\x01" + strings.Repeat("x", 4000) // a minute: 67 B/s
	for speed, minutes := range map[int64]int{50: 1000, 150: 2} {
		clock, p := watchMinutes(func(n int) string {
			if n > 999 {
				return ""
			}
			return packet
		})
		p.watch.limits.LowSpeed = speed
		io.Copy(io.Discard, p.pack(logs.New(io.Discard, logs.Normal, false)))
		if clock.n != minutes {
			t.Errorf("at least %d B/s: over after %d minutes, want %d", speed, clock.n, minutes)
		}
	}
}
