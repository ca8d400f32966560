package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// place is where worktrees of one benchmark go: a fresh directory for every run, removed at the end, because ext4 is slow to reuse inodes that were just deleted.
type place struct{ name, dir string }

func places(dir string) []place { return []place{{"tmpfs", "/dev/shm"}, {"disk", dir}} }

// ours is how run-task brings a directory to a commit.
func ours(binary, url, sha, dir string, depth int) []string {
	args := []string{binary, "checkout", "--repo", url, "--sha", sha, "--depth", fmt.Sprint(depth)}
	if os.Getuid() == 0 {
		args = append(args, "--user", "root")
	}
	return append(args, dir)
}

// gitWay is one of the ways in which a CI does it with git. git offers what it has only of refs: after a fetch of a SHA alone it has none.
type gitWay struct {
	name, ref string   // ref is where the commit is fetched to; "" is FETCH_HEAD
	options   []string // of git fetch
}

var (
	toRef       = gitWay{name: "git fetch to a ref", ref: "refs/ci/head"}
	toFetchHead = gitWay{name: "git fetch, FETCH_HEAD"}
	noTags      = gitWay{name: "git fetch --no-tags", ref: "refs/ci/head", options: []string{"--no-tags"}}
)

func (g gitWay) steps(url, sha, dir string, depth int) [][]string {
	fetch := append([]string{"git", "-C", dir, "fetch", "-q"}, g.options...)
	if depth > 0 {
		fetch = append(fetch, fmt.Sprintf("--depth=%d", depth))
	}
	spec, head := sha, "FETCH_HEAD"
	if g.ref != "" {
		spec, head = "+"+sha+":"+g.ref, g.ref
	}
	return [][]string{append(fetch, url, spec), {"git", "-C", dir, "checkout", "-q", "-f", "--detach", head}}
}

func clean(dir string) []string { return []string{"git", "-C", dir, "clean", "-ffdxq"} }

// move is the way of a worktree from one commit, where its own tool brought it before and unmeasured, to another. Where from is "" the directory is new.
type move struct {
	title, from, to string
	depth           int
	wrap            []string // what each command is run by
	git             []gitWay
}

func (m move) sides(binary, work, url string) (sides []*side, dirs []string) {
	add := func(name string, steps func(sha, dir string) [][]string) {
		base := filepath.Join(work, fmt.Sprintf("%d-", len(sides)))
		dirs = append(dirs, base+"0")
		sides = append(sides, &side{name: name, prepare: func(run int) ([][]string, error) {
			dir, before := base+fmt.Sprint(run), m.from
			if before != "" {
				if err := inTurn(steps(before, dir)); err != nil {
					return nil, err
				}
			}
			syscall.Sync() // else who syncs next pays for what others wrote
			out := steps(m.to, dir)
			for i := range out {
				out[i] = append(append([]string{}, m.wrap...), out[i]...)
			}
			return out, nil
		}})
	}
	for _, g := range m.git {
		add(g.name, func(sha, dir string) [][]string {
			steps := g.steps(url, sha, dir, m.depth)
			if _, err := os.Stat(dir); err != nil {
				return append([][]string{{"git", "init", "-q", dir}}, steps...)
			}
			return append(steps, clean(dir))
		})
	}
	add("run-task", func(sha, dir string) [][]string { return [][]string{ours(binary, url, sha, dir, m.depth)} })
	return sides, dirs
}

// measure compares in a fresh directory of a place, and then whether all sides have the same commit and the same files.
func (m move) measure(runs int, binary string, p place, s *server, repo string) error {
	work, err := os.MkdirTemp(p.dir, "run-task-bench")
	if err != nil {
		fmt.Printf("%s: %v: left out\n", p.dir, err)
		return nil
	}
	defer os.RemoveAll(work)
	sides, dirs := m.sides(binary, work, s.URL+"/"+repo)
	if err := s.compare(fmt.Sprintf("%s, %s, %s", m.title, s.name, p.name), runs, sides...); err != nil {
		return err
	}
	return same(m.to, dirs...)
}

// inTurn runs what is not measured.
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

// same fails unless every directory is a clean worktree of the commit and all hold the same files. git status alone believes the index.
func same(sha string, dirs ...string) error {
	var first map[string]string
	for _, d := range dirs {
		head, err := gitOut(d, "rev-parse", "HEAD")
		if err != nil {
			return err
		}
		status, err := gitOut(d, "status", "--porcelain", "--ignored")
		if err != nil {
			return err
		}
		if head != sha || status != "" {
			return fmt.Errorf("%s is at %s, not %s, or not clean:\n%s", d, head, sha, status)
		}
		files, err := contents(d)
		if err != nil {
			return err
		}
		if first == nil {
			first = files
		}
		if len(files) == 0 || !maps.Equal(first, files) {
			return fmt.Errorf("%s and %s hold different files", dirs[0], d)
		}
	}
	return nil
}

// contents is the type, executable bit and hash of every file of a worktree.
func contents(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.Name() == ".git":
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case e.IsDir():
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		var data []byte
		if e.Type() == fs.ModeSymlink {
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			data = []byte(to)
		} else if data, err = os.ReadFile(p); err != nil {
			return err
		}
		files[p[len(dir):]] = fmt.Sprintf("%v %v %x", e.Type(), info.Mode()&0o100, sha256.Sum256(data))
		return nil
	})
	return files, err
}
