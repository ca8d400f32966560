package worktree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

// sample has everything that a tree can hold.
func sample(t testing.TB) (repo, plumbing.Hash) {
	r := newRepo(t)
	r.write("README", "hello\n", 0o644)
	r.write("run.sh", "#!/bin/sh\n", 0o755)
	r.write("empty", "", 0o644)
	r.write("a/b/c/deep", "deep\n", 0o644)
	r.write("a-b", "1", 0o644)
	r.write("a.c", "2", 0o644)
	r.write("a0", "3", 0o644)
	r.write(".gitignore", "*.log\nbuild/\n", 0o644)
	r.write("tracked.log", "ignored but tracked", 0o644)
	for _, name := range []string{"new\nline", `back\slash`, "co:lon", "aux.c", strings.Repeat("n", 255), "\xff\xfe not utf-8", "ünï", " lead", "trail ", "-dash", `"quote"`, "tab\t", "\x7f"} {
		r.write("odd/"+name, name, 0o644)
	}
	os.Symlink("README", filepath.Join(r.dir, "link"))
	os.Symlink("/etc/passwd", filepath.Join(r.dir, "outside"))
	os.Symlink("a/b", filepath.Join(r.dir, "dirlink"))
	os.Symlink(strings.Repeat("x", 4095), filepath.Join(r.dir, "odd/long link"))
	os.Symlink("\xff\n", filepath.Join(r.dir, "a/dangling"))
	r.git("", "update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("12", 20)+",sub/module")
	r.git("", "add", "-A", "-f", ".")
	r.git("", "update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("12", 20)+",sub/module")
	r.git("", "commit", "-qm", "m")
	return r, r.id("", "rev-parse", "HEAD")
}

func TestFreshCheckout(t *testing.T) {
	r, c := sample(t)
	w := newWork(t)
	sum := w.must(r, c, Options{})
	w.judge(r, c)
	if sum.Files != sum.Written || sum.Files != 27 || sum.Removed != 0 || sum.Bytes == 0 {
		t.Errorf("%+v", sum)
	}
	if want := []string{`1 submodules, left as empty directories: "sub/module"`}; !slices.Equal(sum.Notes, want) {
		t.Errorf("%q", sum.Notes)
	}
	if err := os.Remove(w.path("sub/module")); err != nil {
		t.Error("the submodule is not an empty directory:", err)
	}
	sum = w.must(r, c, Options{})
	if sum.Written != 0 || sum.Removed != 0 || sum.Bytes != 0 || sum.Files != 27 {
		t.Errorf("%+v", sum)
	}
	w.judge(r, c)
}

func TestUmask(t *testing.T) {
	r, c := sample(t)
	for _, mask := range []int{0, 0o022, 0o077, 0o777 &^ 0o700} {
		old := unix.Umask(mask)
		w := newWork(t)
		w.must(r, c, Options{})
		for name, mode := range map[string]os.FileMode{"README": 0o666, "run.sh": 0o777} {
			if fi, _ := os.Lstat(w.path(name)); fi.Mode() != mode&^os.FileMode(mask) {
				t.Errorf("umask %o: %s has %v", mask, name, fi.Mode())
			}
		}
		w.judge(r, c)
		unix.Umask(old)
	}
}

// What a file's times and size say is never believed, and what is right is not touched.
func TestContentIsCompared(t *testing.T) {
	r, c := sample(t)
	w := newWork(t)
	w.must(r, c, Options{})
	old := time.Unix(1_000_000_000, 0)
	for _, name := range []string{"README", "a/b/c/deep", "run.sh"} {
		os.Chtimes(w.path(name), old, old)
	}
	st, _ := os.Stat(w.path("README"))
	write(t, w.path("a/b/c/deep"), "DEEP\n", 0o644)
	os.Chtimes(w.path("a/b/c/deep"), old, old)
	os.Chmod(w.path("run.sh"), 0o644)
	os.Link(w.path("a0"), filepath.Join(t.TempDir(), "second name"))
	os.Chmod(w.path("a.c"), os.ModeSetuid|0o644)
	sum := w.must(r, c, Options{})
	if sum.Written != 4 || sum.Removed != 4 {
		t.Errorf("%+v", sum)
	}
	after, _ := os.Stat(w.path("README"))
	if !os.SameFile(st, after) || !after.ModTime().Equal(old) {
		t.Error("README was replaced")
	}
	w.judge(r, c)
}

// Whatever stands where the tree has something, it is replaced, not followed, and not opened.
func TestWhatStandsInTheWay(t *testing.T) {
	for _, clean := range []Clean{All, None} {
		r, c := sample(t)
		w := newWork(t)
		outside := t.TempDir()
		write(t, filepath.Join(outside, "b/c/deep"), "precious", 0o644)
		write(t, filepath.Join(outside, "README"), "precious", 0o644)
		os.Symlink(outside, w.path("a"))                               // link for directory
		os.Symlink(filepath.Join(outside, "README"), w.path("README")) // link for file
		unix.Mkfifo(w.path("empty"), 0o666)                            // FIFO for file
		os.MkdirAll(w.path("run.sh/x/.git"), 0o777)                    // directory for file
		write(t, w.path("run.sh/x/.git/y"), "y", 0o444)
		write(t, w.path("odd"), "file for directory", 0o644)
		write(t, w.path("link"), "file for link", 0o644)
		os.Mkdir(w.path("dirlink"), 0o555)         // read-only directory for link
		os.Symlink("elsewhere", w.path("outside")) // link with another target
		write(t, w.path("sub/module"), "file for submodule", 0o644)
		socket(t, w.path("a0"))
		write(t, w.path("README.log"), "stray", 0o644)
		w.must(r, c, Options{Clean: clean})
		if b, _ := os.ReadFile(filepath.Join(outside, "b/c/deep")); string(b) != "precious" {
			t.Error("written through a link")
		}
		if _, err := os.Stat(w.path("README.log")); (err == nil) != (clean == None) {
			t.Error("stray:", err)
		}
		os.Remove(w.path("README.log"))
		w.judge(r, c)
	}
}

func socket(t *testing.T, name string) {
	// A socket's address has 107 bytes; the test's directory may be longer.
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(name))}); err != nil {
		t.Fatal(err)
	}
}

