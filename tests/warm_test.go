//go:build linux

package tests

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"run-task/tests/gitserver"
)

// counter counts what a server is asked and what it sends.
type counter struct {
	requests, bytes atomic.Int64
	down            atomic.Bool
}

func (c *counter) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.requests.Add(1)
		if c.down.Load() {
			http.Error(w, "down", http.StatusForbidden)
			return
		}
		next.ServeHTTP(counting{w, c}, r)
	})
}

type counting struct {
	http.ResponseWriter
	*counter
}

func (c counting) Write(b []byte) (int, error) {
	c.bytes.Add(int64(len(b)))
	return c.ResponseWriter.Write(b)
}

// take is what has come since the last time.
func (c *counter) take() (requests, bytes int64) { return c.requests.Swap(0), c.bytes.Swap(0) }

// steps is a repository of n commits in a row, each of which changes one of many files that do not compress.
func steps(t *testing.T, n int) (path string, shas []string) {
	t.Helper()
	path = filepath.Join(tempDir(t), "steps.git")
	mkdirAll(t, path)
	gitserver.Git(t, path, "init", "-q", "--bare")
	random := rand.NewChaCha8([32]byte{7})
	var in strings.Builder
	for i := range n {
		fmt.Fprintf(&in, "commit refs/heads/main\nmark :%d\ncommitter A <a@example.com> %d +0000\ndata 1\nx\n", i+1, 1700000000+i)
		for k := range 60 {
			if i > 0 && k != i%60 {
				continue
			}
			data := make([]byte, 4000)
			random.Read(data)
			fmt.Fprintf(&in, "M 644 inline d%d/e%d/f%d\ndata %d\n%s\n", k%7, k%3, k, len(data), data)
		}
	}
	gitserver.GitInput(t, path, strings.NewReader(in.String()), "fast-import", "--quiet", "--export-marks=marks")
	marks, err := os.ReadFile(path + "/marks")
	if err != nil {
		t.Fatal(err)
	}
	shas = make([]string, n)
	for line := range strings.Lines(string(marks)) {
		var mark int
		var sha string
		fmt.Sscanf(line, ":%d %s", &mark, &sha)
		shas[mark-1] = sha
	}
	gitserver.Git(t, path, "repack", "-adq")
	return path, shas
}

