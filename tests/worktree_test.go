//go:build linux

package tests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/tests/gitserver"
)

func mkdirAll(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

// plant writes a file, with its directories, as the task's user would have.
func plant(t *testing.T, path, data string) {
	t.Helper()
	mkdirAll(t, filepath.Dir(path))
	os.Remove(path)
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// own gives what the test planted to the task's user.
func own(t *testing.T, path string) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	err := filepath.WalkDir(path, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, 1000, 1000)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A worktree is moved from commit to commit, and whatever a task left in it is gone.
func TestMoves(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	dir := tempDir(t)
	src := filepath.Join(dir, "src")
	move := func(name string) {
		t.Helper()
		mustCheckOut(t, dir, "--checkout", "src", "--repo", r.Path, "--sha", r.SHA[name])
		judge(t, src, r.SHA[name])
	}
	for _, name := range []string{"first", "tip", "first", "merge", "forced", "tip", "tip"} {
		move(name)
	}

	// Strays: plain, ignored, in new directories, a repository of their own, read-only as Go's module cache, links, special files.
	plant(t, src+"/stray", "x")
	plant(t, src+"/ignored.o", "x")
	plant(t, src+"/new/dir/file", "x")
	plant(t, src+"/nested/.git/HEAD", "ref: refs/heads/main\n")
	plant(t, src+"/deep/read-only/file", "x")
	plant(t, src+"/odd\nname\xff", "x")
	if err := os.Symlink("/etc", src+"/to-etc"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(src+"/fifo", 0o666); err != nil {
		t.Fatal(err)
	}
	own(t, src)
	if err := os.Chmod(src+"/deep/read-only", 0o555); err != nil {
		t.Fatal(err)
	}
	move("tip")
	move("first")

	// Tracked files: another content of the same size and time, another mode, a link, a directory, nothing.
	st, err := os.Stat(src + "/README")
	if err != nil {
		t.Fatal(err)
	}
	plant(t, src+"/README", "THE FIRST\n")
	if err := os.Chtimes(src+"/README", st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(src+"/run.sh", 0o600); err != nil {
		t.Fatal(err)
	}
	os.Remove(src + "/link")
	plant(t, src+"/link/file", "x")
	os.Remove(src + "/empty")
	if err := os.Symlink("/etc/passwd", src+"/empty"); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(src + "/deep")
	if err := os.Symlink("/etc", src+"/deep"); err != nil {
		t.Fatal(err)
	}
	own(t, src)
	move("first")
	if st, err := os.Stat(src + "/run.sh"); err != nil || st.Mode().Perm()&0o100 == 0 {
		t.Errorf("run.sh: %v, %v", st, err)
	}

	// In place, with the same size: git's own race.
	f, err := os.OpenFile(src+"/README", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("THE")
	f.Close()
	os.Chtimes(src+"/README", st.ModTime(), st.ModTime())
	move("first")
}

// The task's user can work in it at once: git sees nothing strange, in whatever state the machine's configuration is.
func TestGitWorksForTheUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	r := newRepo(t)
	dir := tempDir(t)
	mustCheckOut(t, dir, "--checkout", "src", "--repo", r.Path, "--sha", r.SHA["tip"])
	for _, args := range [][]string{{"status", "--porcelain"}, {"log", "-1"}, {"fsck"}, {"checkout", "-q", "-b", "work"}, {"stash", "list"}} {
		git := &command{args: append([]string{"/usr/bin/env", "git"}, args...), dir: filepath.Join(dir, "src"), enter: []string{"user", "1000", "1000"}}
		if code, out, stderr := git.run(t); code != 0 || args[0] == "status" && out != "" {
			t.Errorf("git %v: %d\n%s%s", args, code, out, stderr)
		}
	}
}

func TestDepthAndTags(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	root := filepath.Dir(r.Path)
	for name, url := range map[string]string{
		"local": r.Path, "file": "file://" + r.Path,
		"http v2": gitserver.HTTP(t, root, gitserver.Options{}) + "/repo.git", "http v0": gitserver.HTTP(t, root, gitserver.Options{V0: true}) + "/repo.git",
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			for _, c := range []struct{ depth, count, shallow, tags string }{{"1", "1", "true", ""}, {"2", "2", "true", ""}, {"0", "3", "false", "v1"}, {"1", "1", "true", ""}, {"0", "3", "false", "v1"}} {
				mustCheckOut(t, dir, "--checkout", "src", "--repo", url, "--sha", r.SHA["tip"], "--depth", c.depth)
				src := filepath.Join(dir, "src")
				judge(t, src, r.SHA["tip"])
				count, _ := native(src, nil, "rev-list", "--count", "HEAD")
				shallow, _ := native(src, nil, "rev-parse", "--is-shallow-repository")
				tags, _ := native(src, nil, "tag")
				if count != c.count || shallow != c.shallow || c.depth == "0" && tags != c.tags {
					t.Errorf("depth %s: %s commits, shallow %s, tags %q", c.depth, count, shallow, tags)
				}
			}
		})
	}
}

// A SHA that names an annotated tag is the commit that it leads to; both are said.
func TestAnnotatedTag(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	dir := tempDir(t)
	said := mustCheckOut(t, dir, "--checkout", "src", "--repo", r.Path, "--sha", r.SHA["tag"])
	judge(t, filepath.Join(dir, "src"), r.SHA["second"])
	if !strings.Contains(said, r.SHA["tag"]) || !strings.Contains(said, r.SHA["second"]) {
		t.Errorf("said:\n%s", said)
	}
	tree := gitserver.Git(t, r.Path, "rev-parse", "main^{tree}")
	if code, stderr := checkOut(t, tempDir(t), "--checkout", "src", "--repo", r.Path, "--sha", tree); code != 65 {
		t.Errorf("a tree: exit %d\n%s", code, stderr)
	}
}

func TestWhatTheCommandLearns(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	dir := tempDir(t)
	run := func(args ...string) string {
		t.Helper()
		c := &command{args: slices.Concat([]string{"run-task"}, asUser(), args, []string{"--", "probe"}), dir: dir, env: []string{"CHECKOUT_SHA=forged"}}
		return c.must(t)
	}
	tree := gitserver.Git(t, r.Path, "rev-parse", r.SHA["tip"]+"^{tree}")
	out := run("--checkout", "src", "--repo", r.Path, "--sha", r.SHA["tip"])
	for _, want := range []string{"env.CHECKOUT_SHA=" + r.SHA["tip"], "env.CHECKOUT_TREE=" + tree, "env.CHECKOUT_DIR=" + dir + "/src", "cwd=" + dir + "/src", "env.PWD=" + dir + "/src"} {
		if !slices.Contains(strings.Split(out, "\n"), want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	out = run("--checkout", "src,repo="+r.Path+",sha="+r.SHA["tip"], "--checkout", "a-b,name=my lib,repo="+r.Path+",sha="+r.SHA["first"])
	for _, want := range []string{"env.CHECKOUT_SRC_SHA=" + r.SHA["tip"], "env.CHECKOUT_MY_LIB_SHA=" + r.SHA["first"], "env.CHECKOUT_MY_LIB_DIR=" + dir + "/a-b", "cwd=" + dir} {
		if !slices.Contains(strings.Split(out, "\n"), want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
}

// A directory that run-task did not make is somebody's work.
func TestNeverCleansWhatIsNotOurs(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	from := []string{"--repo", r.Path, "--sha", r.SHA["tip"]}
	for name, make := range map[string]func(dir string){
		"files":      func(dir string) { plant(t, dir+"/thesis.tex", "all my work") },
		"repository": func(dir string) { gitserver.Git(t, dir, "clone", "-q", r.Path, ".") },
		"one hidden": func(dir string) { plant(t, dir+"/.profile", "x") },
		"git file":   func(dir string) { plant(t, dir+"/.git", "gitdir: ../elsewhere\n") },
		"a git dir":  func(dir string) { plant(t, dir+"/.git/HEAD", "ref: refs/heads/main\n") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			src := filepath.Join(dir, "src")
			mkdirAll(t, src)
			make(src)
			own(t, src)
			before := snapshot(t, dir)
			for _, args := range [][]string{{"--checkout", "src"}, {"--checkout", "src", "--cwd", "src"}} {
				code, stderr := checkOut(t, dir, append(args, from...)...)
				if code != 64 || !strings.Contains(stderr, "--adopt") {
					t.Errorf("exit %d\n%s", code, stderr)
				}
			}
			// The environment is no reason either: it is not the one who owns the directory.
			c := &command{dir: dir, env: []string{"RUN_TASK_ADOPT=1"}, args: slices.Concat([]string{"run-task"}, asUser(), []string{"--checkout", "src"}, from, []string{"--", "probe"})}
			if code, _, stderr := c.run(t); code != 64 {
				t.Errorf("RUN_TASK_ADOPT: exit %d\n%s", code, stderr)
			}
			if after := snapshot(t, dir); after != before {
				t.Errorf("it is\n%swas\n%s", after, before)
			}
			mustCheckOut(t, dir, append([]string{"--checkout", "src", "--adopt"}, from...)...)
			judge(t, src, r.SHA["tip"])
			mustCheckOut(t, dir, append([]string{"--checkout", "src"}, from...)...)
		})
	}
}

// In a checked cache it may clean, but not the cache itself: there the requirement file is.
func TestCheckoutInCache(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	dir := tempDir(t)
	mkdirAll(t, dir+"/cache")
	from := []string{"--cache", "cache", "--repo", r.Path, "--sha", r.SHA["tip"]}
	for _, root := range []string{"cache", "cache/.", dir + "/cache", "cache/../cache/"} {
		if code, stderr := checkOut(t, dir, append(from, "--checkout", root)...); code != 64 {
			t.Errorf("%s: exit %d\n%s", root, code, stderr)
		}
	}
	mustCheckOut(t, dir, append(from, "--checkout", "cache/src")...)
	judge(t, dir+"/cache/src", r.SHA["tip"])

	os.RemoveAll(dir + "/cache/src/.git")
	plant(t, dir+"/cache/src/stray", "x")
	own(t, dir+"/cache/src")
	mustCheckOut(t, dir, append(from, "--checkout", "cache/src")...)
	judge(t, dir+"/cache/src", r.SHA["tip"])

	// A link in the cache that leads out of it.
	plant(t, dir+"/outside/work", "x")
	if err := os.Symlink("../outside", dir+"/cache/link"); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, dir+"/outside")
	links := []string{"cache/link"}
	if os.Getuid() == 0 {
		links = append(links, "cache/link/deeper") // where only root could make a directory
	}
	for _, to := range links {
		if code, stderr := checkOut(t, dir, append(from, "--checkout", to)...); code == 0 {
			t.Errorf("%s: exit %d\n%s", to, code, stderr)
		}
	}
	if after := snapshot(t, dir+"/outside"); after != before {
		t.Errorf("outside is\n%swas\n%s", after, before)
	}
}

// Whatever a task planted in .git is gone before anybody runs git there.
func TestPlantedInGitDirectory(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	dir := tempDir(t)
	src, outside := dir+"/cache/src", dir+"/outside"
	mkdirAll(t, dir+"/cache")
	plant(t, outside+"/config", "[core]\n")
	own(t, outside)
	again := func() {
		t.Helper()
		before := snapshot(t, outside)
		mustCheckOut(t, dir, "--cache", "cache", "--checkout", "cache/src", "--repo", r.Path, "--sha", r.SHA["tip"])
		judge(t, src, r.SHA["tip"])
		if after := snapshot(t, outside); after != before {
			t.Errorf("outside is\n%swas\n%s", after, before)
		}
	}
	again()
	planted := []string{"hooks/post-checkout", "config.worktree", "objects/info/alternates", "index.lock", "HEAD.lock", "config.lock", "info/attributes", "info/grafts", "info/exclude", "info/sparse-checkout",
		"refs/replace/" + r.SHA["tip"], "refs/heads/evil", "objects/" + r.SHA["tip"][:2] + "/" + r.SHA["tip"][2:], "modules/x/config", "worktrees/x/gitdir", "commondir", "gitdir", "shallow.lock", "rebase-merge/done", "MERGE_HEAD"}
	for _, name := range planted {
		plant(t, src+"/.git/"+name, "/nowhere\n")
	}
	plant(t, src+"/.git/config", "[core]\n\tfsmonitor = touch /tmp/run-task-was-here\n\thooksPath = /tmp\n")
	os.Chmod(src+"/.git/hooks/post-checkout", 0o755)
	own(t, src)
	again()
	for _, name := range planted {
		if _, err := os.Lstat(src + "/.git/" + name); err == nil {
			t.Errorf(".git/%s is still there", name)
		}
	}
	if config, _ := os.ReadFile(src + "/.git/config"); strings.Contains(string(config), "fsmonitor") {
		t.Errorf(".git/config:\n%s", config)
	}

	// Links and directories where files should be.
	for _, name := range []string{"HEAD", "index", "config", "refs", "objects", "objects/pack", "run-task/state.json", "shallow", "packed-refs", "refs/heads", "logs"} {
		path := src + "/.git/" + name
		os.RemoveAll(path)
		if err := os.Symlink(outside, path); err != nil {
			t.Fatal(err)
		}
		own(t, src+"/.git")
		again()
		os.RemoveAll(path)
		mkdirAll(t, path+"/sub")
		own(t, src+"/.git")
		again()
	}
	for _, make := range []func() error{
		func() error { return os.Symlink(outside, src+"/.git") },
		func() error { return os.Symlink("nowhere", src+"/.git") },
		func() error { return os.WriteFile(src+"/.git", []byte("gitdir: "+outside+"\n"), 0o644) },
		func() error { return os.Symlink(src, src+"/.git") },
	} {
		os.RemoveAll(src + "/.git")
		if err := make(); err != nil {
			t.Fatal(err)
		}
		own(t, src)
		again()
	}
}

// The objects that an earlier run left are proven again: a changed byte in them never reaches a file.
func TestTamperedPack(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	dir := tempDir(t)
	src := dir + "/src"
	args := []string{"--checkout", "src", "--repo", r.Path, "--sha", r.SHA["tip"]}
	mustCheckOut(t, dir, args...)
	for _, glob := range []string{"/.git/objects/pack/*.pack", "/.git/objects/pack/*.idx", "/.git/index", "/.git/run-task/state.json"} {
		for i := range 6 {
			names, err := filepath.Glob(src + glob)
			if err != nil || len(names) != 1 {
				t.Fatalf("%s: %v", glob, names)
			}
			data, err := os.ReadFile(names[0])
			if err != nil {
				t.Fatal(err)
			}
			at := rand.IntN(len(data))
			if i == 0 {
				at = len(data) - 22 // of a pack: its last object's checksum, which nothing but git fsck ever reads
			}
			data[at] ^= byte(1 + rand.IntN(255))
			os.Remove(names[0])
			if err := os.WriteFile(names[0], data, 0o644); err != nil {
				t.Fatal(err)
			}
			own(t, names[0])
			os.Remove(src + "/README") // so that it has to be written again
			code, stderr := checkOut(t, dir, args...)
			if code != 0 {
				t.Fatalf("byte %d of %s: exit %d\n%s", at, glob, code, stderr)
			}
			judge(t, src, r.SHA["tip"])
			if t.Failed() {
				t.Fatalf("byte %d of %s\n%s", at, glob, stderr)
			}
		}
	}
}

// bigRepo has enough files for a kill to meet a checkout in its middle.
func bigRepo(t *testing.T) *repo {
	t.Helper()
	r := newRepo(t)
	var b strings.Builder
	for n := range 2 {
		fmt.Fprintf(&b, "commit refs/heads/big\nmark :%d\ncommitter A <a@example.com> %d +0000\ndata 3\nbig\n", n+1, 1700000000+n)
		for i := range 600 {
			data := fmt.Sprintf("%d %d\n", n, i*i) + strings.Repeat(fmt.Sprint(i, n), 300)
			fmt.Fprintf(&b, "M 644 inline d%d/sub%d/file%d\ndata %d\n%s\n", i%7, i%(13+n), i, len(data), data)
		}
	}
	gitserver.GitInput(t, r.Path, strings.NewReader(b.String()), "fast-import", "--quiet")
	r.SHA["big"] = gitserver.Git(t, r.Path, "rev-parse", "big")
	r.SHA["small"] = gitserver.Git(t, r.Path, "rev-parse", "big^")
	return r
}

// Killed at any instant, a checkout is either whole or no repository at all, and the next run makes it right.
func TestKilledAtRandomInstants(t *testing.T) {
	t.Parallel()
	r := bigRepo(t)
	url := gitserver.HTTP(t, filepath.Dir(r.Path), gitserver.Options{}) + "/repo.git"
	dir := tempDir(t)
	src := dir + "/src"
	shas := []string{r.SHA["big"], r.SHA["small"], r.SHA["tip"]}
	began := time.Now()
	mustCheckOut(t, tempDir(t), "--checkout", "src", "--repo", url, "--sha", shas[0])
	whole := time.Since(began)
	cut := 0
	for i := range 20 {
		sha := shas[i%len(shas)]
		args := slices.Concat([]string{"run-task"}, asUser(), []string{"--checkout", "src", "--repo", url, "--sha", sha, "--", "probe", "exit", "0"})
		cmd := (&command{args: args, dir: dir}).cmd()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(rand.Int64N(int64(whole))), func() { cmd.Process.Kill() })
		code := wait(t, cmd)
		kill.Stop()
		switch code {
		case 137:
			cut++
			if head, err := os.ReadFile(src + "/.git/HEAD"); err == nil {
				judge(t, src, strings.TrimSpace(string(head)))
			}
		case 0:
			judge(t, src, sha)
		default:
			t.Fatalf("exit %d", code)
		}
		if i%2 == 0 { // the next run is for the same commit, or for another
			mustCheckOut(t, dir, "--checkout", "src", "--repo", url, "--sha", sha)
			judge(t, src, sha)
		}
		if left, _ := filepath.Glob(src + "/.git/run-task/incoming-*"); code == 0 && len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		if t.Failed() {
			t.Fatalf("run %d", i)
		}
	}
	if cut == 0 {
		t.Error("no run was killed")
	}
	t.Logf("%d of 20 were killed", cut)
}

// Two tasks that check out into one directory wait for each other; the directory is at one of the commits, whole.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	r := bigRepo(t)
	for i := range 24 {
		names := []string{"tip", "first"}
		if i < 2 {
			names = []string{"big", "small"}
		}
		dir := tempDir(t)
		mkdirAll(t, dir+"/src")
		own(t, dir+"/src")
		ended := make(chan string, 2)
		for _, name := range names {
			go func() {
				args := slices.Concat([]string{"run-task"}, asUser(), []string{"--checkout", "src", "--repo", r.Path, "--sha", r.SHA[name], "--", "probe", "exit", "0"})
				code, _, stderr := (&command{args: args, dir: dir}).run(t)
				if code != 0 {
					t.Errorf("exit %d\n%s", code, stderr)
				}
				ended <- stderr
			}()
		}
		one, other := <-ended, <-ended
		if t.Failed() {
			t.Fatalf("they said\n%sand\n%s", one, other)
		}
		head, _ := native(dir+"/src", nil, "rev-parse", "HEAD")
		if head != r.SHA[names[0]] && head != r.SHA[names[1]] {
			t.Fatalf("HEAD is %q", head)
		}
		judge(t, dir+"/src", head)
	}
}
