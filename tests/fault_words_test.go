//go:build linux

package tests

import (
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"run-task/tests/gitserver"
)

// A commit that a server will not give is refused, with 76, and one that it cannot have any more is gone, with 66. Which of both it is cannot be told where a server
// gives what it advertises and nothing else.
func TestRefusedIsNotGone(t *testing.T) {
	t.Parallel()
	if _, err := user.Current(); err != nil {
		skip(t, t.Name(), "needs an account for this uid")
	}
	root := tempDir(t)
	c := gitserver.Repo(t, root, "repo.git")
	tests := map[string]func(t *testing.T){}
	for _, s := range servers {
		for _, allow := range []string{"", "allowTipSHA1InWant", "allowReachableSHA1InWant", "allowAnySHA1InWant"} {
			var config []string
			if allow != "" {
				config = []string{"uploadpack." + allow + "=true"}
			}
			knows := !s.v0 || allow == "allowAnySHA1InWant" // it would give any commit that it has
			tests[s.name+" "+allow] = func(t *testing.T) {
				url, env := s.url(t, root, config...)
				run := func(sha string, want int, says ...string) {
					dir := tempDir(t)
					code, _, stderr := wants(dir, url+"/repo.git", sha, env, "--ref", "refs/pull/1/merge").run(t)
					says = append(says, "refs/pull/1/merge is now "+c.Merge[:8], "4 branches and tags: not reachable", "run-task: hint: ")
					if code != want {
						t.Errorf("exit %d, want %d\n%s", code, want, stderr)
					}
					if want == 0 {
						stands(t, dir+"/src", sha)
						return
					}
					(&shaky{T: t, dir: dir}).empty("src")
					for _, says := range says {
						if !strings.Contains(stderr, says) {
							t.Errorf("no %q in\n%s", says, stderr)
						}
					}
				}
				refused := []string{c.Forced[:8] + " is not given out by ", "uploadpack.allowAnySHA1InWant"}
				gone := []string{c.Gone[:8] + " is gone from ", `"not our ref"`, "no other commit is ever used in its place"}
				if knows {
					run(c.Gone, 66, gone...)
					run(c.Forced, 0)
				} else {
					run(c.Forced, 76, refused...)
					run(c.Gone, 76, c.Gone[:8]+refused[0][8:], refused[1])
				}
			}
		}
	}
	together(t, 8, tests)
}

// A commit that is not there yet is waited for, if the user says so, whatever it is that the server does not have yet: the commit, or a ref that leads to it.
func TestWaitForCommit(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T){}
	for _, late := range []struct {
		name   string
		o      gitserver.Options
		local  bool
		commit bool // it is the commit that comes late
	}{
		{"a commit, v2", gitserver.Options{}, false, true},
		{"a commit, v0", gitserver.Options{V0: true}, false, true},
		{"a commit, local", gitserver.Options{}, true, true},
		{"a ref, v0", gitserver.Options{V0: true}, false, false},
	} {
		for _, end := range []string{"comes", "TERM"} {
			tests[late.name+", "+end] = func(t *testing.T) {
				root := tempDir(t)
				c := gitserver.Repo(t, root, "full.git")
				sha, repo := c.Forced, filepath.Join(root, "full.git")
				if late.commit {
					repo = filepath.Join(root, "late.git")
					gitserver.Git(t, root, "clone", "-q", "--bare", "--no-local", "full.git", repo)
				}
				url := repo
				if !late.local {
					url = gitserver.HTTP(t, root, late.o) + "/" + filepath.Base(repo)
				}
				dir := tempDir(t)
				own(t, dir)
				wants(dir, url, sha, nil, "--wait-for-commit", "10m", "--ref", "refs/pipelines/7").whenWaiting(t, func(cmd *exec.Cmd) int {
					if end == "TERM" {
						cmd.Process.Signal(syscall.SIGTERM)
						return 143
					}
					if late.commit {
						gitserver.Git(t, repo, "fetch", "-q", root+"/full.git", sha)
					}
					gitserver.Git(t, repo, "update-ref", "refs/pipelines/7", sha)
					return 0
				})
				if end == "comes" {
					stands(t, dir+"/src", sha)
				}
			}
		}
	}
	tests["in vain"] = func(t *testing.T) {
		root := tempDir(t)
		c := gitserver.Repo(t, root, "repo.git")
		url := gitserver.HTTP(t, root, gitserver.Options{}) + "/repo.git"
		code, stderr := checkOut(t, tempDir(t), "--wait-for-commit", "1s", "--checkout", "src", "--repo", url, "--sha", c.Gone)
		if code != 66 || !strings.Contains(stderr, c.Gone[:8]+" is gone from "+url) || !strings.Contains(stderr, "waited  1s") {
			t.Errorf("exit %d\n%s", code, stderr)
		}
	}
	together(t, 10, tests)
}

// whenWaiting runs a command, and does something once it says that it waits for a commit; its end must be what that returns.
func (c *command) whenWaiting(t *testing.T, do func(*exec.Cmd) int) {
	t.Helper()
	waiting := make(chan struct{}, 1)
	out := &notify{want: "waiting for the commit", seen: waiting}
	cmd := c.cmd()
	cmd.Stderr = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	watchdog := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer watchdog.Stop()
	go func() { ended <- cmd.Wait() }()
	want := 0
	select {
	case <-waiting:
		want = do(cmd)
	case err := <-ended:
		t.Fatalf("it did not wait: %v\n%s", err, out.String())
	}
	<-ended
	if code := cmd.ProcessState.ExitCode(); code != want {
		t.Errorf("exit %d, want %d\n%s", code, want, out.String())
	}
}
