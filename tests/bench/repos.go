package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// toolchainSource is the src directory of the Go toolchain: files that whoever runs this has, and in a real tree.
func toolchainSource() (string, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	return filepath.EvalSymlinks(filepath.Join(strings.TrimSpace(string(root)), "src"))
}

// goSource commits the toolchain's src directory into a bare repository, with a fixed author and date, so that the same toolchain gives the same commit.
// What is made already is not made again.
func goSource(root string) (repo, sha string, err error) {
	repo = filepath.Join(root, "go.git")
	if _, err := os.Stat(repo); err == nil {
		sha, err = gitOut(repo, "rev-parse", "HEAD")
		return repo, sha, err
	}
	src, err := toolchainSource()
	if err != nil {
		return "", "", err
	}
	if err := inTurn([][]string{{"git", "init", "-q", "--bare", repo}}); err != nil {
		return "", "", err
	}
	git := func(args ...string) (string, error) {
		c := exec.Command("git", append([]string{"-C", root}, args...)...)
		c.Env = append(os.Environ(), "GIT_DIR="+repo, "GIT_WORK_TREE="+src, "GIT_AUTHOR_NAME=bench", "GIT_AUTHOR_EMAIL=bench@localhost",
			"GIT_COMMITTER_NAME=bench", "GIT_COMMITTER_EMAIL=bench@localhost", "GIT_AUTHOR_DATE=1700000000 +0000", "GIT_COMMITTER_DATE=1700000000 +0000")
		c.Stderr = os.Stderr
		out, err := c.Output()
		return strings.TrimSpace(string(out)), err
	}
	for _, step := range [][]string{{"add", "-A", "-f", ":/"}, {"commit", "-q", "-m", "src"}, {"repack", "-q", "-a", "-d"}} {
		if _, err := git(step...); err != nil {
			return "", "", fmt.Errorf("git %s: %w", step[0], err)
		}
	}
	sha, err = git("rev-parse", "HEAD")
	return repo, sha, err
}

// smallRepo is a repository with a commit of the toolchain's sort directory and many refs that name it, packed.
func smallRepo(root string, refs int) (repo, sha string, err error) {
	repo = filepath.Join(root, "refs.git")
	src, err := toolchainSource()
	if err != nil {
		return "", "", err
	}
	dirs, err := directories(filepath.Join(src, "sort"))
	if err != nil {
		return "", "", err
	}
	_, err = importHistory(repo, func(in io.Writer) error { return writeHistory(in, filepath.Join(src, "sort"), dirs, 1) })
	if err != nil {
		return "", "", err
	}
	if sha, err = gitOut(repo, "rev-parse", "main"); err != nil {
		return "", "", err
	}
	var in strings.Builder
	for i := range refs {
		fmt.Fprintf(&in, "create refs/heads/topic/%d %s\n", i, sha)
	}
	update := exec.Command("git", "-C", repo, "update-ref", "--stdin")
	update.Stdin = strings.NewReader(in.String())
	if out, err := update.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("git update-ref: %w\n%s", err, out)
	}
	_, err = gitOut(repo, "pack-refs", "--all")
	return repo, sha, err
}

// gitOut runs git in a repository and gives what it prints.
func gitOut(repo string, args ...string) (string, error) {
	c := exec.Command("git", append([]string{"-C", repo}, args...)...)
	c.Stderr = os.Stderr
	c.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}

// describe prints how large a commit is by itself and, for a depth of 0, with its history.
func describe(title, repo, sha string, depth int) error {
	count := func(args ...string) int {
		out, e := gitOut(repo, args...)
		if e != nil || out == "" {
			return 0
		}
		return strings.Count(out, "\n") + 1
	}
	files, objects := count("ls-tree", "-r", "--name-only", sha), count("rev-list", "--objects", "--no-walk", sha)
	if files == 0 || objects == 0 {
		return fmt.Errorf("%s has no files in %s", repo, sha)
	}
	fmt.Printf("\n%s: %d files, %d objects at depth 1", title, files, objects)
	if depth == 0 {
		fmt.Printf("; %d commits, %d objects with all of the history", count("rev-list", sha), count("rev-list", "--objects", sha))
	}
	fmt.Println()
	return nil
}
