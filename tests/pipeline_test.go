//go:build linux

package tests

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"run-task/tests/gitserver"
)

// A pipeline's story: one task decides, the ref is rewritten, twenty tasks on three hosts' stores follow, and retries come when the server has pruned the commit and
// days have gone by. All of them get the same commit, and who cannot is told the truth.
func TestPipeline(t *testing.T) {
	for name, o := range map[string]gitserver.Options{
		"v2": {},
		"v0": {V0: true, Config: []string{"uploadpack.allowAnySHA1InWant=true"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shop{T: t, repo: newRepo(t), dir: tempDir(t)}
			o.Wrap = s.wrap
			s.url = gitserver.HTTP(t, filepath.Dir(s.repo.Path), o) + "/" + filepath.Base(s.repo.Path)
			own(t, s.dir)
			merge := s.repo.SHA["merge"]

			decide := &command{args: slices.Concat([]string{"run-task"}, asUser(), []string{"--resolve", "refs/pull/1/merge", "--repo", s.url, "--git-store", s.dir + "/store0",
				"--pin-holder", "pipeline 1", "--export-env", "decided.env", "--quiet"}), dir: s.dir}
			if out := decide.must(t); out != merge+"\n" {
				t.Fatalf("the deciding task printed %q, want %s", out, merge)
			}
			decided, err := os.ReadFile(s.dir + "/decided.env")
			if err != nil {
				t.Fatal(err)
			}
			env := strings.Fields(string(decided))
			if !slices.Contains(env, "RUN_TASK_REPO="+s.url) || !slices.Contains(env, "RUN_TASK_SHA="+merge) {
				t.Fatalf("exported %q", env)
			}

			git := func(args ...string) {
				t.Helper()
				gitserver.Git(t, s.repo.Path, args...)
			}
			git("update-ref", "refs/pull/1/merge", s.repo.SHA["tip"])
			tasks := func(round string, n int) {
				t.Helper()
				var wait sync.WaitGroup
				for i := range n {
					wait.Go(func() {
						dir := fmt.Sprint(round, i)
						c := &command{args: slices.Concat([]string{"run-task"}, asUser(), []string{"--git-store", fmt.Sprint(s.dir, "/store", i%3), "--pin-holder", "pipeline 1",
							"--checkout", dir, "--", "probe", "exit", "0"}), dir: s.dir, env: env}
						if code, _, out := c.run(t); code != 0 {
							t.Errorf("%s: exit %d\n%s", dir, code, out)
							return
						}
						if head, err := native(s.dir+"/"+dir, nil, "rev-parse", "HEAD"); head != merge {
							t.Errorf("%s is at %s, %v", dir, head, err)
						}
						if out, err := native(s.dir+"/"+dir, nil, "status", "--porcelain", "--ignored"); out != "" || err != nil {
							t.Errorf("%s: %s %v", dir, out, err)
						}
					})
				}
				wait.Wait()
			}
			tasks("first", 20)
			if n := s.packs.Load(); n != 3 {
				t.Errorf("%d packs for three stores", n)
			}

			git("reflog", "expire", "--expire=now", "--all")
			git("gc", "-q", "--prune=now")
			if exec.Command("git", "-C", s.repo.Path, "cat-file", "-e", merge).Run() == nil {
				t.Fatal("the server still has the commit")
			}
			for _, days := range []time.Duration{0, 8, -30} { // our clock against the one that pinned
				redate(t, s.dir, -days*24*time.Hour)
				tasks(fmt.Sprint("retry", int(days), "-"), 6)
			}
			if n := s.packs.Load(); n != 3 {
				t.Errorf("%d packs for three stores, retries included", n)
			}

			c := &command{args: slices.Concat([]string{"run-task"}, asUser(), []string{"--git-store", s.dir + "/cold", "--checkout", "late", "--", "probe", "exit", "0"}), dir: s.dir, env: env}
			code, _, out := c.run(t)
			for _, want := range []string{merge[:8] + " is gone from " + s.url, "not our ref", "no pin for it in", "no other commit is ever used"} {
				if code != 66 || !strings.Contains(out, want) {
					t.Errorf("exit %d, and no %q:\n%s", code, want, out)
				}
			}
		})
	}
}

// redate shifts what all pins below dir say of time.
func redate(t *testing.T, dir string, by time.Duration) {
	t.Helper()
	files, err := filepath.Glob(dir + "/store*/*/pins/*/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no pins", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		pin := map[string]any{}
		if err == nil {
			err = json.Unmarshal(data, &pin)
		}
		for _, key := range []string{"created", "expires"} {
			text, _ := pin[key].(string)
			at, perr := time.Parse(time.RFC3339, text)
			if perr != nil {
				t.Fatal(perr)
			}
			pin[key] = at.Add(by)
		}
		if err == nil {
			data, err = json.Marshal(pin)
		}
		if err == nil {
			err = os.WriteFile(name, data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Who decides for a pipeline pins the commit's submodules, too: later tasks need no server for any of them.
func TestPipelineWithSubmodules(t *testing.T) {
	var c counter
	f := newFamily(t, gitserver.Options{Wrap: c.wrap})
	top, _ := f.levels()
	dir := tempDir(t)
	own(t, dir)
	decide := &command{args: slices.Concat([]string{"run-task"}, asUser(), []string{"--resolve", "main", "--repo", f.url + "/group/top.git", "--submodules", "recursive", "--git-store", dir + "/store"}), dir: dir}
	if out := decide.must(t); out != top+"\n" {
		t.Fatalf("printed %q", out)
	}
	c.take()
	c.down.Store(true)
	mustCheckOut(t, dir, "--git-store", dir+"/store", "--checkout", "src,submodules=recursive,repo="+f.url+"/group/top.git,sha="+top)
	if n, _ := c.take(); n != 0 {
		t.Errorf("%d requests", n)
	}
	out, err := native(dir+"/src", nil, "submodule", "status", "--recursive")
	if err != nil || strings.Count(out, "\n")+1 != 4 || strings.ContainsAny(out, "+U") || strings.HasPrefix(out, "-") || strings.Contains(out, "\n-") {
		t.Errorf("%v\n%s", err, out)
	}
}
