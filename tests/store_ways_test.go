//go:build linux

package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"run-task/tests/gitserver"
)

// A mirror or another store on the machine gives the commit without the server, and is believed no more than that.
func TestSeeds(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	mirror, other := s.dir+"/mirror", s.dir+"/other"
	gitserver.Git(t, s.dir, "clone", "-q", "--mirror", s.repo.Path, mirror)
	gitserver.Git(t, mirror, "repack", "-adq")
	mustCheckOut(t, s.dir, "--git-store", other, "--repo", s.url, "--sha", s.repo.SHA["tip"], "--checkout", "x")
	mustCheckOut(t, s.dir, "--git-store", other, "--repo", s.url, "--sha", s.repo.SHA["tip"], "--depth", "0", "--checkout", "x")
	s.take()
	for _, c := range []struct {
		name  string
		args  []string
		seeds []string
		here  bool
	}{
		{"mirror", nil, []string{mirror}, true},
		{"mirror, all of the history", []string{"--depth", "0"}, []string{mirror}, true},
		{"store", nil, []string{other}, true},
		{"store, all of the history", []string{"--depth", "0"}, []string{other}, true},
		{"store of another label", []string{"--trust", "another"}, []string{other}, false},
		{"the second one", nil, []string{s.dir + "/nothing", mirror}, true},
		{"nothing", nil, []string{s.dir}, false},
	} {
		for _, store := range []bool{true, false} {
			args := slices.Concat([]string{"--repo", s.url, "--sha", s.repo.SHA["tip"]}, c.args)
			for _, seed := range c.seeds {
				args = append(args, "--git-seed", seed)
			}
			if store {
				args = append(args, "--git-store", s.dir+"/store")
			} else if slices.Contains(args, "--trust") {
				continue
			}
			remove(s.dir + "/store")
			remove(s.dir + "/src")
			out := mustCheckOut(t, s.dir, append(args, "--checkout", "src")...)
			judge(t, s.dir+"/src", s.repo.SHA["tip"])
			if n, _ := s.take(); (n == 0) != c.here || strings.Contains(out, ", seed, ") != c.here {
				t.Errorf("%s: %d requests\n%s", c.name, n, out)
			}
		}
	}
	for _, seed := range []string{mirror, other} {
		packs, _ := filepath.Glob(seed + "/objects/pack/*.pack")
		more, _ := filepath.Glob(seed + "/*/objects/pack/*.pack")
		if packs = append(packs, more...); len(packs) == 0 {
			t.Fatal("no packs in", seed)
		}
		for _, name := range packs {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for i := 20; i < len(data)-20; i += 7 {
				data[i] ^= 0x11
			}
			os.Remove(name)
			plant(t, name, string(data))
		}
		remove(s.dir + "/src")
		mustCheckOut(t, s.dir, "--repo", s.url, "--sha", s.repo.SHA["tip"], "--git-seed", seed, "--checkout", "src")
		judge(t, s.dir+"/src", s.repo.SHA["tip"])
		if n, _ := s.take(); n == 0 {
			t.Errorf("%s is damaged, and was believed", seed)
		}
	}
}

// With alternates=true the objects stay in the store, and git finds them there.
func TestAlternates(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	borrow := func(commit string) {
		t.Helper()
		mustCheckOut(t, s.dir, "--git-store", s.dir+"/store", "--checkout", "src,alternates=true,depth=0,repo="+s.url+",sha="+s.repo.SHA[commit])
		judge(t, s.dir+"/src", s.repo.SHA[commit])
		if packs, _ := filepath.Glob(s.dir + "/src/.git/objects/pack/*"); len(packs) > 0 {
			t.Errorf("it has packs of its own: %q", packs)
		}
		if file, err := os.ReadFile(s.dir + "/src/.git/objects/info/alternates"); err != nil || string(file) != s.glob("objects")[0]+"\n" {
			t.Errorf("alternates is %q, %v", file, err)
		}
	}
	borrow("tip")
	before := inodes(t, s.dir+"/src")
	borrow("tip")
	for path, was := range inodes(t, s.dir+"/src") {
		if was != before[path] {
			t.Errorf("%s was written again", path)
		}
	}
	borrow("first")
	mustCheckOut(t, s.dir, s.args("src", "tip", "--depth", "0")...)
	judge(t, s.dir+"/src", s.repo.SHA["tip"])
	if _, err := os.Lstat(s.dir + "/src/.git/objects/info/alternates"); err == nil {
		t.Error("alternates is still there")
	}
	remove(s.dir + "/store")
	judge(t, s.dir+"/src", s.repo.SHA["tip"])
}

