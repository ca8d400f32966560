package odb

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/pack"
	"run-task/internal/fail"
	"run-task/internal/fsx"
)

var (
	ctx   = context.Background()
	plain pack.Options
)

// repo is a repository that the real git works on.
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
	cmd := exec.Command("git", append([]string{"-c", "core.protectNTFS=false", "-c", "core.protectHFS=false", "-c", "gc.auto=0"}, args...)...)
	cmd.Dir, cmd.Stdin = r.dir, strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_AUTHOR_DATE=1700000000 +0000",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b", "GIT_COMMITTER_DATE=1700000000 +0000")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("git %q: %v\n%s", args, err, stderr.Bytes())
	}
	return string(out)
}

func (r repo) id(stdin string, args ...string) plumbing.Hash {
	return plumbing.NewHash(strings.TrimSpace(r.git(stdin, args...)))
}

func (r repo) commit(files map[string]string) plumbing.Hash {
	r.t.Helper()
	for name, content := range files {
		p := filepath.Join(r.dir, name)
		os.MkdirAll(filepath.Dir(p), 0o777)
		if err := os.WriteFile(p, []byte(content), 0o666); err != nil {
			r.t.Fatal(err)
		}
	}
	r.git("", "add", "-A")
	r.git("", "commit", "-q", "--allow-empty", "-m", "m")
	return r.id("", "rev-parse", "HEAD")
}

// text is long and compresses badly, so that small changes of it become deltas.
func text(seed, lines int) string {
	var b strings.Builder
	for i := range lines {
		fmt.Fprintf(&b, "%x\n", sha1.Sum([]byte(strconv.Itoa(seed*1000+i))))
	}
	return b.String()
}

// history has deltas of blobs and trees, tags, a link, a submodule and an empty file.
func history(t testing.TB) (repo, plumbing.Hash) {
	r := newRepo(t)
	big := text(1, 16)
	for i := range 4 {
		big = strings.Replace(big, "a", fmt.Sprint("-", i), 1+i)
		r.commit(map[string]string{"big": big, "dir/sub/f": fmt.Sprint(i), "dir/b": text(i, 1), "empty": ""})
	}
	os.Symlink("big", filepath.Join(r.dir, "link"))
	r.git("", "update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("12", 20)+",module")
	r.git("", "add", "link")
	r.git("", "commit", "-qm", "last")
	r.git("", "tag", "-a", "-m", "x", "v1")
	r.git("", "tag", "-a", "-m", "x", "v2", "v1")
	return r, r.id("", "rev-parse", "HEAD")
}

// pack packs what rev-list --objects gives for revs, or everything.
func (r repo) pack(args ...string) []byte {
	return []byte(r.git("HEAD\nv1\nv2\n", append([]string{"pack-objects", "-q", "--stdout", "--revs"}, args...)...))
}

func openDir(t testing.TB) *fsx.Dir {
	d, err := fsx.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func received(t testing.TB, pack []byte) *Store {
	t.Helper()
	s := &Store{}
	if err := s.Receive(ctx, openDir(t), bytes.NewReader(pack), plain); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestReadAgreesWithGit(t *testing.T) {
	r, _ := history(t)
	s := received(t, r.pack())
	lines := strings.Split(strings.TrimSpace(r.git("", "cat-file", "--batch-all-objects", "--batch-check")), "\n")
	for _, line := range lines {
		f := strings.Fields(line)
		typ, data, err := s.Read(plumbing.NewHash(f[0]))
		if err != nil || typ.String() != f[1] || strconv.Itoa(len(data)) != f[2] {
			t.Errorf("%s: %v, %d bytes, %v", line, typ, len(data), err)
		}
	}
	if s.Len() != len(lines) {
		t.Errorf("%d objects, %d with git", s.Len(), len(lines))
	}
	if _, _, err := s.Read(plumbing.NewHash(strings.Repeat("1", 40))); !errors.Is(err, plumbing.ErrObjectNotFound) || fail.Of(err) != fail.BadData {
		t.Error(err)
	}
}

// Large blobs are streamed; a tree may be as large, and is read.
func TestLargeObjects(t *testing.T) {
	r := newRepo(t)
	large := strings.Repeat("0123456789abcdef", 9<<20/16)
	id := r.id(large, "hash-object", "-w", "--stdin")
	var lines strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&lines, "100644 blob %s\tfile number %020d\n", id, i)
	}
	tree := r.id(lines.String(), "mktree")
	commit := r.id("", "commit-tree", "-m", "m", tree.String())
	s := received(t, []byte(r.git(commit.String()+"\n", "pack-objects", "-q", "--stdout", "--revs")))
	if _, _, err := s.Read(id); !errors.Is(err, ErrLarge) {
		t.Error(err)
	}
	typ, size, content, err := s.Reader(id)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	if data, err := io.ReadAll(content); err != nil || typ != plumbing.BlobObject || size != int64(len(large)) || string(data) != large {
		t.Error(typ, size, err)
	}
	if typ, data, err := s.Read(tree); err != nil || typ != plumbing.TreeObject || len(data) < 8<<20 {
		t.Error(typ, len(data), err)
	}
	if err := s.Verify(ctx, commit, nil, false); err != nil {
		t.Error(err)
	}
	if _, _, err := s.Commit(id); fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), "is a blob, not a commit") {
		t.Error(err)
	}
	if _, err := s.readAs(plumbing.TreeObject, id); fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), "is a blob, not a tree") {
		t.Error(err)
	}
}

