//go:build linux

package tests

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"run-task/tests/gitserver"
)

// odd are names of directories that patterns, quoting or encodings could take for something else.
var odd = []string{"sp ace", "st*r", "br[ack", "br]ack", "que?st", `back\slash`, "non\xffutf8", "!bang", "#hash", "tab\there", `quo"te`, "**", "ümlaut", "-dash", "a:b", `\`}

// trimmed are names that git sparse-checkout set takes for others: it drops white space at an end.
var trimmed = []string{"end ", "cr\r"}

// coneRepo is a repository for sparse checkouts: "first" and "second", which differ in and outside of every cone. In big/ is what does not compress.
func coneRepo(t *testing.T) *repo {
	t.Helper()
	r := &repo{Path: filepath.Join(tempDir(t), "cone.git"), SHA: map[string]string{}}
	mkdirAll(t, r.Path)
	gitserver.Git(t, r.Path, "init", "-q", "--bare")
	var in strings.Builder
	file := func(mode, path, data string) {
		fmt.Fprintf(&in, "M %s inline %s\ndata %d\n%s\n", mode, quoteC(path), len(data), data)
	}
	commit := func(n int) {
		fmt.Fprintf(&in, "commit refs/heads/main\nmark :%d\ncommitter A <a@example.com> %d +0000\ndata 1\nx\n", n, 1700000000+n)
	}
	random := rand.NewChaCha8([32]byte{9})
	noise := func(n int) string {
		b := make([]byte, n)
		random.Read(b)
		return string(b)
	}
	commit(1)
	for _, path := range []string{"README", "a.txt", "a/one", "a/b/two", "a/b/c/three", "a/b/c/d/four", "a/bb/x", "a/z", "a-b/file", "c/file", "c/d/e/file", "c/d/plain", "gone/file", "empty/dir/only/file"} {
		file("100644", path, "first "+path+"\n")
	}
	file("100755", "a/b/run", "#!/bin/sh\n")
	file("120000", "link", "a/one")
	file("120000", "c/link", "../a")
	file("120000", "a/b/link", "c/three")
	file("100644", ".gitignore", "*.o\n")
	file("100644", "c/.gitignore", "*.c-only\n")
	file("100644", ".gitattributes", "*.bin filter=lfs\n")
	file("100644", "c/.gitattributes", "*.nothing ident\n")
	file("100644", ".gitmodules", "[submodule \"in\"]\n\tpath = a/b/sub\n\turl = ../in\n[submodule \"out\"]\n\tpath = c/sub\n\turl = ../out\n")
	for _, path := range []string{"a/b/sub", "c/sub", "top"} {
		fmt.Fprintf(&in, "M 160000 %040d %s\n", 5, path)
	}
	for i := range 3 {
		file("100644", fmt.Sprintf("big/f%d", i), noise(200_000))
	}
	for _, name := range slices.Concat(odd, trimmed) {
		file("100644", name+"/file", "in "+name)
		file("100644", name+"/sub/file", "below "+name)
		file("100644", "in/"+name+"/file", "in in/"+name)
	}
	commit(2)
	for _, path := range []string{"README", "a/b/two", "a/b/c/new/file", "c/file", "gone", "c/d"} {
		file("100644", path, "second "+path+"\n")
	}
	file("100644", "big/f1", noise(200_000))
	fmt.Fprint(&in, "D a/bb\nD gone/file\n")
	file("100644", "gone", "a file now\n")
	gitserver.GitInput(t, r.Path, strings.NewReader(in.String()), "fast-import", "--quiet")
	r.SHA["first"], r.SHA["second"] = gitserver.Git(t, r.Path, "rev-parse", "main^"), gitserver.Git(t, r.Path, "rev-parse", "main")
	gitserver.Git(t, r.Path, "tag", "-am", "x", "v1", r.SHA["first"])
	return r
}

// quoteC writes a path as fast-import reads it.
func quoteC(path string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(path) + `"`
}

