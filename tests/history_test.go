//go:build linux

package tests

import (
	"bytes"
	"crypto/sha1"
	endian "encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/tests/gitserver"
)

// version is what a commit has at a path: a mode as git fast-import takes it, and the content, the link's target or the submodule's commit.
type version struct{ mode, data string }

// listing is what a commit has, or what is in a worktree: "mode object" by path.
type listing map[string]string

// histories is a repository with a random history, as native git sees it.
type histories struct {
	repo  string
	trees []map[string]version
	up    [][]int // parents
	sha   []string
	list  []listing
	index []string // what git ls-files -s -z is to print
	count []int    // commits of the full history
}

// Names that sort oddly, that are special elsewhere, that need quotes, that contain each other as directories.
var oddNames = []string{
	"a", "a.b", "a-b", "a0", "a/b", "a/b/c", "a/b.c", "A", "aux.c", "new\nline", `back\slash`, "co:lon", "\xff\xfe", "-rf", "tail ", " lead", "tail.", "x.o", "build/x.o", "HEAD", "config",
	strings.Repeat("n", 255), strings.Repeat("deep/", 30) + "file", "deep/deep/x", "quo\"te", "tab\t", "a*?[", "\x01\x1b[2J", "ü", "dir/a", "dir/b", "dir/sub/" + strings.Repeat("\xfe", 255),
	"~", "...", ".github", "git~2", "#", "dir.c", "dir-x", "dir0", "exe", "link", "empty", "lib", "lib/mod", "lib.so",
}

// Targets of links: files and directories of the commit, what is above, what is nowhere, itself.
var targets = []string{"a", "dir", "../outside", "/etc/passwd", "gone", ".", "..", "link", strings.Repeat("x", 300), ".git/config", "../outside/keep", "new\nline"}

// Files that git reads while it works. Nothing here converts content.
var metaFiles = map[string][]string{
	".gitignore":         {"*.o\nbuild/\n", "*\n", "/a\n!a/b\n"},
	"dir/.gitignore":     {"*\n!a\n", "b\n"},
	".gitattributes":     {"* -text\n*.c diff=cpp\n", "a export-ignore\n*.psd filter=lfs diff=lfs merge=lfs -text\n", "* text=auto\nexe binary\n"},
	"dir/.gitattributes": {"* export-subst\n"},
}

// change makes a random change to a tree.
func change(rnd *rand.Rand, tree map[string]version) {
	name := oddNames[rnd.IntN(len(oddNames))]
	old := slices.Sorted(maps.Keys(tree))
	some := func() string { return old[rnd.IntN(len(old))] }
	switch n := rnd.IntN(20); {
	case n < 7 || len(old) == 0:
		put(tree, name, version{[]string{"644", "644", "755"}[rnd.IntN(3)], text(rnd)})
	case n < 9: // content that is there already
		if v := tree[some()]; v.mode != "160000" {
			put(tree, name, version{"644", v.data})
		}
	case n < 11:
		put(tree, name, version{"120000", targets[rnd.IntN(len(targets))]})
	case n < 12:
		put(tree, name, version{"160000", fmt.Sprintf("%040x", 1+rnd.IntN(1e9))})
	case n < 14: // mode
		p := some()
		if v := tree[p]; v.mode == "644" || v.mode == "755" {
			tree[p] = version{map[string]string{"644": "755", "755": "644"}[v.mode], v.data}
		}
	case n < 16: // rename, maybe to where it was a directory of
		p := some()
		if v := tree[p]; !strings.Contains(p, ".git") {
			delete(tree, p)
			put(tree, name, v)
		}
	case n < 17:
		delete(tree, some())
	case n < 18:
		meta := slices.Sorted(maps.Keys(metaFiles))[rnd.IntN(len(metaFiles))]
		put(tree, meta, version{"644", metaFiles[meta][rnd.IntN(len(metaFiles[meta]))]})
	case n < 19: // a submodule that is known as one; nothing else is ever at its path
		put(tree, ".gitmodules", version{"644", "[submodule \"mod\"]\n\tpath = module\n\turl = ../mod.git\n"})
		put(tree, "module", version{"160000", fmt.Sprintf("%040x", 1+rnd.IntN(1e9))})
	default: // many files, of which many are the same in the next commit
		for i := range 60 {
			if p := fmt.Sprintf("many/%d/%03d", i%3, i); tree[p].mode == "" || rnd.IntN(4) == 0 {
				put(tree, p, version{"644", fmt.Sprint(rnd.IntN(1000), "\n")})
			}
		}
	}
	// Two directories that only the content of one file tells apart: same name, same size, written at the same time.
	for _, name := range []string{"twin1/same", "twin2/same"} {
		if tree[name].mode == "" || rnd.IntN(20) == 0 {
			put(tree, name, version{"644", fmt.Sprintf("%03d\n", rnd.IntN(1000))})
		}
	}
}