// What happens to the file after it was received is found when an object is read.
func TestChangedOnDisk(t *testing.T) {
	r, _ := history(t)
	good, d := received(t, r.pack()), openDir(t)
	s := &Store{}
	if err := s.Receive(ctx, d, bytes.NewReader(r.pack()), plain); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	name := filepath.Join(d.Name(), s.Names()[0]+".pack")
	original, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	found := 0
	for at := 12; at < len(original)-20; at += 5 {
		changed := slices.Clone(original)
		changed[at] ^= 0x10
		if err := os.WriteFile(name, changed, 0o644); err != nil {
			t.Fatal(err)
		}
		fresh, err := Open(d, d, s.Names()) // nothing in its cache
		if err != nil {
			t.Fatal(err)
		}
		for n := range good.Len() {
			id := good.packs[0].ID(n)
			want, content, _ := good.Read(id)
			typ, data, err := fresh.Read(id)
			if err == nil && (typ != want || string(data) != string(content)) {
				t.Fatalf("changed at %d: wrong content of %s", at, id)
			}
			if err != nil {
				if found++; fail.Of(err) != fail.PurgeCache {
					t.Fatalf("changed at %d: %v", at, err)
				}
				if _, _, content, err := fresh.Reader(id); err == nil {
					if _, err = io.ReadAll(content); fail.Of(err) != fail.PurgeCache {
						t.Fatalf("changed at %d: %v", at, err)
					}
					content.Close()
				} else if fail.Of(err) != fail.PurgeCache {
					t.Fatalf("changed at %d: %v", at, err)
				}
			}
		}
		fresh.Close()
	}
	if found < 100 {
		t.Errorf("only %d errors", found)
	}
}

func TestCommit(t *testing.T) {
	r, head := history(t)
	tree := r.id("", "rev-parse", "HEAD^{tree}")
	treeTag := r.id("object "+tree.String()+"\ntype tree\ntag t\ntagger a <a@b> 1 +0000\n\nx\n", "mktag")
	r.git("", "tag", "t", treeTag.String())
	s := received(t, []byte(r.git("HEAD\nv1\nv2\nt\n", "pack-objects", "-q", "--stdout", "--revs")))
	for _, rev := range []string{"HEAD", "v1", "v2"} {
		if c, tr, err := s.Commit(r.id("", "rev-parse", rev)); c != head || tr != tree || err != nil {
			t.Error(rev, c, tr, err)
		}
	}
	for rev, word := range map[string]string{"HEAD^{tree}": "is a tree", "HEAD:big": "is a blob", "t": "is a tree"} {
		if _, _, err := s.Commit(r.id("", "rev-parse", rev)); fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), word) {
			t.Error(rev, err)
		}
	}
	if _, _, err := s.Commit(plumbing.ComputeHash(plumbing.BlobObject, []byte("nothing"))); !errors.Is(err, plumbing.ErrObjectNotFound) {
		t.Error(err)
	}
}

