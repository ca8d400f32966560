//go:build linux

package tests

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/tests/gitserver"
)

// killing is a worktree's way between two commits of some hundred files, from a server that takes no time.
type killing struct {
	*testing.T
	url    string
	sha    [2]string
	list   [2]listing
	rnd    *rand.Rand
	sig    syscall.Signal
	whole  time.Duration  // what a run takes that is not cut: those that were not, lately
	found  map[string]int // how often the old commit was there after a signal, the new one, or none
	judged int
}

// newKilling makes two commits that share a third of their files, differ in another, and have a third that the other has not.
func newKilling(t *testing.T, sig syscall.Signal) *killing {
	t.Helper()
	root := tempDir(t)
	repo := filepath.Join(root, "repo.git")
	gitserver.Git(t, root, "init", "-q", "--bare", repo)
	var b strings.Builder
	for n := range 2 {
		fmt.Fprintf(&b, "commit refs/heads/main\nmark :%d\ncommitter A <a@example.com> %d +0000\ndata 3\nbig\ndeleteall\n", n+1, 1700000000+n)
		for i := range 240 {
			name, data := fmt.Sprintf("d%d/sub%d/file%d", i%7, i%5, i), strings.Repeat(fmt.Sprint(i*i, "\n"), 1+i*i%700)
			switch i % 3 {
			case 1:
				data = fmt.Sprint(n, data)
			case 2:
				name = fmt.Sprintf("only%d/%d/file%d", n, i%9, i)
			}
			fmt.Fprintf(&b, "M %d inline %s\ndata %d\n%s\n", []int{644, 644, 755}[i%3], name, len(data), data)
		}
		fmt.Fprintf(&b, "M 120000 inline link\ndata 2\nd%d\nM 120000 inline d%d/link\ndata 4\nd0/x\n", n, n)
	}
	gitserver.GitInput(t, repo, strings.NewReader(b.String()), "fast-import", "--quiet")
	k := &killing{T: t, rnd: rand.New(rand.NewPCG(uint64(sig), 9)), sig: sig, found: map[string]int{}}
	for i, rev := range []string{"main~1", "main"} {
		k.sha[i] = gitserver.Git(t, repo, "rev-parse", rev)
		k.list[i], _ = treeOf(t, repo, k.sha[i])
	}
	k.url = gitserver.HTTP(t, root, gitserver.Options{Wrap: replaying}) + "/repo.git"
	return k
}

func (k *killing) args(to int) []string {
	return []string{"--checkout", "src", "--repo", k.url, "--sha", k.sha[to]}
}

// spoil is what a task leaves behind.
func (k *killing) spoil(src string) {
	k.Helper()
	for i := range 4 {
		plant(k.T, fmt.Sprintf("%s/stray%d/file", src, i), "x")
		own(k.T, fmt.Sprintf("%s/stray%d", src, i))
	}
	i := 0
	for name := range k.list[0] { // in any order
		full := src + "/" + name
		if st, err := os.Lstat(full); err != nil || !st.Mode().IsRegular() {
			continue
		}
		switch i++; {
		case i <= 5:
			plant(k.T, full, "spoilt")
			own(k.T, full)
		case i <= 10:
			os.Remove(full)
		case i <= 15:
			os.Chmod(full, 0o777)
		default:
			return
		}
	}
}

// cut runs a checkout in dir and sends the signal at some instant of the time that a whole one takes, or a little later, so that some are whole.
func (k *killing) cut(dir string, to int) int {
	k.Helper()
	// The checkout alone: a command that runs when the signal comes has codes of its own.
	args := slices.Concat([]string{"run-task", "checkout"}, asUser(), []string{"src,repo=" + k.url + ",sha=" + k.sha[to]})
	cmd := (&command{args: args, dir: dir}).cmd()
	began := time.Now()
	if err := cmd.Start(); err != nil {
		k.Fatal(err)
	}
	if k.whole > 0 {
		timer := time.AfterFunc(time.Duration(k.rnd.Int64N(int64(k.whole)*5/4)), func() { cmd.Process.Signal(k.sig) })
		defer timer.Stop()
	}
	code := wait(k.T, cmd)
	switch took := time.Since(began); {
	case k.whole == 0:
		k.whole = took
	case code == 0:
		k.whole = (k.whole + took) / 2
	}
	return code
}

