package main

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// place is where worktrees of one benchmark go: a fresh directory for every run, removed at the end, because ext4 is slow to reuse inodes that were just deleted.
type place struct{ name, dir string }

func places(dir string) []place { return []place{{"tmpfs", "/dev/shm"}, {"disk", dir}} }

// servers are the live git http-backend and one that replays its answers, so that it is the client that is measured.
func servers(root string) (live, replayed *httptest.Server, err error) {
	backend, err := httpBackend(root)
	if err != nil {
		return nil, nil, err
	}
	return httptest.NewServer(backend), httptest.NewServer(&replay{next: backend, seen: map[string]*httptest.ResponseRecorder{}}), nil
}

// ours is how run-task brings a directory to a commit.
func ours(binary, url, sha, dir string, depth int) []string {
	args := []string{binary, "checkout", "--repo", url, "--sha", sha, "--depth", fmt.Sprint(depth)}
	if os.Getuid() == 0 {
		args = append(args, "--user", "root")
	}
	return append(args, dir)
}

// theirs is how a CI does it with git: with a ref, so that git offers what it has.
func theirs(url, sha, dir string, depth int) [][]string {
	fetch := []string{"git", "-C", dir, "fetch", "-q"}
	if depth > 0 {
		fetch = append(fetch, fmt.Sprintf("--depth=%d", depth))
	}
	return [][]string{append(fetch, url, "+"+sha+":refs/ci/head"), {"git", "-C", dir, "checkout", "-q", "-f", "--detach", "refs/ci/head"}}
}

// move is both sides' way from one commit, where it was made before and is not measured, to another. Where from is "" the directory is fresh.
func move(binary, work, url, from, to string, depth int) []*side {
	clean := func(d string) []string { return []string{"git", "-C", d, "clean", "-ffdxq"} }
	return []*side{
		{name: "git fetch, checkout, clean", prepare: func(run int) ([][]string, error) {
			d := filepath.Join(work, fmt.Sprint("git-", run))
			init := [][]string{{"git", "init", "-q", d}}
			if from == "" {
				return append(init, theirs(url, to, d, depth)...), nil
			}
			return append(theirs(url, to, d, depth), clean(d)), inTurn(append(init, theirs(url, from, d, depth)...))
		}},
		{name: "run-task", prepare: func(run int) ([][]string, error) {
			d := filepath.Join(work, fmt.Sprint("run-task-", run))
			if from == "" {
				return [][]string{ours(binary, url, to, d, depth)}, nil
			}
			return [][]string{ours(binary, url, to, d, depth)}, inTurn([][]string{ours(binary, url, from, d, depth)})
		}},
	}
}

func inTurn(steps [][]string) error {
	for _, args := range steps {
		c := exec.Command(args[0], args[1:]...)
		c.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%q: %w\n%s", args, err, out)
		}
	}
	return nil
}

// measureMoves compares in a fresh directory of a place, and then whether both sides have the commit.
func measureMoves(title string, runs int, binary string, p place, url, from, to string, depth int) error {
	work, err := os.MkdirTemp(p.dir, "run-task-bench")
	if err != nil {
		fmt.Printf("%s: %v: left out\n", p.dir, err)
		return nil
	}
	defer os.RemoveAll(work)
	if err := compare(title+", "+p.name, runs, move(binary, work, url, from, to, depth)...); err != nil {
		return err
	}
	for _, who := range []string{"git-0", "run-task-0"} {
		d := filepath.Join(work, who)
		head, err := gitOut(d, "rev-parse", "HEAD")
		status, err2 := gitOut(d, "status", "--porcelain", "--ignored")
		if err != nil || err2 != nil || head != to || status != "" {
			return fmt.Errorf("%s is at %s, not %s: %v %v\n%s", who, head, to, err, err2, status)
		}
	}
	return nil
}

const historyCommits = 900 // some 30,000 objects

// theHistory is goHistory's repository with two of its commits, and the servers for it.
func theHistory(dir string) (live, replayed *httptest.Server, before, tip string, err error) {
	root := filepath.Join(dir, "hist")
	if err = os.MkdirAll(root, 0o755); err != nil {
		return
	}
	repo, err := goHistory(root, historyCommits)
	if err != nil {
		return
	}
	tip, err = gitOut(repo, "rev-parse", "main")
	if err == nil {
		before, err = gitOut(repo, "rev-parse", "main~400")
	}
	count, _ := gitOut(repo, "count-objects", "-v")
	files, _ := gitOut(repo, "ls-tree", "-r", "--name-only", "main")
	changed, _ := gitOut(repo, "diff", "--name-only", "main~400", "main")
	fmt.Printf("\nhistory: %d commits, %s, %d files, %d of them changed in the last 400\n", historyCommits, strings.Join(strings.Fields(count), " "), strings.Count(files, "\n")+1, strings.Count(changed, "\n")+1)
	if err == nil {
		live, replayed, err = servers(root)
	}
	return
}

// histories measures checkouts with all of the history.
func histories(binary, dir string, runs int) error {
	live, replayed, _, tip, err := theHistory(dir)
	if err != nil {
		return err
	}
	defer live.Close()
	defer replayed.Close()
	for name, s := range map[string]*httptest.Server{"replaying server": replayed, "live server": live} {
		if err := measureMoves("full history, "+name, runs, binary, places(dir)[0], s.URL+"/history.git", "", tip, 0); err != nil {
			return err
		}
	}
	return nil
}