// Each object in turn is left out of the pack. Only the tags are not needed.
func TestVerifyMissesEveryObject(t *testing.T) {
	r, head := history(t)
	v1, v2 := r.id("", "rev-parse", "v1"), r.id("", "rev-parse", "v2")
	all := strings.Fields(r.git("", "cat-file", "--batch-all-objects", "--batch-check=%(objectname)"))
	for i := -1; i < len(all); i++ {
		var list strings.Builder
		for k, id := range all {
			if k != i {
				list.WriteString(id + "\n")
			}
		}
		s := received(t, []byte(r.git(list.String(), "pack-objects", "-q", "--stdout")))
		err := s.Verify(ctx, head, nil, false)
		if i < 0 || all[i] == v1.String() || all[i] == v2.String() {
			if err != nil {
				t.Error(err)
			} else if s.Leads(v1) != (i < 0 || all[i] != v1.String()) || s.Leads(v2) != (i < 0) {
				t.Errorf("tags: %v and %v", s.Leads(v1), s.Leads(v2))
			}
			continue
		}
		if !errors.Is(err, plumbing.ErrObjectNotFound) || fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), all[i]) {
			t.Errorf("without %s: %v", all[i], err)
		}
	}
}

// What leads into the history: its commits and tags of them. What does not: later commits, trees, blobs, what is not there, and tags of all these.
func TestWhatLeadsIntoHistory(t *testing.T) {
	r, head := history(t)
	late := r.commit(map[string]string{"late": "x"})
	r.git("", "tag", "-a", "-m", "x", "late")
	r.git("", "tag", "-a", "-m", "x", "tree", "HEAD^{tree}")
	chain := "v1"
	for i := range maxTags {
		next := fmt.Sprint("chain", i)
		r.git("", "tag", "-a", "-m", "x", next, chain)
		chain = next
	}
	var all strings.Builder
	for _, id := range strings.Fields(r.git("", "cat-file", "--batch-all-objects", "--batch-check=%(objectname)")) {
		all.WriteString(id + "\n")
	}
	s := received(t, []byte(r.git(all.String(), "pack-objects", "-q", "--stdout")))
	if err := s.Verify(ctx, head, nil, false); err != nil {
		t.Fatal(err)
	}
	for rev, want := range map[string]bool{head.String(): true, head.String() + "~2": true, "v1": true, "v2": true, "chain61": true, chain: false,
		late.String(): false, "late": false, "tree": false, head.String() + "^{tree}": false, head.String() + ":big": false} {
		if s.Leads(r.id("", "rev-parse", rev)) != want {
			t.Errorf("%s: not %v", rev, want)
		}
	}
	if s.Leads(plumbing.NewHash(strings.Repeat("1", 40))) {
		t.Error("what is not there leads into history")
	}
}

func TestNearest(t *testing.T) {
	r, head := history(t)
	s := received(t, r.pack())
	at := func(n int) plumbing.Hash { return r.id("", "rev-parse", fmt.Sprintf("HEAD~%d", n)) }
	for _, c := range []struct {
		boundary   []plumbing.Hash
		most, want int
	}{
		{nil, 3, 3}, {nil, 100, 100}, {[]plumbing.Hash{head}, 1, 1}, {[]plumbing.Hash{head}, 2, 1}, {[]plumbing.Hash{at(2)}, 3, 3},
		{[]plumbing.Hash{at(2)}, 4, 3}, {[]plumbing.Hash{at(3), at(1)}, 4, 2}, {[]plumbing.Hash{at(4)}, 9, 9}, // the first commit has no parents
	} {
		if n, err := s.Nearest(head, c.boundary, c.most); n != c.want || err != nil {
			t.Errorf("%v of %d: %d, %v", c.boundary, c.most, n, err)
		}
	}
}