// sparseSpec is the value of --checkout.
func sparseSpec(url, sha string, dirs []string, more ...string) string {
	fields := slices.Concat([]string{"src", "repo=" + url, "sha=" + sha}, more)
	if len(dirs) > 0 {
		fields = append(fields, "sparse="+strings.Join(dirs, ";"))
	}
	for i, f := range fields {
		fields[i] = `"` + strings.ReplaceAll(f, `"`, `""`) + `"`
	}
	return strings.Join(fields, ",")
}

// reference is what native git makes of a commit with a cone: the files, and what it says about them.
type reference struct{ files, index, list string }

// references are those that were made so far, by repository, commit and cone.
var references sync.Map

func referenceOf(t *testing.T, repo, sha string, dirs []string) reference {
	t.Helper()
	key := fmt.Sprintf("%s %s %q", repo, sha, dirs)
	if made, ok := references.Load(key); ok {
		return made.(reference)
	}
	dir := filepath.Join(tempDir(t), "ref")
	gitserver.Git(t, "/", "clone", "-q", "--no-checkout", "--shared", repo, dir)
	if len(dirs) > 0 {
		gitserver.Git(t, dir, append([]string{"sparse-checkout", "set", "--cone", "--skip-checks", "--end-of-options"}, dirs...)...)
	}
	gitserver.Git(t, dir, "checkout", "-q", "--detach", sha)
	ref := reference{files: filesOf(t, dir), index: gitserver.Git(t, dir, "ls-files", "-t", "-s", "-z")}
	if len(dirs) > 0 {
		ref.list = gitserver.Git(t, dir, "sparse-checkout", "list")
	}
	references.Store(key, ref)
	return ref
}