// next measures the way to a commit 400 commits later.
func next(binary, dir string, runs int) error {
	live, replayed, before, tip, err := theHistory(dir)
	if err != nil {
		return err
	}
	defer live.Close()
	defer replayed.Close()
	for _, p := range places(dir) {
		for name, s := range map[string]*httptest.Server{"replaying server": replayed, "live server": live} {
			if err := measureMoves("400 commits later, depth 1, "+name, runs, binary, p, s.URL+"/history.git", before, tip, 1); err != nil {
				return err
			}
		}
	}
	return nil
}

// nothing measures a worktree that is already right, against git with and without its question to the server.
func nothing(binary, dir string, runs int) error {
	root := filepath.Join(dir, "same")
	sha, err := goSource(root)
	if err != nil {
		return err
	}
	live, replayed, err := servers(root)
	if err != nil {
		return err
	}
	defer live.Close()
	defer replayed.Close()
	for _, p := range places(dir) {
		work, err := os.MkdirTemp(p.dir, "run-task-bench")
		if err != nil {
			fmt.Printf("%s: %v: left out\n", p.dir, err)
			continue
		}
		defer os.RemoveAll(work)
		url, g, r := live.URL+"/go.git", filepath.Join(work, "git"), filepath.Join(work, "run-task")
		if err := inTurn(append(append([][]string{{"git", "init", "-q", g}}, theirs(url, sha, g, 1)...), ours(binary, url, sha, r, 1))); err != nil {
			return err
		}
		all := append(theirs(url, sha, g, 1), []string{"git", "-C", g, "clean", "-ffdxq"})
		err = compare("nothing to do, "+p.name, runs,
			&side{name: "git fetch, checkout, clean", prepare: func(int) ([][]string, error) { return all, nil }},
			&side{name: "git checkout, clean", prepare: func(int) ([][]string, error) { return all[1:], nil }},
			&side{name: "run-task", prepare: command(ours(binary, url, sha, r, 1)...)})
		if err != nil {
			return err
		}
	}
	return nil
}

// manyRefs measures a small commit of a server with 30,000 refs.
func manyRefs(binary, dir string, runs int) error {
	root := filepath.Join(dir, "refs")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	repo, err := goHistory(root, 1)
	if err != nil {
		return err
	}
	tip, err := gitOut(repo, "rev-parse", "main")
	if err != nil {
		return err
	}
	var in strings.Builder
	for i := range 30_000 {
		fmt.Fprintf(&in, "create refs/heads/topic/%d %s\n", i, tip)
	}
	update := exec.Command("git", "-C", repo, "update-ref", "--stdin")
	update.Stdin = strings.NewReader(in.String())
	if out, err := update.CombinedOutput(); err != nil {
		return fmt.Errorf("git update-ref: %w\n%s", err, out)
	}
	if _, err := gitOut(repo, "pack-refs", "--all"); err != nil {
		return err
	}
	live, replayed, err := servers(root)
	if err != nil {
		return err
	}
	defer live.Close()
	replayed.Close()
	return measureMoves("depth 1, 2,500 files, a server with 30,000 refs", runs, binary, places(dir)[0], live.URL+"/history.git", "", tip, 1)
}

// small measures this project's own repository.
func small(binary, dir string, runs int) error {
	root := filepath.Join(dir, "small")
	if out, err := exec.Command("git", "-c", "safe.directory=*", "clone", "-q", "--bare", ".", filepath.Join(root, "small.git")).CombinedOutput(); err != nil {
		fmt.Printf("\nthis is no repository: left out (%v: %s)\n", err, out)
		return nil
	}
	tip, err := gitOut(filepath.Join(root, "small.git"), "rev-parse", "HEAD")
	if err != nil {
		return err
	}
	live, replayed, err := servers(root)
	if err != nil {
		return err
	}
	defer live.Close()
	replayed.Close()
	for _, depth := range []int{1, 0} {
		if err := measureMoves(fmt.Sprintf("this repository, depth %d, live server", depth), runs, binary, places(dir)[0], live.URL+"/small.git", "", tip, depth); err != nil {
			return err
		}
	}
	return nil
}

// oneCore measures a depth-1 checkout with each side on one core; the server has the other.
func oneCore(binary, dir string, runs int) error {
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		fmt.Println("\ntaskset is not installed: one core is left out")
		return nil
	}
	root := filepath.Join(dir, "one")
	sha, err := goSource(root)
	if err != nil {
		return err
	}
	live, replayed, err := servers(root)
	if err != nil {
		return err
	}
	live.Close()
	defer replayed.Close()
	work, err := os.MkdirTemp("/dev/shm", "run-task-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	sides := move(binary, work, replayed.URL+"/go.git", "", sha, 1)
	for _, s := range sides {
		prepare := s.prepare
		s.prepare = func(run int) ([][]string, error) {
			steps, err := prepare(run)
			for i := range steps {
				steps[i] = append([]string{taskset, "-c", "0"}, steps[i]...)
			}
			return steps, err
		}
	}
	return compare("checkout, depth 1, replaying server, tmpfs, one core", runs, sides...)
}
