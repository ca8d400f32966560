package caches

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
)

// TestPlantedFiles: whatever a task puts in place of our two files, root (or whoever we are) refuses the cache at once, and
// nothing outside of it is read, written, owned or given another mode.
func TestPlantedFiles(t *testing.T) {
	secret := "gid=1000\nuid=1000\nversion=1\nsecret=hunter2"
	plants := map[string]func(at, outside string) error{
		"link to a file":      func(at, out string) error { return os.Symlink(out+"/file", at) },
		"link to a directory": func(at, out string) error { return os.Symlink(out, at) },
		"link to nothing":     func(at, out string) error { return os.Symlink(out+"/new", at) },
		"relative link":       func(at, out string) error { return os.Symlink("../outside/file", at) },
		"hard link":           func(at, out string) error { return os.Link(out+"/file", at) },
		"FIFO":                func(at, out string) error { return unix.Mkfifo(at, 0o666) },
		"directory":           func(at, out string) error { return os.MkdirAll(at+"/x", 0o755) },
		"empty directory":     func(at, out string) error { return os.Mkdir(at, 0o755) },
		"socket": func(at, out string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		},
	}
	if os.Getuid() == 0 {
		plants["device"] = func(at, out string) error { return unix.Mknod(at, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) }
	}
	for plant, put := range plants {
		for _, name := range []string{requiresName, logName} {
			for _, rest := range []string{"empty", "populated", "mismatch", "chown", "no file"} {
				t.Run(fmt.Sprintf("%s as %s, %s", plant, name, rest), func(t *testing.T) {
					tmp := tempDir(t)
					dir, outside := mkdir(t, tmp, "c"), mkdir(t, tmp, "outside")
					write(t, secret, outside, "file")
					os.Chmod(outside+"/file", 0o600)
					o := task(dir)
					o.Untrusted = true
					if rest != "empty" {
						write(t, "x", dir, "data")
					}
					theirs := map[string]string{"populated": "uid=%d\ngid=%d", "mismatch": "uid=%d\ngid=%d\nother=1", "chown": "uid=7%d\ngid=7%d"}[rest]
					if theirs != "" && name == logName {
						write(t, fmt.Sprintf(theirs, o.UID, o.GID), dir, requiresName)
					}
					if err := put(dir+"/"+name, outside); err != nil {
						t.Fatal(err)
					}
					before, inside := state(t, outside), ""
					if name == logName {
						inside = state(t, dir)
					}
					out, err := check(o)
					wantReason(t, err, fail.PurgeCache)
					if state(t, outside) != before {
						t.Errorf("changed outside of the cache:\n%s\n%s", before, state(t, outside))
					}
					if name == logName && state(t, dir) != inside {
						t.Errorf("changed a cache with a planted log:\n%s\n%s", inside, state(t, dir))
					}
					if all := out + printed(err); strings.Contains(all, "hunter2") {
						t.Errorf("read outside of the cache:\n%s", all)
					}
				})
			}
		}
	}
}

// A task can have planted links wherever it may write, not only in what this command line calls a cache. Root follows none.
func TestPlantedLinksOnTheWay(t *testing.T) {
	needRoot(t)
	for name, c := range map[string]struct {
		cwd  string
		plan func(tmp string) Options
	}{
		"a tree that is chowned":  {plan: func(tmp string) Options { return task(tmp + "/users/link/target") }},
		"the same, a volume":      {plan: func(tmp string) Options { return Options{Volumes: []string{tmp + "/users/link/target"}} }},
		"a cache by another name": {plan: func(tmp string) Options { return task(tmp+"/users", tmp+"/alias/link/target") }},
		"a volume below a cache's alias": {plan: func(tmp string) Options {
			return Options{Dirs: []string{tmp + "/users"}, Volumes: []string{tmp + "/alias/link/target"}}
		}},
		"a volume below a user's cwd":      {"users", func(string) Options { return Options{Volumes: []string{"link/target"}} }},
		"a cache below a user's cwd":       {"users/sub", func(string) Options { return task("../link/target") }},
		"by the parent of root's cwd":      {"users/roots", func(string) Options { return task("../link/target") }},
		"a directory for everybody":        {plan: func(tmp string) Options { return task(tmp + "/open/link/target") }},
		"a user's link in a sticky one":    {plan: func(tmp string) Options { return task(tmp + "/sticky/link/target") }},
		"root's link in a sticky one":      {plan: func(tmp string) Options { return task(tmp + "/sticky/roots/target") }},
		"a link below a link that is fine": {plan: func(tmp string) Options { return task(tmp + "/alias/up/users/link/target") }},
	} {
		t.Run(name, func(t *testing.T) {
			tmp := tempDir(t)
			mkdir(t, tmp, "outside", "target")
			for _, dir := range []string{"users/sub", "users/roots", "open", "sticky"} {
				mkdir(t, tmp, dir)
			}
			do(t, os.Chmod(tmp+"/open", 0o777), os.Chmod(tmp+"/sticky", 0o777|os.ModeSticky), os.Chown(tmp+"/users", 1000, 1000), os.Chown(tmp+"/users/sub", 1000, 1000),
				os.Symlink("users", tmp+"/alias"), os.Symlink("..", tmp+"/users/up"), os.Symlink("../outside", tmp+"/sticky/roots"))
			for _, dir := range []string{"users", "open", "sticky"} {
				do(t, os.Symlink(tmp+"/outside", tmp+"/"+dir+"/link"), os.Lchown(tmp+"/"+dir+"/link", 1000, 1000))
			}
			write(t, "gid=1000\nuid=1000", tmp, "users", requiresName)
			if c.cwd != "" {
				t.Chdir(tmp + "/" + c.cwd)
			}
			before := state(t, tmp+"/outside")
			o := c.plan(tmp)
			o.UID, o.GID, o.Root = 1000, 1000, true
			_, err := check(o)
			wantReason(t, err, fail.Usage)
			if after := state(t, tmp+"/outside"); after != before {
				t.Errorf("root changed\n%s to\n%s", before, after)
			}
		})
	}
}