func text(rnd *rand.Rand) string {
	b := make([]byte, []int{0, 1, 10, 100, 4096, 70000}[min(rnd.IntN(6), rnd.IntN(6))])
	for i := range b {
		b[i] = "abcdefghijklmnopqrstuvwxyz     \n"[rnd.IntN(32)]
	}
	return string(b)
}

// put also removes what cannot be beside it. A submodule at a path that begins with a dash is refused, so that there is none.
func put(tree map[string]version, name string, v version) {
	if v.mode == "160000" && name[0] == '-' {
		return
	}
	for p := range tree {
		if strings.HasPrefix(p, name+"/") || strings.HasPrefix(name, p+"/") {
			delete(tree, p)
		}
	}
	tree[name] = v
}

// newHistories makes a repository of about 20 commits with merges.
func newHistories(t *testing.T, rnd *rand.Rand) *histories {
	t.Helper()
	h := &histories{repo: filepath.Join(tempDir(t), "repo.git")}
	var stream strings.Builder
	for i := range 15 + rnd.IntN(11) {
		tree := map[string]version{}
		var up []int
		fmt.Fprintf(&stream, "commit refs/heads/c%d\nmark :%d\ncommitter A U Thor <a@example.com> %d +0000\ndata 2\nc\n", i, i+1, 1700000000+60*i)
		if i > 0 {
			up = append(up, max(0, i-1-rnd.IntN(3)))
			fmt.Fprintf(&stream, "from :%d\n", up[0]+1)
			tree = maps.Clone(h.trees[up[0]])
		}
		if other := rnd.IntN(i + 1); i > 2 && rnd.IntN(4) == 0 && other != i && other != up[0] {
			up = append(up, other)
			fmt.Fprintf(&stream, "merge :%d\n", other+1)
			for _, p := range slices.Sorted(maps.Keys(h.trees[other])) {
				if rnd.IntN(2) == 0 && p != "module" {
					put(tree, p, h.trees[other][p])
				}
			}
		}
		if rnd.IntN(25) == 0 {
			clear(tree)
		} else {
			for range 1 + rnd.IntN(12) {
				change(rnd, tree)
			}
		}
		h.trees, h.up = append(h.trees, tree), append(h.up, up)
		stream.WriteString("deleteall\n")
		for _, p := range slices.Sorted(maps.Keys(tree)) {
			if v := tree[p]; v.mode == "160000" {
				fmt.Fprintf(&stream, "M 160000 %s %s\n", v.data, quoted(p))
			} else {
				fmt.Fprintf(&stream, "M %s inline %s\ndata %d\n%s\n", v.mode, quoted(p), len(v.data), v.data)
			}
		}
	}
	gitserver.Git(t, filepath.Dir(h.repo), "init", "-q", "--bare", h.repo)
	gitserver.GitInput(t, h.repo, strings.NewReader(stream.String()), "fast-import", "--quiet")
	gitserver.Git(t, h.repo, "fsck", "--full", "--strict")
	h.read(t)
	return h
}

// quoted is a path as git fast-import and git's configuration take it.
func quoted(path string) string {
	var b strings.Builder
	for _, c := range []byte(path) {
		fmt.Fprintf(&b, `\%03o`, c)
	}
	return `"` + b.String() + `"`
}