// filesOf are all files, links and directories of a worktree, and what is in them.
func filesOf(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		if path == root+"/.git" {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content := ""
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			content, err = os.Readlink(path)
		case d.Type().IsRegular():
			var data []byte
			data, err = os.ReadFile(path)
			content = fmt.Sprintf("%o %.40q %d", info.Mode().Perm()&0o100, data, len(data))
		}
		fmt.Fprintf(&b, "%q %v %s\n", strings.TrimPrefix(path, root+"/"), d.Type(), content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// unlike are the lines that only one of two texts has.
func unlike(is, want string) string {
	var b strings.Builder
	had, has := strings.Split(want, "\n"), strings.Split(is, "\n")
	for _, line := range has {
		if !slices.Contains(had, line) {
			b.WriteString("+ " + line + "\n")
		}
	}
	for _, line := range had {
		if !slices.Contains(has, line) {
			b.WriteString("- " + line + "\n")
		}
	}
	return b.String()
}

// judgeSparse compares a worktree with the reference, file by file and answer by answer.
func judgeSparse(t *testing.T, src, repo, sha string, dirs []string) {
	t.Helper()
	ref := referenceOf(t, repo, sha, dirs)
	if diff := unlike(filesOf(t, src), ref.files); diff != "" {
		t.Errorf("%q: it has (+), git has (-)\n%s", dirs, diff)
	}
	want := map[string]string{"status --porcelain=v2 --branch --ignored": "# branch.oid " + sha + "\n# branch.head (detached)", "fsck --full --strict --no-dangling": "", "ls-files -t -s -z": ref.index}
	if len(dirs) > 0 {
		want["sparse-checkout list"] = ref.list
	}
	for args, w := range want {
		if got, err := native(src, nil, strings.Fields(args)...); err != nil || got != w {
			t.Errorf("%q: git %s: %q, %v; want %q", dirs, args, got, err, w)
		}
	}
}

// reapply has native git bring a copy of a sparse worktree to what .git/info/sparse-checkout says, which changes nothing.
func reapply(t *testing.T, src string) {
	t.Helper()
	copied := filepath.Join(tempDir(t), "copy")
	if out, err := exec.Command("cp", "-a", src, copied).CombinedOutput(); err != nil {
		t.Fatalf("%s%v", out, err)
	}
	tags, _ := native(copied, nil, "ls-files", "-t", "-z")
	before := filesOf(t, copied)
	if out, err := native(copied, nil, "sparse-checkout", "reapply"); err != nil || out != "" {
		t.Errorf("reapply: %v\n%s", err, out)
	}
	if diff := unlike(filesOf(t, copied), before); diff != "" {
		t.Errorf("reapply made\n%s", diff)
	}
	if now, err := native(copied, nil, "ls-files", "-t", "-z"); err != nil || now != tags {
		t.Errorf("reapply made\n%q of\n%q (%v)", now, tags, err)
	}
}

// Native git has the same files in the worktree and in the index, for whatever directories.
func TestSparse(t *testing.T) {
	t.Parallel()
	r := coneRepo(t)
	url := gitserver.HTTP(t, filepath.Dir(r.Path), gitserver.Options{Config: []string{"uploadpack.allowFilter=true"}}) + "/cone.git"
	var deep []string
	for _, name := range odd {
		deep = append(deep, "in/"+name)
	}
	for _, dirs := range [][]string{{"a"}, {"a/b"}, {"a/b/c", "c"}, {"a/b", "a/b/c/d", "a"}, {"empty/dir/only"}, {"top", "c/sub"}, odd, deep, {"in/" + odd[1], odd[2]}} {
		t.Run(fmt.Sprintf("%.40q", dirs), func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			mustCheckOut(t, dir, "--checkout", sparseSpec(url, r.SHA["first"], dirs))
			judgeSparse(t, dir+"/src", r.Path, r.SHA["first"], dirs)
			if len(dirs) > 1 {
				reapply(t, dir+"/src")
			}
		})
	}
	t.Run("names that git trims", func(t *testing.T) {
		t.Parallel()
		dir := tempDir(t)
		mustCheckOut(t, dir, "--checkout", sparseSpec(url, r.SHA["first"], trimmed))
		reapply(t, dir+"/src")
		if status, err := native(dir+"/src", nil, "status", "--porcelain"); err != nil || status != "" {
			t.Errorf("%s%v", status, err)
		}
		for _, name := range trimmed {
			if data, err := os.ReadFile(dir + "/src/" + name + "/sub/file"); err != nil || string(data) != "below "+name {
				t.Errorf("%q: %q, %v", name, data, err)
			}
		}
		if _, err := os.Lstat(dir + "/src/a"); err == nil {
			t.Error("what is outside is there")
		}
	})
}

// A directory that the commit does not have, or has as a file or submodule, is worth a line; the rest is there.
func TestSparseDirectoriesThatAreNone(t *testing.T) {
	t.Parallel()
	r := coneRepo(t)
	for _, c := range []struct{ dirs, named []string }{
		{[]string{"a/b", "none", "a/none/deeper"}, []string{"2 directories", `"a/none/deeper"`}}, {[]string{"README"}, []string{"1 directories", `"README"`}}, {[]string{"c/sub"}, []string{`"c/sub"`}},
		{[]string{"README/x"}, []string{`"README/x"`}}, {[]string{"a/b", "a/one"}, []string{`"a/one"`}},
	} {
		dir := tempDir(t)
		for range 2 { // also where nothing is to be done
			said := mustCheckOut(t, dir, "--checkout", sparseSpec(r.Path, r.SHA["first"], c.dirs))
			for _, word := range append(c.named, "that the commit does not have") {
				if !strings.Contains(said, word) {
					t.Errorf("%q: no %s in\n%s", c.dirs, word, said)
				}
			}
		}
		judgeSparse(t, dir+"/src", r.Path, r.SHA["first"], c.dirs)
	}
	dir := tempDir(t)
	if said := mustCheckOut(t, dir, "--checkout", sparseSpec(r.Path, r.SHA["first"], []string{"/a/b/", "a"})); strings.Contains(said, "does not have") {
		t.Errorf("said:\n%s", said)
	}
	judgeSparse(t, dir+"/src", r.Path, r.SHA["first"], []string{"a/b", "a"})
}

func TestSparseValuesThatAreWrong(t *testing.T) {
	t.Parallel()
	for _, v := range []string{"..", "/", ".git", ".git/hooks", "a//b", ";", "a;", ";a", "a;;b", "../a", "a/..", "a/../b", "a/.", "./a", "a\nb", "a/../../b"} {
		code, stderr := checkOut(t, tempDir(t), "--checkout", sparseSpec("/nowhere", anySHA, []string{v}))
		if code != 64 || strings.Count(stderr, "run-task: error: ") != 1 || len(strings.Split(strings.TrimSpace(stderr), "\n")) > 2 {
			t.Errorf("sparse=%q: exit %d\n%s", v, code, stderr)
		}
	}
	for _, spec := range []string{"readonly=yes", "readonly=", "sparse=", "clean=some", "sparse=a,sparse=b"} {
		code, stderr := checkOut(t, tempDir(t), "--checkout", "src,repo=/nowhere,sha="+anySHA+","+spec)
		if code != 64 || strings.Count(stderr, "run-task: error: ") != 1 {
			t.Errorf("%s: exit %d\n%s", spec, code, stderr)
		}
	}
}

// Where the server can leave blobs out, those outside of the cone do not come; where it cannot, a line says so. All else is the same.
func TestSparseServers(t *testing.T) {
	t.Parallel()
	r := coneRepo(t)
	for _, c := range []struct {
		name           string
		options        gitserver.Options
		depth          string
		partial, local bool
	}{
		{"filter", gitserver.Options{Config: []string{"uploadpack.allowFilter=true"}}, "1", true, false},
		{"filter, all history", gitserver.Options{Config: []string{"uploadpack.allowFilter=true"}}, "0", true, false},
		{"no filter", gitserver.Options{}, "1", false, false},
		{"v0", gitserver.Options{V0: true, Config: []string{"uploadpack.allowFilter=true"}}, "1", false, false},
		{"local", gitserver.Options{}, "1", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var n counter
			c.options.Wrap = n.wrap
			url := r.Path
			if !c.local {
				url = gitserver.HTTP(t, filepath.Dir(r.Path), c.options) + "/cone.git"
			}
			dir := tempDir(t)
			dirs := []string{"a/b"}
			said := mustCheckOut(t, dir, "--checkout", sparseSpec(url, r.SHA["second"], dirs, "depth="+c.depth))
			_, bytes := n.take()
			judgeSparse(t, dir+"/src", r.Path, r.SHA["second"], dirs)
			if requests, _ := n.take(); requests != 0 {
				t.Error("git had to ask the server to answer")
			}
			if !c.local && (bytes < 100_000) != c.partial {
				t.Errorf("%d bytes came", bytes)
			}
			if strings.Contains(said, "cannot leave out what is not in sparse=") == (c.partial || c.local) {
				t.Errorf("said:\n%s", said)
			}
			if promisor, _ := native(dir+"/src", nil, "config", "extensions.partialClone"); (promisor == "origin") != c.partial {
				t.Errorf("its promisor is %q", promisor)
			}
			// Git gets the rest itself.
			if out, err := native(dir+"/src", nil, "sparse-checkout", "disable"); err != nil {
				t.Errorf("disable: %v\n%s", err, out)
			}
			judgeSparse(t, dir+"/src", r.Path, r.SHA["second"], nil)

			// What a task makes of it with git is put right by the next.
			gitserver.Git(t, dir+"/src", "sparse-checkout", "set", "--cone", "c", "big")
			own(t, dir+"/src")
			mustCheckOut(t, dir, "--checkout", sparseSpec(url, r.SHA["second"], dirs, "depth="+c.depth))
			judgeSparse(t, dir+"/src", r.Path, r.SHA["second"], dirs)
		})
	}
}

