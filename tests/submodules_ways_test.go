//go:build linux

package tests

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/tests/gitserver"
)

// What cannot be checked out is refused before anything of the commit is, and says of which commit it is.
func TestSubmodulesThatAreRefused(t *testing.T) {
	t.Parallel()
	f := newFamily(t, gitserver.Options{})
	_, lib := f.levels()
	files := map[string]string{"README": "x\n"}
	module := func(name, lines string) string { return fmt.Sprintf("[submodule \"%s\"]\n%s\n", name, lines) }
	for name, c := range map[string]struct {
		modules, want string
	}{
		"no .gitmodules":     {"", "has no URL in .gitmodules"},
		"no entry":           {module("a", "path = a\nurl = ../lib.git"), "has no URL in .gitmodules"},
		"another path":       {module("lib", "path = lib/\nurl = ../lib.git"), "has no URL in .gitmodules"},
		"no URL":             {module("lib", "path = lib"), "has no URL in .gitmodules"},
		"no value":           {module("lib", "path = lib\nurl"), `it has a "url" without a value`},
		"not a file":         {module("lib", "path = lib\nurl = \"../lib.git"), "line 3 of it is no configuration"},
		"a path twice":       {module("a", "path = lib\nurl = ../lib.git") + module("b", "path = lib\nurl = ../lib.git"), `the path "lib" is that of two submodules, "a" and "b"`},
		"a name twice":       {module("a", "path = lib\nurl = ../lib.git") + module("a", "path = other\nurl = ../x"), `it has "path" twice`},
		"two URLs":           {module("a", "path = lib\nurl = ../lib.git\nurl = ../other"), `it has "url" twice`},
		"a command":          {module("a", "path = lib\nurl = ../lib.git\nupdate = !touch pwned"), "asks for a command to be run"},
		"a strange update":   {module("a", "path = lib\nurl = ../lib.git\nupdate = always"), "which git does not know"},
		"a name that leads":  {module("../../x", "path = lib\nurl = ../lib.git"), `has \"..\" in it`},
		"an option":          {module("a", "path = lib\nurl = --upload-pack=touch pwned"), "looks like an option"},
		"a local path":       {module("a", "path = lib\nurl = "+f.root+"/group/lib.git"), "is a path on this machine"},
		"a file URL":         {module("a", "path = lib\nurl = file://"+f.root+"/group/lib.git"), "is a path on this machine"},
		"a helper":           {module("a", "path = lib\nurl = ext::touch pwned"), "remote helpers are not supported"},
		"above the server":   {module("a", "path = lib\nurl = ../../../../x"), "than http://127.0.0.1:"},
		"not from .. itself": {module("a", "path = lib\nurl = .."), "cannot be used"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &family{T: t, root: f.root, url: f.url}
			files := maps.Clone(files)
			if c.modules != "" {
				files[".gitmodules"] = c.modules
			}
			sha := f.commit("group/refused "+name, files, map[string]link{"lib": {sha: lib}})
			dir := tempDir(t)
			repo := "group/refused%20" + strings.ReplaceAll(name, " ", "%20")
			code, said := f.checkOut(dir, repo, sha, "submodules=recursive")
			if code != 65 || !strings.Contains(strings.ReplaceAll(said, `"`, `\"`), strings.ReplaceAll(strings.ReplaceAll(c.want, `\"`, `"`), `"`, `\"`)) {
				t.Errorf("exit %d\n%s", code, said)
			}
			if strings.Contains(c.want, "no URL in") && (!strings.Contains(said, sha) || !strings.Contains(said, `"lib"`)) {
				t.Errorf("it names neither the commit nor the path:\n%s", said)
			}
			for _, path := range []string{"README", "lib", ".git/HEAD", "pwned"} {
				if _, err := os.Lstat(dir + "/src/" + path); err == nil {
					t.Errorf("%q is there", path)
				}
			}
			if c.want != `has \"..\" in it` { // which is refused in any case
				f.must(dir, repo, sha, "submodules=none")
				if out, err := native(dir+"/src", nil, "rev-parse", "HEAD"); err != nil || out != sha {
					t.Errorf("%s, %v", out, err)
				}
			}
		})
	}
}