// read has native git say what the commits are.
func (h *histories) read(t *testing.T) {
	t.Helper()
	for i := range h.trees {
		sha := gitserver.Git(t, h.repo, "rev-parse", fmt.Sprint("refs/heads/c", i))
		list, index := treeOf(t, h.repo, sha)
		count := strings.Count(gitserver.Git(t, h.repo, "rev-list", sha)+"\n", "\n")
		h.sha, h.list, h.index, h.count = append(h.sha, sha), append(h.list, list), append(h.index, index), append(h.count, count)
		if len(list) != len(h.trees[i]) {
			t.Fatalf("commit %d has %d files, not %d", i, len(list), len(h.trees[i]))
		}
	}
}

// treeOf is what git says that a commit has, and what git ls-files -s -z has to say where it is checked out.
func treeOf(t *testing.T, repo, sha string) (listing, string) {
	t.Helper()
	list, index := listing{}, ""
	for line := range strings.SplitSeq(strings.TrimSuffix(gitserver.Git(t, repo, "ls-tree", "-r", "-z", "--full-tree", sha), "\x00"), "\x00") {
		if what, name, ok := strings.Cut(line, "\t"); ok {
			f := strings.Fields(what)
			list[name] = f[0] + " " + f[2]
			index += f[0] + " " + f[2] + " 0\t" + name + "\x00"
		}
	}
	return list, index
}

// onDisk is what is in a directory, .git left out, if it is to be what want has: of directories it only has those that want has not. A file that
// git could not have made, such as one with a second link or the setuid bit, is none.
func onDisk(t *testing.T, dir string, want listing) listing {
	t.Helper()
	dirs := map[string]bool{".": true}
	for name := range want {
		for d := path.Dir(name); !dirs[d]; d = path.Dir(d) {
			dirs[d] = true
		}
	}
	got := listing{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(strings.TrimPrefix(p, dir), "/")
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case name == ".git":
			return fs.SkipDir
		case d.IsDir() && (name == "" || dirs[name]) && info.Mode().Perm()&0o700 == 0o700:
		case d.IsDir() && strings.HasPrefix(want[name], "160000 "):
			got[name] = want[name]
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(p)
			got[name] = "120000 " + blobID(target)
			return err
		case d.Type() == 0 && info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) == 0 && info.Sys().(*syscall.Stat_t).Nlink == 1:
			data, err := os.ReadFile(p)
			got[name] = map[bool]string{false: "100644 ", true: "100755 "}[info.Mode()&0o100 != 0] + blobID(string(data))
			return err
		default:
			got[name] = fmt.Sprintf("%s, %d links", info.Mode(), info.Sys().(*syscall.Stat_t).Nlink)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return got
}

func blobID(data string) string {
	return fmt.Sprintf("%x", sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(data), data)))
}

// differences names up to ten paths.
func differences(got, want listing) (lines []string) {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] && len(lines) < 10 {
			lines = append(lines, fmt.Sprintf("%q is %q, not %q", name, got[name], want[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok && len(lines) < 10 {
			lines = append(lines, fmt.Sprintf("%q is there: %q", name, got[name]))
		}
	}
	return lines
}

// same is what tells that a file was left alone.
type same struct {
	ino   uint64
	mtime unix.Timespec
}

// walk is one worktree on its way through a history.
type walk struct {
	*testing.T
	rnd               *rand.Rand
	h                 *histories
	src, outside, url string
	at                int      // the commit, -1 if there is none
	touched           []string // paths that were, with what is below them, since
	after             []func() // dirt that would be in the way of other dirt
	trail             []string // what was done, for whom it may concern
}

// A worktree goes from commit to commit of random histories, with all sorts of dirt in between, and native git agrees with every step.
func TestRandomHistories(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		way := []string{"local", "http"}[seed%2]
		t.Run(fmt.Sprint(way, " seed ", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 2024))
			h := newHistories(t, rnd)
			dir := tempDir(t)
			w := &walk{T: t, rnd: rnd, h: h, src: dir + "/src", outside: dir + "/outside", url: h.repo, at: -1}
			if way == "http" {
				w.url = gitserver.HTTP(t, filepath.Dir(h.repo), gitserver.Options{}) + "/repo.git"
			}
			for _, name := range []string{"keep", "same", "a", "b", "sub/x"} {
				plant(t, w.outside+"/"+name, "mine\n")
			}
			own(t, w.outside)
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("it went\n%s", strings.Join(w.trail, "\n"))
				}
			})
			depth := []int{1, 2, 0}[seed/2%3]
			for range 14 {
				d := depth
				if rnd.IntN(8) == 0 {
					d = rnd.IntN(3)
				}
				w.step(d)
				if t.Failed() {
					return
				}
			}
			judge(t, w.src, h.sha[w.at])
		})
	}
}

