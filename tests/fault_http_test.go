//go:build linux

package tests

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"run-task/tests/gitserver"
)

// limits are so short that nobody waits for a test, and so long that a machine with much to do answers in time.
func limits() (args []string) {
	for _, name := range []string{"tls", "answer", "prepare", "stall"} {
		args = append(args, "--git-limit", name+"=3s")
	}
	return args
}

// together runs subtests that mostly wait: more of them at once than there are processors.
func together(t *testing.T, n int, tests map[string]func(t *testing.T)) {
	t.Helper()
	slots := make(chan struct{}, n)
	var wg sync.WaitGroup
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			t.Run(name, tests[name])
		})
	}
	wg.Wait()
}

// shaky is a repository of two commits behind a server with faults, and directories to check it out into.
type shaky struct {
	*testing.T
	gitserver.Faults
	url  string
	shas []string
	dir  string
}

func newShaky(t *testing.T, path string, shas []string, o gitserver.Options) *shaky {
	t.Helper()
	s := &shaky{T: t, shas: shas, dir: tempDir(t)}
	o.Wrap = s.Wrap
	s.url = gitserver.HTTP(t, filepath.Dir(path), o) + "/" + filepath.Base(path)
	own(t, s.dir)
	return s
}

// checkOut brings a directory to one of the commits, in so many tries.
func (s *shaky) checkOut(tries int, dir string, to int, args ...string) (code int, stderr string) {
	s.Helper()
	return checkOut(s.T, s.dir, slices.Concat([]string{"--checkout", dir, "--repo", s.url, "--sha", s.shas[to], "--git-limit", fmt.Sprint("tries=", tries)}, args)...)
}

func (s *shaky) must(dir string, to int, args ...string) {
	s.Helper()
	if code, stderr := s.checkOut(2, dir, to, args...); code != 0 {
		s.Fatalf("%s: exit %d\n%s", dir, code, stderr)
	}
	stands(s.T, filepath.Join(s.dir, dir), s.shas[to])
}

// stands is judge's first questions, for those who have many.
func stands(t *testing.T, dir, commit string) {
	t.Helper()
	for _, c := range []struct{ args, want string }{{"rev-parse HEAD", commit}, {"status --porcelain --ignored", ""}, {"fsck --full --no-dangling", ""}} {
		if got, err := native(dir, nil, strings.Fields(c.args)...); err != nil || got != c.want {
			t.Errorf("git %s: %q, %v; want %q", c.args, got, err, c.want)
		}
	}
}

// empty checks that there is nothing that could be taken for a checkout.
func (s *shaky) empty(dir string) {
	s.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != ".git" {
			s.Errorf("%s has %s", dir, e.Name())
		}
	}
	if head, err := native(filepath.Join(s.dir, dir), nil, "rev-parse", "HEAD"); err == nil {
		s.Errorf("%s is at %s", dir, head)
	}
}

// said looks at an end: its code, and that there is one error, which says that.
func (s *shaky) said(what string, code, want int, says, stderr string) {
	s.Helper()
	_, last, _ := strings.Cut(stderr, "run-task: error: ")
	if code != want || !strings.Contains(last, says) || strings.Count(stderr, "run-task: error: ") != 1 {
		s.Errorf("%s: exit %d, want %d and %q\n%s", what, code, want, says, stderr)
	}
}

// fault is one way in which a server is broken.
type fault struct {
	name   string
	on     gitserver.Kind
	do     gitserver.Fault
	passes bool // and so it is worth another try
	code   int
	says   string
}

// hurry adds limits where otherwise minutes would go by.
func (f fault) hurry(args []string) []string {
	if f.says != "too slow" {
		return slices.Clone(args)
	}
	return slices.Concat(args, limits())
}

var loginPage = gitserver.Status(200, "<!DOCTYPE html><title>Sign in</title>", "Content-Type", "text/html; charset=utf-8")