func TestClean(t *testing.T) {
	r, c := sample(t)
	w := newWork(t)
	w.must(r, c, Options{})
	write(t, w.path(".git/hooks/post-checkout"), "kept: not ours to clean", 0o755)
	strays := []string{"stray", "x.log", "a/b/stray", "build/x/y", "nested/.git/config", "nested/file", "sub/module/.git", "sub/module/file", "odd/.git/HEAD", "mod/cache@v1/f", ".gitx/y"}
	dirt := func() {
		for _, name := range strays {
			write(t, w.path(name), "x", 0o444)
		}
		os.MkdirAll(w.path("empty dirs/x/y"), 0o777)
		os.Symlink("/", w.path("rootlink"))
		unix.Mkfifo(w.path("a/fifo"), 0o600)
		for _, d := range []string{"mod/cache@v1", "mod", "build/x", "nested/.git"} {
			os.Chmod(w.path(d), 0o555)
		}
		os.Mkdir(w.path("closed"), 0)
		os.Chmod(w.path("a/b/c"), 0o555) // a tracked one
	}
	dirt()
	if sum := w.must(r, c, Options{Clean: None}); sum.Removed != 0 || sum.Written != 0 {
		t.Errorf("%+v", sum)
	}
	for _, name := range strays {
		if _, err := os.Lstat(w.path(name)); err != nil {
			t.Error(err)
		}
	}
	sum := w.must(r, c, Options{})
	if sum.Written != 0 || sum.Removed != 14 {
		t.Errorf("%+v\n%s", sum, w.out.String())
	}
	if _, err := os.Stat(w.path(".git/hooks/post-checkout")); err != nil {
		t.Error(err)
	}
	os.RemoveAll(w.path(".git/hooks"))
	w.judge(r, c)
}

