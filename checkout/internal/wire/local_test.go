package wire

import (
	"bytes"
	"compress/zlib"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"run-task/internal/fail"
	"run-task/tests/gitserver"
)

func TestLocalLayouts(t *testing.T) {
	root, c := fixture(t)
	dir := t.TempDir()
	git := func(args ...string) { t.Helper(); gitserver.Git(t, dir, args...) }
	git("clone", "-q", root+"/r.git", "clone")
	git("clone", "-q", "--shared", root+"/r.git", "borrower")
	git("clone", "-q", "--shared", "borrower", "borrower of borrower")
	git("clone", "-q", "--depth=2", "file://"+root+"/r.git", "shallow")
	git("-C", "clone", "worktree", "add", "-q", "--detach", "../linked")
	git("clone", "-q", "--separate-git-dir=elsewhere", root+"/r.git", "separate")
	git("clone", "-q", "--bare", "--shared", root+"/r.git", "relative.git")
	up, err := filepath.Rel(dir+"/relative.git/objects", root+"/r.git/objects")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/relative.git/objects/info/alternates", []byte("# comment\n"+up+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, depth := range map[string]int{
		root + "/r.git": 1, root + "/r": 0, "file://" + root + "/r.git/": 3, dir + "/clone": 0, dir + "/clone/.git": 1, dir + "/borrower": 0,
		dir + "/borrower of borrower": 0, dir + "/shallow": 0, dir + "/linked": 0, dir + "/separate": 2, dir + "/relative.git": 0, dir + "/relative": 1,
	} {
		cl := newClient(t, path, c.Tip)
		cl.want.Depth = depth
		got, err := cl.fetch()
		if err != nil || got != Local {
			t.Errorf("%s: %s, %v", path, got, err)
			continue
		}
		want := map[int]string{0: "6", 1: "1", 2: "2", 3: "3"}[depth]
		if strings.HasSuffix(path, "shallow") {
			want = "2"
		}
		if cl.count() != want {
			t.Errorf("%s at depth %d: %s commits, want %s", path, depth, cl.count(), want)
		}
	}
}

// Whatever object there is can be had, as over protocol version 2, and a merge's depth is that of the shortest way.
func TestLocalObjects(t *testing.T) {
	root, c := fixture(t)
	for sha, want := range map[string]fail.Reason{
		c.Forced: 0, c.OldMerge: 0, c.Merge: 0, c.Tag: 0, c.Gone: fail.Gone,
		gitserver.Git(t, root+"/r.git", "rev-parse", c.Tip+"^{tree}"): fail.BadData,
	} {
		cl := newClient(t, root+"/r.git", sha)
		if _, err := cl.fetch(); want == 0 && err != nil || want != 0 && fail.Of(err) != want {
			t.Errorf("%s: %v, want %v", sha, err, want)
		}
	}
	cl := newClient(t, root+"/r.git", c.Merge)
	cl.want.Depth = 2
	if _, err := cl.fetch(); err != nil || cl.count() != "3" || len(cl.packs[0].Shallow) != 2 {
		t.Errorf("merge at depth 2: %v, %s commits, boundary %v", err, cl.count(), cl.packs[0].Shallow)
	}
}

func TestLocalTrouble(t *testing.T) {
	root, _ := fixture(t)
	for name, c := range map[string]struct {
		spoil  func(git string, blob, other string)
		reason fail.Reason
		words  string
	}{
		"missing blob":  {func(git, blob, _ string) { os.Remove(blob) }, fail.Gone, "lacks object"},
		"rubbish":       {func(git, blob, _ string) { os.WriteFile(blob, []byte("rubbish"), 0o644) }, fail.BadData, "is damaged"},
		"other content": {func(git, blob, _ string) { os.WriteFile(blob, deflated("blob 3\x00bad"), 0o644) }, fail.BadData, "its content has the name"},
		"short content": {func(git, blob, _ string) { os.WriteFile(blob, deflated("blob 30\x00bad"), 0o644) }, fail.BadData, "is damaged"},
		"bad tree":      {func(git, _, tree string) { os.WriteFile(tree, deflated("tree 3\x00bad"), 0o644) }, fail.BadData, "is damaged"},
		"no objects":    {func(git, _, _ string) { os.RemoveAll(git + "/objects") }, fail.Usage, "not a git repository"},
		"sha256": {func(git, _, _ string) {
			os.WriteFile(git+"/config", []byte("[core]\n\trepositoryformatversion = 1\n[extensions]\n\tobjectFormat = sha256\n"), 0o644)
		}, fail.Usage, "SHA-256"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			gitserver.Git(t, dir, "init", "-q")
			if err := os.WriteFile(dir+"/f", []byte("content"), 0o644); err != nil {
				t.Fatal(err)
			}
			gitserver.Git(t, dir, "add", "f")
			gitserver.Git(t, dir, "commit", "-qm", "x")
			file := func(rev string) string {
				h := gitserver.Git(t, dir, "rev-parse", rev)
				path := filepath.Join(dir, ".git/objects", h[:2], h[2:])
				if err := os.Chmod(path, 0o644); err != nil {
					t.Fatal(err)
				}
				return path
			}
			cl := newClient(t, dir, gitserver.Git(t, dir, "rev-parse", "HEAD"))
			c.spoil(dir+"/.git", file("HEAD:f"), file("HEAD^{tree}"))
			if _, err := cl.fetch(); fail.Of(err) != c.reason || !strings.Contains(err.Error(), c.words) || fail.Hint(err) == "" {
				t.Errorf("%v (%v), hint %q", err, fail.Of(err), fail.Hint(err))
			}
		})
	}
	for _, path := range []string{root, root + "/none", "/dev/null"} {
		if _, err := newClient(t, path, strings.Repeat("1", 40)).fetch(); fail.Of(err) != fail.Usage || fail.Hint(err) == "" {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func deflated(s string) []byte {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	z.Write([]byte(s))
	z.Close()
	return b.Bytes()
}

func TestLocalIsCancelled(t *testing.T) {
	root, c := fixture(t)
	cl := newClient(t, root+"/r.git", c.Tip)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fail.ErrInterrupted)
	if _, err := Fetch(ctx, nil, cl.u, cl.o, cl.want, cl.take); fail.Of(err) != fail.Interrupted {
		t.Errorf("%v", err)
	}
}