// Where the file system can, worktrees share the store's blocks and nothing else.
func TestReflinks(t *testing.T) {
	t.Parallel()
	needRoot(t)
	mkfs, err := exec.LookPath("mkfs.xfs")
	if err != nil {
		skip(t, t.Name(), "needs mkfs.xfs")
	}
	s := newShop(t)
	image, disk := s.dir+"/image", s.dir+"/disk"
	mkdirAll(t, disk)
	plant(t, image, "")
	if err := os.Truncate(image, 512<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-q", "-m", "reflink=1", image).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, disk).CombinedOutput(); err != nil {
		skip(t, t.Name(), "no loop device: "+strings.TrimSpace(string(out)))
	}
	t.Cleanup(func() { exec.Command("umount", disk).Run() })
	own(t, disk)
	repo, shas := steps(t, 1)
	url := gitserver.HTTP(t, filepath.Dir(repo), gitserver.Options{}) + "/" + filepath.Base(repo)
	for _, dir := range []string{"one", "two"} {
		mustCheckOut(t, disk, "--git-store", disk+"/store", "--repo", url, "--sha", shas[0], "--checkout", dir)
		judge(t, disk+"/"+dir, shas[0])
		packs, _ := filepath.Glob(disk + "/" + dir + "/.git/objects/pack/*.pack")
		if out, err := exec.Command("filefrag", append([]string{"-v"}, packs...)...).CombinedOutput(); err != nil || !strings.Contains(string(out), "shared") {
			t.Errorf("%s shares nothing: %v\n%s", dir, err, out)
		}
		if err := os.WriteFile(packs[0]+".x", nil, 0o644); err != nil {
			t.Error(err)
		}
		os.Remove(packs[0] + ".x")
	}
	// What a task does to its own pack is not done to the store's.
	packs, _ := filepath.Glob(disk + "/one/.git/objects/pack/*.pack")
	os.Chmod(packs[0], 0o644)
	if err := os.WriteFile(packs[0], []byte("spoilt"), 0o644); err != nil {
		t.Fatal(err)
	}
	mustCheckOut(t, disk, "--git-store", disk+"/store", "--repo", url, "--sha", shas[0], "--checkout", "three")
	judge(t, disk+"/three", shas[0])
}

// Hashes of parts of the tree are what git rev-parse COMMIT:PATH says, in the environment and in the file for later tasks.
func TestExportedTrees(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	args := slices.Concat([]string{"run-task"}, asUser(), s.args("src", "tip", "--export-tree", "deep/er", "--export-tree", "run.sh", "--export-env", "src/out.env"), []string{"--", "probe"})
	got := (&command{args: args, dir: s.dir}).must(t)
	file, err := os.ReadFile(s.dir + "/src/out.env")
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"CHECKOUT_TREE": "", "CHECKOUT_TREE_DEEP_ER": "deep/er", "CHECKOUT_TREE_RUN_SH": "run.sh"} {
		id := gitserver.Git(t, s.repo.Path, "rev-parse", s.repo.SHA["tip"]+":"+path)
		line := name + "=" + id
		if !slices.Contains(strings.Split(got, "\n"), "env."+line) {
			t.Errorf("the environment has no %s:\n%s", line, got)
		}
		if !slices.Contains(strings.Split(string(file), "\n"), line) {
			t.Errorf("the file has no %s:\n%s", line, file)
		}
	}
	if code, out := checkOut(t, s.dir, s.args("src", "tip", "--export-tree", "deep/none")...); code != 64 || !strings.Contains(out, "deep/none") {
		t.Errorf("exit %d\n%s", code, out)
	}
	// A read again, of the fast path.
	(&command{args: args, dir: s.dir}).must(t)
}