// A volume's own lost+found is root's and stays; a directory of that name that the task made goes.
func TestLostAndFound(t *testing.T) {
	r, c := sample(t)
	w := newWork(t)
	for _, name := range []string{"lost+found", "a/lost+found"} {
		if err := os.MkdirAll(w.path(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.must(r, c, Options{})
	_, err := os.Stat(w.path("lost+found"))
	if stays := err == nil; stays != (os.Getuid() == 0) {
		t.Errorf("made by uid %d: %v", os.Getuid(), err)
	}
	if _, err := os.Stat(w.path("a/lost+found")); err == nil {
		t.Error("one below the top is a stray like any other")
	}
	if status := w.git("status", "--porcelain", "--ignored"); status != "" {
		t.Errorf("git sees %q", status)
	}
}

// Random trees, and in between whatever a task may do to a worktree.
func TestRandomWalk(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	r := newRepo(t)
	var commits []plumbing.Hash
	for range 12 {
		for range 8 {
			mutate(rnd, r.dir)
		}
		commits = append(commits, r.commitAll())
	}
	w := newWork(t)
	for range 25 {
		for range rnd.IntN(6) {
			mutate(rnd, w.dir)
		}
		c := commits[rnd.IntN(len(commits))]
		w.must(r, c, Options{})
		if w.judge(r, c); t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// mutate makes one random change below dir, its .git left alone.
func mutate(rnd *rand.Rand, dir string) {
	names := []string{"a", "b", "a-b", "a.b", "c/a", "c/b/a", "c/b/d", "c", "c/b", "d/\xff", "d/new\nline", `d/back\slash`, "d", "e/é", "e/.x", "x y/ z"}
	p := filepath.Join(dir, names[rnd.IntN(len(names))])
	other := filepath.Join(dir, names[rnd.IntN(len(names))])
	for parent := filepath.Dir(p); parent != dir; parent = filepath.Dir(parent) {
		if fi, err := os.Lstat(parent); err == nil && !fi.IsDir() {
			os.Remove(parent)
		}
	}
	os.MkdirAll(filepath.Dir(p), 0o777)
	switch rnd.IntN(9) {
	case 0, 1, 2:
		os.RemoveAll(p)
		os.WriteFile(p, bytes.Repeat([]byte{byte('a' + rnd.IntN(3))}, rnd.IntN(3)*4000), 0o644)
	case 3:
		os.RemoveAll(p)
		os.Symlink(names[rnd.IntN(len(names))], p)
	case 4:
		if fi, err := os.Lstat(p); err == nil && fi.Mode().IsRegular() {
			os.Chmod(p, []os.FileMode{0o755, 0o644}[rnd.IntN(2)])
		}
	case 5:
		os.RemoveAll(p)
	case 6:
		os.Rename(p, other)
	case 7:
		os.RemoveAll(p)
		os.MkdirAll(filepath.Join(p, "sub/deep"), 0o777)
		os.WriteFile(filepath.Join(p, "sub/deep/f"), []byte("x"), 0o755)
	case 8: // keep size and times, change content
		if fi, err := os.Lstat(p); err == nil && fi.Mode().IsRegular() {
			os.WriteFile(p, bytes.Repeat([]byte("z"), int(fi.Size())), 0o644)
			os.Chtimes(p, fi.ModTime(), fi.ModTime())
		}
	}
}

func TestHistoricModesAndOddTrees(t *testing.T) {
	r := newRepo(t)
	b := r.blob("x")
	c := r.commitTree(r.tree(line("100664", "a", b), line("100775", "b", b), line("100600", "c", b), line("120777", "d", b), line("040000", "e", r.tree(line("100644", "f", b))), line("40000", "nothing", r.tree())))
	w := newWork(t)
	w.must(r, c, Options{})
	if got := modes(t, w.dir); !strings.Contains(got, "-rw-r--r-- /a\n-rwxr-xr-x /b\n-rw-r--r-- /c\nLrwxrwxrwx /d\nd--------- /e\n-rw-r--r-- /e/f\n") || strings.Contains(got, "nothing") {
		t.Error(got)
	}
	for _, args := range [][]string{{"diff-files"}, {"status", "--porcelain", "--ignored"}, {"diff", "--cached"}} {
		if out := w.git(args...); out != "" {
			t.Error(args, out)
		}
	}
}

func TestEmptyTree(t *testing.T) {
	r, c := sample(t)
	w := newWork(t)
	w.must(r, c, Options{})
	e := r.commitTree(r.tree())
	w.must(r, e, Options{})
	w.judge(r, e)
	if names, _ := os.ReadDir(w.dir); len(names) != 1 {
		t.Error(names)
	}
}

// Deeper than the paths that system calls take, and with a path that the index has to say "long" about.
func TestDeepTree(t *testing.T) {
	r := newRepo(t)
	tree := r.tree(line("100644", "file", r.blob("deep")))
	for range 60 {
		tree = r.tree(line("40000", strings.Repeat("d", 100), tree))
	}
	w := newWork(t)
	w.take(r, r.commitTree(tree))
	for range 2 {
		sum, err := Write(ctx, logs.New(io.Discard, logs.Quiet, false), w.root, w.gitdir, tree, w.store, Options{})
		if err != nil || sum.Files != 1 {
			t.Fatal(sum, err)
		}
	}
	if out := w.git("ls-files", "-s"); !strings.HasSuffix(out, "/file\n") || len(out) < 6000 {
		t.Errorf("%d bytes: %s", len(out), out)
	}
	d, err := w.root.OpenDir(strings.Repeat(strings.Repeat("d", 100)+"/", 59) + strings.Repeat("d", 100))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if b, err := d.ReadFile("file", 10); string(b) != "deep" {
		t.Error(b, err)
	}
}

// Blobs of more than 8 MiB are streamed: written, found right again, and replaced.
func TestLargeBlob(t *testing.T) {
	r := newRepo(t)
	r.write("large", strings.Repeat("0123456789abcde\n", 9<<20/16), 0o755)
	r.write("small", "x", 0o644)
	c := r.commitAll()
	w := newWork(t)
	if sum := w.must(r, c, Options{}); sum.Written != 2 || sum.Bytes != 9<<20+1 {
		t.Errorf("%+v", sum)
	}
	w.judge(r, c)
	if sum := w.must(r, c, Options{}); sum.Written != 0 {
		t.Errorf("%+v", sum)
	}
	for name, change := range map[string]func(){
		"a link to it": func() {
			r.git("", "update-index", "--add", "--cacheinfo", "120000,"+r.git("", "rev-parse", "HEAD:large")[:40]+",link")
		},
		".gitmodules": func() {
			r.git("", "update-index", "--add", "--cacheinfo", "100644,"+r.git("", "rev-parse", "HEAD:large")[:40]+",.gitmodules")
		},
	} {
		r.git("", "reset", "-q", "--hard", c.String())
		change()
		r.git("", "commit", "-q", "-m", name)
		if _, err := w.checkout(r, r.id("", "rev-parse", "HEAD"), Options{}); fail.Of(err) != fail.BadData {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is refused is refused before Begin, and Begin comes before the first change.
func TestBegin(t *testing.T) {
	r := newRepo(t)
	r.write("file", "x", 0o644)
	good := r.commitAll()
	bad := r.commitTree(r.tree(line("120000", "link", r.blob(""))))
	w := newWork(t)
	write(t, w.path("stray"), "x", 0o644)
	begun := errors.New("begun")
	begin := Options{Begin: func() error { return begun }}
	if _, err := w.checkout(r, bad, begin); fail.Of(err) != fail.BadData {
		t.Error(err)
	}
	if _, err := w.checkout(r, good, begin); !errors.Is(err, begun) {
		t.Error(err)
	}
	if names, _ := w.root.Names(); len(names) != 2 {
		t.Errorf("changed before Begin: %q", names)
	}
}
