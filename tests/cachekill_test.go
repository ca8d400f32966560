//go:build linux

package tests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// trunk is a directory with a cache archive's tree, which is one of several that tell themselves apart, and a store.
type trunk struct {
	*testing.T
	dir   string
	store string // a location
	env   []string
}

func newTrunk(t *testing.T) *trunk {
	t.Helper()
	k := &trunk{T: t, dir: tempDir(t)}
	k.store, k.env = "dir:"+k.dir+"/store", []string{"TMPDIR=" + k.dir}
	own(t, k.dir)
	return k
}

func (k *trunk) flag(more string) []string {
	return []string{"--cache-archive", "path=tree,key=key,store=" + k.store + more}
}

// run is "run-task cache VERB".
func (k *trunk) run(verb string, args ...string) (code int, stdout, stderr string) {
	k.Helper()
	return (&command{dir: k.dir, env: k.env, args: append(append([]string{"run-task", "cache", verb}, asUser()...), args...)}).run(k.T)
}

func (k *trunk) must(verb string, args ...string) string {
	k.Helper()
	code, stdout, stderr := k.run(verb, args...)
	if code != 0 {
		k.Fatalf("cache %s: exit %d\n%s%s", verb, code, stdout, stderr)
	}
	return stdout + stderr
}

// grow makes the n-th tree: 60 files of some kilobytes that all say which tree it is, and how many.
func (k *trunk) grow(n int) {
	k.Helper()
	remove(k.dir + "/tree")
	for i := range 60 {
		plant(k.T, fmt.Sprintf("%s/tree/%d/%d", k.dir, i%7, i), fmt.Sprintf("tree %d\n", n)+strings.Repeat(fmt.Sprint(n, i), 2000))
	}
	own(k.T, k.dir+"/tree")
}

// grown tells which tree is there, whole: -1 for none.
func (k *trunk) grown(dir string) int {
	k.Helper()
	n, files := -1, 0
	filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			b, err := os.ReadFile(p)
			is := -1
			fmt.Sscanf(string(b), "tree %d\n", &is)
			if err != nil || is < 0 || n >= 0 && n != is {
				k.Fatalf("%s is of tree %d, others are of %d: %v", p, is, n, err)
			}
			n = is
			files++
		}
		return nil
	})
	if files != 0 && files != 60 {
		k.Fatalf("%d of 60 files of tree %d are there", files, n)
	}
	return n
}

// interrupted runs "cache VERB" and sends it a signal at a random instant of the time that a whole run takes.
func (k *trunk) interrupted(sig unix.Signal, whole *time.Duration, verb string, args ...string) (code int) {
	k.Helper()
	cmd := (&command{dir: k.dir, env: k.env, args: append(append([]string{"run-task", "cache", verb}, asUser()...), args...)}).cmd()
	began := time.Now()
	if err := cmd.Start(); err != nil {
		k.Fatal(err)
	}
	if *whole > 0 {
		timer := time.AfterFunc(rand.N(*whole*9/8), func() { cmd.Process.Signal(sig) })
		defer timer.Stop()
	}
	code = wait(k.T, cmd)
	if took := time.Since(began); code == 0 && (*whole == 0 || took < *whole) {
		*whole = took
	}
	return code
}

// A save that is killed or cancelled at any instant leaves the old archive or the new one, whole, and what it left otherwise goes with the next gc.
func TestCacheSaveAtAnyInstant(t *testing.T) {
	t.Parallel()
	for _, sig := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			t.Parallel()
			k := newTrunk(t)
			k.grow(0)
			k.must("save", k.flag("")...)
			var whole time.Duration
			last, ended, survived := 0, 0, 0
			for n := 1; n <= 100; n++ {
				k.grow(n)
				code := k.interrupted(sig, &whole, "save", k.flag("")...)
				remove(k.dir + "/tree")
				k.must("restore", k.flag("")...)
				switch is := k.grown(k.dir + "/tree"); {
				case is == n:
					survived++
				case is != last || code == 0:
					t.Fatalf("exit %d: tree %d is there after a save of %d, before it was %d", code, is, n, last)
				default:
					ended++
				}
				last = k.grown(k.dir + "/tree")
			}
			k.must("verify", "--cache-store", k.store)
			k.must("gc", "--cache-store", k.store, "--grace", "1ns")
			if names, err := os.ReadDir(k.dir + "/store"); err != nil || len(names) != 1 {
				t.Errorf("litter: %v, %v", names, err)
			}
			if ended == 0 || survived == 0 {
				t.Errorf("%d saves were ended, %d not: the test shows nothing", ended, survived)
			}
			t.Logf("%d ended, %d not", ended, survived)
		})
	}
}

// A restore that is killed or cancelled at any instant leaves what was there or all of the archive, and what it left beside goes with the next one.
func TestCacheRestoreAtAnyInstant(t *testing.T) {
	t.Parallel()
	for _, sig := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
		for _, merge := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, merge %v", unix.SignalName(sig), merge), func(t *testing.T) {
				t.Parallel()
				k := newTrunk(t)
				k.grow(1)
				k.must("save", k.flag("")...)
				var whole time.Duration
				ended, survived := 0, 0
				for range 75 {
					remove(k.dir + "/tree")
					before := -1
					if merge {
						before = 2
						k.grow(2)
					}
					code := k.interrupted(sig, &whole, "restore", k.flag("")...)
					switch is := k.grown(k.dir + "/tree"); {
					case is == 1:
						survived++
					case is != before || code == 0:
						t.Fatalf("exit %d: tree %d is there", code, is)
					default:
						ended++
					}
				}
				k.must("restore", k.flag("")...)
				if is := k.grown(k.dir + "/tree"); is != 1 {
					t.Errorf("tree %d is there", is)
				}
				names, _ := filepath.Glob(k.dir + "/.run-task*")
				if inside, _ := filepath.Glob(k.dir + "/tree/.run-task*"); len(names)+len(inside) > 0 {
					t.Errorf("litter: %q %q", names, inside)
				}
				if ended == 0 || survived == 0 {
					t.Errorf("%d restores were ended, %d not: the test shows nothing", ended, survived)
				}
				t.Logf("%d ended, %d not", ended, survived)
			})
		}
	}
}

// Eight save trees of their own under one key while eight restore it: the last to complete wins, and nobody sees a mix.
func TestCacheInCompany(t *testing.T) {
	t.Parallel()
	k := newTrunk(t)
	k.grow(100)
	k.must("save", k.flag("")...)
	var all sync.WaitGroup
	for n := range 8 {
		me := &trunk{T: t, dir: tempDir(t), store: k.store}
		own(t, me.dir)
		all.Go(func() {
			for i := range 6 {
				me.grow(10*n + i)
				me.must("save", me.flag("")...)
			}
		})
		other := &trunk{T: t, dir: tempDir(t), store: k.store}
		own(t, other.dir)
		all.Go(func() {
			for range 12 {
				remove(other.dir + "/tree")
				other.must("restore", other.flag("")...)
				if other.grown(other.dir+"/tree") < 0 {
					t.Error("nothing was restored")
				}
			}
		})
	}
	all.Wait()
}