// state says which commit is in src, -1 if it is no repository to git.
func (k *killing) state(src string) int {
	k.Helper()
	head, err := native(src, []string{"GIT_CEILING_DIRECTORIES=" + filepath.Dir(src)}, "rev-parse", "HEAD")
	raw, readErr := os.ReadFile(src + "/.git/HEAD")
	switch i := slices.Index(k.sha[:], head); {
	case err == nil && i >= 0:
		return i
	case err != nil && errors.Is(readErr, fs.ErrNotExist):
		return -1
	}
	k.Errorf("git says that HEAD is %q (%v), and its file is %q (%v)", head, err, raw, readErr)
	return -1
}

// exact fails unless the worktree is exactly a commit.
func (k *killing) exact(src string, at int) {
	k.Helper()
	for _, line := range differences(onDisk(k.T, src, k.list[at]), k.list[at]) {
		k.Error(line)
	}
}

// clean fails unless it is so for git, too.
func (k *killing) clean(src string, at int) {
	k.Helper()
	k.exact(src, at)
	if out, err := native(src, nil, "status", "--porcelain", "--ignored"); err != nil || out != "" {
		k.Errorf("git status: %v\n%s", err, out)
	}
}

// again is the next run, to any of the commits. Native git has a look at each, and a longer one at every fifth.
func (k *killing) again(dir string) (to int) {
	k.Helper()
	to = k.rnd.IntN(2)
	mustCheckOut(k.T, dir, k.args(to)...)
	if at := k.state(dir + "/src"); at != to {
		k.Errorf("commit %d is there", at)
	}
	k.clean(dir+"/src", to)
	if out, err := native(dir+"/src", nil, "fsck", "--full", "--no-dangling"); err != nil || out != "" {
		k.Errorf("git fsck: %v\n%s", err, out)
	}
	if k.judged++; k.judged%5 == 0 {
		judge(k.T, dir+"/src", k.sha[to])
	}
	return to
}

// cold is a run into a fresh directory.
func (k *killing) cold() int {
	k.Helper()
	dir := tempDir(k.T)
	code := k.cut(dir, 1)
	at := k.state(dir + "/src")
	k.found[map[int]string{-1: "none", 0: "old", 1: "new"}[at]]++
	if at == 0 || code == 0 && at != 1 {
		k.Errorf("exit %d, and commit %d is there", code, at)
	}
	if at == 1 {
		k.clean(dir+"/src", 1)
	}
	k.again(dir)
	return code
}

// warm moves a worktree that a task worked in from one commit to the other. Before HEAD is taken away nothing of it is changed.
func (k *killing) warm(dir string, from int) (code, now int) {
	k.Helper()
	src := dir + "/src"
	k.spoil(src)
	before := onDisk(k.T, src, k.list[from])
	to := 1 - from
	code = k.cut(dir, to)
	at := k.state(src)
	k.found[map[int]string{-1: "none", from: "old", to: "new"}[at]]++
	switch at {
	case to:
		k.clean(src, to)
	case from:
		for _, line := range differences(onDisk(k.T, src, k.list[from]), before) {
			k.Errorf("HEAD is the old one, but %s", line)
		}
		fallthrough
	default:
		if code == 0 {
			k.Errorf("exit 0, and commit %d is there", at)
		}
	}
	return code, k.again(dir)
}

// Killed at any instant, a checkout is whole or no repository at all, and the next run makes it right: 100 runs into fresh directories and 100 from one
// commit to another. After SIGTERM, which lets it tidy up, the same.
func TestKilledAtAnyInstant(t *testing.T) {
	for _, c := range []struct {
		name string
		sig  syscall.Signal
		runs int
	}{{"KILL", unix.SIGKILL, 100}, {"TERM", unix.SIGTERM, 12}} {
		for _, kind := range []string{"cold", "warm"} {
			t.Run(c.name+" "+kind, func(t *testing.T) {
				t.Parallel()
				k := newKilling(t, c.sig)
				dir, at := tempDir(t), 0
				mustCheckOut(t, dir, k.args(0)...)
				codes := map[int]int{}
				for i := range c.runs + 1 { // the first one is not cut
					code := 0
					if kind == "cold" {
						code = k.cold()
					} else {
						code, at = k.warm(dir, at)
					}
					if codes[code]++; code != 0 && code != 128+int(c.sig) {
						t.Errorf("exit %d", code)
					}
					if t.Failed() {
						t.Fatalf("run %d", i)
					}
				}
				if codes[128+int(c.sig)] == 0 {
					t.Error("no run was cut")
				}
				t.Logf("a run takes %v; exit codes %v, commits there %v", k.whole, codes, k.found)
			})
		}
	}
}