var faults = []fault{
	{"empty", gitserver.Advert, gitserver.Truncate(0), true, 69, "EOF"},
	{"truncated", gitserver.Advert, gitserver.Truncate(.5), true, 69, "EOF"},
	{"without its last byte", gitserver.Advert, gitserver.Truncate(1), true, 69, "EOF"},
	{"empty", gitserver.Fetch, gitserver.Truncate(0), true, 69, "EOF"},
	{"truncated", gitserver.Fetch, gitserver.Truncate(.5), true, 69, "EOF"},
	{"truncated late", gitserver.Fetch, gitserver.Truncate(.999), true, 69, "EOF"},
	{"truncated", gitserver.Refs, gitserver.Truncate(.5), true, 69, "EOF"},

	{"reset", gitserver.Advert, gitserver.Reset, true, 69, "reset"},
	{"cut", gitserver.Advert, gitserver.Cut(.5), true, 69, "reset"},
	{"reset", gitserver.Refs, gitserver.Reset, true, 69, "reset"},
	{"cut", gitserver.Refs, gitserver.Cut(.5), true, 69, "reset"},
	{"reset", gitserver.Fetch, gitserver.Reset, true, 69, "reset"},
	{"cut", gitserver.Fetch, gitserver.Cut(.5), true, 69, "reset"},

	{"bit flipped", gitserver.Advert, gitserver.Flip(0), true, 69, "EOF"}, // in the length of a packet
	{"bit flipped", gitserver.Refs, gitserver.Flip(0), true, 69, "EOF"},
	{"bit flipped", gitserver.Fetch, gitserver.Flip(.5), true, 65, "damaged"},

	{"stalled", gitserver.Advert, gitserver.Stall(.5), true, 69, "too slow"},
	{"stalled", gitserver.Refs, gitserver.Stall(.5), true, 69, "too slow"},
	{"stalled", gitserver.Fetch, gitserver.Stall(.5), true, 69, "too slow"},
	{"hanging", gitserver.Advert, gitserver.Hang, true, 69, "too slow"},
	{"hanging", gitserver.Refs, gitserver.Hang, true, 69, "too slow"},
	{"hanging", gitserver.Fetch, gitserver.Hang, true, 69, "too slow"},
	{"dripping", gitserver.Advert, gitserver.Drip(40 * time.Millisecond), true, 69, "too slow"},
	{"dripping", gitserver.Refs, gitserver.Drip(100 * time.Millisecond), true, 69, "too slow"},
	{"dripping", gitserver.Fetch, gitserver.Drip(5 * time.Millisecond), true, 69, "too slow"},

	{"503", gitserver.Advert, gitserver.Status(503, "busy"), true, 69, "503"},
	{"503, Retry-After", gitserver.Refs, gitserver.Status(503, "busy", "Retry-After", "2"), true, 69, "503"},
	{"503, Retry-After", gitserver.Fetch, gitserver.Status(503, "busy", "Retry-After", "2"), true, 69, "503"},
	{"429, Retry-After", gitserver.Advert, gitserver.Status(429, "slow down", "Retry-After", "2"), true, 75, "429"},
	{"429, Retry-After", gitserver.Fetch, gitserver.Status(429, "slow down", "Retry-After", "2"), true, 75, "429"},
	{"408", gitserver.Advert, gitserver.Status(408, ""), true, 69, "408"},
	{"425", gitserver.Fetch, gitserver.Status(425, ""), true, 69, "425"},
	{"500", gitserver.Advert, gitserver.Status(500, "oops"), true, 69, "500"},
	{"500", gitserver.Fetch, gitserver.Status(500, "oops"), true, 69, "500"},
	{"502", gitserver.Refs, gitserver.Status(502, "oops"), true, 69, "502"},
	{"504", gitserver.Fetch, gitserver.Status(504, "oops"), true, 69, "504"},

	{"401", gitserver.Advert, gitserver.Status(401, "", "WWW-Authenticate", `Basic realm="x"`), false, 77, "401"},
	{"401", gitserver.Fetch, gitserver.Status(401, "", "WWW-Authenticate", `Basic realm="x"`), false, 77, "401"},
	{"403", gitserver.Advert, gitserver.Status(403, ""), false, 77, "403"},
	{"403", gitserver.Refs, gitserver.Status(403, ""), false, 77, "403"},
	{"403", gitserver.Fetch, gitserver.Status(403, ""), false, 77, "403"},
	{"404", gitserver.Advert, gitserver.Status(404, "nothing here"), false, 77, "404"},
	{"404", gitserver.Fetch, gitserver.Status(404, "nothing here"), false, 77, "404"},
	{"login page", gitserver.Advert, loginPage, false, 77, "login page"},
	{"login page", gitserver.Fetch, loginPage, false, 77, "login page"},
}

// asked is how often a server that answers one kind of request n times wrongly, and more times rightly, is asked: what comes before is asked for again each time.
func asked(on gitserver.Kind, wrong, right int, kinds ...gitserver.Kind) map[gitserver.Kind]int {
	all := map[gitserver.Kind]int{}
	at := slices.Index(kinds, on)
	for i, k := range kinds {
		if n := wrong + right; i <= at && n > 0 {
			all[k] = n
		} else if i > at && right > 0 {
			all[k] = right
		}
	}
	return all
}