func (w *walk) sayf(format string, args ...any) {
	w.trail = append(w.trail, fmt.Sprintf(format, args...))
}

// step spoils the worktree and goes to another commit, or to the same again.
func (w *walk) step(depth int) {
	w.Helper()
	to := w.rnd.IntN(len(w.h.sha))
	if w.at >= 0 && w.rnd.IntN(4) == 0 {
		to = w.at
	}
	before := w.stats()
	w.touched = nil
	if w.at >= 0 {
		for range w.rnd.IntN(9) {
			d := dirts[w.rnd.IntN(len(dirts))]
			w.sayf("  dirt: %s", d.name)
			d.do(w)
		}
		for _, f := range w.after {
			f()
		}
		w.after = nil
	}
	args := []string{"--checkout", "src", "--repo", w.url, "--sha", w.h.sha[to], "--depth", fmt.Sprint(depth)}
	w.sayf("commit %d (%s), depth %d", to, w.h.sha[to], depth)
	outside := snapshotOf(w.T, w.outside)
	if w.rnd.IntN(4) == 0 {
		w.editedByCommand(to, args)
	}
	mustCheckOut(w.T, filepath.Dir(w.src), args...)
	if now := snapshotOf(w.T, w.outside); now != outside {
		w.Errorf("outside is\n%swas\n%s", now, outside)
	}
	w.judged(to, depth)
	if w.at >= 0 {
		w.left(before, to)
	}
	w.at = to
}

// editedByCommand is a run whose command at once changes a file of the commit, to another content of the same size, or a pack: in the same tick of
// the clock, with luck.
func (w *walk) editedByCommand(to int, args []string) {
	w.Helper()
	script := []string{`chmod u+w .git/objects/pack/*.pack && for f in .git/objects/pack/*.pack; do printf JUNK | dd of="$f" bs=1 seek="$1" conv=notrunc 2>&1; done`,
		"sh", fmt.Sprint(12 + w.rnd.IntN(100))}
	for _, name := range slices.Sorted(maps.Keys(w.h.trees[to])) {
		v := w.h.trees[to][name]
		if w.rnd.IntN(10) == 0 && (v.mode == "644" || v.mode == "755") && v.data != "" {
			w.touch(name)
			script = []string{`printf %s "$2" >"./$1"`, "sh", name, string('A'+byte(w.rnd.IntN(26))) + v.data[1:]}
			break
		}
	}
	w.sayf("  done by the command: %.200q", script)
	c := &command{dir: filepath.Dir(w.src), args: slices.Concat([]string{"run-task"}, asUser(), args, []string{"--", "/bin/sh", "-c"}, script)}
	c.must(w.T)
}

