//go:build linux

package tests

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"run-task/tests/gitserver"
)

// ignoringRepo has two commits with different .gitignore files, and tracked files that these name.
func ignoringRepo(t *testing.T) *repo {
	t.Helper()
	r := &repo{Path: filepath.Join(tempDir(t), "ignoring.git"), SHA: map[string]string{}}
	mkdirAll(t, r.Path)
	gitserver.Git(t, r.Path, "init", "-q", "--bare")
	var in strings.Builder
	for i, files := range []map[string]string{{
		".gitignore": "*.o\nbuild/\n/cache\n!keep.o\nnode_modules/\n*.log\ndeps\n/was-ignored\n", "src/main.c": "", "src/.gitignore": "gen/*\n!gen/want.txt\n*.tmp\n", "src/gen/want.txt": "",
		"build/tracked": "", "build/sub/tracked": "", "lib/x.o": "", "lib/z": "", "was/tracked.log": "", "was/plain": "", "old/.gitignore": "*.local\n", "old/file": "",
		"becomes/dir/file": "", "file2dir": "", "was-ignored/file": "", "both/.gitignore": "*.one\n", "both/file": "",
	}, {
		".gitignore": "*.o\nbuild/\n/cache\nnode_modules/\n*.cfg\n/file2dir/*\n", "src/main.c": "", "src/.gitignore": "gen/*\n!gen/want.txt\n", "src/gen/want.txt": "",
		"build/tracked": "", "lib/z": "", "was/plain": "", "out.o": "", "deps/a": "", "becomes": "", "file2dir/inner": "", "both/file": "",
	}} {
		fmt.Fprintf(&in, "commit refs/heads/main\ncommitter A <a@example.com> %d +0000\ndata 1\nx\ndeleteall\n", 1700000000+i)
		for path, data := range files {
			if data == "" {
				data = fmt.Sprintf("%d %s\n", i, path)
			}
			fmt.Fprintf(&in, "M 644 inline %s\ndata %d\n%s\n", path, len(data), data)
		}
		fmt.Fprintf(&in, "M 160000 %040d module\n", 7)
	}
	gitserver.GitInput(t, r.Path, strings.NewReader(in.String()), "fast-import", "--quiet")
	r.SHA["first"], r.SHA["second"] = gitserver.Git(t, r.Path, "rev-parse", "main^"), gitserver.Git(t, r.Path, "rev-parse", "main")
	return r
}