// A commit that a submodule's repository has not is 66, and the message leads to it; what is not to be updated is an empty directory, whatever is said of it.
func TestSubmodulesThatAreNotThere(t *testing.T) {
	t.Parallel()
	f := newFamily(t, gitserver.Options{})
	_, lib := f.levels()
	readme := map[string]string{"README": "x\n"}
	gone := strings.Repeat("12", 20)
	inner := f.commit("group/inner.git", readme, map[string]link{"in/gone": from("./../lib.git", gone)})
	top := f.commit("group/top.git", readme, map[string]link{"inner": from("../inner.git", inner)})
	dir := tempDir(t)
	code, said := f.checkOut(dir, "group/top.git", top, "submodules=recursive")
	for _, part := range []string{`submodule "inner" of commit ` + top, `submodule "in/gone" of commit ` + inner + ", " + f.url + "/group/lib.git", gone[:8]} {
		if code != 66 || !strings.Contains(said, part) {
			t.Errorf("exit %d, without %q\n%s", code, part, said)
		}
	}
	code, said = f.checkOut(dir, "group/top.git", f.commit("group/top.git", readme, map[string]link{"x": from("../none.git", lib)}), "submodules=top")
	if code == 0 || !strings.Contains(said, `submodule "x" of commit`) || !strings.Contains(said, "group/none.git") {
		t.Errorf("exit %d\n%s", code, said)
	}
	skipped := f.commit("group/top.git", readme, map[string]link{"lib": {lib, "\turl = file:///nowhere\n\tupdate = none\n"}, "rebased": {lib, "\turl = ../lib.git\n\tupdate = rebase\n\tbranch = main\n"}})
	for range 2 {
		plant(t, dir+"/src/lib/stray", "x")
		own(t, dir+"/src")
		said = f.must(dir, "group/top.git", skipped, "submodules=top")
		if names, err := os.ReadDir(dir + "/src/lib"); err != nil || len(names) > 0 || !strings.Contains(said, `1 submodules, left as empty directories: "lib"`) {
			t.Errorf("%v, %v\n%s", names, err, said)
		}
		judge(t, dir+"/src", skipped)
		judge(t, dir+"/src/rebased", lib)
	}
	if out, err := native(dir+"/src", nil, "config", "submodule.rebased.update"); err != nil || out != "rebase" {
		t.Errorf("%q, %v", out, err)
	}
}

// A repository that has an earlier commit of itself as submodule, over and over, ends.
func TestSubmodulesWithoutEnd(t *testing.T) {
	t.Parallel()
	f := newFamily(t, gitserver.Options{})
	sha := f.commit("chain", map[string]string{"README": "x\n"}, nil)
	for range 33 {
		sha = f.commit("chain", map[string]string{"README": "x\n"}, map[string]link{"s": from("./", sha)})
	}
	dir := tempDir(t)
	code, said := f.checkOut(dir, "chain", sha, "submodules=recursive")
	if code != 65 || !strings.Contains(said, "it is itself in 32 others") || strings.Count(said, `submodule "s" of commit`) != 32 {
		t.Errorf("exit %d\n%s", code, said)
	}
	f.must(dir, "chain", sha, "submodules=top")
	judge(t, dir+"/src/s", gitserver.Git(t, f.root+"/chain", "rev-parse", sha+"~1"))
}