// judged compares what is there with the commit, as native git sees both.
func (w *walk) judged(to, depth int) {
	w.Helper()
	for _, line := range differences(onDisk(w.T, w.src, w.h.list[to]), w.h.list[to]) {
		w.Error(line)
	}
	git := func(args ...string) string {
		out, err := native(w.src, nil, args...)
		if err != nil {
			w.Errorf("git %q: %v\n%s", args, err, out)
		}
		return out
	}
	if out := git("status", "--porcelain", "--ignored", "--untracked-files=all"); out != "" {
		w.Errorf("git status:\n%s", out)
	}
	if out := git("fsck", "--full", "--strict", "--no-dangling"); out != "" {
		w.Errorf("git fsck:\n%s", out)
	}
	if out := git("ls-files", "-s", "-z"); out != w.h.index[to] {
		w.Errorf("the index is %q, not %q", out, w.h.index[to])
	}
	count := map[int]int{0: w.h.count[to], 1: 1, 2: 1 + len(w.h.up[to])}[depth]
	if log := strings.Split(git("rev-list", "HEAD", "--"), "\n"); log[0] != w.h.sha[to] || len(log) != count {
		w.Errorf("HEAD and what is behind it are %q, not %s and %d commits in all", log, w.h.sha[to], count)
	}
	if head, err := os.ReadFile(w.src + "/.git/HEAD"); string(head) != w.h.sha[to]+"\n" {
		w.Errorf("HEAD is %q, %v", head, err)
	}
	filepath.WalkDir(w.src+"/.git", func(p string, d fs.DirEntry, err error) error {
		if err != nil || strings.HasSuffix(p, ".lock") || d.Name() == "hooks" || d.Name() == "incoming" {
			w.Errorf("%s is still there, %v", p, err)
		}
		return nil
	})
	if config, err := os.ReadFile(w.src + "/.git/config"); err != nil || strings.Contains(string(config), "nowhere") {
		w.Errorf("config is %q, %v", config, err)
	}
}

// left looks whether the files that both commits have, and nobody touched, are the same files still.
func (w *walk) left(before map[string]same, to int) {
	w.Helper()
	now := w.stats()
	for name, v := range w.h.list[to] {
		if w.h.list[w.at][name] == v && !strings.HasPrefix(v, "160000 ") && !w.isTouched(name) && now[name] != before[name] {
			w.Errorf("%q had no need to change, was %v and is %v", name, before[name], now[name])
		}
	}
}

func (w *walk) stats() map[string]same {
	all := map[string]same{}
	if w.at < 0 {
		return all
	}
	var st unix.Stat_t
	for name := range w.h.list[max(w.at, 0)] {
		if unix.Lstat(w.src+"/"+name, &st) == nil {
			all[name] = same{st.Ino, st.Mtim}
		}
	}
	return all
}

func (w *walk) touch(name string) { w.touched = append(w.touched, name) }

func (w *walk) isTouched(name string) bool {
	return slices.ContainsFunc(w.touched, func(p string) bool {
		return p == name || strings.HasPrefix(name, p+"/") || strings.HasPrefix(p, name+"/")
	})
}

// snapshotOf is what must stay: names, modes, contents and times of files; not the number of links.
func snapshotOf(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(onDisk(t, dir, nil))) {
		var st unix.Stat_t
		unix.Lstat(dir+"/"+name, &st)
		data, _ := os.ReadFile(dir + "/" + name)
		fmt.Fprintf(&b, "%q %o %d %v %x\n", name, st.Mode, st.Uid, st.Mtim, sha1.Sum(data))
	}
	return b.String()
}

// file is a tracked file that is a regular one still.
func (w *walk) file() (name string, ok bool) {
	names := slices.Sorted(maps.Keys(w.h.list[w.at]))
	for range 20 {
		if len(names) == 0 {
			break
		}
		name = names[w.rnd.IntN(len(names))]
		if st, err := os.Lstat(w.src + "/" + name); err == nil && st.Mode().IsRegular() && w.real(path.Dir(name)) {
			w.sayf("    %q", name)
			w.touch(name)
			return name, true
		}
	}
	return "", false
}

// real tells whether no part of a directory's path is a link by now.
func (w *walk) real(dir string) bool {
	for ; dir != "."; dir = path.Dir(dir) {
		if st, err := os.Lstat(w.src + "/" + dir); err != nil || !st.IsDir() {
			return false
		}
	}
	return true
}

// folder is a directory with tracked files in it.
func (w *walk) folder() (name string, ok bool) {
	for range 20 {
		if name, ok = w.file(); ok {
			w.touched = w.touched[:len(w.touched)-1]
			if name = path.Dir(name); name != "." {
				return name, true
			}
		}
	}
	return "", false
}

