//go:build linux

package tests

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"run-task/tests/gitserver"
)

// family are repositories that have each other as submodules, below one directory and behind one server.
type family struct {
	*testing.T
	root, url string
	dates     int
}

func newFamily(t *testing.T, o gitserver.Options) *family {
	t.Helper()
	root := tempDir(t)
	return &family{T: t, root: root, url: gitserver.HTTP(t, root, o)}
}

// link is a submodule: what .gitmodules says about it, and its commit. Without lines .gitmodules does not know it.
type link struct{ sha, lines string }

func from(url, sha string) link { return link{sha, "\turl = " + url + "\n"} }

// commit makes the next commit of a repository, with nothing in it but that. .gitmodules is made from the links, whose names are their paths.
func (f *family) commit(repo string, files map[string]string, links map[string]link) (sha string) {
	f.Helper()
	bare := filepath.Join(f.root, repo)
	if _, err := os.Stat(bare); err != nil {
		mkdirAll(f.T, bare)
		gitserver.Git(f.T, bare, "init", "-q", "--bare")
	}
	var in strings.Builder
	f.dates++
	fmt.Fprintf(&in, "commit refs/heads/main\ncommitter A <a@example.com> %d +0000\ndata 1\nx\n", 1700000000+f.dates)
	if _, err := os.Stat(bare + "/refs/heads/main"); err == nil {
		in.WriteString("from refs/heads/main^0\n")
	}
	in.WriteString("deleteall\n")
	modules := ""
	for _, path := range slices.Sorted(maps.Keys(links)) {
		fmt.Fprintf(&in, "M 160000 %s %s\n", links[path].sha, quoteC(path))
		if links[path].lines != "" {
			modules += fmt.Sprintf("[submodule \"%s\"]\n\tpath = \"%s\"\n%s", path, path, links[path].lines)
		}
	}
	files = maps.Clone(files) // contents; "-> " makes a symbolic link
	if _, ok := files[".gitmodules"]; modules != "" && !ok {
		files[".gitmodules"] = modules
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if to, ok := strings.CutPrefix(files[path], "-> "); ok {
			fmt.Fprintf(&in, "M 120000 inline %s\ndata %d\n%s\n", quoteC(path), len(to), to)
			continue
		}
		fmt.Fprintf(&in, "M 644 inline %s\ndata %d\n%s\n", quoteC(path), len(files[path]), files[path])
	}
	gitserver.GitInput(f.T, bare, strings.NewReader(in.String()), "fast-import", "--quiet")
	return gitserver.Git(f.T, bare, "rev-parse", "main")
}

// levels makes top, which has lib and other/leaf, of which lib has deep/er, which has leaf.
func (f *family) levels() (top, lib string) {
	leaf := f.commit("other/leaf.git", map[string]string{"leaf": "leaf\n"}, nil)
	deep := f.commit("group/sub/deep", map[string]string{"deep": "deep\n", ".gitignore": "*.o\n"}, map[string]link{"le af": from("../../../other/leaf.git", leaf)})
	lib = f.commit("group/lib.git", map[string]string{"lib": "lib\n", "d/e": "e\n"}, map[string]link{"deep/er": from("../sub/deep", deep)})
	top = f.commit("group/top.git", map[string]string{"README": "top\n", "src/x": "x\n"}, map[string]link{"lib": from("../lib.git", lib), "src/other leaf": from(f.url+"/other/leaf.git", leaf)})
	return top, lib
}

func (f *family) checkOut(dir, repo, sha, keys string) (code int, said string) {
	f.Helper()
	return checkOut(f.T, dir, "--checkout", "src,"+keys, "--repo", f.url+"/"+repo, "--sha", sha)
}

func (f *family) must(dir, repo, sha, keys string) string {
	f.Helper()
	code, said := f.checkOut(dir, repo, sha, keys)
	if code != 0 {
		f.Fatalf("exit %d\n%s", code, said)
	}
	return said
}

