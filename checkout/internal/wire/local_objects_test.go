package wire

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
	"run-task/tests/gitserver"
)

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

// Whatever is wrong with a pack or its index, the object is named that is missed for it.
func TestLocalDamagedPack(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(pack, idx []byte)
		words  string
	}{
		"pack":           {func(pack, _ []byte) { pack[len(pack)/2] ^= 1 }, "corrupt"},
		"pack's name":    {func(pack, _ []byte) { pack[len(pack)-1] ^= 1 }, "not the one"},
		"idx":            {func(_, idx []byte) { idx[len(idx)/2] ^= 1 }, "wrong checksum"},
		"idx of nothing": {func(_, idx []byte) { clear(idx) }, "not a pack index"},
	} {
		repo := t.TempDir()
		gitserver.Git(t, repo, "init", "-q")
		put(t, repo+"/f", noise(100_000))
		gitserver.Git(t, repo, "add", "f")
		blob := gitserver.Git(t, repo, "rev-parse", ":f")
		gitserver.Git(t, repo, "commit", "-qm", "x")
		sha := plumbing.NewHash(gitserver.Git(t, repo, "rev-parse", "HEAD"))
		gitserver.Git(t, repo, "repack", "-adq")
		packs, err := filepath.Glob(repo + "/.git/objects/pack/*.pack")
		if err != nil || len(packs) != 1 {
			t.Fatal(packs, err)
		}
		idxFile := strings.TrimSuffix(packs[0], ".pack") + ".idx"
		pack, err1 := os.ReadFile(packs[0])
		idx, err2 := os.ReadFile(idxFile)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		c.damage(pack, idx)
		put(t, packs[0], pack)
		put(t, idxFile, idx)
		missed := sha.String()
		if name == "pack" {
			missed = blob
		}
		_, _, err = pull(t, repo, sha, 1, nil)
		if fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), missed) || !strings.Contains(err.Error(), c.words) || fail.Hint(err) == "" {
			t.Errorf("%s: %v (%v), hint %q", name, err, fail.Of(err), fail.Hint(err))
		}
	}
}

// Large objects are streamed: loose, packed, and as a delta, for which there must be a place that is not in the repository.
func TestLocalLargeObjects(t *testing.T) {
	repo := t.TempDir()
	gitserver.Git(t, repo, "init", "-q")
	large := noise(9 << 20)
	commit := func(content []byte) string {
		put(t, repo+"/large", content)
		gitserver.Git(t, repo, "add", "large")
		gitserver.Git(t, repo, "commit", "-qm", "x")
		return gitserver.Git(t, repo, "rev-parse", "HEAD")
	}
	one, two := commit(large), commit(append(large, "and more"...))
	fetch := func(sha string, depth int) error {
		cl := newClient(t, repo, sha)
		cl.want.Depth = depth
		_, err := cl.fetch()
		return err
	}
	if err := fetch(two, 0); err != nil {
		t.Errorf("loose: %v", err)
	}
	gitserver.Git(t, repo, "-c", "pack.window=10", "repack", "-adfq")
	packDir := repo + "/.git/objects/pack"
	before, err := os.Stat(packDir)
	if err != nil {
		t.Fatal(err)
	}
	for sha, depth := range map[string]int{one: 1, two: 0} {
		if _, _, err := pull(t, repo, plumbing.NewHash(sha), depth, nil); err != nil {
			t.Errorf("packed: %v", err)
		}
	}
	if after, err := os.Stat(packDir); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("something was made in the repository: %v", err)
	}
	for _, content := range [][]byte{append(bytes.Clone(large[:len(large)-1]), large[len(large)-1]+1), large[1:], append(large, 0)} {
		blob := plumbing.ComputeHash(plumbing.BlobObject, large).String()
		var b builder
		sha := b.commit(b.whole(plumbing.TreeObject, treeLine("100644", "f", plumbing.NewHash(blob))))
		repo := b.repository(t)
		put(t, filepath.Join(repo, "objects", blob[:2], blob[2:]), deflated(fmt.Sprintf("blob %d\x00", len(large))+string(content)))
		if _, _, err := pull(t, repo, sha, 1, nil); fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), blob+" is damaged") {
			t.Errorf("%d bytes: %v", len(content), err)
		}
	}
}

func TestLocalAlternates(t *testing.T) {
	root, c := fixture(t)
	borrower := func(alternates string) string {
		repo := t.TempDir() + "/r.git"
		gitserver.Git(t, "/", "init", "-q", "--bare", repo)
		put(t, repo+"/objects/info/alternates", []byte(alternates))
		return repo
	}
	store := t.TempDir() + "/store"
	if err := os.Symlink(root+"/r.git/objects", store); err != nil {
		t.Fatal(err)
	}
	repo := borrower(store + "/none\nagain\n" + store + "\n")
	// A way that never ends: each directory names one below it, which is itself.
	if err := os.Symlink(".", repo+"/objects/again"); err != nil {
		t.Fatal(err)
	}
	if _, err := newClient(t, repo, c.Tip).fetch(); err != nil {
		t.Error(err)
	}
	var many strings.Builder
	for range maxDirs {
		fmt.Fprintln(&many, t.TempDir())
	}
	if _, err := newClient(t, borrower(many.String()), c.Tip).fetch(); fail.Of(err) != fail.IO || !strings.Contains(err.Error(), "object directories") {
		t.Error(err)
	}
	put(t, repo+"/objects/info/alternates", nil)
	os.Truncate(repo+"/objects/info/alternates", 1<<40)
	if _, err := newClient(t, repo, c.Tip).fetch(); fail.Of(err) != fail.IO || !strings.Contains(err.Error(), "too large") {
		t.Error(err)
	}
}

func TestObjectFormat(t *testing.T) {
	for config, want := range map[string]string{
		"": "", "[core]\n\tobjectFormat = sha256\n": "", "[extensions]\n\tobjectFormat = sha1\n": "sha1", "[Extensions] ObjectFormat=\"SHA256\"": "sha256",
		"[extensions]\n[core]\nobjectformat = sha256\n": "", "[extensions \"x\"]\nobjectformat = sha256\n": "", "[": "", "]\n=\n[extensions": "",
	} {
		if got := objectFormat(config); got != want {
			t.Errorf("%q: %q, want %q", config, got, want)
		}
	}
}