// From cone to cone, to all of the commit and back, to other commits, over dirt in the cone and outside of it.
func TestSparseMoves(t *testing.T) {
	t.Parallel()
	r := coneRepo(t)
	filter := gitserver.HTTP(t, filepath.Dir(r.Path), gitserver.Options{Config: []string{"uploadpack.allowFilter=true"}}) + "/cone.git"
	plain := gitserver.HTTP(t, filepath.Dir(r.Path), gitserver.Options{}) + "/cone.git"
	for name, url := range map[string]string{"filter": filter, "plain": plain} {
		for _, depth := range []string{"0", "1"} {
			if name == "plain" && depth == "0" {
				continue
			}
			t.Run(name+" depth "+depth, func(t *testing.T) {
				t.Parallel()
				dir := tempDir(t)
				src := dir + "/src"
				for i, move := range []struct {
					sha  string
					dirs []string
				}{
					{"first", []string{"a/b"}}, {"first", []string{"c", "in"}}, {"second", []string{"c", "in"}}, {"second", nil}, {"second", []string{"a/b"}}, {"first", []string{"gone", "a"}},
					{"second", []string{"a", "gone"}}, {"first", nil}, {"second", []string{"c/d"}},
				} {
					if i > 0 {
						plant(t, src+"/stray.o", "x")
						plant(t, src+"/c/file", "dirt")
						plant(t, src+"/c/stray", "x")
						plant(t, src+"/big/f0", "dirt")
						plant(t, src+"/big/stray/er", "x")
						plant(t, src+"/a/b/two", "dirt")
						os.Remove(src + "/README")
						plant(t, src+"/README/in the way", "x")
						os.RemoveAll(src + "/a/b/c")
						own(t, src)
					}
					mustCheckOut(t, dir, "--checkout", sparseSpec(url, r.SHA[move.sha], move.dirs, "depth="+depth))
					judgeSparse(t, src, r.Path, r.SHA[move.sha], move.dirs)
					if t.Failed() {
						t.Fatalf("move %d", i)
					}
				}
			})
		}
	}
}

