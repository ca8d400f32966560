package worktree

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/odb"
	"run-task/checkout/internal/pack"
	"run-task/internal/fsx"
	"run-task/internal/logs"
)

var (
	ctx   = context.Background()
	plain pack.Options
)

// gitIn runs the real git in a directory, with no configuration but the repository's.
func gitIn(t testing.TB, dir, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_CONFIG_COUNT=4",
		"GIT_CONFIG_KEY_0=core.protectNTFS", "GIT_CONFIG_VALUE_0=false", "GIT_CONFIG_KEY_1=gc.auto", "GIT_CONFIG_VALUE_1=0",
		"GIT_CONFIG_KEY_2=safe.directory", "GIT_CONFIG_VALUE_2=*", "GIT_CONFIG_KEY_3=core.quotePath", "GIT_CONFIG_VALUE_3=true",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_AUTHOR_DATE=1700000000 +0000",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b", "GIT_COMMITTER_DATE=1700000000 +0000")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, stderr.Bytes())
	}
	return string(out)
}

// repo is where commits are made.
type repo struct {
	t   testing.TB
	dir string
}

func newRepo(t testing.TB) repo {
	r := repo{t, t.TempDir()}
	r.git("", "init", "-q", "-b", "main")
	return r
}

func (r repo) git(stdin string, args ...string) string {
	r.t.Helper()
	return gitIn(r.t, r.dir, stdin, args...)
}

func (r repo) id(stdin string, args ...string) plumbing.Hash {
	r.t.Helper()
	return plumbing.NewHash(strings.TrimSpace(r.git(stdin, args...)))
}

// tree makes a tree object of any content.
func (r repo) tree(lines ...string) plumbing.Hash {
	r.t.Helper()
	return r.id(strings.Join(lines, ""), "hash-object", "-w", "--literally", "-t", "tree", "--stdin")
}

func line(mode, name string, id plumbing.Hash) string {
	return mode + " " + name + "\x00" + string(id[:])
}

func (r repo) blob(content string) plumbing.Hash {
	r.t.Helper()
	return r.id(content, "hash-object", "-w", "--stdin")
}

// commitTree makes HEAD a commit of that tree.
func (r repo) commitTree(tree plumbing.Hash) plumbing.Hash {
	r.t.Helper()
	c := r.id("", "commit-tree", "-m", "m", tree.String())
	r.git("", "update-ref", "--no-deref", "HEAD", c.String())
	return c
}

// commitAll commits what is in the directory.
func (r repo) commitAll() plumbing.Hash {
	r.t.Helper()
	r.git("", "add", "-A", "-f")
	r.git("", "commit", "-q", "--allow-empty", "-m", "m")
	return r.id("", "rev-parse", "HEAD")
}

func (r repo) write(name, content string, perm os.FileMode) {
	r.t.Helper()
	write(r.t, filepath.Join(r.dir, name), content, perm)
}

func write(t testing.TB, p, content string, perm os.FileMode) {
	t.Helper()
	os.MkdirAll(filepath.Dir(p), 0o777)
	os.Remove(p)
	if err := os.WriteFile(p, []byte(content), perm); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(p, perm); err != nil {
		t.Fatal(err)
	}
}

// work is a worktree of ours with the least .git that git accepts.
type work struct {
	t            testing.TB
	dir          string
	root, gitdir *fsx.Dir
	store        *odb.Store
	out          bytes.Buffer
}

func newWork(t testing.TB) *work {
	w := &work{t: t, dir: filepath.Join(t.TempDir(), "work")}
	for _, d := range []string{"objects/pack", "refs/heads"} {
		if err := os.MkdirAll(filepath.Join(w.dir, ".git", d), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(w.dir, ".git/config"), "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n", 0o666)
	write(t, filepath.Join(w.dir, ".git/HEAD"), "ref: refs/heads/none\n", 0o666)
	w.root, w.gitdir = openDir(t, w.dir), openDir(t, filepath.Join(w.dir, ".git"))
	return w
}

func openDir(t testing.TB, p string) *fsx.Dir {
	t.Helper()
	d, err := fsx.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// take brings a commit's objects from r.
func (w *work) take(r repo, commit plumbing.Hash) {
	w.t.Helper()
	dir := openDir(w.t, filepath.Join(w.dir, ".git/objects/pack"))
	pack := r.git(commit.String()+"\n", "pack-objects", "-q", "--stdout", "--revs", "--delta-base-offset")
	var err error
	if w.store, err = receive(ctx, dir, strings.NewReader(pack), plain); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.store.Close() })
}