// Whatever stands where a submodule belongs is no part of it, and nothing is written through it.
func TestPlantedInSubmodulesPlace(t *testing.T) {
	t.Parallel()
	f := newFamily(t, gitserver.Options{})
	top, _ := f.levels()
	dir := tempDir(t)
	src := dir + "/src"
	f.must(dir, "group/top.git", top, "submodules=recursive")
	plant(t, dir+"/outside/file", "x")
	own(t, dir+"/outside")
	before := snapshot(t, dir+"/outside")
	for name, do := range map[string]func(at string){
		"file":              func(at string) { plant(t, at, "x") },
		"link":              func(at string) { os.Symlink(dir+"/outside", at) },
		"files":             func(at string) { plant(t, at+"/leaf/x", "x") },
		"gitfile":           func(at string) { plant(t, at+"/.git", "gitdir: "+dir+"/outside\n") },
		"linked .git":       func(at string) { mkdirAll(t, at); os.Symlink(dir+"/outside", at+"/.git") },
		"somebody's clone":  func(at string) { native(dir, nil, "clone", "-q", f.url+"/group/sub/deep", at) },
		"hooks":             func(at string) { plant(t, at+"/.git/hooks/post-checkout", "x"); plant(t, at+"/.git/HEAD", top) },
		"a mark and a link": func(at string) { mkdirAll(t, at+"/.git/run-task"); os.Symlink(dir+"/outside", at+"/leaf") },
		"alternates":        func(at string) { plant(t, at+"/.git/objects/info/alternates", f.root+"/other/leaf.git/objects\n") },
	} {
		for _, path := range []string{"lib/deep/er/le af", "src/other leaf"} {
			if err := os.RemoveAll(src + "/" + path); err != nil {
				t.Fatal(err)
			}
			do(src + "/" + path)
			own(t, filepath.Dir(src+"/"+path))
		}
		f.T.Log(name)
		f.must(dir, "group/top.git", top, "submodules=recursive")
		if names, _ := filepath.Glob(src + "/src/other leaf/.git/hooks"); len(names) > 0 {
			t.Errorf("%q is left", names)
		}
		for _, path := range []string{"", "lib", "lib/deep/er", "lib/deep/er/le af", "src/other leaf"} {
			if out, err := native(src+"/"+path, nil, "status", "--porcelain", "--ignored"); err != nil || out != "" {
				t.Errorf("%q: %v\n%s", path, err, out)
			}
		}
	}
	f.judge(src, "group/top.git", top, true)
	if after := snapshot(t, dir+"/outside"); after != before {
		t.Errorf("outside is\n%swas\n%s", after, before)
	}
}

// doorkeeper wants a password, and notes what it was shown.
type doorkeeper struct {
	want string // "user:password", "" for anybody
	mu   sync.Mutex
	seen []string
}

