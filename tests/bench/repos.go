package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// goSource commits the toolchain's src directory into a bare repository, with a fixed author and date, so that the same toolchain gives the same commit.
func goSource(root string) (sha string, err error) {
	repo := filepath.Join(root, "go.git")
	toolchain, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	src := filepath.Join(strings.TrimSpace(string(toolchain)), "src")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	git := func(args ...string) (string, error) {
		c := exec.Command("git", append([]string{"-C", root}, args...)...)
		c.Env = append(os.Environ(), "GIT_DIR="+repo, "GIT_WORK_TREE="+src, "GIT_AUTHOR_NAME=bench", "GIT_AUTHOR_EMAIL=bench@localhost",
			"GIT_COMMITTER_NAME=bench", "GIT_COMMITTER_EMAIL=bench@localhost", "GIT_AUTHOR_DATE=1700000000 +0000", "GIT_COMMITTER_DATE=1700000000 +0000")
		c.Stderr = os.Stderr
		out, err := c.Output()
		return strings.TrimSpace(string(out)), err
	}
	for _, step := range [][]string{{"init", "-q", "--bare", repo}, {"add", "-A", "-f", ":/"}, {"commit", "-q", "-m", "src"}, {"repack", "-q", "-a", "-d"}} {
		if step[0] == "init" {
			if out, err := exec.Command("git", step...).CombinedOutput(); err != nil {
				return "", fmt.Errorf("git init: %w\n%s", err, out)
			}
			continue
		}
		if _, err := git(step...); err != nil {
			return "", fmt.Errorf("git %s: %w", step[0], err)
		}
	}
	return git("rev-parse", "HEAD")
}

// goHistory makes a repository with some history of the toolchain's own files: they come little by little, and meanwhile lines of them change, and now and then
// one goes. The same toolchain gives the same commits.
func goHistory(root string, commits int) (repo string, err error) {
	toolchain, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	src := filepath.Join(strings.TrimSpace(string(toolchain)), "src")
	var files []string
	err = filepath.WalkDir(src, func(p string, e fs.DirEntry, err error) error {
		if info, _ := e.Info(); err == nil && e.Type().IsRegular() && info.Size() < 200_000 {
			files = append(files, p[len(src)+1:])
		}
		return err
	})
	if err != nil {
		return "", err
	}
	repo = filepath.Join(root, "history.git")
	if out, err := exec.Command("git", "init", "-q", "--bare", repo).CombinedOutput(); err != nil {
		return "", fmt.Errorf("git init: %w\n%s", err, out)
	}
	load := exec.Command("git", "-C", repo, "fast-import", "--quiet")
	load.Stderr = os.Stderr
	in, err := load.StdinPipe()
	if err != nil {
		return "", err
	}
	if err := load.Start(); err != nil {
		return "", err
	}
	err = writeHistory(in, src, files, commits)
	if err := load.Wait(); err != nil {
		return "", err
	}
	if err == nil {
		err = exec.Command("git", "-C", repo, "repack", "-q", "-a", "-d").Run()
	}
	return repo, err
}

func writeHistory(in io.WriteCloser, src string, files []string, commits int) error {
	defer in.Close()
	w := bufio.NewWriter(in)
	r := rand.New(rand.NewPCG(3, 5))
	r.Shuffle(len(files), func(i, k int) { files[i], files[k] = files[k], files[i] })
	const first = 2500
	later := (len(files) - first) / commits
	live := map[string][][]byte{}
	var names []string
	put := func(name string) {
		data := bytes.Join(live[name], []byte("\n"))
		fmt.Fprintf(w, "M 644 inline %s\ndata %d\n%s\n", name, len(data), data)
	}
	for c := range commits {
		fmt.Fprintf(w, "commit refs/heads/main\ncommitter bench <bench@localhost> %d +0000\ndata 2\nc\n", 1700000000+60*c)
		n := later
		if c == 0 {
			n = first
		}
		for _, name := range files[:n] {
			data, err := os.ReadFile(filepath.Join(src, name))
			if err != nil {
				return err
			}
			live[name] = bytes.Split(data, []byte("\n"))
			names = append(names, name)
			put(name)
		}
		files = files[n:]
		for range 3 {
			name := names[r.IntN(len(names))]
			lines := live[name]
			lines[r.IntN(len(lines))] = fmt.Appendf(nil, "// line %d", r.Uint32())
			put(name)
		}
		if c%20 == 19 {
			i := r.IntN(len(names))
			fmt.Fprintf(w, "D %s\n", names[i])
			names = slices.Delete(names, i, i+1)
		}
	}
	return w.Flush()
}

// gitOut runs git in a repository and gives what it prints.
func gitOut(repo string, args ...string) (string, error) {
	c := exec.Command("git", append([]string{"-C", repo}, args...)...)
	c.Stderr = os.Stderr
	c.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	out, err := c.Output()
	return strings.TrimSpace(string(out)), err
}