// quiet is a snapshot without the two directories that a run needs for itself.
func quiet(t *testing.T, src string) string {
	t.Helper()
	return regexp.MustCompile(`(?m)^\S+/\.git(/run-task)? 4.*\n`).ReplaceAllString(snapshot(t, src), "")
}

// Nothing to do with a cone makes no request and touches nothing; another cone of the same commit asks for what it lacks alone.
func TestSparseNothingToDo(t *testing.T) {
	t.Parallel()
	r := coneRepo(t)
	var n counter
	url := gitserver.HTTP(t, filepath.Dir(r.Path), gitserver.Options{Wrap: n.wrap, Config: []string{"uploadpack.allowFilter=true"}}) + "/cone.git"
	dir := tempDir(t)
	src := dir + "/src"
	check := func(dirs ...string) (said string) {
		t.Helper()
		said = mustCheckOut(t, dir, "--checkout", sparseSpec(url, r.SHA["first"], dirs))
		judgeSparse(t, src, r.Path, r.SHA["first"], dirs)
		return said
	}
	check("a", "c")
	n.take()
	before := quiet(t, src)
	n.down.Store(true)
	if said := check("a", "c"); !strings.Contains(said, " 0 written, 0 removed, pin") {
		t.Errorf("said:\n%s", said)
	}
	if diff := unlike(quiet(t, src), before); diff != "" {
		t.Errorf("touched:\n%s", diff)
	}
	kept := inodes(t, src)
	check("a") // narrower: all is here
	check("a/b")
	check("a", "c")
	if requests, _ := n.take(); requests != 0 {
		t.Errorf("%d requests for what was here", requests)
	}
	if now := inodes(t, src)["a/b/two"]; now != kept["a/b/two"] {
		t.Error("a/b/two was written again")
	}
	n.down.Store(false)
	check("a", "c", "in")
	if _, bytes := n.take(); bytes == 0 || bytes > 20_000 {
		t.Errorf("%d bytes for small files", bytes)
	}
	check("big")
	if _, bytes := n.take(); bytes < 600_000 {
		t.Errorf("%d bytes for large files", bytes)
	}
	check()
	judge(t, src, r.SHA["first"])
	if promisor, err := native(src, nil, "config", "extensions.partialClone"); err == nil {
		t.Errorf("its promisor is still %q", promisor)
	}

	// What marks a pack as a part belongs to what is put right.
	dir = tempDir(t)
	src = dir + "/src"
	check("a")
	marks, _ := filepath.Glob(src + "/.git/objects/pack/*.promisor")
	if len(marks) != 2 {
		t.Fatal(marks)
	}
	for _, mark := range marks {
		os.Remove(mark)
	}
	check("a")
}