func (d *doorkeeper) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		if ok {
			d.mu.Lock()
			d.seen = append(d.seen, user+":"+password)
			d.mu.Unlock()
		}
		if d.want != "" && user+":"+password != d.want {
			w.Header().Set("WWW-Authenticate", "Basic realm=x")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// A parent's password opens its server's other repositories, is shown to nobody else, and is written nowhere.
func TestSubmodulesAndPasswords(t *testing.T) {
	t.Parallel()
	home, abroad := &doorkeeper{want: "me:s3cr3tword"}, &doorkeeper{}
	f := newFamily(t, gitserver.Options{Wrap: home.wrap})
	_, lib := f.levels()
	other := gitserver.HTTP(t, f.root, gitserver.Options{Wrap: abroad.wrap})
	top := f.commit("group/top.git", map[string]string{"README": "x\n"}, map[string]link{"abroad": from(other+"/group/lib.git", lib), "home": from("../lib.git", lib), "too": from(f.url+"/group/lib.git", lib)})
	dir := tempDir(t)
	f.url = strings.Replace(f.url, "://", "://me:s3cr3tword@", 1)
	said := f.must(dir, "group/top.git", top, "submodules=top")
	for _, name := range []string{"abroad", "home", "too"} {
		judge(t, dir+"/src/"+name, lib)
	}
	if len(home.seen) == 0 || len(abroad.seen) > 0 {
		t.Errorf("at home they were shown %q, abroad %q", home.seen, abroad.seen)
	}
	if out, _ := exec.Command("grep", "-r", "-l", "s3cr3tword", dir).CombinedOutput(); len(out) > 0 {
		t.Errorf("in files: %s", out)
	}
	if strings.Contains(said, "s3cr3tword") {
		t.Error(said)
	}
	closed := f.commit("group/top.git", map[string]string{"README": "x\n"}, map[string]link{"a": from(strings.Replace(f.url, "me:s3cr3tword", "you:0therword", 1)+"/group/lib.git", lib)})
	if code, said := f.checkOut(tempDir(t), "group/top.git", closed, "submodules=top"); code != 77 || strings.Contains(said, "0therword") || !strings.Contains(said, `submodule "a" of commit `+closed) {
		t.Errorf("exit %d\n%s", code, said)
	}
}

// A repository on this machine may name others there.
func TestLocalSubmodules(t *testing.T) {
	t.Parallel()
	f := newFamily(t, gitserver.Options{})
	_, lib := f.levels()
	top := f.commit("group/top.git", map[string]string{"README": "x\n"}, map[string]link{"a": from("../lib.git", lib), "b": from(f.root+"/group/lib.git", lib), "c": from("file://"+f.root+"/group/lib.git", lib)})
	for _, repo := range []string{f.root + "/group/top.git", "file://" + f.root + "/group/top.git"} {
		dir := tempDir(t)
		mustCheckOut(t, dir, "--checkout", "src,submodules=recursive", "--repo", repo, "--sha", top)
		for _, name := range []string{"a", "b", "c"} {
			judge(t, dir+"/src/"+name, lib)
		}
	}
}

// What is said of the parent holds for its submodules: depth, clean, readonly; caches in them stay, and the store serves them.
func TestSubmodulesAreAsTheirParent(t *testing.T) {
	t.Parallel()
	count := &counter{}
	f := newFamily(t, gitserver.Options{Wrap: count.wrap})
	f.levels()
	top, _ := f.levels()
	dir := tempDir(t)
	src := dir + "/src"
	all := []string{src, src + "/lib", src + "/lib/deep/er", src + "/lib/deep/er/le af", src + "/src/other leaf"}
	for depth, want := range map[string]string{"1": "1", "0": "2"} {
		f.must(dir, "group/top.git", top, "submodules=recursive,depth="+depth)
		for _, d := range all {
			if out, err := native(d, nil, "rev-list", "--count", "HEAD"); err != nil || out != want {
				t.Errorf("depth %s, %q: %s commits, %v", depth, d, out, err)
			}
		}
	}
	for _, dir := range []string{dir, dir, tempDir(t)} {
		f.must(dir, "group/top.git", top, "submodules=recursive,readonly=true")
		for path, mode := range modes(t, dir+"/src") {
			if mode.Perm()&0o222 != 0 && !strings.Contains(path, "/.git") {
				t.Errorf("%q is %v", path, mode)
			}
		}
	}
	f.must(dir, "group/top.git", top, "submodules=recursive")
	f.judge(src, "group/top.git", top, true)

	mkdirAll(t, src+"/lib/deep/er/cache")
	own(t, src+"/lib/deep/er/cache")
	withCache := []string{"--cache", "src/lib/deep/er/cache", "--repo", f.url + "/group/top.git", "--sha", top, "--checkout"}
	mustCheckOut(t, dir, append(withCache, "src,submodules=recursive")...)
	for clean, stay := range map[string][]string{"all": {"cache/x"}, "keep-ignored": {"cache/x", "x.o"}, "none": {"cache/x", "x.o", "stray"}} {
		for _, path := range []string{"cache/x", "x.o", "stray"} {
			plant(t, src+"/lib/deep/er/"+path, "x")
		}
		own(t, src)
		mustCheckOut(t, dir, append(withCache, "src,submodules=recursive,clean="+clean)...)
		for _, path := range []string{"cache/x", "x.o", "stray"} {
			if _, err := os.Stat(src + "/lib/deep/er/" + path); (err == nil) != slices.Contains(stay, path) {
				t.Errorf("clean=%s, %q: %v", clean, path, err)
			}
		}
		if out, err := native(src+"/lib/deep/er", nil, "status", "--porcelain"); err != nil || clean != "none" && out != "" {
			t.Errorf("clean=%s: %v\n%s", clean, err, out)
		}
	}

	status := dir + "/status.json"
	mustCheckOut(t, dir, "--git-store", dir+"/store", "--status-file", status, "--checkout", "one,submodules=recursive", "--repo", f.url+"/group/top.git", "--sha", top)
	objects := 0
	for _, repo := range []string{"group/top.git", "group/lib.git", "group/sub/deep", "other/leaf.git"} { // of which the second time is served from the store
		objects += strings.Count(gitserver.Git(t, f.root+"/"+repo, "rev-list", "--objects", "--max-count=1", "main"), "\n") + 1
	}
	if data, err := os.ReadFile(status); err != nil || !strings.Contains(strings.ReplaceAll(string(data), " ", ""), fmt.Sprintf(`"objects":%d,`, objects)) {
		t.Errorf("%v, want %d objects:\n%s", err, objects, data)
	}
	count.take()
	mustCheckOut(t, dir, "--git-store", dir+"/store", "--export-tree", "README", "--checkout", "two,submodules=recursive", "--repo", f.url+"/group/top.git", "--sha", top)
	if n, _ := count.take(); n != 0 {
		t.Errorf("%d requests for what is in the store", n)
	}
	for _, name := range []string{"one", "two"} {
		f.judge(dir+"/"+name, "group/top.git", top, true)
	}
}

// A sparse worktree has the submodules in its cone, whole.
func TestSparseSubmodules(t *testing.T) {
	t.Parallel()
	f := newFamily(t, gitserver.Options{Config: []string{"uploadpack.allowFilter=true"}})
	_, lib := f.levels()
	top := f.commit("group/top.git", map[string]string{"README": "x\n", "a/b": "x\n", "c/d": "x\n"}, map[string]link{"a/lib": from("../lib.git", lib), "c/lib": from("../nowhere", lib)})
	dir := tempDir(t)
	for range 2 {
		f.must(dir, "group/top.git", top, "submodules=recursive,sparse=a")
		if out, err := native(dir+"/src", nil, "status", "--porcelain", "--ignored"); err != nil || out != "" {
			t.Errorf("%v\n%s", err, out)
		}
		judge(t, dir+"/src/a/lib", lib)
		if _, err := os.Stat(dir + "/src/c"); err == nil {
			t.Error("c is there")
		}
	}
}

// Killed at any instant, the next run makes all of it right.
func TestSubmodulesKilled(t *testing.T) {
	t.Parallel()
	f := newFamily(t, gitserver.Options{})
	var tops []string
	for range 2 {
		f.commit("group/lib.git", map[string]string{"x": "x\n"}, nil)
		top, _ := f.levels()
		tops = append(tops, top)
	}
	r := rand.New(rand.NewPCG(6, 1))
	dir, whole, cut := tempDir(t), time.Duration(0), 0
	for i := range 16 {
		if i%4 == 0 {
			dir = tempDir(t)
		}
		args := slices.Concat([]string{"run-task", "checkout"}, asUser(), []string{"src,submodules=recursive,repo=" + f.url + "/group/top.git,sha=" + tops[i%2]})
		cmd := (&command{args: args, dir: dir}).cmd()
		began := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			timer := time.AfterFunc(time.Duration(r.Int64N(int64(whole))), func() { cmd.Process.Signal(unix.SIGKILL) })
			defer timer.Stop()
		}
		if code := wait(t, cmd); code == 128+int(unix.SIGKILL) {
			cut++
		} else if code == 0 {
			whole = max(whole/2, time.Since(began))
		} else {
			t.Errorf("exit %d", code)
		}
		to := tops[r.IntN(2)]
		f.must(dir, "group/top.git", to, "submodules=recursive")
		if out, err := native(dir+"/src", nil, "submodule", "--quiet", "foreach", "--recursive", "git status --porcelain --ignored && git rev-parse HEAD:"); err != nil || strings.Contains(out, "?? ") || strings.Contains(out, "!! ") {
			t.Errorf("%v\n%s", err, out)
		}
		if out, err := native(dir+"/src", nil, "status", "--porcelain", "--ignored"); err != nil || out != "" {
			t.Errorf("%v\n%s", err, out)
		}
		if i%4 == 3 {
			f.judge(dir+"/src", "group/top.git", to, true)
		}
	}
	if cut == 0 {
		t.Error("no run was cut")
	}
}