// Whatever is wrong with a server, run-task says so and asks as often as it promises; nothing, or the commit before, is in the worktree. And where the fault goes
// away, in good time or before the next run, the commit is there.
func TestFaultyServers(t *testing.T) {
	t.Parallel()
	path, shas := steps(t, 2)
	gitserver.Git(t, path, "tag", "v1", shas[0])
	tests := map[string]func(t *testing.T){}
	for _, v0 := range []bool{false, true} {
		for _, f := range faults {
			if _, err := strconv.Atoi(f.name[:3]); v0 && (err == nil || f.on == gitserver.Refs) {
				continue // the status does not depend on the protocol, and the refs are in the advertisement
			}
			kinds, args := []gitserver.Kind{gitserver.Advert, gitserver.Fetch}, []string(nil)
			if f.on == gitserver.Refs {
				kinds, args = []gitserver.Kind{gitserver.Advert, gitserver.Refs, gitserver.Fetch}, []string{"--depth", "0"} // whose tags are asked for
			}
			name := fmt.Sprintf("%s %s v0=%t", f.name, strings.ReplaceAll(string(f.on), "/", "-"), v0)
			tests[name] = func(t *testing.T) {
				s := newShaky(t, path, shas, gitserver.Options{V0: v0})
				s.suffers(f, kinds, args)
				s.recovers(f, kinds, args)
			}
		}
	}
	tests["503 twice"] = func(t *testing.T) {
		s := newShaky(t, path, shas, gitserver.Options{})
		s.Set(gitserver.Advert, 2, gitserver.Status(503, ""))
		code, stderr := s.checkOut(3, "src", 1)
		if code != 0 {
			t.Errorf("exit %d\n%s", code, stderr)
		}
		s.count("503 twice", map[gitserver.Kind]int{gitserver.Advert: 3, gitserver.Fetch: 1})
		stands(t, s.dir+"/src", shas[1])
	}
	tests["five tries"] = func(t *testing.T) {
		s := newShaky(t, path, shas, gitserver.Options{})
		s.Set(gitserver.Advert, 0, gitserver.Status(503, ""))
		code, stderr := checkOut(t, s.dir, "--checkout", "src", "--repo", s.url, "--sha", s.shas[0])
		s.said("always", code, 69, "503 Service Unavailable (tried 5 times)", stderr)
		s.count("always", map[gitserver.Kind]int{gitserver.Advert: 5})
	}
	together(t, 40, tests)
}

func (s *shaky) count(what string, want map[gitserver.Kind]int) {
	s.Helper()
	if got := s.Asked(); !maps.Equal(got, want) {
		s.Errorf("%s: asked %v, want %v", what, got, want)
	}
}

// suffers has the fault stay until run-task has given up.
func (s *shaky) suffers(f fault, kinds []gitserver.Kind, args []string) {
	tries := 1
	if f.passes {
		tries = 2
	}
	s.Set(f.on, 0, f.do)
	code, stderr := s.checkOut(2, "src", 1, f.hurry(args)...)
	s.said("always", code, f.code, f.says, stderr)
	s.count("always", asked(f.on, tries, 0, kinds...))
	s.empty("src")

	s.Set("", 0, nil)
	if code, stderr := s.checkOut(2, "src", 0, args...); code != 0 {
		s.Fatalf("without it: exit %d\n%s", code, stderr)
	}
	s.Set(f.on, 0, f.do)
	code, stderr = s.checkOut(1, "src", 1, f.hurry(args)...)
	s.said("on top of a commit", code, f.code, f.says, stderr)
	stands(s.T, filepath.Join(s.dir, "src"), s.shas[0])
	s.Set("", 0, nil)
	s.must("src", 1, args...)
}

// recovers has it go after the first time. The store must have nothing but a commit that is whole.
func (s *shaky) recovers(f fault, kinds []gitserver.Kind, args []string) {
	s.Set(f.on, 1, f.do)
	code, stderr := s.checkOut(2, "once", 1, append(f.hurry(args), "--git-store", s.dir+"/store")...)
	pins, _ := filepath.Glob(s.dir + "/store/*/pins/*/*.json")
	if left, _ := filepath.Glob(s.dir + "/store/*/incoming/*"); len(left) > 0 || len(pins) > 0 != (code == 0) {
		s.Errorf("exit %d with the pins %q, and %q in quarantine", code, pins, left)
	}
	if !f.passes {
		s.said("once", code, f.code, f.says, stderr)
		s.count("once", asked(f.on, 1, 0, kinds...))
		s.empty("once")
		return
	}
	again := "trying again in "
	if strings.Contains(f.name, "Retry-After") {
		again += "2s (2 of 2)" // otherwise it is less at first
	}
	if code != 0 || !strings.Contains(stderr, again) {
		s.Errorf("once: exit %d\n%s", code, stderr)
	}
	s.count("once", asked(f.on, 1, 1, kinds...))
	stands(s.T, filepath.Join(s.dir, "once"), s.shas[1])
	most, files := int64(1), int64(60*4000) // that do not compress
	if f.on == gitserver.Fetch {
		most = 2
	}
	if got := s.Sent(gitserver.Fetch); got < files || got > (most*files)*6/5 {
		s.Errorf("%d bytes were sent for files of %d", got, files)
	}
}