// Who is not root may follow what he likes: it is all done with his own rights.
func TestLinksWithoutRoot(t *testing.T) {
	tmp := tempDir(t)
	dir := mkdir(t, tmp, "users", "c")
	os.Chmod(tmp+"/users", 0o777)
	do(t, os.Symlink("users", tmp+"/alias"), os.Symlink(".", tmp+"/users/link"))
	uid := os.Getuid()
	if uid == 0 {
		uid = 1000
		do(t, os.Chown(dir, uid, uid), os.Chown(tmp+"/users", uid, uid))
	}
	if code, out := checkAs(t, uid, Options{Dirs: []string{tmp + "/alias/link/c"}}); code != 0 {
		t.Errorf("%d %s", code, out)
	}
	if _, err := os.Lstat(dir + "/" + requiresName); err != nil {
		t.Error(err)
	}
}

func TestBadRequirementFiles(t *testing.T) {
	for name, content := range map[string]string{
		"empty":       "",
		"line end":    "\n",
		"too large":   "version=1" + strings.Repeat("\nversion=1", maxRequires/10),
		"other bytes": "\xff\x00",
	} {
		dir := mkdir(t, tempDir(t), "c")
		write(t, content, dir, requiresName)
		before := state(t, dir+"/"+requiresName)
		_, err := check(task(dir))
		if fail.Of(err) != fail.PurgeCache || len(printed(err)) > 2000 || name == "too large" && !strings.Contains(err.Error(), "more than 65536") {
			t.Errorf("%s: %s", name, printed(err))
		}
		if state(t, dir+"/"+requiresName) != before {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

// A directory under what may be a temporary file's name is in nobody's way.
func TestPlantedTemporaryName(t *testing.T) {
	needRoot(t)
	dir := mkdir(t, tempDir(t), "c")
	write(t, "gid=7\nuid=7", dir, requiresName)
	mkdir(t, dir, fmt.Sprintf("%s.tmp%d", requiresName, os.Getpid()), "x")
	o := task(dir)
	o.Untrusted = true
	if _, err := check(o); err != nil || read(t, dir, requiresName) != wholeRequires(o) {
		t.Error(err)
	}
}

func TestTasksThatStartTogether(t *testing.T) {
	dir := mkdir(t, tempDir(t), "c")
	errs := make([]error, 16)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { _, errs[i] = check(task(dir)) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if got := read(t, dir, logName); strings.Count(got, "created") != 1 || strings.Count(got, "used") != len(errs)-1 {
		t.Errorf("log:\n%s", got)
	}
}

// said is closed when something is written.
type said struct {
	once sync.Once
	ch   chan struct{}
}

func (s *said) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.ch) })
	return len(p), nil
}

func TestLockedCache(t *testing.T) {
	dir := mkdir(t, tempDir(t), "c")
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := fsx.Lock(t.Context(), f, nil); err != nil {
		t.Fatal(err)
	}
	defer func(d time.Duration) { lockBudget = d }(lockBudget)
	lockBudget = time.Millisecond
	_, err = check(task(dir))
	wantReason(t, err, fail.Busy)
	lockBudget = time.Hour
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fail.ErrInterrupted)
	if err := Check(ctx, logs.New(io.Discard, logs.Normal, false), task(dir)); fail.Of(err) != fail.Interrupted {
		t.Errorf("cancelled: %v", err)
	}
	// A cancelled one touches nothing, locked or not.
	free := mkdir(t, tempDir(t), "c")
	before := state(t, free)
	for _, o := range []Options{task(free), {Volumes: []string{free}, UID: 1000, GID: 1000, Root: true}} {
		if err := Check(ctx, logs.New(io.Discard, logs.Normal, false), o); fail.Of(err) != fail.Interrupted || state(t, free) != before {
			t.Errorf("cancelled: %v", err)
		}
	}
	waits := &said{ch: make(chan struct{})}
	done := make(chan error)
	go func() { done <- Check(t.Context(), logs.New(waits, logs.Normal, false), task(dir)) }()
	<-waits.ch
	f.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