// litter leaves what tasks leave, of all kinds that git clean tells apart.
func litter(t *testing.T, src string) {
	t.Helper()
	for _, path := range []string{
		"stray", "stray.o", "keep.o", "cache", "build/junk", "build/sub/junk", "build/deep/er/x", "src/a.o", "src/a.tmp", "src/a.log", "src/a.cfg", "src/gen/x", "src/gen/d/y", "src/gen/d/want.txt",
		"node_modules/p/index.js", "src/node_modules/q/index.js", "new/dir/a.o", "new/dir/b", "new/only/c.o", "new/cache", "was/other.log", "was/tracked.log", "lib/x.o", "lib/y.o", "lib/cache/z",
		"old/some.local", "old/other", "old/deep/some.local", "both/x.one", "was-ignored/more", "odd\nname.o", "odd\xff", "deps2/deps/x", "a.o/in/side", "lost.o/file", "file2dir.o",
	} {
		plant(t, src+"/"+path, "littered")
	}
	plant(t, src+"/selfish/.gitignore", "*\n")
	plant(t, src+"/selfish/x/y", "littered")
	plant(t, src+"/less/.gitignore", "*.q\n!in/\n")
	plant(t, src+"/less/a.q", "littered")
	plant(t, src+"/less/in/b.q", "littered")
	plant(t, src+"/less/in/c", "littered")
	plant(t, src+"/.gitignore", "*\n") // of the commit's, but dirty
	mkdirAll(t, src+"/empty/dir")
	mkdirAll(t, src+"/build/empty")
	for _, nested := range []string{"nested", "new/nested", "build/nested", "node_modules/nested", "less/nested"} {
		mkdirAll(t, src+"/"+nested+"/.git/objects")
		mkdirAll(t, src+"/"+nested+"/.git/refs")
		plant(t, src+"/"+nested+"/.git/HEAD", "ref: refs/heads/main\n")
		plant(t, src+"/"+nested+"/a.o", "littered")
		plant(t, src+"/"+nested+"/file", "littered")
	}
	for link, target := range map[string]string{"new/link": "/etc", "src/link.o": "main.c", "lib/node_modules": "../build", "to-build": "build"} {
		if err := os.Symlink(target, src+"/"+link); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	own(t, src)
	for _, dir := range []string{"node_modules/p", "new/dir"} {
		if err := os.Chmod(src+"/"+dir, 0o555); err != nil {
			t.Fatal(err)
		}
	}
}

// inTheWay puts what git ignores where a commit has something else.
func inTheWay(t *testing.T, src string) {
	t.Helper()
	for _, path := range []string{"out.o", "deps", "becomes", "file2dir", "lib/z", "build/tracked", "src"} {
		os.RemoveAll(src + "/" + path)
	}
	for _, path := range []string{"out.o/inner/x.o", "deps", "becomes/x.o", "file2dir/x.o", "lib/z/x.o", "build/tracked/x", "src"} {
		plant(t, src+"/"+path, "in the way")
	}
	own(t, src)
}

// keep-ignored leaves what native git would: git checkout --force and then git clean -ffd.
func TestKeepIgnored(t *testing.T) {
	t.Parallel()
	r := ignoringRepo(t)
	for _, dirty := range []func(*testing.T, string){litter, inTheWay} {
		for _, path := range [][2]string{{"first", "second"}, {"second", "first"}, {"first", "first"}, {"second", "second"}} {
			t.Run(path[0]+" "+path[1], func(t *testing.T) {
				t.Parallel()
				dir := tempDir(t)
				src, copied := dir+"/src", dir+"/copy"
				clean := func(name string) {
					t.Helper()
					mustCheckOut(t, dir, "--checkout", "src,clean=keep-ignored", "--repo", r.Path, "--sha", r.SHA[name], "--depth", "0")
				}
				clean(path[0])
				dirty(t, src)
				if out, err := exec.Command("cp", "-a", src, copied).CombinedOutput(); err != nil {
					t.Fatalf("%s%v", out, err)
				}
				gitserver.Git(t, copied, "fetch", "-q", r.Path, r.SHA[path[1]])
				gitserver.Git(t, copied, "checkout", "-q", "-f", "--detach", r.SHA[path[1]])
				for range 2 { // what a stray .gitignore named goes one time after it
					gitserver.Git(t, copied, "clean", "-ffdq")
					clean(path[1])
					if diff := unlike(filesOf(t, src), filesOf(t, copied)); diff != "" {
						t.Errorf("it has (+) and git left (-)\n%s", diff)
					}
				}
				if out, err := native(src, nil, "status", "--porcelain"); err != nil || out != "" {
					t.Errorf("git status: %s, %v", out, err)
				}
			})
		}
	}
}

// none leaves what is not in the way; but what the earlier commit had and this one has not goes, as it does with git checkout.
func TestCleanNone(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	dir := tempDir(t)
	src := dir + "/src"
	move := func(name string) {
		t.Helper()
		mustCheckOut(t, dir, "--checkout", "src,clean=none", "--repo", r.Path, "--sha", r.SHA[name])
	}
	status := func(want ...string) {
		t.Helper()
		got, err := native(src, nil, "status", "--porcelain", "--ignored", "--untracked-files=all")
		if err != nil || got != strings.Join(want, "\n") {
			t.Errorf("git status: %q, %v; want %q", got, err, want)
		}
	}
	move("first")
	status()
	strays := []string{"becomes-file/stray", "deep/stray", "new/.git/HEAD", "new/stray", "stray", "x.o"}
	for _, path := range strays {
		plant(t, src+"/"+path, "mine")
	}
	os.Remove(src + "/link")
	plant(t, src+"/link/in/the/way", "x")
	plant(t, src+"/README", "dirt")
	own(t, src)
	before := inodes(t, src)
	move("first")
	status("?? becomes-file/stray", "?? deep/stray", "?? new/stray", "?? stray", "?? x.o")
	move("tip") // which has a file becomes-file, and .gitignore names *.o
	status("?? deep/stray", "?? new/stray", "?? stray", "!! x.o")
	move("first") // which has no .gitignore and no directory becomes-dir
	status("?? deep/stray", "?? new/stray", "?? stray", "?? x.o")
	for path, was := range inodes(t, src) {
		if slices.Contains(strays, path) && was != before[path] {
			t.Errorf("%s was touched", path)
		}
	}
	for _, gone := range []string{".gitignore", "becomes-dir/inner", "becomes-file/stray", "link/in"} {
		if _, err := os.Lstat(src + "/" + gone); err == nil {
			t.Errorf("%s is still there", gone)
		}
	}
	mustCheckOut(t, dir, "--checkout", "src", "--repo", r.Path, "--sha", r.SHA["first"])
	judge(t, src, r.SHA["first"])
}

// With a narrower cone what is no longer in it goes, and so does what stands at the path of a file outside of it; strays stay.
func TestCleanOutsideOfTheCone(t *testing.T) {
	t.Parallel()
	r := coneRepo(t)
	for mode, want := range map[string]string{"none": "?? big/stray\n?? c/d/stray\n?? in/stray\n!! big/stray.o", "keep-ignored": "!! big/stray.o"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			src := dir + "/src"
			move := func(dirs ...string) {
				t.Helper()
				mustCheckOut(t, dir, "--checkout", sparseSpec(r.Path, r.SHA["first"], dirs, "clean="+mode))
			}
			status := func() {
				t.Helper()
				got, err := native(src, nil, "status", "--porcelain", "--ignored", "--untracked-files=all")
				if err != nil || got != want {
					t.Errorf("git status: %s, %v; want %s", got, err, want)
				}
				if tags, _ := native(src, nil, "ls-files", "-t", "big", "c/d", "in"); strings.Contains(tags, "H ") || strings.HasPrefix(tags, "H") {
					t.Errorf("in the worktree are\n%s", tags)
				}
			}
			move()
			for _, path := range []string{"big/stray", "big/stray.o", "c/d/stray", "in/stray"} {
				plant(t, src+"/"+path, "mine")
			}
			own(t, src)
			move("a")
			status()
			for _, sealed := range []bool{true, false} { // the second time nobody knows what the earlier run left
				plant(t, src+"/big/f0", "not what the commit has")
				plant(t, src+"/big/f1/x.o", "a directory where the commit has a file")
				plant(t, src+"/c/d/e/file", "first c/d/e/file\n")
				own(t, src)
				if !sealed {
					os.Remove(src + "/.git/run-task/seal.json")
				}
				for range 2 {
					move("a")
					status()
				}
			}
		})
	}
}