// Where a server asks for more patience than the budget has, there is no use in waiting.
func TestRetryAfterTheBudget(t *testing.T) {
	t.Parallel()
	path, shas := steps(t, 1)
	for status, code := range map[int]int{503: 69, 429: 75} {
		s := newShaky(t, path, shas, gitserver.Options{})
		s.Set(gitserver.Advert, 1, gitserver.Status(status, "", "Retry-After", "3600"))
		got, stderr := s.checkOut(5, "src", 0, "--git-limit", "budget=10m")
		s.said("always", got, code, "1h0m0s", stderr)
		s.count("always", map[gitserver.Kind]int{gitserver.Advert: 1})
	}
}

// The limits that are not for one answer: for all together, for the rate of a pack, and for what is asked for when all else failed.
func TestOtherLimits(t *testing.T) {
	t.Parallel()
	path, shas := steps(t, 2)
	gitserver.Git(t, path, "update-ref", "refs/heads/main", shas[0])
	for limit, c := range map[string]struct {
		o    gitserver.Options
		on   gitserver.Kind
		do   gitserver.Fault
		code int
		says string
	}{
		"total=2s":       {gitserver.Options{}, gitserver.Fetch, gitserver.Hang, 69, "not done after 2s"},
		"low-speed=100M": {gitserver.Options{}, gitserver.Fetch, gitserver.Drip(50 * time.Microsecond), 69, "less than 100000000 B/s"},
		"all-size=100k":  {gitserver.Options{V0: true}, "", nil, 76, "name a ref that leads to the commit"},
	} {
		t.Run(limit, func(t *testing.T) {
			s := newShaky(t, path, shas, c.o)
			s.Set(c.on, 0, c.do)
			code, stderr := s.checkOut(1, "src", 1, "--git-limit", limit, "--git-limit", "stall=2s")
			s.said(limit, code, c.code, c.says, stderr)
			s.empty("src")
		})
	}
}

// A server that is slow, but not too slow, is waited for, and one that has moved to another host is followed.
func TestSlowAndMovedServers(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	shas := []string{r.SHA["tip"]}
	s := newShaky(t, r.Path, shas, gitserver.Options{})
	for _, kind := range []gitserver.Kind{gitserver.Advert, gitserver.Refs, gitserver.Fetch} {
		s.Set(kind, 0, gitserver.Drip(0))
		s.must(string(kind[:2]), 0, "--depth", "0")
	}
	old := newShaky(t, r.Path, shas, gitserver.Options{Host: "127.0.0.2"})
	old.Set(gitserver.Advert, 0, gitserver.Redirect(strings.TrimSuffix(s.url, "/repo.git")))
	s.Set("", 0, nil)
	old.must("src", 0)
	old.count("the old one", map[gitserver.Kind]int{gitserver.Advert: 1})
	s.count("the new one", map[gitserver.Kind]int{gitserver.Advert: 1, gitserver.Fetch: 1})
	if got, _ := native(old.dir+"/src", nil, "config", "remote.origin.url"); got != old.url {
		t.Errorf("origin is %q", got)
	}
}

// What there is at an address may be a repository that has no such commits.
func TestOtherRepositories(t *testing.T) {
	t.Parallel()
	root := tempDir(t)
	name := gitserver.SHA256(t, root, "sha256.git")
	gitserver.Git(t, root, "init", "-q", "--bare", "empty.git")
	for _, v0 := range []bool{false, true} {
		for _, depth := range []string{"1", "0"} {
			s := newShaky(t, root+"/sha256.git", []string{anySHA}, gitserver.Options{V0: v0})
			code, stderr := s.checkOut(2, "src", 0, "--depth", depth)
			s.said("SHA-256", code, 64, "SHA-256 repositories are not supported", stderr)
			s.empty("src")
			s.count("SHA-256", map[gitserver.Kind]int{gitserver.Advert: 1})
			s.shas[0] = name
			code, stderr = s.checkOut(2, "src", 0, "--depth", depth)
			s.said("a SHA-256 name", code, 64, "SHA-256", stderr)

			s = newShaky(t, root+"/empty.git", []string{anySHA}, gitserver.Options{V0: v0})
			code, stderr = s.checkOut(2, "src", 0, "--depth", depth, "--ref", "main")
			want, says := 66, "commit 01234567 is gone from "+s.url
			if v0 {
				want, says = 76, "commit 01234567 is not given out by "+s.url
			}
			s.said("empty", code, want, says, stderr)
			for _, says := range []string{"refs/heads/main does not exist", "no branches and tags"} {
				if !strings.Contains(stderr, says) {
					t.Errorf("no %q in\n%s", says, stderr)
				}
			}
			s.empty("src")
		}
	}
}
