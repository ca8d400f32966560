//go:build linux

package tests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/tests/gitserver"
)

// Killed at any of 300 instants, whatever works on a store leaves one that is right: the next task gets its commit, every pin's packs are whole, and what was left in
// quarantine is swept.
func TestStoreKilledAtAnyInstant(t *testing.T) {
	t.Parallel()
	k := newKilling(t, unix.SIGKILL)
	dir := tempDir(t)
	own(t, dir)
	store := dir + "/store"
	pin := []string{"--repo", k.url, "--git-store", store}
	ops := map[string]func() []string{
		"cold store": func() []string {
			remove(store)
			return slices.Concat([]string{"checkout"}, asUser(), pin, []string{"--sha", k.sha[k.rnd.IntN(2)], "src"})
		},
		"checkout": func() []string {
			return slices.Concat([]string{"checkout"}, asUser(), pin, []string{"--sha", k.sha[k.rnd.IntN(2)], "--pin-holder", fmt.Sprint(k.rnd.IntN(4)), "src"})
		},
		"fresh worktree": func() []string {
			remove(dir + "/src")
			return slices.Concat([]string{"checkout"}, asUser(), pin, []string{"--sha", k.sha[k.rnd.IntN(2)], "src"})
		},
		"pin": func() []string {
			return slices.Concat([]string{"store", "pin"}, asUser(), pin, []string{"--sha", k.sha[k.rnd.IntN(2)], "--depth", "0", "--pin-holder", fmt.Sprint(k.rnd.IntN(4))})
		},
		"gc": func() []string {
			unpin := slices.Concat([]string{"run-task", "store", "unpin"}, asUser(), pin, []string{"--sha", k.sha[k.rnd.IntN(2)], "--all-holders"})
			(&command{args: unpin, dir: dir}).must(t)
			return slices.Concat([]string{"store", "gc"}, asUser(), []string{"--git-store", store, "--grace", "1ns"})
		},
		"verify": func() []string {
			return slices.Concat([]string{"store", "verify"}, asUser(), []string{"--git-store", store})
		},
	}
	kinds := slices.Sorted(func(yield func(string) bool) {
		for kind := range ops {
			if !yield(kind) {
				return
			}
		}
	})
	whole, killed := map[string]time.Duration{}, map[string]int{}
	check := func() {
		t.Helper()
		to := k.rnd.IntN(2)
		mustCheckOut(t, dir, slices.Concat(pin, []string{"--sha", k.sha[to], "--checkout", "src"})...)
		if at := k.state(dir + "/src"); at != to {
			t.Errorf("commit %d is there, not %d", at, to)
		}
		k.clean(dir+"/src", to)
		if code, out, errs := (&command{args: slices.Concat([]string{"run-task", "store", "verify"}, asUser(), []string{"--git-store", store}), dir: dir}).run(t); code != 0 {
			t.Errorf("verify: exit %d\n%s%s", code, out, errs)
		}
		if left, _ := filepath.Glob(store + "/*/incoming/*"); len(left) > 0 {
			t.Errorf("left in quarantine: %q", left)
		}
	}
	check()
	for i := range 300 {
		kind := kinds[i%len(kinds)]
		cmd := (&command{args: append([]string{"run-task"}, ops[kind]()...), dir: dir}).cmd()
		began := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var timer *time.Timer
		if whole[kind] > 0 {
			timer = time.AfterFunc(time.Duration(k.rnd.Int64N(int64(whole[kind])*9/8)), func() { cmd.Process.Kill() })
		}
		code := wait(t, cmd)
		if timer != nil {
			timer.Stop()
		}
		switch took := time.Since(began); {
		case code == 137:
			killed[kind]++
		case code != 0:
			t.Errorf("%s: exit %d", kind, code)
		case whole[kind] == 0:
			whole[kind] = took
		default:
			whole[kind] = (whole[kind] + took) / 2
		}
		if i%3 == 2 {
			check()
		}
		if t.Failed() {
			t.Fatalf("run %d, after %s", i, kind)
		}
	}
	for _, kind := range kinds {
		if killed[kind] == 0 {
			t.Errorf("%s was never killed", kind)
		}
	}
	t.Logf("killed %v, whole runs take %v", killed, whole)
}

// Eight tasks at a time, four commits and a garbage collection that never rests: nobody fails, everybody gets their commit, and nothing is left.
func TestStoreInCompany(t *testing.T) {
	t.Parallel()
	repo, shas := steps(t, 4)
	url := gitserver.HTTP(t, filepath.Dir(repo), gitserver.Options{Wrap: replaying}) + "/" + filepath.Base(repo)
	dir := tempDir(t)
	own(t, dir)
	length := 12 * time.Second
	if s := os.Getenv("STORE_COMPANY"); s != "" { // for a longer look
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	store := []string{"--git-store", dir + "/store"}
	(&command{args: slices.Concat([]string{"run-task", "store", "pin"}, asUser(), store, []string{"--repo", url, "--sha", shas[0]}), dir: dir}).must(t)
	end, runs := time.Now().Add(length), make([]int, 8)
	var wait sync.WaitGroup
	for i := range runs {
		wait.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 3))
			for ; time.Now().Before(end) && !t.Failed(); runs[i]++ {
				sha, holder := shas[rnd.IntN(len(shas))], fmt.Sprint(rnd.IntN(3))
				src := fmt.Sprint("src", i)
				if rnd.IntN(3) == 0 {
					remove(filepath.Join(dir, src))
				}
				args := slices.Concat(store, []string{"--repo", url, "--sha", sha, "--depth", fmt.Sprint(rnd.IntN(2)), "--pin-holder", holder, "--checkout", src})
				if code, out := checkOut(t, dir, args...); code != 0 {
					t.Errorf("exit %d\n%s", code, out)
					return
				}
				if head, err := native(filepath.Join(dir, src), nil, "rev-parse", "HEAD"); head != sha {
					t.Errorf("%s, %v, not %s", head, err, sha)
				}
				if out, err := native(filepath.Join(dir, src), nil, "status", "--porcelain", "--ignored"); out != "" || err != nil {
					t.Errorf("%s %v", out, err)
				}
			}
		})
	}
	collected := 0
	wait.Go(func() {
		rnd := rand.New(rand.NewPCG(99, 3))
		sub := func(words ...string) string {
			code, out, errs := (&command{args: slices.Concat([]string{"run-task", "store", words[0]}, asUser(), store, words[1:]), dir: dir}).run(t)
			if code != 0 {
				t.Errorf("%q: exit %d\n%s%s", words, code, out, errs)
			}
			return out
		}
		for ; time.Now().Before(end) && !t.Failed(); collected++ {
			sub("unpin", "--repo", url, "--sha", shas[rnd.IntN(len(shas))], "--all-holders")
			sub("gc", "--grace", "1ns")
		}
	})
	wait.Wait()
	for i, n := range runs {
		if n == 0 {
			t.Errorf("task %d never ran", i)
		}
		judge(t, fmt.Sprint(dir, "/src", i), strings.TrimSpace(must(native(fmt.Sprint(dir, "/src", i), nil, "rev-parse", "HEAD"))))
	}
	for _, pattern := range []string{"incoming/*", "damaged/*"} {
		if left, _ := filepath.Glob(dir + "/store/*/" + pattern); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	}
	t.Logf("%v checkouts, %d collections", runs, collected)
}

func must(s string, _ error) string { return s }