// The second request of a partial checkout fails: nothing in the directory has changed.
func TestSparseSecondRequest(t *testing.T) {
	t.Parallel()
	r := coneRepo(t)
	want := func(body []byte) []int { // where the lines of wanted objects begin
		var at []int
		for i := 0; ; i++ {
			n := bytes.Index(body[i:], []byte("want "))
			if n < 0 {
				return at
			}
			i += n
			at = append(at, i)
		}
	}
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, next http.Handler, r *http.Request, body []byte)
		code   int
		says   string
	}{
		"gone": {func(w http.ResponseWriter, _ http.Handler, _ *http.Request, _ []byte) {
			http.Error(w, "gone", http.StatusForbidden)
		}, 77, "403"},
		"less": {func(w http.ResponseWriter, next http.Handler, r *http.Request, body []byte) {
			at := want(body)
			copy(body[at[0]:at[0]+45], body[at[1]:]) // the second object twice, and not the first
			r.Body = io.NopCloser(bytes.NewReader(body))
			next.ServeHTTP(w, r)
		}, 65, "left out 1 files"},
		"not its": {func(w http.ResponseWriter, next http.Handler, r *http.Request, body []byte) {
			copy(body[want(body)[0]+5:], strings.Repeat("5", 40))
			r.Body = io.NopCloser(bytes.NewReader(body))
			next.ServeHTTP(w, r)
		}, 66, "does not give out the files"},
		"damaged": {func(w http.ResponseWriter, next http.Handler, r *http.Request, _ []byte) {
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			body := answer.Body.Bytes()
			body[len(body)-14] ^= 1 // in the pack's checksum
			maps.Copy(w.Header(), answer.Header())
			w.Write(body)
		}, 65, "the pack was damaged on its way"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var broken atomic.Bool
			var tries atomic.Int64
			url := gitserver.HTTP(t, filepath.Dir(r.Path), gitserver.Options{Config: []string{"uploadpack.allowFilter=true"}, Wrap: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					body, _ := io.ReadAll(r.Body)
					r.Body = io.NopCloser(bytes.NewReader(body))
					if broken.Load() && bytes.Contains(body, []byte("command=fetch")) && !bytes.Contains(body, []byte("filter ")) {
						tries.Add(1)
						c.answer(w, next, r, body)
						return
					}
					next.ServeHTTP(w, r)
				})
			}}) + "/cone.git"
			fail := func(dir string) {
				t.Helper()
				broken.Store(true)
				code, stderr := checkOut(t, dir, "--checkout", sparseSpec(url, r.SHA["second"], []string{"a/b"}))
				if code != c.code || !strings.Contains(stderr, c.says) || strings.Count(stderr, "run-task: error: ") != 1 {
					t.Errorf("exit %d\n%s", code, stderr)
				}
			}
			dir := tempDir(t)
			fail(dir)
			if (tries.Load() == 2) != (name == "damaged") {
				t.Errorf("it was asked %d times", tries.Load())
			}
			if names := filesOf(t, dir+"/src"); names != "" {
				t.Errorf("it left\n%s", names)
			}
			if name == "damaged" { // the pause before the second try is long enough once
				return
			}
			broken.Store(false)
			dir = tempDir(t)
			mustCheckOut(t, dir, "--checkout", sparseSpec(url, r.SHA["first"], []string{"a/b"}))
			plant(t, dir+"/src/stray", "x")
			plant(t, dir+"/src/a/b/two", "dirt")
			own(t, dir)
			files, before := filesOf(t, dir+"/src"), inodes(t, dir+"/src")
			fail(dir)
			if diff := unlike(filesOf(t, dir+"/src"), files); diff != "" || !maps.Equal(before, inodes(t, dir+"/src")) {
				t.Errorf("touched:\n%s", diff)
			}
			if head, err := native(dir+"/src", nil, "rev-parse", "HEAD"); err != nil || head != r.SHA["first"] {
				t.Errorf("HEAD: %q, %v", head, err)
			}
			broken.Store(false)
			mustCheckOut(t, dir, "--checkout", sparseSpec(url, r.SHA["second"], []string{"a/b"}))
			judgeSparse(t, dir+"/src", r.Path, r.SHA["second"], []string{"a/b"})
		})
	}
}

