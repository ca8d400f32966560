//go:build linux

package tests

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"run-task/tests/gitserver"
)

// packServer is a git http-backend that counts the packs it is asked for.
type packServer struct {
	counter
	packs atomic.Int64
	hold  func(*http.Request) // called before a pack is answered, if not nil
}

func (p *packServer) wrap(next http.Handler) http.Handler {
	return p.counter.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/git-upload-pack") {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			if bytes.Contains(body, []byte("command=fetch")) || bytes.HasPrefix(body[4:], []byte("want ")) {
				p.packs.Add(1)
				if p.hold != nil {
					p.hold(r)
				}
			}
		}
		next.ServeHTTP(w, r)
	}))
}

// shop is a repository behind a server, and a directory for worktrees and stores that the task's user may write.
type shop struct {
	*testing.T
	packServer
	repo *repo
	url  string
	dir  string
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{T: t, repo: newRepo(t), dir: tempDir(t)}
	s.url = gitserver.HTTP(t, filepath.Dir(s.repo.Path), gitserver.Options{Wrap: s.wrap}) + "/" + filepath.Base(s.repo.Path)
	own(t, s.dir)
	return s
}

// args are those of a checkout of a commit into dir, with the store.
func (s *shop) args(dir, commit string, more ...string) []string {
	return slices.Concat([]string{"--git-store", s.dir + "/store", "--repo", s.url, "--sha", s.repo.SHA[commit]}, more, []string{"--checkout", dir})
}

func (s *shop) must(dir, commit string, more ...string) string {
	s.Helper()
	out := mustCheckOut(s.T, s.dir, s.args(dir, commit, more...)...)
	sha := s.repo.SHA[commit]
	judge(s.T, filepath.Join(s.dir, dir), sha)
	return out
}

// glob is what there is of a pattern in the one repository of the store.
func (s *shop) glob(pattern string) []string {
	s.Helper()
	found, err := filepath.Glob(s.dir + "/store/*/" + pattern)
	if err != nil {
		s.Fatal(err)
	}
	return found
}

// sub is a subcommand of run-task store, as the task's user.
func (s *shop) sub(words ...string) (code int, stdout, stderr string) {
	s.Helper()
	args := slices.Concat([]string{"run-task", "store", words[0]}, asUser(), []string{"--git-store", s.dir + "/store"}, words[1:])
	return (&command{args: args, dir: s.dir}).run(s.T)
}

// A commit that is pinned is served to every worktree without a connection, whatever becomes of the server.
func TestStoreServesWithoutAConnection(t *testing.T) {
	t.Parallel()
	for _, depth := range []string{"1", "2", "0"} {
		t.Run("depth "+depth, func(t *testing.T) {
			s := newShop(t)
			s.must("first", "tip", "--depth", depth)
			if n := s.packs.Load(); n != 1 {
				t.Fatalf("%d packs were asked for", n)
			}
			s.down.Store(true)
			s.take()
			for _, dir := range []string{"second", "third", "second"} {
				if out := s.must(dir, "tip", "--depth", depth); !strings.Contains(out, ", pin, ") {
					t.Errorf("it came from elsewhere:\n%s", out)
				}
			}
			if n, _ := s.take(); n != 0 {
				t.Errorf("%d requests for what is pinned", n)
			}
			if depth == "0" {
				for _, dir := range []string{"first", "second"} {
					if tag, err := native(s.dir+"/"+dir, nil, "rev-parse", "refs/tags/v1"); err != nil || tag != s.repo.SHA["tag"] {
						t.Errorf("%s has no tag: %s, %v", dir, tag, err)
					}
				}
			}
			if left := s.glob("incoming/*"); len(left) > 0 {
				t.Errorf("left in quarantine: %q", left)
			}
			// Another commit is not there, and nothing else is used in its place.
			if code, out := checkOut(t, s.dir, s.args("fourth", "first")...); code != 77 {
				t.Errorf("exit %d\n%s", code, out)
			}
		})
	}
}