// plant writes a file of the task's user.
func (w *walk) plant(name, data string) {
	w.Helper()
	top := w.src + "/" + name
	for d := path.Dir(top); ; d = path.Dir(d) {
		if _, err := os.Lstat(d); err == nil {
			break
		}
		top = d
	}
	plant(w.T, w.src+"/"+name, data)
	own(w.T, top)
}

// replace puts something else where a file or directory is.
func (w *walk) replace(name string, make func(path string) error) {
	w.Helper()
	os.RemoveAll(w.src + "/" + name)
	if err := make(w.src + "/" + name); err != nil {
		w.Fatal(err)
	}
	own(w.T, w.src+"/"+name)
}

// dirt is something that a task may do.
type dirt struct {
	name string
	do   func(w *walk)
}

// toFile is dirt that a tracked file gets.
func toFile(name string, do func(w *walk, name string)) dirt {
	return dirt{name, func(w *walk) {
		if f, ok := w.file(); ok {
			do(w, f)
		}
	}}
}

func toFolder(name string, do func(w *walk, name string)) dirt {
	return dirt{name, func(w *walk) {
		if f, ok := w.folder(); ok {
			do(w, f)
		}
	}}
}

func (w *walk) edit(name string, sameTime bool) {
	w.Helper()
	full := w.src + "/" + name
	st, err := os.Stat(full)
	if err == nil && st.Size() > 0 {
		var f *os.File
		if f, err = os.OpenFile(full, os.O_WRONLY, 0); err == nil {
			_, err = f.WriteAt([]byte{"ABCDEFGH"[w.rnd.IntN(8)]}, w.rnd.Int64N(st.Size()))
			f.Close()
		}
	}
	if err == nil && sameTime {
		err = os.Chtimes(full, st.ModTime(), st.ModTime())
	}
	if err != nil && !errors.Is(err, fs.ErrPermission) { // other dirt may have made it unwritable for who is not root
		w.Fatal(err)
	}
}

// lie has git's index call the file, as it is now, what the commit has (gitformat-index): all that git asks for.
func (w *walk) lie(name string) {
	w.Helper()
	index := w.src + "/.git/index"
	data, err := os.ReadFile(index)
	var st unix.Stat_t
	if err != nil || len(data) < 32 || unix.Lstat(w.src+"/"+name, &st) != nil {
		return // of other dirt
	}
	body := data[:len(data)-20]
	for at := 12; ; at++ {
		next := bytes.Index(body[at:], []byte(name+"\x00"))
		if next < 0 {
			return
		}
		if at += next; at < 62 || int(endian.BigEndian.Uint16(body[at-2:])) != len(name) {
			continue
		}
		for i, v := range []int64{st.Ctim.Sec, st.Ctim.Nsec, st.Mtim.Sec, st.Mtim.Nsec, int64(st.Dev), int64(st.Ino), -1, int64(st.Uid), int64(st.Gid), st.Size} {
			if v >= 0 {
				endian.BigEndian.PutUint32(body[at-62+4*i:], uint32(v))
			}
		}
		sum := sha1.Sum(body)
		w.plant(".git/index", string(append(body, sum[:]...)))
		return
	}
}

// git is native git as the task's user runs it. Where .git is broken by now it may fail.
func (w *walk) git(args ...string) {
	w.Helper()
	for _, name := range append(slices.Collect(maps.Keys(metaFiles)), ".gitmodules") {
		if st, err := os.Stat(w.src + "/" + name); err == nil && st.Mode()&fs.ModeNamedPipe != 0 {
			return // git would wait for a writer
		}
	}
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = w.src, gitserver.Env()
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		w.sayf("    git %q: %v: %q", args, err, out)
	}
}