// Killed at any instant, the next run makes it right.
func TestSparseKilled(t *testing.T) {
	t.Parallel()
	r := coneRepo(t)
	for _, stage := range []string{"first", "second"} {
		t.Run(stage, func(t *testing.T) {
			t.Parallel()
			asked := make(chan struct{})
			var once sync.Once
			var on atomic.Bool
			url := gitserver.HTTP(t, filepath.Dir(r.Path), gitserver.Options{Config: []string{"uploadpack.allowFilter=true"}, Wrap: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					body, _ := io.ReadAll(r.Body)
					r.Body = io.NopCloser(bytes.NewReader(body))
					if on.Load() && bytes.Contains(body, []byte("command=fetch")) && bytes.Contains(body, []byte("filter ")) == (stage == "first") {
						once.Do(func() { close(asked) })
						<-r.Context().Done()
						return
					}
					next.ServeHTTP(w, r)
				})
			}}) + "/cone.git"
			dir := tempDir(t)
			mustCheckOut(t, dir, "--checkout", sparseSpec(url, r.SHA["first"], []string{"c"}))
			on.Store(true)
			args := slices.Concat([]string{"run-task"}, asUser(), []string{"--checkout", sparseSpec(url, r.SHA["second"], []string{"a"}), "--", "probe", "exit", "0"})
			cmd := (&command{args: args, dir: dir}).cmd()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-asked
			cmd.Process.Kill()
			if code := wait(t, cmd); code != 137 {
				t.Errorf("exit %d", code)
			}
			judgeSparse(t, dir+"/src", r.Path, r.SHA["first"], []string{"c"})
			on.Store(false)
			mustCheckOut(t, dir, "--checkout", sparseSpec(url, r.SHA["second"], []string{"a"}))
			judgeSparse(t, dir+"/src", r.Path, r.SHA["second"], []string{"a"})
			if left, _ := filepath.Glob(dir + "/src/.git/run-task/incoming*"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// What warnings depend on is looked for in the cone alone: the rest is not here.
func TestSparseWarnings(t *testing.T) {
	t.Parallel()
	r := coneRepo(t)
	pointer := "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
	var in strings.Builder
	fmt.Fprintf(&in, "commit refs/heads/lfs\ncommitter A <a@example.com> 1700000009 +0000\ndata 1\nx\nfrom %s\n", r.SHA["second"])
	for _, path := range []string{"a/b/p.bin", "c/p.bin"} {
		fmt.Fprintf(&in, "M 644 inline %s\ndata %d\n%s\n", path, len(pointer), pointer)
	}
	in.WriteString("commit refs/heads/lfs\ncommitter A <a@example.com> 1700000010 +0000\ndata 1\nx\nM 644 inline README\ndata 4\nlfs\n\n")
	gitserver.GitInput(t, r.Path, strings.NewReader(in.String()), "fast-import", "--quiet")
	url := gitserver.HTTP(t, filepath.Dir(r.Path), gitserver.Options{Config: []string{"uploadpack.allowFilter=true"}}) + "/cone.git"
	dir := tempDir(t)
	for _, rev := range []string{"lfs^", "lfs", "lfs^", "lfs^"} {
		said := mustCheckOut(t, dir, "--checkout", sparseSpec(url, gitserver.Git(t, r.Path, "rev-parse", rev), []string{"a"}))
		if !strings.Contains(said, `1 Git LFS pointers, what they stand for is not fetched: "a/b/p.bin"`) || strings.Contains(said, "ident") || strings.Contains(said, "c/sub") {
			t.Errorf("%s: said\n%s", rev, said)
		}
	}
}
