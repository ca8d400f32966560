package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The history has some 30,000 objects, and the last nextCommits of its commits touch 2,000 to 3,000 files.
const (
	historyCommits = 2050
	nextCommits    = 700
)

// theSource is goSource's repository, its commit, and the servers for it.
func theSource(dir, title string) (repo, sha string, all []*server, err error) {
	root := filepath.Join(dir, "srv")
	if repo, sha, err = goSource(root); err != nil {
		return "", "", nil, err
	}
	if err = describe(title, repo, sha, 1); err != nil {
		return "", "", nil, err
	}
	all, err = servers(root)
	return repo, sha, all, err
}

// theHistory is goHistory's repository, its last commit, and the servers for it.
func theHistory(dir string) (repo, tip string, all []*server, err error) {
	root := filepath.Join(dir, "hist")
	if repo, err = goHistory(root, historyCommits); err != nil {
		return "", "", nil, err
	}
	if tip, err = gitOut(repo, "rev-parse", "main"); err != nil {
		return "", "", nil, err
	}
	all, err = servers(root)
	return repo, tip, all, err
}

// histories measures checkouts with all of the history.
func histories(binary, dir string, runs int) error {
	repo, tip, all, err := theHistory(dir)
	if err != nil {
		return err
	}
	defer closeAll(all)
	if err := describe("full history", repo, tip, 0); err != nil {
		return err
	}
	m := move{title: "full history", to: tip, git: []gitWay{toRef}}
	for _, p := range places(dir) {
		for _, s := range all {
			if err := m.measure(runs, binary, p, s, "history.git"); err != nil {
				return err
			}
		}
	}
	return nil
}

// next measures the way to a commit that is nextCommits later.
func next(binary, dir string, runs int) error {
	repo, tip, all, err := theHistory(dir)
	if err != nil {
		return err
	}
	defer closeAll(all)
	before, err := gitOut(repo, "rev-parse", fmt.Sprintf("main~%d", nextCommits))
	if err != nil {
		return err
	}
	changed, err := gitOut(repo, "diff", "--no-renames", "--name-only", before, tip)
	if err != nil {
		return err
	}
	title := fmt.Sprintf("%d commits later", nextCommits)
	if err := describe(fmt.Sprintf("%s: %d paths changed", title, strings.Count(changed, "\n")+1), repo, tip, 1); err != nil {
		return err
	}
	m := move{title: title + ", depth 1", from: before, to: tip, depth: 1, git: []gitWay{toFetchHead, toRef}}
	for _, p := range places(dir) {
		for _, s := range all {
			if err := m.measure(runs, binary, p, s, "history.git"); err != nil {
				return err
			}
		}
	}
	return nil
}

// nothing measures a worktree that is already right, against git with and without its question to the server.
func nothing(binary, dir string, runs int) error {
	_, sha, all, err := theSource(dir, "nothing to do")
	if err != nil {
		return err
	}
	defer closeAll(all)
	for _, p := range places(dir) {
		for _, s := range all {
			if err := nothingAt(binary, p, s, sha, runs); err != nil {
				return err
			}
		}
	}
	return nil
}

func nothingAt(binary string, p place, s *server, sha string, runs int) error {
	work, err := os.MkdirTemp(p.dir, "run-task-bench")
	if err != nil {
		fmt.Printf("%s: %v: left out\n", p.dir, err)
		return nil
	}
	defer os.RemoveAll(work)
	url, g, alone, r := s.URL+"/go.git", filepath.Join(work, "git"), filepath.Join(work, "git-alone"), filepath.Join(work, "run-task")
	for _, d := range []string{g, alone} {
		if err := inTurn(append([][]string{{"git", "init", "-q", d}}, toRef.steps(url, sha, d, 1)...)); err != nil {
			return err
		}
	}
	us := ours(binary, url, sha, r, 1)
	if err := inTurn([][]string{us}); err != nil {
		return err
	}
	again := append(toRef.steps(url, sha, g, 1), clean(g))
	err = s.compare(fmt.Sprintf("nothing to do, %s, %s", s.name, p.name), runs,
		&side{name: "git fetch, checkout, clean", prepare: func(int) ([][]string, error) { return again, nil }},
		&side{name: "git checkout, clean", prepare: func(int) ([][]string, error) {
			return [][]string{{"git", "-C", alone, "checkout", "-q", "-f", "--detach", toRef.ref}, clean(alone)}, nil
		}},
		&side{name: "run-task", prepare: command(us...)})
	if err != nil {
		return err
	}
	return same(sha, g, alone, r)
}

// manyRefs measures a small commit of a server with 30,000 refs.
func manyRefs(binary, dir string, runs int) error {
	root := filepath.Join(dir, "refs")
	repo, sha, err := smallRepo(root, 30_000)
	if err != nil {
		return err
	}
	all, err := servers(root)
	if err != nil {
		return err
	}
	defer closeAll(all)
	refs, err := gitOut(repo, "for-each-ref", "--format=%(refname)")
	if err != nil {
		return err
	}
	if err := describe(fmt.Sprintf("a server with %d refs", strings.Count(refs, "\n")+1), repo, sha, 1); err != nil {
		return err
	}
	m := move{title: "depth 1, a server with 30,000 refs", to: sha, depth: 1, git: []gitWay{toFetchHead, noTags}}
	return m.measure(runs, binary, places(dir)[0], live(all), "refs.git")
}

// small measures this project's own repository.
func small(binary, dir string, runs int) error {
	root := filepath.Join(dir, "small")
	repo := filepath.Join(root, "small.git")
	if out, err := exec.Command("git", "-c", "safe.directory=*", "clone", "-q", "--bare", ".", repo).CombinedOutput(); err != nil {
		fmt.Printf("\nthis is no repository: left out (%v: %s)\n", err, out)
		return nil
	}
	sha, err := gitOut(repo, "rev-parse", "HEAD")
	if err != nil {
		return err
	}
	all, err := servers(root)
	if err != nil {
		return err
	}
	defer closeAll(all)
	if err := describe("this project's repository", repo, sha, 0); err != nil {
		return err
	}
	for _, depth := range []int{1, 0} {
		m := move{title: fmt.Sprintf("this repository, depth %d", depth), to: sha, depth: depth, git: []gitWay{toFetchHead}}
		if err := m.measure(runs, binary, places(dir)[0], live(all), "small.git"); err != nil {
			return err
		}
	}
	return nil
}