func TestVerifyShallow(t *testing.T) {
	r, head := history(t)
	parent := r.id("", "rev-parse", "HEAD~1")
	clone := repo{t, t.TempDir()}
	clone.git("", "clone", "-q", "--bare", "--depth=2", "file://"+r.dir, ".")
	pack := []byte(clone.git("HEAD\n", "pack-objects", "-q", "--stdout", "--revs", "--shallow"))
	if err := received(t, pack).Verify(ctx, head, []plumbing.Hash{parent}, false); err != nil {
		t.Error(err)
	}
	if err := received(t, pack).Verify(ctx, head, nil, false); !errors.Is(err, plumbing.ErrObjectNotFound) || !strings.Contains(err.Error(), "needed by commit "+parent.String()) {
		t.Error(err)
	}
	if err := received(t, pack).Verify(ctx, parent, []plumbing.Hash{head}, false); err == nil {
		t.Error("the parent's parents are missing")
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if err := received(t, pack).Verify(stopped, head, []plumbing.Hash{parent}, false); fail.Of(err) != fail.Cancelled {
		t.Error(err)
	}
}

// treeLine is a line of a tree that git mktree would refuse.
func treeLine(mode, name string, id plumbing.Hash) string {
	return mode + " " + name + "\x00" + string(id[:])
}

func TestVerifyPathRulesAndTypes(t *testing.T) {
	r := newRepo(t)
	blob := r.id("x", "hash-object", "-w", "--stdin")
	literally := func(content string) plumbing.Hash {
		return r.id(content, "hash-object", "-w", "--literally", "-t", "tree", "--stdin")
	}
	empty := literally("")
	for content, word := range map[string]string{
		treeLine("100644", ".git", blob):                                         `path ".git"`,
		treeLine("40000", "a", literally(treeLine("100644", "x\\GIT~1.", blob))): `path "a/x\\GIT~1."`,
		treeLine("100644", "a", empty):                                           "is a tree, not a blob",
		treeLine("120000", "a", empty):                                           "is a tree, not a blob",
		treeLine("40000", "a", blob):                                             "is a blob, not a tree",
		treeLine("100644", "b", blob) + treeLine("100644", "a", blob):            "order",
	} {
		tree := literally(content)
		commit := r.id("", "commit-tree", "-m", "m", tree.String())
		after := r.id("", "commit-tree", "-m", "m", "-p", commit.String(), empty.String())
		var list strings.Builder
		for _, id := range strings.Fields(r.git("", "cat-file", "--batch-all-objects", "--batch-check=%(objectname)")) {
			list.WriteString(id + "\n")
		}
		s := received(t, []byte(r.git(list.String(), "pack-objects", "-q", "--stdout")))
		err := s.Verify(ctx, commit, nil, false)
		if fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), commit.String()) {
			t.Errorf("%q: %v", content, err)
		}
		if err := s.Verify(ctx, after, nil, false); err != nil && !strings.Contains(word, "not a tree") {
			t.Errorf("%q in history: %v", content, err)
		}
	}
}

func FuzzCommitHeader(f *testing.F) {
	hash := strings.Repeat("ab", 20)
	f.Add("tree " + hash + "\nparent " + hash + "\nparent " + hash + "\nauthor x\n")
	f.Add("tree " + hash + "\nauthor x\n")
	f.Add("object " + hash + "\n")
	f.Fuzz(func(t *testing.T, data string) {
		tree, parents, err := parseCommit(plumbing.ZeroHash, []byte(data))
		if err != nil {
			return
		}
		want := "tree " + tree.String() + "\n"
		for _, p := range parents {
			want += "parent " + p.String() + "\n"
		}
		if got := data[:len(want)]; !strings.EqualFold(got, want) || hex.EncodeToString(tree[:]) != strings.ToLower(got[5:45]) {
			t.Errorf("%q was read as %q", data, want)
		}
	})
}