// spoil breaks a file in .git: gone, cut, garbage, a byte changed, empty.
func (w *walk) spoil(pattern string) {
	w.Helper()
	names, _ := filepath.Glob(w.src + "/.git/" + pattern)
	names = slices.DeleteFunc(names, func(p string) bool {
		st, err := os.Lstat(p)
		return err != nil || !st.Mode().IsRegular()
	})
	if len(names) == 0 {
		return
	}
	full := names[w.rnd.IntN(len(names))]
	data, err := os.ReadFile(full)
	if err != nil {
		w.Fatal(err)
	}
	name := strings.TrimPrefix(full, w.src+"/")
	how := w.rnd.IntN(5)
	w.sayf("    %s, way %d", name, how)
	switch {
	case how == 0 || len(data) == 0:
		os.Remove(full)
	case how == 1:
		w.plant(name, string(data[:w.rnd.IntN(len(data))]))
	case how == 2:
		w.plant(name, text(w.rnd))
	case how == 3:
		data[w.rnd.IntN(len(data))] ^= 1 << w.rnd.IntN(8)
		w.plant(name, string(data))
	default:
		w.plant(name, "")
	}
}

func gitFile(pattern string) dirt {
	return dirt{".git/" + pattern, func(w *walk) { w.spoil(pattern) }}
}