// modes are the permissions of all that is in a worktree but .git and links.
func modes(t *testing.T, src string) map[string]fs.FileMode {
	t.Helper()
	all := map[string]fs.FileMode{}
	err := filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == src+"/.git" {
			return cmp.Or(err, fs.SkipDir)
		}
		info, err := d.Info()
		if err == nil && d.Type()&fs.ModeSymlink == 0 {
			all[strings.TrimPrefix(path, src)] = info.Mode()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Nobody but root can write into a read-only worktree, and the next run can move it.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	var in strings.Builder
	fmt.Fprintf(&in, "commit refs/heads/ro\ncommitter A <a@example.com> 1700000900 +0000\ndata 1\nx\nfrom %s\nM 160000 %040d deep/module\n", r.SHA["tip"], 3)
	gitserver.GitInput(t, r.Path, strings.NewReader(in.String()), "fast-import", "--quiet")
	r.SHA["module"] = gitserver.Git(t, r.Path, "rev-parse", "ro")
	url := gitserver.HTTP(t, filepath.Dir(r.Path), gitserver.Options{}) + "/repo.git"
	for clean, umasks := range map[string][]int{"all": {0o022, 0o077, 0}, "keep-ignored": {0o022}, "none": {0o022}} {
		for _, umask := range umasks {
			t.Run(fmt.Sprintf("%03o %s", umask, clean), func(t *testing.T) {
				t.Parallel()
				dir := tempDir(t)
				src := dir + "/src"
				own(t, dir)
				run := func(name, readonly string) (said string) { // as the user from the start: who drops root gets another umask
					t.Helper()
					c := &command{dir: dir, args: []string{"/bin/sh", "-c", fmt.Sprintf(`umask %03o; exec "$0" "$@"`, umask), binary, "--checkout", "src,clean=" + clean + ",readonly=" + readonly, "--repo", url, "--sha", r.SHA[name], "--", "probe", "exit", "0"}}
					if os.Getuid() == 0 {
						c.enter = []string{"user", "1000", "1000"}
					}
					code, _, said := c.run(t)
					if code != 0 {
						t.Fatalf("exit %d\n%s", code, said)
					}
					return said
				}
				check := func(name string, readOnly bool) {
					t.Helper()
					for args, want := range map[string]string{"status --porcelain --ignored": "", "rev-parse HEAD": r.SHA[name]} {
						if got, err := native(src, nil, strings.Fields(args)...); err != nil || got != want {
							t.Errorf("git %s: %q, %v", args, got, err)
						}
					}
					for path, mode := range modes(t, src) {
						want := fs.FileMode(0o666)
						if mode.IsDir() || path == "/run.sh" && name == "first" {
							want = 0o777
						}
						want &^= fs.FileMode(umask)
						if readOnly && mode.Perm() != want&^0o222 || !readOnly && mode.Perm()&0o200 == 0 || mode.Perm()&0o111 != want&0o111 {
							t.Errorf("%q is %v, the umask %03o", path, mode, umask)
						}
					}
				}
				run("module", "true")
				check("module", true)
				judge(t, src, r.SHA["module"])
				for _, c := range [][]string{{"sh", "-c", "echo x >>README"}, {"touch", "deep/new"}, {"touch", "new"}, {"touch", "deep/module/new"}, {"rm", "-f", "README"}, {"mv", "run.sh", "gone"}} {
					if os.Getuid() != 0 {
						break // then we are the one who cannot
					}
					cmd := &command{args: slices.Concat([]string{"/usr/bin/env"}, c), dir: src, enter: []string{"user", "1000", "1000"}}
					if code, _, stderr := cmd.run(t); code == 0 || !strings.Contains(stderr, "Permission denied") {
						t.Errorf("%q: exit %d\n%s", c, code, stderr)
					}
				}
				before := inodes(t, src)
				index := snapshot(t, src+"/.git/index")
				for range 2 {
					if said := run("module", "true"); !strings.Contains(said, " 0 written, 0 removed, pin") {
						t.Errorf("said:\n%s", said)
					}
					if diff := unlike(snapshot(t, src+"/.git/index"), index); diff != "" {
						t.Errorf("the index was written again\n%s", diff)
					}
					check("module", true)
				}
				run("first", "true")
				check("first", true)
				run("module", "true")
				check("module", true)
				run("module", "false")
				check("module", false)
				run("module", "true")
				check("module", true)
				run("first", "false")
				check("first", false)
				for path, was := range inodes(t, src) {
					if path == "deep/er/est/file" && was != before[path] {
						t.Errorf("%s was written again", path)
					}
				}
			})
		}
	}
}

// What a task made writable or changed is found, also where the metadata of a read-only file alone differ.
func TestReadOnlyDirt(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	dir := tempDir(t)
	src := dir + "/src"
	run := func() {
		t.Helper()
		mustCheckOut(t, dir, "--checkout", "src,readonly=true", "--repo", r.Path, "--sha", r.SHA["tip"])
		judge(t, src, r.SHA["tip"])
		for path, mode := range modes(t, src) {
			if mode.Perm()&0o222 != 0 {
				t.Errorf("%q is %v", path, mode)
			}
		}
	}
	run()
	before := inodes(t, src)
	for path, mode := range modes(t, src) {
		if err := os.Chmod(src+path, mode|0o222); err != nil {
			t.Fatal(err)
		}
	}
	run()
	if !maps.Equal(inodes(t, src), before) {
		t.Error("files were written again")
	}
	os.Chmod(src, 0o755)
	os.Chmod(src+"/deep", 0o755)
	plant(t, src+"/deep/stray", "x")
	plant(t, src+"/README", "dirt")
	own(t, src+"/deep")
	own(t, src+"/README")
	os.Chmod(src+"/deep", 0o555)
	run()
}

// In a directory that belongs to somebody else all but the directory itself is read-only, and a line says so.
func TestReadOnlyInAForeignDirectory(t *testing.T) {
	t.Parallel()
	needRoot(t)
	r := newRepo(t)
	dir := tempDir(t)
	src := dir + "/src"
	mkdirAll(t, src)
	if err := os.Chmod(src, 0o777); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c := &command{dir: dir, enter: []string{"user", "1000", "1000"},
			args: []string{"run-task", "--checkout", "src,readonly=true", "--repo", r.Path, "--sha", r.SHA["tip"], "--", "probe", "exit", "0"}}
		code, _, said := c.run(t)
		if code != 0 || !strings.Contains(said, "stays writable") {
			t.Errorf("exit %d\n%s", code, said)
		}
		for path, mode := range modes(t, src) {
			if (path == "") != (mode.Perm()&0o222 != 0) {
				t.Errorf("%q is %v", path, mode)
			}
		}
	}
	judge(t, src, r.SHA["tip"])
}