// The next commit is fetched on top of what is pinned, and a worktree that has the base takes no more than the difference.
func TestStoreFetchesTheDifference(t *testing.T) {
	t.Parallel()
	for _, depth := range []string{"1", "0"} {
		t.Run("depth "+depth, func(t *testing.T) {
			repo, shas := steps(t, 9)
			var c counter
			url := gitserver.HTTP(t, filepath.Dir(repo), gitserver.Options{Wrap: c.wrap}) + "/" + filepath.Base(repo)
			dir := tempDir(t)
			own(t, dir)
			move := func(name string, i int) (bytes int64) {
				t.Helper()
				mustCheckOut(t, dir, "--git-store", dir+"/store", "--checkout", name, "--repo", url, "--sha", shas[i], "--depth", depth)
				judge(t, dir+"/"+name, shas[i])
				_, bytes = c.take()
				return bytes
			}
			whole := move("warm", 2)
			before := inodes(t, dir+"/warm")
			if n := move("warm", 5); n > whole/8 {
				t.Errorf("3 of 60 files took %d bytes, all of them %d", n, whole)
			}
			changed := 0
			for path, was := range inodes(t, dir+"/warm") {
				if was != before[path] {
					changed++
				}
			}
			if changed != 3 {
				t.Errorf("%d files were written, not 3", changed)
			}
			packs, _ := filepath.Glob(dir + "/warm/.git/objects/pack/*.pack")
			if len(packs) != 2 {
				t.Errorf("%d packs, of two fetches", len(packs))
			}
			if n := move("cold", 5); n != 0 {
				t.Errorf("%d bytes for what is pinned", n)
			}
			for _, i := range []int{8, 2, 5} {
				move("warm", i)
				move("cold", i)
			}
		})
	}
}

// However many ask for a commit that nobody has, one of them fetches it and the others wait for that one.
func TestStoreFetchesOnce(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	s.hold = func(*http.Request) { close(asked); <-answer } // a second pack would close twice, and panic
	const tasks = 16
	logs := make([]string, tasks)
	waiting := make(chan struct{}, tasks)
	var wait sync.WaitGroup
	for i := range tasks {
		wait.Go(func() {
			args := slices.Concat([]string{"run-task"}, asUser(), s.args(fmt.Sprint("src", i), "tip"), []string{"--", "probe", "exit", "0"})
			cmd := (&command{args: args, dir: s.dir}).cmd()
			out := &notify{want: "waiting for", seen: waiting}
			cmd.Stderr = out
			if err := cmd.Run(); err != nil {
				t.Errorf("%v\n%s", err, out.String())
			}
			logs[i] = out.String()
		})
	}
	<-asked
	for range tasks - 1 {
		<-waiting
	}
	close(answer)
	wait.Wait()
	if n := s.packs.Load(); n != 1 {
		t.Errorf("%d packs were asked for", n)
	}
	hostname, _ := os.Hostname()
	for i, out := range logs {
		judge(t, fmt.Sprint(s.dir, "/src", i), s.repo.SHA["tip"])
		if strings.Contains(out, "waiting for") && !strings.Contains(out, hostname) {
			t.Errorf("it does not say who it waits for:\n%s", out)
		}
	}
}

// notify is a writer that tells once when it has seen some text.
type notify struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	want string
	seen chan<- struct{}
}

func (n *notify) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.buf.Write(p)
	if n.seen != nil && strings.Contains(n.buf.String(), n.want) {
		n.seen <- struct{}{}
		n.seen = nil
	}
	return len(p), nil
}

func (n *notify) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.buf.String()
}

// A fetcher that is killed frees those that wait for it at once, and leaves nothing.
func TestStoreKilledFetcher(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	asked, first := make(chan struct{}), atomic.Bool{}
	s.hold = func(r *http.Request) {
		if first.CompareAndSwap(false, true) {
			close(asked)
			<-r.Context().Done()
		}
	}
	start := func(dir, store string, out io.Writer) *exec.Cmd {
		args := s.args(dir, "tip")
		args[1] = store
		cmd := (&command{args: slices.Concat([]string{"run-task"}, asUser(), args, []string{"--", "probe", "exit", "0"}), dir: s.dir}).cmd()
		cmd.Stderr = out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	killed := start("killed", s.dir+"/store", nil)
	<-asked
	store := s.dir + "/store"
	if os.Getuid() == 0 { // another container has the volume elsewhere
		store = s.dir + "/mounted"
		mkdirAll(t, store)
		if err := unix.Mount(s.dir+"/store", store, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(store, unix.MNT_DETACH) })
	}
	waiting := make(chan struct{}, 1)
	out := &notify{want: "waiting for", seen: waiting}
	waiter := start("waiter", store, out)
	<-waiting
	killed.Process.Kill()
	killed.Wait()
	if code := wait(t, waiter); code != 0 {
		t.Fatalf("exit %d\n%s", code, out.String())
	}
	judge(t, s.dir+"/waiter", s.repo.SHA["tip"])
	if !strings.Contains(out.String(), fmt.Sprint("pid ", killed.Process.Pid)) {
		t.Errorf("it did not wait for %d:\n%s", killed.Process.Pid, out.String())
	}
	s.must("killed", "tip")
	if left := s.glob("incoming/*"); len(left) > 0 {
		t.Errorf("left in quarantine: %q", left)
	}
}

