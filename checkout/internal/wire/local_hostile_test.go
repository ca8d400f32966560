package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
	"run-task/tests/gitserver"
)

// delta is a delta that inserts content.
func delta(base, result int64, content string) []byte {
	d := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(base)), uint64(result))
	return append(append(d, byte(len(content))), content...)
}

func TestLocalDeltas(t *testing.T) {
	one, two := plumbing.ComputeHash(plumbing.BlobObject, []byte("one")), plumbing.ComputeHash(plumbing.BlobObject, []byte("two"))
	for name, c := range map[string]struct {
		build func(b *builder)
		words string
	}{
		"circle": {func(b *builder) {
			b.add(one, plumbing.REFDeltaObject, 6, two[:], delta(3, 3, "one"))
			b.add(two, plumbing.REFDeltaObject, 6, one[:], delta(3, 3, "two"))
		}, "circle"},
		"circle of one": {func(b *builder) { b.add(one, plumbing.REFDeltaObject, 6, one[:], delta(3, 3, "one")) }, "circle"},
		"base missing":  {func(b *builder) { b.add(one, plumbing.REFDeltaObject, 6, two[:], delta(3, 3, "one")) }, "missing in the pack"},
		"base ahead": {func(b *builder) {
			b.add(one, plumbing.OFSDeltaObject, 6, []byte{0}, delta(3, 3, "one"))
		}, "out of range"},
		"size of blob":  {func(b *builder) { b.add(one, plumbing.BlobObject, 1<<45, nil, []byte("one")) }, "corrupt"},
		"size in reach": {func(b *builder) { b.add(one, plumbing.BlobObject, maxInline, nil, []byte("one")) }, "corrupt"},
		"size of delta": {func(b *builder) {
			b.whole(plumbing.BlobObject, []byte("two"))
			b.add(one, plumbing.REFDeltaObject, 1<<45, two[:], delta(3, 3, "one"))
		}, "corrupt"},
		"size of result": {func(b *builder) {
			b.whole(plumbing.BlobObject, []byte("two"))
			d := delta(3, 1<<32-1, "one")
			b.add(one, plumbing.REFDeltaObject, int64(len(d)), two[:], d)
		}, "corrupt"},
		"other content": {func(b *builder) { b.add(one, plumbing.BlobObject, 3, nil, []byte("two")) }, "corrupt"},
		"beyond":        {func(b *builder) { b.whole(plumbing.BlobObject, []byte("one")); b.offsets[one] += 1 << 20 }, "beyond the pack"},
	} {
		t.Run(name, func(t *testing.T) {
			var bad, good builder
			c.build(&bad)
			sha := good.commit(good.whole(plumbing.TreeObject, treeLine("100644", "f", one)))
			repo := good.repository(t)
			bad.write(t, repo+"/objects/pack/pack-bad")
			_, _, err := pull(t, repo, sha, 1, nil)
			if fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), one.String()) || !strings.Contains(err.Error(), c.words) || fail.Hint(err) == "" {
				t.Errorf("%v (%v), hint %q", err, fail.Of(err), fail.Hint(err))
			}
			if name == "size of blob" { // that it is wrong shows too late
				return
			}
			// Another copy helps, as with git.
			put(t, filepath.Join(repo, "objects", one.String()[:2], one.String()[2:]), deflated("blob 3\x00one"))
			if _, _, err := pull(t, repo, sha, 1, nil); err != nil {
				t.Errorf("with another copy: %v", err)
			}
		})
	}
}

// A size is only what somebody says.
func TestLocalSizesAreNotBelieved(t *testing.T) {
	small := deflated("blob 3\x00one")
	one := plumbing.ComputeHash(plumbing.BlobObject, []byte("one"))
	var b builder
	sha := b.commit(b.whole(plumbing.TreeObject, treeLine("100644", "f", one)))
	repo := b.repository(t)
	for name, loose := range map[string][]byte{
		"enormous":      deflated("blob 9223372036854775807\x00one"),
		"more than any": deflated("blob 9223372036854775808\x00one"),
		"negative":      deflated("blob -3\x00one"),
		"longer":        deflated("blob 8388608\x00one"),
		"shorter":       deflated("blob 2\x00one"),
		"none":          deflated("blob \x00one"),
		"without end":   deflated("blob " + strings.Repeat("3", 1000)),
		"a delta":       deflated("ref-delta 3\x00one"),
		"trailed":       append(bytes.Clone(small), 0),
		"cut":           small[:len(small)-1],
		"cut early":     small[:4],
		"empty":         nil,
		"a bomb":        deflated("blob 3\x00" + strings.Repeat("x", 100<<20)),
		"large":         deflated("blob 9000000\x00" + strings.Repeat("x", 9000000)),
	} {
		put(t, filepath.Join(repo, "objects", one.String()[:2], one.String()[2:]), loose)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := pull(t, repo, sha, 1, nil)
		runtime.ReadMemStats(&after)
		if fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), one.String()+" is damaged") {
			t.Errorf("%s: %v", name, err)
		}
		if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 64 { // most of it is the 8 MiB that are read whole
			t.Errorf("%s: %d MiB", name, mib)
		}
	}
}