var dirts = []dirt{
	{"strays", func(w *walk) {
		for i, name := range []string{"stray", "new/dir/file", "stray.o", "odd\nname\xff", "-stray", "many/stray", "build/y.o"} {
			if w.rnd.IntN(3) == 0 && w.real(path.Dir(name)) || i == 1 {
				if _, err := os.Lstat(w.src + "/" + name); err != nil {
					w.touch(name)
					w.plant(name, text(w.rnd))
				}
			}
		}
	}},
	{"nested repository", func(w *walk) {
		w.plant("nested/.git/HEAD", "ref: refs/heads/main\n")
		w.plant("nested/.git/objects/x", "")
		w.plant("nested/.git/refs/x", "")
	}},
	toFile("edited, same size and mtime", func(w *walk, name string) { w.edit(name, true) }),
	toFile("edited, same size", func(w *walk, name string) { w.edit(name, false) }),
	toFile("rewritten", func(w *walk, name string) { w.plant(name, text(w.rnd)) }),
	toFile("touched", func(w *walk, name string) {
		at := time.Unix(1500000000+w.rnd.Int64N(1e9), 0)
		if err := os.Chtimes(w.src+"/"+name, at, at); err != nil {
			w.Fatal(err)
		}
	}),
	toFile("chmod", func(w *walk, name string) {
		if err := unix.Chmod(w.src+"/"+name, []uint32{0, 0o600, 0o444, 0o755, 0o644, 0o4755, 0o4644, 0o1777, 0o1600}[w.rnd.IntN(9)]); err != nil {
			w.Fatal(err)
		}
	}),
	toFile("deleted", func(w *walk, name string) { os.Remove(w.src + "/" + name) }),
	toFile("now a directory", func(w *walk, name string) {
		os.Remove(w.src + "/" + name)
		w.plant(name+"/b/c", "x")
	}),
	toFile("now a link", func(w *walk, name string) {
		w.replace(name, func(p string) error { return os.Symlink(w.outside+"/keep", p) })
	}),
	toFile("now a FIFO", func(w *walk, name string) {
		w.replace(name, func(p string) error { return unix.Mkfifo(p, 0o666) })
	}),
	toFile("linked from outside", func(w *walk, name string) {
		os.Remove(w.outside + "/hard")
		if err := os.Link(w.src+"/"+name, w.outside+"/hard"); err != nil {
			w.Fatal(err)
		}
	}),
	toFile("a link to what is outside", func(w *walk, name string) {
		os.Remove(w.src + "/" + name)
		if err := os.Link(w.outside+"/keep", w.src+"/"+name); err != nil {
			w.Fatal(err)
		}
	}),
	toFile("linked from a stray", func(w *walk, name string) { os.Link(w.src+"/"+name, w.src+"/hard stray") }),
	toFile("swapped with another", func(w *walk, name string) {
		if other, ok := w.file(); ok && other != name {
			if err := unix.Renameat2(unix.AT_FDCWD, w.src+"/"+name, unix.AT_FDCWD, w.src+"/"+other, unix.RENAME_EXCHANGE); err != nil {
				w.Fatal(err)
			}
		}
	}),
	{"twins swapped", func(w *walk) { // their files keep their times, ctime included
		w.touch("twin1")
		w.touch("twin2")
		unix.Renameat2(unix.AT_FDCWD, w.src+"/twin1", unix.AT_FDCWD, w.src+"/twin2", unix.RENAME_EXCHANGE) // not all commits have them
		if w.rnd.IntN(2) == 0 {
			w.lie("twin1/same")
			w.lie("twin2/same")
		}
	}},
	{"links gone", func(w *walk) {
		for name, v := range w.h.list[w.at] {
			if strings.HasPrefix(v, "120000 ") && w.real(path.Dir(name)) {
				w.touch(name)
				w.replace(name, func(p string) error { return os.WriteFile(p, []byte("a"), 0o644) })
			}
		}
	}},
	{"in a submodule", func(w *walk) {
		for name, v := range w.h.list[w.at] {
			if strings.HasPrefix(v, "160000 ") && w.real(name) {
				w.plant(name+"/.git/HEAD", "x")
				w.plant(name+"/file", "x")
			}
		}
	}},
	toFolder("now a link to outside", func(w *walk, name string) {
		w.touch(name)
		w.replace(name, func(p string) error { return os.Symlink(w.outside, p) })
	}),
	toFolder("now a file", func(w *walk, name string) {
		w.touch(name)
		w.replace(name, func(p string) error { return os.WriteFile(p, nil, 0o755) })
	}),
	toFolder("gone", func(w *walk, name string) {
		w.touch(name)
		os.RemoveAll(w.src + "/" + name)
	}),
	toFolder("read-only, with a stray", func(w *walk, name string) {
		w.plant(name+"/stray in it/x", "x")
		w.after = append(w.after, func() {
			os.Chmod(w.src+"/"+name+"/stray in it", 0o555) // it may be gone by now
			os.Chmod(w.src+"/"+name, []fs.FileMode{0, 0o555, 0o500}[w.rnd.IntN(3)])
		})
	}),
	{"planted", func(w *walk) {
		w.plant(".git/hooks/post-checkout", "#!/bin/sh\ntouch /nowhere\n")
		w.plant(".git/config", "[core]\n\tfsmonitor = /nowhere\n\thooksPath = /nowhere\n")
		w.plant(".git/info/attributes", "* eol=crlf\n")
		w.plant(".git/objects/info/alternates", "/nowhere\n")
	}},
	{"locks", func(w *walk) {
		for _, name := range []string{"index", "HEAD", "config", "shallow", "packed-refs", "refs/heads/x", "objects/pack/x", "run-task/state.json", "objects/maintenance"} {
			if w.rnd.IntN(2) == 0 {
				w.plant(".git/"+name+".lock", "")
			}
		}
	}},
	gitFile("index"), gitFile("run-task/state.json"), gitFile("HEAD"), gitFile("objects/pack/*"), gitFile("*"), gitFile("run-task/*"),
	{"packs gone", func(w *walk) { os.RemoveAll(w.src + "/.git/objects/pack") }},
	toFile("added to git's index", func(w *walk, name string) {
		w.edit(name, true)
		w.git("add", "-A")
	}),
	toFile("edited, with an index that lies", func(w *walk, name string) {
		w.edit(name, true)
		w.lie(name)
	}),
	toFile("said to be unchanged", func(w *walk, name string) {
		w.git("update-index", []string{"--assume-unchanged", "--skip-worktree"}[w.rnd.IntN(2)], "--", name)
		w.edit(name, w.rnd.IntN(2) == 0)
	}),
	{"work of git's", func(w *walk) {
		w.git("checkout", "-q", "-b", "work")
		w.git("commit", "-q", "-a", "--allow-empty", "-m", "work")
		w.git("update-index", "--index-version", []string{"3", "4"}[w.rnd.IntN(2)])
		w.git([]string{"gc", "pack-refs", "repack"}[w.rnd.IntN(3)], "-q")
	}},
	{"another index", func(w *walk) {
		w.git([][]string{{"read-tree", "--empty"}, {"update-index", "--split-index"}, {"update-index", "--untracked-cache"}, {"rm", "-q", "-r", "--cached", "."}}[w.rnd.IntN(4)]...)
	}},
}
