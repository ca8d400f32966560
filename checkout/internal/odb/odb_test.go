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
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

var ctx = context.Background()

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

func ingested(t testing.TB, pack []byte) *Store {
	t.Helper()
	d := openDir(t)
	name, _, err := Ingest(ctx, d, bytes.NewReader(pack), nil)
	if err != nil {
		t.Fatal(err)
	}
	return opened(t, d, name)
}

func opened(t testing.TB, d *fsx.Dir, name string) *Store {
	t.Helper()
	s, err := Open(d, []string{name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestIngestAgreesWithGit(t *testing.T) {
	r, _ := history(t)
	for _, option := range []string{"--delta-base-offset", "--no-delta-base-offset", "--window=0"} {
		pack := r.pack(option)
		d := openDir(t)
		var calls, last uint32
		var received int64
		name, objects, err := Ingest(ctx, d, iotest.OneByteReader(bytes.NewReader(pack)), func(n, total uint32, bytes int64) {
			if calls++; n != calls {
				t.Errorf("call %d for object %d", calls, n)
			}
			last, received = total, bytes
		})
		if err != nil {
			t.Fatal(option, err)
		}
		if int(calls) != objects || int(last) != objects || received != int64(len(pack)-20) {
			t.Errorf("%d calls, %d, %d bytes for %d objects, %d bytes", calls, last, received, objects, len(pack))
		}
		path := filepath.Join(d.Name(), name)
		theirs := filepath.Join(t.TempDir(), "x.pack")
		os.WriteFile(theirs, pack, 0o666)
		r.git("", "index-pack", theirs)
		if chains := strings.Contains(r.git("", "verify-pack", "-v", theirs), "chain length = 2"); chains == (option == "--window=0") {
			t.Error("the sample has no deltas upon deltas, or should have none", option)
		}
		for _, ext := range []string{".pack", ".idx"} {
			want, _ := os.ReadFile(strings.TrimSuffix(theirs, ".pack") + ext)
			got, err := os.ReadFile(path + ext)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %s is not git's: %v", option, ext, err)
			}
			if fi, err := os.Stat(path + ext); err != nil || fi.Mode() != 0o444 {
				t.Error(fi, err)
			}
		}
		if names, _ := d.Names(); len(names) != 2 {
			t.Errorf("left over: %q", names)
		}
		s := opened(t, d, name)
		for line := range strings.Lines(r.git("", "cat-file", "--batch-all-objects", "--batch-check")) {
			f := strings.Fields(line)
			typ, data, err := s.Read(plumbing.NewHash(f[0]))
			if err != nil || typ.String() != f[1] || strconv.Itoa(len(data)) != f[2] {
				t.Errorf("%s: %v, %d bytes, %v", line, typ, len(data), err)
			}
		}
		if _, _, err := s.Read(plumbing.NewHash(strings.Repeat("1", 40))); !errors.Is(err, plumbing.ErrObjectNotFound) {
			t.Error(err)
		}
	}
}

func TestOpenRefusesWhatIsNoFile(t *testing.T) {
	d := openDir(t)
	if _, err := Open(d, []string{"pack-x"}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	os.WriteFile(filepath.Join(d.Name(), "real"), nil, 0o666)
	d.Symlink("real", "pack-x.idx")
	swapped := openDir(t)
	var names []string
	for _, content := range []string{"one", "two"} {
		pack, _ := rawPack(1, blob(content))
		name, _, err := Ingest(ctx, swapped, bytes.NewReader(pack), nil)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := swapped.Rename(names[1]+".idx", names[0]+".idx"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(swapped, names[:1]); fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), "another pack's") {
		t.Error(err)
	}
	if _, err := Open(d, []string{"pack-x"}); fail.Of(err) != fail.BadData {
		t.Error(err)
	}
	d.Mkdir("pack-y.idx", 0o777)
	if _, err := Open(d, []string{"pack-y"}); fail.Of(err) != fail.BadData {
		t.Error(err)
	}
}

func TestErrorsThatAreNotThePacks(t *testing.T) {
	r, _ := history(t)
	pack := r.pack()
	reset := errors.New("connection reset")
	for _, n := range []int{0, 5, 12, 200, len(pack) - 20, len(pack) - 1, len(pack)} {
		d := openDir(t)
		_, _, err := Ingest(ctx, d, io.MultiReader(bytes.NewReader(pack[:n]), iotest.ErrReader(reset)), nil)
		if !errors.Is(err, reset) || fail.Of(err) != fail.Internal { // no reason of ours: the caller knows
			t.Errorf("after %d bytes: %v", n, err)
		}
		_, _, err = Ingest(ctx, d, iotest.DataErrReader(io.MultiReader(bytes.NewReader(pack[:n]), iotest.ErrReader(io.ErrUnexpectedEOF))), nil)
		if !errors.Is(err, io.ErrUnexpectedEOF) || fail.Of(err) == fail.BadData {
			t.Errorf("after %d bytes: %v", n, err)
		}
		if names, _ := d.Names(); len(names) != 0 {
			t.Errorf("left over: %q", names)
		}
	}
	stopped, cancel := context.WithCancelCause(ctx)
	_, _, err := Ingest(stopped, openDir(t), bytes.NewReader(pack), func(n, total uint32, _ int64) {
		if n == total {
			cancel(fail.ErrInterrupted)
		}
	})
	if fail.Of(err) != fail.Interrupted {
		t.Error(err)
	}
}

func TestCommit(t *testing.T) {
	r, head := history(t)
	tree := r.id("", "rev-parse", "HEAD^{tree}")
	treeTag := r.id("object "+tree.String()+"\ntype tree\ntag t\ntagger a <a@b> 1 +0000\n\nx\n", "mktag")
	r.git("", "tag", "t", treeTag.String())
	s := ingested(t, []byte(r.git("HEAD\nv1\nv2\nt\n", "pack-objects", "-q", "--stdout", "--revs")))
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
	if _, _, err := s.Commit(blobID("nothing")); !errors.Is(err, plumbing.ErrObjectNotFound) {
		t.Error(err)
	}
}

// Each object in turn is left out of the pack.
func TestVerifyMissesEveryObject(t *testing.T) {
	r, head := history(t)
	tags := []plumbing.Hash{r.id("", "rev-parse", "v1"), r.id("", "rev-parse", "v2")}
	all := strings.Fields(r.git("", "cat-file", "--batch-all-objects", "--batch-check=%(objectname)"))
	for i := -1; i < len(all); i++ {
		var list strings.Builder
		for k, id := range all {
			if k != i {
				list.WriteString(id + "\n")
			}
		}
		err := ingested(t, []byte(r.git(list.String(), "pack-objects", "-q", "--stdout"))).Verify(ctx, head, nil, tags)
		if i < 0 && err != nil {
			t.Error(err)
		}
		if i >= 0 && (!errors.Is(err, plumbing.ErrObjectNotFound) || fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), all[i])) {
			t.Errorf("without %s: %v", all[i], err)
		}
	}
}

func TestVerifyShallow(t *testing.T) {
	r, head := history(t)
	parent := r.id("", "rev-parse", "HEAD~1")
	clone := repo{t, t.TempDir()}
	clone.git("", "clone", "-q", "--bare", "--depth=2", "file://"+r.dir, ".")
	s := ingested(t, []byte(clone.git("HEAD\n", "pack-objects", "-q", "--stdout", "--revs", "--shallow")))
	if err := s.Verify(ctx, head, []plumbing.Hash{parent}, nil); err != nil {
		t.Error(err)
	}
	if err := s.Verify(ctx, head, nil, nil); !errors.Is(err, plumbing.ErrObjectNotFound) || !strings.Contains(err.Error(), "needed by commit "+parent.String()) {
		t.Error(err)
	}
	if err := s.Verify(ctx, parent, []plumbing.Hash{head}, nil); err == nil {
		t.Error("the parent's parents are missing")
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Verify(stopped, head, []plumbing.Hash{parent}, nil); fail.Of(err) != fail.Cancelled {
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
		s := ingested(t, []byte(r.git(list.String(), "pack-objects", "-q", "--stdout")))
		err := s.Verify(ctx, commit, nil, nil)
		if fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), commit.String()) {
			t.Errorf("%q: %v", content, err)
		}
		if err := s.Verify(ctx, after, nil, nil); err != nil && !strings.Contains(word, "not a tree") {
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
