package worktree

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/index"
	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
)

func TestHostileTrees(t *testing.T) {
	r := newRepo(t)
	b, empty := r.blob("x"), r.tree()
	dir := func(name string) plumbing.Hash { return r.tree(line("100644", name, b)) }
	deep := empty
	for range 2100 {
		deep = plumbing.ComputeHash(plumbing.TreeObject, []byte(line("40000", "d", deep)))
	}
	w := newWork(t)
	write(t, w.path("README"), "before", 0o644)
	write(t, w.path("stray"), "before", 0o644)
	before := modes(t, w.dir)
	for rule, tree := range map[string]plumbing.Hash{
		".git 1":   r.tree(line("40000", ".git", dir("config"))),
		".git 2":   r.tree(line("40000", ".GIT", dir("config"))),
		".git 3":   r.tree(line("100644", "git~1", b)),
		".git 4":   r.tree(line("40000", "sub", dir(".git"))),
		".git 5":   r.tree(line("40000", ".g\u200cit", dir("config"))),
		".git 6":   r.tree(line("100644", `.git\hooks`, b)),
		".git 7":   r.tree(line("100644", ".git::$INDEX_ALLOCATION", b)),
		".git 8":   r.tree(line("120000", ".git ", b)),
		"exists 1": r.tree(line("40000", "..", dir("x"))),
		"exists 2": r.tree(line("40000", ".", dir("x"))),
		"slash":    r.tree(line("100644", "a/b", b)),
		"empty 1":  r.tree(line("100644", "", b)),
		"256":      r.tree(line("100644", strings.Repeat("x", 256), b)),
		"twice 1":  r.tree(line("100644", "a", b), line("100644", "a", b)),
		"twice 2":  r.tree(line("120000", "a", b), line("40000", "a", dir("x"))),
		"twice 3":  r.tree(line("100644", "a", b), line("100644", "a.b", b), line("40000", "a", dir("x"))),
		"order":    r.tree(line("100644", "b", b), line("100644", "a", b)),
		"mode":     r.tree(line("060000", "a", b)),
		"link 1":   r.tree(line("120000", ".gitmodules", b)),
		"link 2":   r.tree(line("120000", "a", r.blob(""))),
		"link 3":   r.tree(line("120000", "a", r.blob("a\x00b"))),
		"link 4":   r.tree(line("120000", "a", r.blob(strings.Repeat("x", 4096)))),
		"link 5":   r.tree(line("120000", "a", empty)),
		"not a tr": r.tree(line("40000", "a", b)),
		"not a bl": r.tree(line("100644", "a", empty)),
		"cut shor": r.tree(line("100644", "a", b)[:20]),
		"subm 1":   r.tree(line("160000", "-a", b)),
		"subm 2":   r.tree(line("40000", "a", r.tree(line("160000", "\r", b)))),
		"missing":  r.tree(line("100644", "a", plumbing.NewHash(strings.Repeat("1", 40)))),
	} {
		// pack-objects follows no hostile trees: everything loose goes in.
		list := r.git("", "cat-file", "--batch-all-objects", "--batch-check=%(objectname)")
		c := r.id("", "commit-tree", "-m", "m", tree.String())
		s := storeOf(t, r, list+c.String()+"\n")
		verr := s.Verify(ctx, c, nil, false)
		if strings.HasPrefix(rule, "link ") && rule > "link 1" && rule < "link 5" {
			verr = fail.Errorf(fail.BadData, "Verify does not read blobs")
		}
		if fail.Of(verr) != fail.BadData {
			t.Errorf("%s: Verify: %v", rule, verr)
		}
		if rule == "not a bl" || rule == "missing" { // Verify's business
			continue
		}
		_, err := Write(ctx, logs.New(io.Discard, logs.Quiet, false), w.root, w.gitdir, tree, s, Options{})
		if fail.Of(err) != fail.BadData {
			t.Errorf("%s: %v", rule, err)
		}
		if after := modes(t, w.dir); after != before {
			t.Fatalf("%s: something was changed:\n%s", rule, after)
		}
	}
	if _, err := Write(ctx, logs.New(io.Discard, logs.Quiet, false), w.root, w.gitdir, deep, endless{}, Options{}); fail.Of(err) != fail.BadData {
		t.Error(err)
	}
	if _, err := os.Stat(w.path(".git/index")); err == nil {
		t.Error("an index was written")
	}
}

// endless has one tree that holds itself.
type endless struct{ Source }

func (endless) Read(plumbing.Hash) (plumbing.ObjectType, []byte, error) {
	return plumbing.TreeObject, []byte(line("40000", "d", plumbing.ZeroHash)), nil
}