// inodes tells which file stands at each path, and when it was written.
func inodes(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.Contains(p, "/.git/") {
			return err
		}
		info, err := e.Info()
		if err == nil {
			all[strings.TrimPrefix(p, root+"/")] = fmt.Sprint(info.Sys().(*syscall.Stat_t).Ino, info.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The next commit costs what has changed: on the network, and in the worktree. A commit that is here costs no connection.
func TestNextCommit(t *testing.T) {
	t.Parallel()
	repo, shas := steps(t, 12)
	for _, depth := range []string{"1", "3", "0"} {
		t.Run("depth "+depth, func(t *testing.T) {
			var c counter
			url := gitserver.HTTP(t, filepath.Dir(repo), gitserver.Options{Wrap: c.wrap}) + "/steps.git"
			dir := tempDir(t)
			src := dir + "/src"
			move := func(i int) (requests, bytes int64) {
				t.Helper()
				mustCheckOut(t, dir, "--checkout", "src", "--repo", url, "--sha", shas[i], "--depth", depth)
				judge(t, src, shas[i])
				return c.take()
			}
			_, whole := move(5)
			before := inodes(t, src)
			if _, bytes := move(8); bytes > whole/8 {
				t.Errorf("3 of 60 files took %d bytes, all of them %d", bytes, whole)
			}
			changed := 0
			for path, was := range inodes(t, src) {
				if was != before[path] {
					changed++
				}
			}
			if changed != 3 {
				t.Errorf("%d files were written, not 3", changed)
			}
			for _, i := range []int{8, 5, 8} {
				if requests, _ := move(i); requests != 0 && depth != "0" {
					t.Errorf("commit %d, which is here, took %d requests", i, requests)
				}
			}
			// A commit whose history would have to be deepened, and forward again.
			for _, i := range []int{4, 11, 0} {
				move(i)
			}
			if out, err := native(src, nil, "fsck", "--full", "--strict"); err != nil {
				t.Error(out, err)
			}
			count, _ := native(src, nil, "rev-list", "--count", "HEAD")
			if count != "1" {
				t.Errorf("%s commits lead to the first", count)
			}
		})
	}
}

// A server that is down does not matter if all is here; the tags of all history are worth a question.
func TestNothingToDo(t *testing.T) {
	t.Parallel()
	repo, shas := steps(t, 3)
	var c counter
	url := gitserver.HTTP(t, filepath.Dir(repo), gitserver.Options{Wrap: c.wrap}) + "/steps.git"
	dir := tempDir(t)
	src := dir + "/src"
	args := []string{"--checkout", "src", "--repo", url, "--sha", shas[2]}
	mustCheckOut(t, dir, args...)
	head, err := os.Stat(src + "/.git/HEAD")
	if err != nil {
		t.Fatal(err)
	}
	before := inodes(t, src)
	c.down.Store(true)
	for name, content := range map[string]string{"hooks/post-checkout": "evil", "objects/info/alternates": "/elsewhere", "config": "[core]\n\tfsmonitor = evil\n",
		"refs/heads/main": shas[0] + "\n", "index.lock": ""} {
		plant(t, src+"/.git/"+name, content)
		own(t, src+"/.git/"+name)
	}
	own(t, src+"/.git/hooks")
	if said := mustCheckOut(t, dir, args...); !strings.Contains(said, "60 files, 0 written, 0 removed, pin") {
		t.Errorf("said:\n%s", said)
	}
	judge(t, src, shas[2])
	for path, was := range inodes(t, src) {
		if was != before[path] {
			t.Errorf("%s was touched", path)
		}
	}
	if now, err := os.Stat(src + "/.git/HEAD"); err != nil || !os.SameFile(head, now) {
		t.Errorf("HEAD was taken away: %v", err)
	}
	for _, planted := range []string{"hooks", "objects/info/alternates", "refs/heads/main", "index.lock"} {
		if _, err := os.Lstat(src + "/.git/" + planted); err == nil {
			t.Errorf("%s is still there", planted)
		}
	}
	if config, _ := os.ReadFile(src + "/.git/config"); strings.Contains(string(config), "evil") {
		t.Errorf("config:\n%s", config)
	}
}

// Dirt of every kind in a worktree whose index and packs are as they were left.
func TestDirtInASealedWorktree(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	dir := tempDir(t)
	src := dir + "/src"
	args := []string{"--checkout", "src", "--repo", r.Path, "--sha", r.SHA["tip"]}
	for name, spoil := range map[string]func() error{
		"same size and time": func() error {
			st, err := os.Stat(src + "/README")
			plant(t, src+"/README", "THE TIP\n")
			if err == nil {
				err = os.Chtimes(src+"/README", st.ModTime(), st.ModTime())
			}
			return err
		},
		"in place": func() error {
			f, err := os.OpenFile(src+"/README", os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString("t")
			return err
		},
		"x bit":          func() error { return os.Chmod(src+"/README", 0o755) },
		"setuid":         func() error { return os.Chmod(src+"/run.sh", 0o4755) },
		"another link":   func() error { return os.Link(src+"/README", dir+"/second") },
		"gone":           func() error { return os.Remove(src + "/README") },
		"a link now":     func() error { os.Remove(src + "/README"); return os.Symlink("run.sh", src+"/README") },
		"another link's": func() error { os.Remove(src + "/link"); return os.Symlink("run.sh", src+"/link") },
		"a stray":        func() error { return os.WriteFile(src+"/deep/stray", nil, 0o644) },
		"a mapped page": func() error {
			f, err := os.OpenFile(src+"/README", os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			page, err := unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_WRITE, unix.MAP_SHARED)
			if err == nil {
				page[0] = 'T'
				err = unix.Munmap(page)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the second time the seal is the one that was kept
				mustCheckOut(t, dir, args...)
			}
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			own(t, src)
			mustCheckOut(t, dir, args...)
			judge(t, src, r.SHA["tip"])
			os.Remove(dir + "/second")
		})
	}
}

// What the seal says is right is wrong all the same: the next commit is fetched once more without it.
func TestBasesThatAreWrong(t *testing.T) {
	t.Parallel()
	repo, shas := steps(t, 4)
	url := gitserver.HTTP(t, filepath.Dir(repo), gitserver.Options{}) + "/steps.git"
	for name, spoil := range map[string]func(pack []byte){
		"an object's data": func(pack []byte) {
			for i := 500; i < len(pack)-500; i += 100 {
				pack[i] ^= 1
			}
		},
		"the trailer": func(pack []byte) { pack[len(pack)-1] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			src := dir + "/src"
			mustCheckOut(t, dir, "--checkout", "src", "--repo", url, "--sha", shas[0])
			packs, _ := filepath.Glob(src + "/.git/objects/pack/*.pack")
			if len(packs) != 1 {
				t.Fatal(packs)
			}
			pack, err := os.ReadFile(packs[0])
			if err != nil {
				t.Fatal(err)
			}
			spoil(pack)
			plant(t, packs[0], string(pack))
			own(t, packs[0])
			reseal(t, src, packs[0])
			mustCheckOut(t, dir, "--checkout", "src", "--repo", url, "--sha", shas[1])
			judge(t, src, shas[1])
		})
	}
}

// reseal makes a seal true that names the metadata of a pack.
func reseal(t *testing.T, src, pack string) {
	t.Helper()
	name := src + "/.git/run-task/seal.json"
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var seal map[string]any
	if err := json.Unmarshal(raw, &seal); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(pack, &st); err != nil {
		t.Fatal(err)
	}
	seal["packs"].([]any)[0] = []uint32{uint32(st.Ctim.Sec), uint32(st.Ctim.Nsec), uint32(st.Mtim.Sec), uint32(st.Mtim.Nsec), uint32(st.Dev), uint32(st.Ino), 0, st.Uid, st.Gid, uint32(st.Size)}
	if raw, err = json.Marshal(seal); err != nil {
		t.Fatal(err)
	}
	plant(t, name, string(raw))
	own(t, name)
}

// Packs do not gather for ever.
func TestManyMoves(t *testing.T) {
	t.Parallel()
	repo, shas := steps(t, 40)
	dir := tempDir(t)
	most := 0
	url := gitserver.HTTP(t, filepath.Dir(repo), gitserver.Options{}) + "/steps.git"
	for _, sha := range shas {
		mustCheckOut(t, dir, "--checkout", "src", "--repo", url, "--sha", sha)
		packs, _ := filepath.Glob(dir + "/src/.git/objects/pack/*.pack")
		most = max(most, len(packs))
	}
	judge(t, dir+"/src", shas[39])
	if most != 32 {
		t.Errorf("up to %d packs", most)
	}
	if out, err := native(dir+"/src", nil, "fsck", "--full", "--strict"); err != nil {
		t.Error(out, err)
	}
}

// What git does to its index in a task costs the next run nothing, and does not last.
func TestIndexOfATask(t *testing.T) {
	t.Parallel()
	repo, shas := steps(t, 3)
	dir := tempDir(t)
	src := dir + "/src"
	args := []string{"--checkout", "src", "--repo", repo, "--sha", shas[1]}
	mustCheckOut(t, dir, args...)
	before := inodes(t, src)
	for name, task := range map[string]func(){
		"status":  func() { plant(t, src+"/d0/e0/f0", "x"); gitserver.Git(t, src, "status") },
		"add":     func() { plant(t, src+"/new", "x"); gitserver.Git(t, src, "add", "-A") },
		"rm":      func() { gitserver.Git(t, src, "rm", "-q", "--cached", "d0/e0/f0") },
		"commit":  func() { gitserver.Git(t, src, "commit", "-q", "--allow-empty", "-m", "x") },
		"garbage": func() { plant(t, src+"/.git/index", "x") },
		"gone":    func() { os.Remove(src + "/.git/index") },
	} {
		task()
		own(t, src+"/.git")
		mustCheckOut(t, dir, args...)
		judge(t, src, shas[1])
		for path, was := range inodes(t, src) {
			if was != before[path] && path != "d0/e0/f0" {
				t.Errorf("%s: %s was written", name, path)
			}
		}
	}
}
