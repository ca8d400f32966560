package keys

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// tree makes files that contain their names.
func tree(t *testing.T, names ...string) (*fsx.Dir, string) {
	t.Helper()
	root := t.TempDir()
	for _, name := range names {
		full := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(name), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	d, err := fsx.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, root
}

// sum is the hash's format, written anew, of files that contain their names.
func sum(names ...string) string {
	slices.Sort(names)
	var all []byte
	for _, n := range names {
		content := sha256.Sum256([]byte(n))
		all = append(append(binary.AppendUvarint(all, uint64(len(n))), n...), content[:]...)
	}
	whole := sha256.Sum256(all)
	return string(whole[:])
}

func TestFiles(t *testing.T) {
	long := strings.Repeat("l", 200)
	d, root := tree(t, "go.sum", "a/go.sum", "a/b/go.sum", "a/b/c.lock", "a.lock", "A", "a-b", ".hidden/go.sum", ".git/go.sum", ".git/x", "a/sub/.git", "a/sub/f", ".gitignore", "x[1]", "bytes\xff/go.sum", long)
	if err := errors.Join(os.Symlink("a", root+"/link"), os.Symlink("go.sum", root+"/l.lock"), os.Symlink("none", root+"/a/dead.lock"), unix.Mkfifo(root+"/fifo.lock", 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ globs, want []string }{
		{[]string{"go.sum"}, []string{"go.sum"}},
		{[]string{"./go.sum"}, []string{"go.sum"}},
		{[]string{"a/go.sum", "go.sum", "go.sum", "g*"}, []string{"go.sum", "a/go.sum"}},
		{[]string{"**/go.sum"}, []string{"go.sum", "a/go.sum", "a/b/go.sum", ".hidden/go.sum", "bytes\xff/go.sum"}},
		{[]string{"*/go.sum"}, []string{"a/go.sum", ".hidden/go.sum", "bytes\xff/go.sum"}},
		{[]string{"a/**"}, []string{"a/go.sum", "a/b/go.sum", "a/b/c.lock", "a/sub/f"}},
		{[]string{"a/**/**"}, []string{"a/go.sum", "a/b/go.sum", "a/b/c.lock", "a/sub/f"}},
		{[]string{"**/a/**/go.sum"}, []string{"a/go.sum", "a/b/go.sum"}},
		{[]string{"**/*.lock"}, []string{"a.lock", "a/b/c.lock"}},
		{[]string{"[aA]", "?-?"}, []string{"A", "a-b"}},
		{[]string{`x\[1\]`}, []string{"x[1]"}},
		{[]string{"bytes?/*"}, []string{"bytes\xff/go.sum"}},
		{[]string{"bytes\xff/go.sum"}, []string{"bytes\xff/go.sum"}},
		{[]string{"l*l"}, []string{long}},
		{[]string{"*"}, []string{"go.sum", "a.lock", "A", "a-b", ".gitignore", "x[1]", long}},
	} {
		if got, err := Files(t.Context(), d, c.globs); err != nil || string(got) != sum(c.want...) {
			t.Errorf("%q is not %q: %v", c.globs, c.want, err)
		}
	}
	for _, glob := range []string{"none", "link/go.sum", "link/**", "l.lock", "a/dead.lock", "fifo.lock", "a", "a/sub", ".git", ".git/go.sum", ".git/**", "a/sub/.git", "a/none/**", "go.sum/**", "go.sum/x", "x[1]", "GO.SUM"} {
		if sum, err := Files(t.Context(), d, []string{"go.sum", glob}); !errors.Is(err, ErrNoMatch) || !strings.Contains(err.Error(), glob) {
			t.Errorf("%s: %x, %v", glob, sum, err)
		}
	}
	for _, glob := range []string{"", ".", "./", "..", "../x", "a/../x", "a/..", "/etc/passwd", "a//b", "a/", "[", "a/[b", `a\`, "a/./b", "././a"} {
		if sum, err := Files(t.Context(), d, []string{"go.sum", glob}); err == nil || fail.Of(err) != fail.Usage || fail.Hint(err) == "" {
			t.Errorf("%s: %x, %v", glob, sum, err)
		}
	}
	if err := os.WriteFile(root+"/go.sum", []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := Files(t.Context(), d, []string{"go.sum"}); err != nil || string(got) == sum("go.sum") {
		t.Errorf("a change is not seen: %v", err)
	}
}

// Trees that hold the same are the same, in whatever order they were made.
func TestFilesOrder(t *testing.T) {
	var names []string
	all("abc", 4, func(s string) { names = append(names, "d"+s+"/f", "e"+s) })
	d, _ := tree(t, names...)
	slices.Reverse(names)
	e, _ := tree(t, names...)
	a, err := Files(t.Context(), d, []string{"**"})
	b, err2 := Files(t.Context(), e, []string{"e*", "**/f", "**"})
	if err := errors.Join(err, err2); err != nil || string(a) != string(b) || string(a) != sum(names...) {
		t.Error(err)
	}
}

// A directory is in the walk once, however many ways a pattern has to lead there: a thousand of thousands here.
func TestFilesManyWays(t *testing.T) {
	d, root := tree(t, strings.Repeat("a/", 60)+"f")
	w := &walk{ctx: t.Context(), globs: [][]string{strings.Split(strings.Repeat("**/a/", 25)+"f", "/")}, fits: make([]bool, 1)}
	if err := w.dir(d, "", []state{{}}, 100); err != nil || len(w.found) != 1 || !w.fits[0] {
		t.Errorf("%d, %v", len(w.found), err)
	}
	if err := w.dir(d, "", []state{{}}, 60); !errors.Is(err, fsx.ErrTooDeep) {
		t.Errorf("too deep: %v in %s", err, root)
	}
}

// slow is what a pattern means, part by part.
func slow(pattern, name []string) bool {
	switch {
	case len(pattern) == 0:
		return len(name) == 0
	case pattern[0] == "**" && len(pattern) == 1:
		return len(name) > 0
	case pattern[0] == "**":
		return slow(pattern[1:], name) || len(name) > 0 && slow(pattern, name[1:])
	case len(name) == 0:
		return false
	}
	ok, _ := path.Match(pattern[0], name[0])
	return ok && slow(pattern[1:], name[1:])
}

// steps is what the walk makes of a pattern and a file's name.
func steps(pattern, name []string) bool {
	w := &walk{globs: [][]string{pattern}}
	states, fits := []state{{}}, false
	for _, part := range name {
		var ends []int
		states, ends = w.step(states, part)
		fits = len(ends) > 0
	}
	return fits
}

func TestStepsAll(t *testing.T) {
	parts := map[rune]string{'1': "a", '2': "*", '3': "**", '4': "b", '5': "ab"}
	read := func(s string) (out []string) {
		for _, r := range s {
			out = append(out, parts[r])
		}
		return out
	}
	all("1234", 5, func(p string) {
		all("145", 4, func(n string) {
			if p != "" && n != "" && steps(read(p), read(n)) != slow(read(p), read(n)) {
				t.Errorf("%q and %q: %v", read(p), read(n), steps(read(p), read(n)))
			}
		})
	})
}

func FuzzGlob(f *testing.F) {
	f.Add("**/a/**/b*", "x/a/y/z/bc")
	f.Add("./a?/[b-d]/**", "ab/c/d/e")
	f.Add("**/**", "a\xff")
	f.Fuzz(func(t *testing.T, glob, name string) {
		names := strings.Split(name, "/")
		pattern, err := parseGlob(glob)
		if err != nil {
			if fail.Of(err) != fail.Usage {
				t.Error(err)
			}
			return
		}
		if len(pattern) > 12 || len(names) > 12 { // else slow is too slow
			return
		}
		if got, want := steps(pattern, names), slow(pattern, names); got != want {
			t.Errorf("%q and %q: %v", pattern, names, got)
		}
	})
}

// Neither the number of files nor the length of one keeps a task that is cancelled.
func TestFilesUntilTheContextEnds(t *testing.T) {
	d, root := tree(t, "a")
	if err := os.Truncate(filepath.Join(root, "a"), 1<<42); err != nil {
		t.Skip(err) // what the file system cannot hold
	}
	why := errors.New("cancelled")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, why)
	defer cancel()
	if sum, err := Files(ctx, d, []string{"a"}); !errors.Is(err, why) {
		t.Errorf("%x, %v", sum, err)
	}
	if sum, err := Files(ctx, d, []string{"none"}); !errors.Is(err, why) {
		t.Errorf("after it: %x, %v", sum, err)
	}
}
