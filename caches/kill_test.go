package caches

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

// killed starts a helper on an order and kills it at a random instant of at most longest after it began. It tells whether
// the kill came before the end.
func killed(t *testing.T, o order, longest time.Duration) bool {
	t.Helper()
	cmd := helper(t, os.Getuid(), o)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(rand.N(longest), func() { cmd.Process.Kill() })
	defer timer.Stop()
	err = cmd.Wait()
	if cmd.ProcessState.ExitCode() > 0 {
		t.Fatal(err)
	}
	return err != nil
}

// rounds repeats until the time is over, and wants most kills to have met a process at work.
func rounds(t *testing.T, limit time.Duration, round func(dir string) bool) {
	t.Helper()
	n, hits := 0, 0
	for end := time.Now().Add(limit); time.Now().Before(end); n++ {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		if round(dir) {
			hits++
		}
		os.RemoveAll(dir)
	}
	t.Logf("%d rounds, %d killed at work", n, hits)
	if hits == 0 {
		t.Error("no kill came in time: the test shows nothing")
	}
}

func wholeRequires(o Options) string { return fmt.Sprintf("gid=%d\nuid=%d\nversion=1", o.GID, o.UID) }

func TestKilledWhileSettingUp(t *testing.T) {
	between := 0
	rounds(t, 3*time.Second, func(tmp string) bool {
		var order order
		for i := range 8 {
			order.Checks = append(order.Checks, task(mkdir(t, tmp, fmt.Sprint(i))))
		}
		hit := killed(t, order, 30*time.Millisecond)
		for _, o := range order.Checks {
			dir := o.Dirs[0]
			b, err := os.ReadFile(dir + "/" + requiresName)
			if err == nil && (string(b) != wholeRequires(o) || owner(t, dir) != o.UID) {
				t.Fatalf("%q vouches for a directory of %d", b, owner(t, dir))
			}
			if err == nil && !strings.Contains(read(t, dir, logName), "created") {
				t.Fatal("set up and not in the log")
			}
			if names, _ := os.ReadDir(dir); err != nil && len(names) > 0 {
				between++
			}
			if _, err := check(o); err != nil {
				t.Fatalf("the next run: %v", err)
			}
			if names, _ := os.ReadDir(dir); read(t, dir, requiresName) != wholeRequires(o) || owner(t, dir) != o.UID || len(names) != 2 {
				t.Fatalf("after the next run: %v", names)
			}
		}
		return hit
	})
	t.Logf("%d caches were half set up", between)
}

func TestKilledWhileReowning(t *testing.T) {
	needRoot(t)
	between := 0
	rounds(t, 2*time.Second, func(tmp string) bool {
		dir := mkdir(t, tmp, "c")
		write(t, "gid=1001\nuid=1001\nversion=1", dir, requiresName)
		for i := range 300 {
			os.Chown(write(t, "", mkdir(t, dir, fmt.Sprint(i%10)), fmt.Sprint(i)), 1001, 1001)
		}
		o := task(dir)
		o.Untrusted = true
		hit := killed(t, order{Checks: []Options{o}}, 10*time.Millisecond)
		switch done, any := ownedBy(t, dir, 1000); {
		case read(t, dir, requiresName) == wholeRequires(o):
			if !done {
				t.Fatal("the requirement file vouches for a chown that was not finished")
			}
		case any:
			if got := read(t, dir, requiresName); got != "gid=-1\nuid=-1\nversion=1" {
				t.Fatalf("half re-owned, it requires %q", got)
			}
			between++
		}
		if _, err := check(o); err != nil {
			t.Fatalf("the next run: %v", err)
		}
		if done, _ := ownedBy(t, dir, 1000); !done || read(t, dir, requiresName) != wholeRequires(o) {
			t.Fatal("the next run did not finish the work")
		}
		return hit
	})
	t.Logf("%d caches were half re-owned", between)
}

// ownedBy looks at what the task put into a cache.
func ownedBy(t *testing.T, dir string, uid int) (all, any bool) {
	t.Helper()
	all = true
	filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(e.Name(), ".cache") {
			is := owner(t, p) == uid
			all, any = all && is, any || is
		}
		return nil
	})
	return all, any
}

func TestKilledWhileCopying(t *testing.T) {
	src := mkdir(t, tempDir(t), "src")
	for i := range 300 {
		write(t, strings.Repeat("x", i*10), mkdir(t, src, fmt.Sprint(i%10)), fmt.Sprint(i))
	}
	os.Chmod(src+"/3", 0o555)
	os.Chmod(src, 0o555)
	want := shape(t, src)
	between := 0
	for _, existing := range []bool{false, true} {
		rounds(t, 2*time.Second, func(tmp string) bool {
			spec := []CopySpec{{src, tmp + "/dst"}}
			if existing {
				mkdir(t, tmp, "dst")
			}
			hit := killed(t, order{Copies: spec}, 60*time.Millisecond)
			names := list(tmp + "/dst")
			complete := len(names) > 0 && !slices.Contains(names, stageName)
			if complete && existing { // the directory's own mode and time are the last to be set
				os.Chmod(tmp+"/dst", 0o555)
				os.Chtimes(tmp+"/dst", stat(t, src).ModTime(), stat(t, src).ModTime())
			}
			if !complete && (len(names) > 0 || len(list(tmp)) > 0) {
				between++
			}
			err := Copy(context.Background(), logs.New(&strings.Builder{}, logs.Normal, false), spec)
			if complete && fail.Of(err) != fail.Usage || !complete && err != nil {
				t.Fatalf("complete: %v, the next run: %v", complete, err)
			}
			if got := shape(t, tmp+"/dst"); got != want {
				t.Fatalf("got\n%s\nwant\n%s", got, want)
			}
			if left := list(tmp); !slices.Equal(left, []string{"dst"}) {
				t.Fatalf("left beside it: %v", left)
			}
			makeWritable(tmp)
			return hit
		})
	}
	t.Logf("%d copies were half done", between)
}