// A .gitattributes that is a link is allowed and not followed; what is asked for and not done is said once.
func TestWarnings(t *testing.T) {
	r := newRepo(t)
	r.write(".gitattributes", "# eol=crlf\n*.bat eol=crlf\n\"a b\" ident\n", 0o644)
	r.write("d/.gitattributes", "*.x working-tree-encoding=UTF-16 filter=foo\n* text=auto eol=lf\n*.bin filter=lfs\n", 0o644)
	r.write("e/.gitattributes", "* eol=crlf\n", 0o644)
	r.write("big.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n", 0o644)
	r.write("a.bat", "line\n", 0o644)
	r.git("", "add", "big.bin", "a.bat", ".gitattributes", "d", "e")
	r.git("", "commit", "-qm", "m")
	c := r.id("", "rev-parse", "HEAD")
	w := newWork(t)
	want := []string{
		`".gitattributes" asks for eol=crlf: files are written with the repository's line ends`,
		`"d/.gitattributes" asks for working-tree-encoding: files are written in UTF-8, as the repository has them`,
		`".gitattributes" asks for ident: $Id$ is not expanded`,
		`"d/.gitattributes" asks for a filter: it is not run`,
		`1 Git LFS pointers, what they stand for is not fetched: "big.bin"`,
	}
	for range 2 {
		if sum := w.must(r, c, Options{}); !slices.Equal(sum.Warnings, want) {
			t.Errorf("%q", sum.Warnings)
		}
	}
	if out := w.git("status", "--porcelain", "--ignored"); out != "" {
		t.Error(out)
	}
	link := r.commitTree(r.tree(line("120000", ".gitattributes", r.blob("big.bin")), line("120000", ".gitignore", r.blob("x"))))
	w = newWork(t)
	if sum := w.must(r, link, Options{}); len(sum.Warnings) != 0 {
		t.Errorf("%q", sum.Warnings)
	}
}

// flaky ends the context, or fails, at its nth read.
type flaky struct {
	Source
	n  int
	do func() error
}

func (f *flaky) Read(id plumbing.Hash) (plumbing.ObjectType, []byte, error) {
	if f.n--; f.n == 0 {
		if err := f.do(); err != nil {
			return 0, nil, err
		}
	}
	return f.Source.Read(id)
}

// Wherever it ends, the index is the old one, and the next run makes it right.
func TestInterrupted(t *testing.T) {
	r, c := sample(t)
	w := newWork(t)
	w.take(r, c)
	_, tree, _ := w.store.Commit(c)
	log := logs.New(io.Discard, logs.Quiet, false)
	broken := errors.New("broken")
	for n := 1; ; n++ {
		stopped, cancel := context.WithCancelCause(ctx)
		_, err := Write(stopped, log, w.root, w.gitdir, tree, &flaky{w.store, n, func() error { cancel(fail.ErrInterrupted); return nil }}, Options{})
		_, err2 := Write(ctx, log, w.root, w.gitdir, tree, &flaky{w.store, n, func() error { return broken }}, Options{})
		if err == nil || err2 == nil {
			break // all is written, there are no more reads
		}
		if fail.Of(err) != fail.Interrupted || !errors.Is(err2, broken) {
			t.Fatal(n, err, err2)
		}
		if _, err := os.Stat(w.path(".git/index")); err == nil {
			t.Fatal("an index was written")
		}
	}
	w.must(r, c, Options{})
	w.judge(r, c)
}

func TestIndexThatIsADirectory(t *testing.T) {
	r, c := sample(t)
	w := newWork(t)
	write(t, w.path(".git/index/x"), "x", 0o444)
	w.must(r, c, Options{})
	w.judge(r, c)
}

func TestIndexSize(t *testing.T) {
	for size, want := range map[int64]uint32{0: 0, 1: 1, 1<<32 - 1: 1<<32 - 1, 1 << 32: 1 << 31, 1<<32 + 5: 5, 3 << 32: 1 << 31} {
		if got := index.StatOf(fsx.Stat{Size: size}).Size(); got != want {
			t.Errorf("%d: %d", size, got)
		}
	}
}

// A file larger than 4 GiB is not read into memory only to see whether git likes its size.
func TestIndexOfAHugeFile(t *testing.T) {
	w := newWork(t)
	name := w.path("huge")
	write(t, name, "", 0o644)
	if err := os.Truncate(name, 5<<30); err != nil {
		t.Fatal(err)
	}
	st, err := w.root.Lstat("huge")
	if err != nil {
		t.Fatal(err)
	}
	if err := writeIndex(w.gitdir, &plan{files: []file{{Entry: index.Entry{Path: "huge", Mode: 0o100644, Stat: index.StatOf(st)}}}, top: &index.Tree{Files: 1}}); err != nil {
		t.Fatal(err)
	}
	// The times must not make git read it: it would if the file were as new as the index.
	later := time.Now().Add(time.Hour)
	os.Chtimes(w.path(".git/index"), later, later)
	if out := w.git("diff-files"); out != "" {
		t.Error(out)
	}
}

func FuzzAttributes(f *testing.F) {
	f.Add("*.bat eol=crlf\n\"a \\\"b\" ident\r\n[attr]x filter=y\n")
	f.Add("\"\\")
	f.Add("\"")
	f.Fuzz(func(t *testing.T, s string) {
		var a attributes
		a.parse("p", []byte(s))
		if a.ident != "" && !strings.Contains(s, "ident") {
			t.Errorf("%q", s)
		}
	})
}