func TestLocalTreesHaveABound(t *testing.T) {
	for depth, want := range map[int]fail.Reason{maxDepth: 0, maxDepth + 1: fail.BadData, 10_000: fail.BadData} {
		var b builder
		tree := b.whole(plumbing.TreeObject, nil)
		for range depth - 1 {
			tree = b.whole(plumbing.TreeObject, treeLine("40000", "a", tree))
		}
		sha := b.commit(tree)
		_, _, err := pull(t, b.repository(t), sha, 1, nil)
		if want == 0 && err != nil || want != 0 && (fail.Of(err) != want || !strings.Contains(err.Error(), "directories deep")) {
			t.Errorf("%d: %v", depth, err)
		}
	}
}

func TestLocalTreeModes(t *testing.T) {
	var b builder
	f := b.whole(plumbing.BlobObject, []byte("f"))
	old := b.whole(plumbing.TreeObject, treeLine("0100664", "f", f))
	missing := plumbing.Hash{1}
	lines := append(treeLine("040000", "d", old), treeLine("160000", "s", missing)...)
	sha := b.commit(b.whole(plumbing.TreeObject, append(lines, treeLine("100", "u", missing)...)))
	r, err := openRepository(b.repository(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if _, list, err := r.collect(t.Context(), Want{SHA: sha, Depth: 1}); err != nil || len(list) != 4 || list[3] != f {
		t.Errorf("%v, %v", list, err)
	}
	bad := b.commit(b.whole(plumbing.TreeObject, treeLine("10064x", "f", f)))
	if _, _, err := pull(t, b.repository(t), bad, 1, nil); fail.Of(err) != fail.BadData {
		t.Error(err)
	}
}

// Ten thousand tags upon each other end: as the request in an error, as a ref in nothing.
func TestLocalTagsHaveABound(t *testing.T) {
	var b builder
	sha := b.commit(b.whole(plumbing.TreeObject, nil))
	tags := []plumbing.Hash{sha}
	for kind := "commit"; len(tags) <= 10_000; kind = "tag" {
		tags = append(tags, b.whole(plumbing.TagObject, fmt.Appendf(nil, "object %s\ntype %s\ntag t\ntagger a <a@b> 1 +0000\n\nx\n", tags[len(tags)-1], kind)))
	}
	repo := b.repository(t)
	if _, _, err := pull(t, repo, tags[10_000], 1, nil); fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), "tags upon each other") {
		t.Error(err)
	}
	packed := fmt.Sprintf("# pack-refs with: peeled fully-peeled sorted \n%s refs/heads/x\n%s refs/tags/deep\n%s refs/tags/loose\n%s refs/tags/two\n^%s\n", sha, tags[10_000], tags[0], tags[2], sha)
	put(t, repo+"/packed-refs", []byte(packed))
	put(t, repo+"/refs/tags/loose", []byte(tags[1].String()+"\n"))
	put(t, repo+"/refs/tags/d/e", []byte(tags[63].String()+"\n"))
	put(t, repo+"/refs/tags/symbolic", []byte("ref: refs/tags/two\n"))
	put(t, repo+"/refs/tags/other.lock", []byte(sha.String()+"\n"))
	put(t, repo+"/refs/tags/missing", []byte(strings.Repeat("1", 40)+"\n"))
	put(t, repo+"/refs/tags/rubbish", []byte("rubbish"))
	put(t, repo+"/refs/tags/empty", nil)
	fifo(t, repo+"/refs/tags/fifo")
	if err := os.Symlink("/dev/zero", repo+"/refs/tags/link"); err != nil {
		t.Fatal(err)
	}
	got, _, err := pull(t, repo, sha, 0, nil)
	want := map[string]plumbing.Hash{"refs/tags/loose": tags[1], "refs/tags/two": tags[2], "refs/tags/d/e": tags[63]}
	if err != nil || fmt.Sprint(got.Refs) != fmt.Sprint(want) {
		t.Errorf("%v, %v, want %v", err, got.Refs, want)
	}
	for name, text := range map[string]string{"rubbish": "rubbish\n", "one word": sha.String() + "\n", "a line without end": sha.String() + " refs/tags/" + strings.Repeat("x", 1<<20)} {
		put(t, repo+"/packed-refs", []byte(text))
		if _, _, err := pull(t, repo, sha, 0, nil); fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), "packed-refs") || fail.Hint(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func fifo(t *testing.T, name string) {
	t.Helper()
	os.Remove(name)
	if err := syscall.Mkfifo(name, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0) // somebody who could write, and does not
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
}

// FIFOs and links where files belong: nothing waits for a FIFO, and a pack that is none harms only what is nowhere else.
func TestLocalIrregularFiles(t *testing.T) {
	var b, more builder
	f := more.whole(plumbing.BlobObject, []byte("f"))
	sha := b.commit(b.whole(plumbing.TreeObject, treeLine("100644", "f", f)))
	loose := "objects/" + f.String()[:2] + "/" + f.String()[2:]
	linked := func(t *testing.T, name string) {
		if err := os.Rename(name, name+".real"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(name+".real", name); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(t *testing.T, name string){
		"objects/pack/pack-more.idx": fifo, "objects/pack/pack-more.pack": fifo, loose: fifo, "objects/info/alternates": fifo,
		"packed-refs": fifo, "shallow": fifo, "commondir": fifo, "config": fifo, ".git": fifo,
		"objects/pack/pack-more.pack ": linked, "objects/pack/pack-more.idx ": linked,
	} {
		t.Run(name, func(t *testing.T) {
			repo := b.repository(t)
			more.write(t, repo+"/objects/pack/pack-more")
			if name == loose {
				os.Remove(repo + "/objects/pack/pack-more.idx")
				put(t, repo+"/"+loose, nil)
			}
			change(t, repo+"/"+strings.TrimSpace(name))
			_, _, err := pull(t, repo, sha, 0, nil)
			if name == ".git" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if r := fail.Of(err); r != fail.BadData && r != fail.IO {
				t.Errorf("%v (%v)", err, r)
			}
			if strings.HasPrefix(name, "objects/pack") {
				if !strings.Contains(err.Error(), f.String()) {
					t.Error(err)
				}
				put(t, repo+"/"+loose, deflated("blob 1\x00f"))
				if _, _, err := pull(t, repo, sha, 0, nil); err != nil {
					t.Errorf("with another copy: %v", err)
				}
			}
		})
	}
}

// Whatever happens to the repository while it is read.
func TestLocalChangesMeanwhile(t *testing.T) {
	build := func(t *testing.T) (repo string, sha plumbing.Hash) {
		repo = t.TempDir()
		gitserver.Git(t, repo, "init", "-q")
		put(t, repo+"/!", noise(300_000)) // the first one: it fills all buffers, so that the others are read after the change
		for i := range 40 {
			put(t, fmt.Sprintf("%s/%d", repo, i), fmt.Append(nil, i))
			if i%10 == 9 {
				gitserver.Git(t, repo, "add", ".")
				gitserver.Git(t, repo, "commit", "-qm", "x")
				gitserver.Git(t, repo, "repack", "-dq")
			}
		}
		put(t, repo+"/loose", []byte("loose"))
		gitserver.Git(t, repo, "add", ".")
		gitserver.Git(t, repo, "commit", "-qm", "x")
		return repo, plumbing.NewHash(gitserver.Git(t, repo, "rev-parse", "HEAD"))
	}
	move := func(t *testing.T, from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Error(err)
		}
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, objects string)
		want   fail.Reason
	}{
		"repacked":     {func(t *testing.T, objects string) { gitserver.Git(t, objects+"/../..", "repack", "-adq") }, 0},
		"moved away":   {func(t *testing.T, objects string) { move(t, objects, objects+".old") }, 0},
		"replaced":     {func(t *testing.T, objects string) { move(t, objects, objects+".old"); os.Symlink("/dev", objects) }, 0},
		"removed":      {func(t *testing.T, objects string) { os.RemoveAll(objects) }, fail.Gone},
		"packs remain": {func(t *testing.T, objects string) { move(t, objects+"/pack", objects+"/../p"); os.RemoveAll(objects) }, fail.Gone},
	} {
		t.Run(name, func(t *testing.T) {
			repo, sha := build(t)
			_, want, err := pull(t, repo, sha, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, n, err := pull(t, repo, sha, 0, func() { c.change(t, repo+"/.git/objects") })
			if c.want == 0 && (err != nil || n != want) || c.want != 0 && fail.Of(err) != c.want {
				t.Errorf("%d bytes, want %d: %v", n, want, err)
			}
		})
	}
}
