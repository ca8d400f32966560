//go:build linux

package tests

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	endian "encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"run-task/tests/gitserver"
)

// packOf makes a pack without deltas.
func packOf(objects [][2]string) []byte {
	kinds := map[string]byte{"commit": 1, "tree": 2, "blob": 3}
	b := endian.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(len(objects)))
	for _, o := range objects {
		c, size := kinds[o[0]]<<4|byte(len(o[1])&15), len(o[1])>>4
		for ; size > 0; size >>= 7 {
			b = append(b, c|0x80)
			c = byte(size & 0x7f)
		}
		var z bytes.Buffer
		w := zlib.NewWriter(&z)
		w.Write([]byte(o[1]))
		w.Close()
		b = append(append(b, c), z.Bytes()...)
	}
	sum := sha1.Sum(b)
	return append(b, sum[:]...)
}

// A task may leave a pack, an index and a state that agree with each other and lie: an index that calls an object by another's name is all that git
// asks for. The objects decide, not what is written about them.
func TestForgedPack(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	dir := tempDir(t)
	src := dir + "/src"
	args := []string{"--checkout", "src", "--repo", r.Path, "--sha", r.SHA["tip"]}
	mustCheckOut(t, dir, args...)
	names, _ := filepath.Glob(src + "/.git/objects/pack/*.pack")
	if len(names) != 1 {
		t.Fatal(names)
	}
	ids := strings.Fields(gitserver.Git(t, src, "cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objectname)"))
	readme := gitserver.Git(t, src, "rev-parse", "HEAD:README")
	var objects [][2]string
	for _, id := range ids {
		kind := gitserver.Git(t, src, "cat-file", "-t", id)
		content := rawObject(t, src, kind, id)
		if id == readme {
			content = "evil"
		}
		objects = append(objects, [2]string{kind, content})
	}
	forged := packOf(objects)
	other := filepath.Join(tempDir(t), "x.pack")
	if err := os.WriteFile(other, forged, 0o644); err != nil {
		t.Fatal(err)
	}
	gitserver.Git(t, dir, "index-pack", other)
	idx, err := os.ReadFile(strings.TrimSuffix(other, "pack") + "idx")
	if err != nil {
		t.Fatal(err)
	}
	// In the index the evil blob gets the good one's name, its place in the order included.
	idx = rename(idx, sha1.Sum([]byte("blob 4\x00evil")), readme)
	sum := fmt.Sprintf("%x", forged[len(forged)-20:])
	for _, end := range []string{".pack", ".idx"} {
		data := forged
		if end == ".idx" {
			data = idx
		}
		plant(t, src+"/.git/objects/pack/pack-"+sum+end, string(data))
		os.Remove(strings.TrimSuffix(names[0], ".pack") + end)
	}
	state, err := os.ReadFile(src + "/.git/run-task/state.json")
	if err != nil {
		t.Fatal(err)
	}
	plant(t, src+"/.git/run-task/state.json", strings.Replace(string(state), strings.TrimSuffix(filepath.Base(names[0]), ".pack"), "pack-"+sum, 1))
	own(t, src)
	if got := gitserver.Git(t, src, "show", "HEAD:README"); got != "evil" {
		t.Fatalf("the forgery does not work: git reads %q", got)
	}
	if said := mustCheckOut(t, dir, args...); !strings.Contains(said, "fetching them again") {
		t.Errorf("said:\n%s", said)
	}
	judge(t, src, r.SHA["tip"])
	if got := gitserver.Git(t, src, "show", "HEAD:README"); got != "the tip" {
		t.Errorf("git reads %q", got)
	}
}