// theirs is a worktree that native git made.
func (f *family) theirs(repo, sha string, recursive bool) string {
	f.Helper()
	theirs := filepath.Join(tempDir(f.T), "theirs")
	update := []string{"-C", theirs, "submodule", "--quiet", "update", "--init", "--force"}
	if recursive {
		update = append(update, "--recursive")
	}
	for _, args := range [][]string{{"clone", "-q", "--no-checkout", f.url + "/" + repo, theirs}, {"-C", theirs, "checkout", "-q", sha}, update} {
		if out, err := native(f.root, nil, args...); err != nil {
			f.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	return theirs
}

// judge compares a worktree with all its submodules with what native git makes, and has it look at each. Git finds nothing that it would do.
func (f *family) judge(src, repo, sha string, recursive bool) {
	f.Helper()
	theirs := f.theirs(repo, sha, recursive)
	status := []string{"submodule", "status"}
	if recursive {
		status = append(status, "--recursive")
	}
	if out, err := exec.Command("diff", "-r", "--no-dereference", "--exclude=.git", theirs, src).CombinedOutput(); err != nil {
		f.Errorf("diff: %v\n%s", err, out)
	}
	want, _ := native(theirs, nil, status...)
	got, err := native(src, nil, status...)
	if bare(got) != bare(want) || err != nil {
		f.Errorf("git submodule status, %v:\n%s\ngit's own:\n%s", err, got, want)
	}
	dirs := map[string]string{src: sha}
	for line := range strings.Lines(bare(got)) {
		if line[0] == ' ' {
			dirs[filepath.Join(src, strings.TrimSuffix(line[42:], "\n"))] = line[1:41]
		}
	}
	before := f.gits(dirs)
	for dir, at := range dirs {
		judge(f.T, dir, at)
	}
	if out, err := native(src, nil, slices.Concat([]string{"submodule", "update", "--init", "--no-fetch"}, status[2:])...); err != nil || out != "" {
		f.Errorf("git submodule update: %v\n%s", err, out)
	}
	if after := f.gits(dirs); !maps.Equal(after, before) {
		f.Errorf("git submodule update has something to change: %q, before %q", after, before)
	}
}

// bare takes the descriptions of commits off a list of submodules.
func bare(status string) string {
	var b strings.Builder
	for line := range strings.Lines(status) {
		line = strings.TrimSuffix(line, "\n")
		if i := strings.LastIndex(line, " ("); i > 0 {
			line = line[:i]
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

// gits has what counts of several .git directories.
func (f *family) gits(dirs map[string]string) map[string]string {
	f.Helper()
	all := map[string]string{}
	for dir := range dirs {
		for _, name := range []string{"config", "HEAD"} {
			data, err := os.ReadFile(dir + "/.git/" + name)
			if err != nil {
				f.Fatal(err)
			}
			all[dir+"/"+name] = string(data)
		}
		entries, _ := os.ReadDir(dir + "/.git")
		all[dir] = fmt.Sprint(entries)
	}
	return all
}

// Submodules in three levels, by relative URLs and others, are what git makes of them; a second run finds nothing to do and asks nobody, and finds what a
// task did to any of them.
func TestSubmodules(t *testing.T) {
	t.Parallel()
	count := &counter{}
	f := newFamily(t, gitserver.Options{Wrap: count.wrap})
	top, _ := f.levels()
	for mode, files := range map[string]string{"recursive": "src/lib/deep/er/le af/leaf", "top": "src/lib/lib", "none": "src/README"} {
		t.Run(mode, func(t *testing.T) {
			f := &family{T: t, root: f.root, url: f.url}
			dir := tempDir(t)
			src := dir + "/src"
			said := f.must(dir, "group/top.git", top, "submodules="+mode)
			if _, err := os.Stat(dir + "/" + files); err != nil {
				t.Errorf("%v\n%s", err, said)
			}
			if mode == "none" {
				judge(t, src, top)
				return
			}
			f.judge(src, "group/top.git", top, mode == "recursive")
			count.take()
			before := inodes(t, src)
			said = f.must(dir, "group/top.git", top, "submodules="+mode)
			if n, _ := count.take(); n != 0 || strings.Count(said, " 0 written, 0 removed, pin") != map[string]int{"recursive": 5, "top": 3}[mode] {
				t.Errorf("%d requests\n%s", n, said)
			}
			if !maps.Equal(inodes(t, src), before) {
				t.Error("something was made anew")
			}
			plant(t, src+"/lib/lib", "dirt")
			plant(t, src+"/lib/stray", "dirt")
			plant(t, src+"/src/other leaf/.git/hooks/post-checkout", "dirt")
			os.Remove(src + "/src/other leaf/leaf")
			os.RemoveAll(src + "/lib/deep/er/le af")
			own(t, src)
			f.must(dir, "group/top.git", top, "submodules="+mode)
			f.judge(src, "group/top.git", top, mode == "recursive")
			said = f.must(dir, "group/top.git", top, "submodules=none")
			judge(t, src, top)
			if _, err := os.Stat(src + "/lib/lib"); err == nil || !strings.Contains(said, `2 submodules, left as empty directories: "lib" and others`) {
				t.Errorf("%v\n%s", err, said)
			}
		})
	}
}

// A submodule that comes, goes, moves, changes or makes room for a file, a link or a directory of the same name leaves nothing of what was before, whatever
// order the commits come in.
func TestSubmoduleMoves(t *testing.T) {
	t.Parallel()
	f := newFamily(t, gitserver.Options{})
	f.levels()
	lib := func(n int) string {
		return f.commit("group/lib.git", map[string]string{"lib": fmt.Sprint("lib ", n, "\n"), "sub/dir": "x\n", fmt.Sprint("only", n): "x\n"}, nil)
	}
	one, two := lib(1), lib(2)
	other := f.commit("other/lib", map[string]string{"lib": "another\n", ".gitignore": "only*\n*.o\n"}, map[string]link{"sub": from("../../group/lib.git", one)})
	readme := map[string]string{"README": "x\n", ".gitignore": "*.o\n"}
	with := func(path, data string) map[string]string {
		m := maps.Clone(readme)
		m[path] = data
		return m
	}
	commits := []string{
		f.commit("group/top.git", readme, map[string]link{"lib": from("../lib.git", one)}),
		f.commit("group/top.git", readme, map[string]link{"lib": from("../lib.git", two), "d/lib": from("../../other/lib", other)}),
		f.commit("group/top.git", with("lib", "a file\n"), map[string]link{"d/new": from("../lib.git", one)}),
		f.commit("group/top.git", with("lib/lib", "in a directory\n"), map[string]link{"d": from("../lib.git", two)}),
		f.commit("group/top.git", readme, map[string]link{"lib": from("../../other/lib", other)}),
		f.commit("group/top.git", readme, nil),
		f.commit("group/top.git", with("lib", "-> README"), map[string]link{"e/f/lib": from("../lib.git", two)}),
	}
	theirs := make([]string, len(commits))
	for i, sha := range commits {
		theirs[i] = f.theirs("group/top.git", sha, true)
	}
	for _, clean := range []string{"all", "keep-ignored", "none"} {
		t.Run(clean, func(t *testing.T) {
			t.Parallel()
			f := &family{T: t, root: f.root, url: f.url}
			dir := tempDir(t)
			src := dir + "/src"
			r := rand.New(rand.NewPCG(4, 2))
			for step := range 24 {
				to, mode := r.IntN(len(commits)), []string{"recursive", "recursive", "recursive", "none"}[r.IntN(4)]
				f.must(dir, "group/top.git", commits[to], "clean="+clean+",submodules="+mode)
				dirs := []string{src}
				if mode == "recursive" {
					out, err := native(src, nil, "submodule", "--quiet", "foreach", "--recursive", "pwd")
					if err != nil {
						t.Errorf("%v\n%s", err, out)
					}
					dirs = append(dirs, strings.Fields(out)...)
					want, _ := native(theirs[to], nil, "submodule", "status", "--recursive")
					if got, err := native(src, nil, "submodule", "status", "--recursive"); err != nil || bare(got) != bare(want) {
						t.Errorf("git submodule status: %v\n%s\ngit's own:\n%s", err, got, want)
					}
					if out, err := exec.Command("diff", "-r", "--no-dereference", "--exclude=.git", "--exclude=*.o", theirs[to], src).CombinedOutput(); clean == "all" && err != nil {
						t.Errorf("diff: %v\n%s", err, out)
					}
				}
				if clean == "none" && mode == "none" { // what is in submodules' places is as the last run left it
					dirs = nil
				}
				for _, d := range dirs {
					args := map[string]string{"all": "status --porcelain --ignored", "keep-ignored": "status --porcelain", "none": "status --porcelain -uno --ignore-submodules=untracked"}[clean]
					if out, err := native(d, nil, strings.Fields(args)...); err != nil || out != "" {
						t.Errorf("git status in %q: %v\n%s", d, err, out)
					}
				}
				if t.Failed() {
					t.Fatalf("step %d, to commit %d, submodules=%s", step, to, mode)
				}
				for _, d := range append(dirs, src) {
					plant(t, d+"/x.o", "ignored")
				}
				own(t, src)
			}
		})
	}
}

// Where a directory of the commit's own comes in a submodule's place nothing is left that makes git take it for another repository's, whatever is cleaned.
func TestSubmoduleBecomesDirectory(t *testing.T) {
	t.Parallel()
	f := newFamily(t, gitserver.Options{})
	_, lib := f.levels()
	readme := map[string]string{"README": "x\n"}
	was := f.commit("group/top.git", readme, map[string]link{"d/lib": from("../lib.git", lib)})
	now := f.commit("group/top.git", map[string]string{"README": "x\n", "d/lib/sub/x": "x\n"}, nil)
	for _, clean := range []string{"all", "keep-ignored", "none"} {
		dir := tempDir(t)
		f.must(dir, "group/top.git", was, "submodules=top")
		f.must(dir, "group/top.git", now, "submodules=top,clean="+clean)
		if out, err := native(dir+"/src/d/lib/sub", nil, "rev-parse", "--show-toplevel", "HEAD"); err != nil || out != dir+"/src\n"+now {
			t.Errorf("clean=%s: %v\n%s", clean, err, out)
		}
	}
}

// Where a directory of the commit becomes a submodule, or the reverse, what the one had there goes, whatever is to stay.
func TestSubmoduleInADirectorysPlace(t *testing.T) {
	t.Parallel()
	f := newFamily(t, gitserver.Options{})
	_, lib := f.levels()
	ignore := map[string]string{".gitignore": "*.o\n*.idx\n"}
	module := f.commit("group/top.git", ignore, map[string]link{"in/lib": from("../lib.git", lib)})
	ignore["in/lib/d/own"], ignore["in/lib/lib"] = "x\n", "another\n"
	plain := f.commit("group/top.git", ignore, nil)
	for _, clean := range []string{"keep-ignored", "none"} {
		for _, mode := range []string{"recursive", "none"} {
			dir := tempDir(t)
			at := dir + "/src/in/lib/"
			run := func(sha string, want map[string]bool) {
				t.Helper()
				f.must(dir, "group/top.git", sha, "clean="+clean+",submodules="+mode)
				if out, err := native(dir+"/src", nil, "status", "--porcelain", "-uno", "--ignore-submodules=untracked"); err != nil || out != "" {
					t.Errorf("clean=%s, submodules=%s: %v\n%s", clean, mode, err, out)
				}
				for path, want := range want {
					if _, err := os.Stat(at + path); (err == nil) != want {
						t.Errorf("clean=%s, submodules=%s: %q: %v", clean, mode, path, err)
					}
				}
			}
			run(plain, nil)
			plant(t, at+"mine", "x")
			own(t, dir)
			run(module, map[string]bool{"d/own": false, "lib": mode == "recursive", "mine": clean == "none", ".git/HEAD": mode == "recursive"})
			run(plain, map[string]bool{"d/own": true, "lib": true, "mine": clean == "none", "d/e": clean == "none" && mode == "recursive", ".git": false})
		}
	}
}