// What one trust label fetched is not served under another, and who must ask the server is not served against its word.
func TestStoreTrust(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.must("src", "tip", "--trust", "protected")
	s.down.Store(true)
	for _, label := range [][]string{nil, {"--trust", "other"}} {
		if code, out := checkOut(t, s.dir, s.args("x", "tip", label...)...); code != 77 {
			t.Errorf("%q: exit %d\n%s", label, code, out)
		}
	}
	if code, out := checkOut(t, s.dir, s.args("x", "tip", "--trust", "protected", "--always-contact-remote")...); code != 77 {
		t.Errorf("exit %d\n%s", code, out)
	}
	s.must("x", "tip", "--trust", "protected")
	s.down.Store(false)
	s.packs.Store(0)
	s.must("x", "tip", "--trust", "protected", "--always-contact-remote")
	if n := s.packs.Load(); n != 0 {
		t.Errorf("%d packs for what is pinned", n)
	}
}

// Whatever is wrong with a pack in the store, the worktree gets the commit or the task ends: damage is set aside and fetched once more.
func TestStoreDamage(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.must("src", "tip")
	damage := func() {
		t.Helper()
		for _, name := range s.glob("objects/pack/*.pack") {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)/2] ^= 0x40
			os.Remove(name)
			if err := os.WriteFile(name, data, 0o444); err != nil {
				t.Fatal(err)
			}
			own(t, name)
		}
	}
	damage()
	if code, out, _ := s.sub("verify"); code != 72 || !strings.Contains(out, s.repo.SHA["tip"]) {
		t.Errorf("verify: exit %d\n%s", code, out)
	}
	if out := s.must("two", "tip"); !strings.Contains(out, "damaged") {
		t.Errorf("the damage is not told:\n%s", out)
	}
	if n := s.packs.Load(); n != 2 {
		t.Errorf("%d packs were asked for", n)
	}
	if code, out, _ := s.sub("verify"); code != 0 {
		t.Errorf("verify: exit %d\n%s", code, out)
	}
	damage()
	s.down.Store(true)
	if code, out := checkOut(t, s.dir, s.args("three", "tip")...); code != 77 {
		t.Errorf("exit %d\n%s", code, out)
	}
	if _, err := os.Lstat(s.dir + "/three/.git/HEAD"); err == nil {
		t.Error("a damaged commit was checked out")
	}
}

// A store that cannot be used is said to be so, and nothing is lost.
func TestStoreThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	needRoot(t)
	s := newShop(t)
	s.must("src", "tip")
	bad := func(code int, words string, args ...string) {
		t.Helper()
		if got, out := checkOut(t, s.dir, args...); got != code || !strings.Contains(out, words) || !strings.Contains(out, "hint:") {
			t.Errorf("exit %d, want %d and %q\n%s", got, code, words, out)
		}
	}
	version := s.dir + "/store/version"
	plant(t, version, "2\n")
	bad(64, "newer", s.args("x", "tip")...)
	plant(t, version, "1\n")

	full := s.dir + "/full"
	mkdirAll(t, full)
	mount(t, "none", full, "tmpfs", "size=64k,mode=777")
	repo, shas := steps(t, 2)
	url := gitserver.HTTP(t, filepath.Dir(repo), gitserver.Options{}) + "/" + filepath.Base(repo)
	args := []string{"--git-store", full + "/store", "--repo", url, "--sha", shas[1], "--checkout", "x"}
	bad(74, "no space left", args...)
	if _, err := os.Lstat(s.dir + "/x/.git/HEAD"); err == nil {
		t.Error("there is a worktree")
	}
	if err := unix.Mount("none", full, "", unix.MS_REMOUNT, "size=64m,mode=777"); err != nil {
		t.Fatal(err)
	}
	mustCheckOut(t, s.dir, args...)
	judge(t, s.dir+"/x", shas[1])

	// A read-only store serves what it has.
	if err := unix.Mount("none", full, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	args[len(args)-1] = "y"
	if out := mustCheckOut(t, s.dir, append(args, "--pin-holder", "another")...); !strings.Contains(out, "no longer") {
		t.Errorf("it does not say that the pin is not ours:\n%s", out)
	}
	args[5] = shas[0]
	bad(74, "read-only", args...)

	theirs := s.dir + "/theirs"
	mkdirAll(t, theirs)
	plant(t, theirs+"/version", "1\n")
	if err := os.Chmod(theirs, 0o755); err != nil {
		t.Fatal(err)
	}
	args[1] = theirs
	bad(72, "uid 0", args...)
}

func mount(t *testing.T, source, target, kind, data string) {
	t.Helper()
	if err := unix.Mount(source, target, kind, 0, data); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
}