func rawObject(t *testing.T, dir, kind, id string) string {
	t.Helper()
	cmd := exec.Command("git", "cat-file", kind, id)
	cmd.Dir, cmd.Env = dir, gitserver.Env()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// rename gives an object of a pack index (version 2) another name.
func rename(idx []byte, from [20]byte, to string) []byte {
	type row struct{ id, crc, off []byte }
	n := int(endian.BigEndian.Uint32(idx[8+255*4:]))
	ids, crcs, offs := idx[8+1024:], idx[8+1024+20*n:], idx[8+1024+24*n:]
	var rows []row
	for i := range n {
		rows = append(rows, row{ids[20*i : 20*i+20], crcs[4*i : 4*i+4], offs[4*i : 4*i+4]})
		if bytes.Equal(rows[i].id, from[:]) {
			rows[i].id, _ = hex.DecodeString(to)
		}
	}
	slices.SortFunc(rows, func(a, b row) int { return bytes.Compare(a.id, b.id) })
	out := slices.Clone(idx[:8])
	for first := range 256 {
		count := 0
		for _, r := range rows {
			if int(r.id[0]) <= first {
				count++
			}
		}
		out = endian.BigEndian.AppendUint32(out, uint32(count))
	}
	for _, r := range rows {
		out = append(out, r.id...)
	}
	for _, r := range rows {
		out = append(out, r.crc...)
	}
	for _, r := range rows {
		out = append(out, r.off...)
	}
	out = append(out, idx[len(idx)-40:len(idx)-20]...)
	sum := sha1.Sum(out)
	return append(out, sum[:]...)
}

// The state that the last task left cannot shorten the history or invent a tag.
func TestForgedState(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	dir := tempDir(t)
	src := dir + "/src"
	for _, depth := range []string{"0", "2"} {
		args := []string{"--checkout", "src", "--repo", r.Path, "--sha", r.SHA["tip"], "--depth", depth}
		for range 2 {
			mustCheckOut(t, dir, args...)
			count, _ := native(src, nil, "rev-list", "--count", "HEAD")
			tags, _ := native(src, nil, "tag")
			shallow, _ := os.ReadFile(src + "/.git/shallow")
			want := map[string][3]string{"0": {"3", "v1", ""}, "2": {"2", "", r.SHA["second"] + "\n"}}[depth]
			if got := [3]string{count, tags, string(shallow)}; got != want {
				t.Errorf("depth %s: commits, tags and boundary %q, not %q", depth, got, want)
			}
			file := src + "/.git/run-task/state.json"
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var state map[string]any
			if err := json.Unmarshal(data, &state); err != nil {
				t.Fatal(err)
			}
			state["shallow"] = []string{r.SHA["tip"]}
			state["tags"] = map[string]string{"refs/tags/v9": r.SHA["tip"]}
			if data, err = json.Marshal(state); err != nil {
				t.Fatal(err)
			}
			plant(t, file, string(data))
			own(t, file)
		}
	}
}

// With the whole history here, tags that moved on the server move here.
func TestTagsThatMoved(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	root := filepath.Dir(r.Path)
	for name, url := range map[string]string{"local": r.Path, "http v2": gitserver.HTTP(t, root, gitserver.Options{}) + "/repo.git", "http v0": gitserver.HTTP(t, root, gitserver.Options{V0: true}) + "/repo.git"} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			src := dir + "/src"
			for i, at := range []string{"first", "tip", "merge", "second"} {
				gitserver.Git(t, r.Path, "tag", "-f", "light", r.SHA[at])
				gitserver.Git(t, r.Path, "-c", "user.name=a", "-c", "user.email=a@b", "tag", "-f", "-a", "-m", fmt.Sprint(name, i), "heavy", r.SHA[at])
				mustCheckOut(t, dir, "--checkout", "src", "--repo", url, "--sha", r.SHA["tip"], "--depth", "0")
				judge(t, src, r.SHA["tip"])
				for _, tag := range []string{"light", "heavy"} {
					got, err := native(src, nil, "rev-parse", "-q", "--verify", "refs/tags/"+tag+"^{commit}")
					if at == "merge" && err == nil || at != "merge" && got != r.SHA[at] {
						t.Errorf("%s, at %s (%s), is at %q, %v", tag, at, r.SHA[at], got, err)
					}
				}
			}
		})
	}
}