// checkout takes a commit, verifies it, writes it and sets HEAD.
func (w *work) checkout(r repo, commit plumbing.Hash, o Options) (Summary, error) {
	w.t.Helper()
	w.take(r, commit)
	if err := w.store.Verify(ctx, commit, nil, false); err != nil {
		return Summary{}, err
	}
	return w.write(commit, o)
}

// write writes a commit that is in the store and sets HEAD.
func (w *work) write(commit plumbing.Hash, o Options) (Summary, error) {
	w.t.Helper()
	_, tree, err := w.store.Commit(commit)
	if err != nil {
		w.t.Fatal(err)
	}
	sum, err := Write(ctx, logs.New(io.MultiWriter(&w.out), logs.Verbose, false), w.root, w.gitdir, tree, w.store, o)
	if err == nil {
		write(w.t, filepath.Join(w.dir, ".git/HEAD"), commit.String()+"\n", 0o666)
	}
	return sum, err
}

func (w *work) must(r repo, commit plumbing.Hash, o Options) Summary {
	w.t.Helper()
	sum, err := w.checkout(r, commit, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return sum
}

func (w *work) git(args ...string) string {
	w.t.Helper()
	return gitIn(w.t, w.dir, "", args...)
}

func (w *work) path(name string) string { return filepath.Join(w.dir, name) }

// judge asks git whether the worktree is the commit, and compares it with git's own checkout of it.
func (w *work) judge(r repo, commit plumbing.Hash) {
	w.t.Helper()
	theirs := filepath.Join(w.t.TempDir(), "theirs")
	gitIn(w.t, r.dir, "", "worktree", "add", "-q", "-f", "--detach", theirs, commit.String())
	defer gitIn(w.t, r.dir, "", "worktree", "remove", "-f", "-f", theirs)
	for _, args := range [][]string{{"diff-files", "--raw"}, {"diff-index", "--raw", "HEAD"}, {"status", "--porcelain", "--ignored"}, {"fsck", "--full", "--strict"}} {
		if out := w.git(args...); out != "" && args[0] != "fsck" || strings.Contains(out, "missing") || strings.Contains(out, "error") {
			w.t.Errorf("git %s: %s", args, out)
		}
	}
	if got, want := w.git("ls-files", "-s"), gitIn(w.t, theirs, "", "ls-files", "-s"); got != want {
		w.t.Errorf("ls-files -s:\n%s\ngit has:\n%s", got, want)
	}
	if got, want := w.git("write-tree"), w.git("rev-parse", "HEAD^{tree}"); got != want {
		w.t.Errorf("write-tree: %s, not %s", got, want)
	}
	if out, err := exec.Command("diff", "-r", "--no-dereference", "--exclude=.git", theirs, w.dir).CombinedOutput(); err != nil {
		w.t.Errorf("diff: %v\n%s", err, out)
	}
	if got, want := modes(w.t, w.dir), modes(w.t, theirs); got != want {
		w.t.Errorf("modes:\n%s\ngit has:\n%s", got, want)
	}
}

// modes lists type, permissions and name of everything but .git, directories' permissions left out: they are as they were.
func modes(t testing.TB, dir string) string {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if p == filepath.Join(dir, ".git") {
			if e.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		m := fi.Mode()
		if m.IsDir() {
			m = os.ModeDir
		}
		b.WriteString(m.String() + " " + strings.TrimPrefix(p, dir) + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// storeOf packs the listed objects.
func storeOf(t testing.TB, r repo, list string) *odb.Store {
	t.Helper()
	dir := openDir(t, t.TempDir())
	s, err := receive(ctx, dir, strings.NewReader(r.git(list, "pack-objects", "-q", "--stdout")), plain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func receive(ctx context.Context, dir *fsx.Dir, r io.Reader, o pack.Options) (*odb.Store, error) {
	s := &odb.Store{}
	return s, s.Receive(ctx, dir, r, o)
}