// Adopting takes nothing away before the commit is here and can be written.
func TestAdoptThatFails(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	dir := tempDir(t)
	src := dir + "/src"
	mkdirAll(t, src)
	gitserver.Git(t, src, "clone", "-q", r.Path, ".")
	plant(t, src+"/.git/hooks/mine", "x")
	plant(t, src+"/thesis.tex", "all my work")
	own(t, src)
	before := contents(snapshot(t, src))
	evil := forge(t, r.Path, []entry{{"100644", ".git", gitserver.GitInput(t, r.Path, strings.NewReader("x"), "hash-object", "-w", "--stdin")}})
	for sha, want := range map[string]int{strings.Repeat("1", 40): 66, evil: 65} {
		code, stderr := checkOut(t, dir, "--checkout", "src", "--adopt", "--repo", r.Path, "--sha", sha)
		if code != want {
			t.Errorf("exit %d\n%s", code, stderr)
		}
		if after := contents(snapshot(t, src)); after != before {
			t.Errorf("it is\n%swas\n%s", after, before)
		}
	}
	mustCheckOut(t, dir, "--checkout", "src", "--adopt", "--repo", r.Path, "--sha", r.SHA["tip"])
	judge(t, src, r.SHA["tip"])
	if left, _ := filepath.Glob(src + "/.git.*"); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

// contents leaves the directory itself, whose times change, out of a snapshot.
func contents(s string) string {
	_, below, _ := strings.Cut(s, "\n")
	return below
}

// A worktree that cannot be moved stays the checkout that it is: what is refused is refused before anything changes.
func TestRefusedBeforeAnythingChanges(t *testing.T) {
	t.Parallel()
	needRoot(t)
	r := newRepo(t)
	dir := tempDir(t)
	src := dir + "/src"
	args := func(name string) []string {
		return []string{"--checkout", "src", "--repo", r.Path, "--sha", r.SHA[name]}
	}
	mustCheckOut(t, dir, args("tip")...)
	plant(t, src+"/deep/roots/file", "x") // root's, in a directory of root's
	if code, stderr := checkOut(t, dir, args("first")...); code != 72 || !strings.Contains(stderr, "deep/roots") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	if head, _ := native(src, nil, "rev-parse", "HEAD"); head != r.SHA["tip"] {
		t.Errorf("HEAD is %q", head)
	}
	os.RemoveAll(src + "/deep/roots")
	judge(t, src, r.SHA["tip"])
	mustCheckOut(t, dir, args("first")...)
	judge(t, src, r.SHA["first"])
}

// What an earlier task of the same user made unusable is made usable.
func TestPermissionsTakenAway(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	dir := tempDir(t)
	src := dir + "/src"
	args := []string{"--checkout", "src", "--repo", r.Path, "--sha", r.SHA["tip"]}
	mustCheckOut(t, dir, args...)
	for _, names := range [][]string{{"/.git"}, {"/.git/run-task/lock"}, {"/.git/run-task"}, {""}, {"/.git/run-task/state.json", "/.git/HEAD", "/.git/index", "/.git/config"},
		{"/.git/objects/pack", "/.git/objects", "/.git/refs", "/.git/run-task/lock", "/.git/run-task", "/.git", "/deep", ""}} {
		for _, name := range names {
			if err := os.Chmod(src+name, 0); err != nil {
				t.Fatal(err)
			}
		}
		mustCheckOut(t, dir, args...)
		judge(t, src, r.SHA["tip"])
	}
}

// A volume of its own has lost+found, which is root's: it is neither work of somebody's nor in the way of a second run.
func TestLostAndFound(t *testing.T) {
	t.Parallel()
	needRoot(t)
	r := newRepo(t)
	dir := tempDir(t)
	mkdirAll(t, dir+"/src/lost+found")
	mkdirAll(t, dir+"/src/.git") // a run that was killed between two steps
	own(t, dir+"/src/.git")
	if err := os.Chown(dir+"/src", 1000, 1000); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tip", "first"} {
		mustCheckOut(t, dir, "--checkout", "src", "--repo", r.Path, "--sha", r.SHA[name])
		if st, err := os.Stat(dir + "/src/lost+found"); err != nil || !st.IsDir() {
			t.Error(err)
		}
		os.Remove(dir + "/src/lost+found")
		judge(t, dir+"/src", r.SHA[name])
		mkdirAll(t, dir+"/src/lost+found")
	}
}

// Something mounted in .git is found before anything changes.
func TestMountInGitDirectory(t *testing.T) {
	t.Parallel()
	needRoot(t)
	r := newRepo(t)
	dir := tempDir(t)
	src := dir + "/src"
	args := []string{"--checkout", "src", "--repo", r.Path, "--sha", r.SHA["tip"]}
	mustCheckOut(t, dir, args...)
	mkdirAll(t, src+"/.git/lfs/objects")
	mkdirAll(t, dir+"/lfs")
	c := &command{dir: dir, args: slices.Concat([]string{"run-task"}, asUser(), args, []string{"--", "probe"}), enter: []string{"bind", dir + "/lfs", src + "/.git/lfs/objects"}}
	if code, _, stderr := c.run(t); code != 64 || !strings.Contains(stderr, ".git/lfs/objects") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	if head, _ := native(src, nil, "rev-parse", "HEAD"); head != r.SHA["tip"] {
		t.Errorf("HEAD is %q", head)
	}
}
