package treepath

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
)

func TestCheckNames(t *testing.T) {
	for _, name := range []string{
		"", ".", "..", "a/b", "a\x00b", strings.Repeat("x", 256),
		".git", ".GIT", ".gIt", "git~1", "GIT~1", ".git ", ".git.", ".git . .", "git~1 .", ".git::$INDEX_ALLOCATION", ".git:x", "git~1:$DATA", ".Git.:x",
		`.git\hooks`, `a\.git\hooks`, `a\.git`, `a\GIT~1`, `\.git`, `a\.git ::$x\y`,
		".g\u200cit", "\u200d.git", ".git\u200e", ".gi\u200ft", ".g\u202ait", ".g\u202eit", ".g\u206ait", ".G\u206fIt", ".g\ufeffit",
	} {
		for _, mode := range []uint32{File, Exec, Dir, Link, Gitlink} {
			if Check(name, mode) == nil {
				t.Errorf("Check(%q, %o) allows it", name, mode)
			}
		}
	}
	for _, name := range []string{
		"a\nb", `a\b`, `\`, "a:b", ":", "aux.c", "con", "a ", "a.", " ", "...", strings.Repeat("x", 255), "\xff\xfe", ".git\xff",
		".gitx", "x.git", ".git~1", "git~2", "git~10", "gitt", ".gi", "git", ".gitignore", ".gitattributes", ".g\u200bit", ".g\u0131t", ".gitmodules", "-x", "a\rb",
	} {
		if err := Check(name, File); err != nil {
			t.Errorf("Check(%q): %v", name, err)
		}
	}
}

func TestCheckLinks(t *testing.T) {
	for _, name := range []string{
		".gitmodules", ".GITMODULES", ".gitmodules ", ".gitmodules.", ".gitmodules:x", "gitmod~1", "GITMOD~4", "gi7eba~1", "GI7EB~10", "gi7e~123", "gi~12345", "~1000000",
		`a\.gitmodules`, ".git\u200cmodules",
	} {
		if Check(name, Link) == nil {
			t.Errorf("a link %q is allowed", name)
		}
		if err := Check(name, File); err != nil {
			t.Errorf("a file %q: %v", name, err)
		}
	}
	for _, name := range []string{".gitignore", ".gitattributes", "gitmod~5", "gi7eba~0", "gi7ebax1", "gi7eba~", "gi7ebb~1", "gi7eba~10", ".gitmodulesx"} {
		if err := Check(name, Link); err != nil {
			t.Errorf("a link %q: %v", name, err)
		}
	}
}

func TestCanonical(t *testing.T) {
	for mode, want := range map[uint32]uint32{
		0o100644: File, 0o100664: File, 0o100600: File, 0o100755: Exec, 0o100775: Exec, 0o100700: Exec, 0o100655: File,
		0o040000: Dir, 0o040755: Dir, 0o120000: Link, 0o120777: Link, 0o160000: Gitlink,
		0: 0, 0o644: 0, 0o010644: 0, 0o060000: 0, 0o140000: 0, 0o1100644: 0, 0o170000: 0,
	} {
		if got, err := Canonical(mode); got != want || (err != nil) != (want == 0) {
			t.Errorf("Canonical(%o) = %o, %v", mode, got, err)
		}
	}
}

func tree(entries ...string) []byte {
	var b bytes.Buffer
	for _, e := range entries {
		b.WriteString(e + "\x00" + strings.Repeat("i", 20))
	}
	return b.Bytes()
}

func walkOne(data []byte) (paths []string, err error) {
	err = Walk(plumbing.ZeroHash, func(id plumbing.Hash) ([]byte, error) {
		if id != plumbing.ZeroHash {
			return nil, nil
		}
		return data, nil
	}, func(path string, e Entry) error {
		paths = append(paths, path)
		return nil
	})
	return paths, err
}

func TestWalkRefuses(t *testing.T) {
	for rule, data := range map[string][]byte{
		"twice":               tree("100644 a", "100644 a"),
		"as file and":         tree("100644 a", "100644 a-b", "100644 a.c", "40000 a"),
		"not in git's order":  tree("100644 b", "100644 a"),
		"git's order":         tree("40000 a", "100644 a.c"), // "a/" sorts after "a.c"
		"mode 100":            tree("100 a"),
		"no file mode":        tree("100648 a"),
		"\"\" is no file":     tree(" a"),
		"cut short":           tree("100644 a")[:20],
		"has no name":         tree("100644"),
		"name is empty":       tree("100644 "),
		"leading":             tree("160000 -a"),
		"carriage return":     tree("160000 a\r"),
		".git on some file":   tree("40000 .git"),
		".gitmodules is a sy": tree("120000 .gitmodules"),
	} {
		_, err := walkOne(data)
		if fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), rule) {
			t.Errorf("%q: %v", data, err)
		}
	}
	if paths, err := walkOne(tree("100644 a-b", "100644 a.c", "40000 a", "100644 a0", "160000 b")); err != nil || fmt.Sprint(paths) != "[a-b a.c a a0 b]" {
		t.Error(paths, err)
	}
}

func TestWalkHasBounds(t *testing.T) {
	endless := func(plumbing.Hash) ([]byte, error) { return tree("40000 a"), nil }
	if err := Walk(plumbing.ZeroHash, endless, func(string, Entry) error { return nil }); err == nil || !strings.Contains(err.Error(), "2048 directories deep") {
		t.Errorf("an endless tree: %.100v", err)
	}
	level := byte(0)
	bomb := func(id plumbing.Hash) ([]byte, error) { // ten in ten in ten ...
		var b bytes.Buffer
		if level = id[0] + 1; level < 12 {
			for i := range 10 {
				fmt.Fprintf(&b, "40000 %d\x00%c%s", i, level, strings.Repeat("\x00", 19))
			}
		}
		return b.Bytes(), nil
	}
	if err := Walk(plumbing.ZeroHash, bomb, func(string, Entry) error { return nil }); fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), "entries") {
		t.Errorf("a bomb: %.100v", err)
	}
	stop := errors.New("stop")
	if err := Walk(plumbing.ZeroHash, endless, func(string, Entry) error { return stop }); err != stop {
		t.Error(err)
	}
}

func FuzzTreeEntries(f *testing.F) {
	f.Add(tree("100644 a", "40000 b", "120000 c", "160000 d"))
	f.Add(tree("100644 a", "40000 a"))
	f.Add(tree("100644 .git\u200c", "100755 git~1"))
	f.Add(tree("0100664 \xff\\.git:x"))
	f.Add([]byte("100644 a\x00short"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := Parse(data)
		if err == nil && !sameEntries(entries) {
			t.Errorf("%q was read as %v", data, entries)
		}
		paths, err := walkOne(data)
		if err != nil {
			if fail.Of(err) != fail.BadData {
				t.Error(err)
			}
			return
		}
		seen := map[string]bool{}
		for _, p := range paths {
			low := strings.ToLower(p)
			if seen[p] || p == "" || p == "." || p == ".." || low == ".git" || low == "git~1" || strings.ContainsAny(p, "/\x00") {
				t.Errorf("%q is allowed", p)
			}
			seen[p] = true
		}
		if files := len(paths); files > 1 && !sort.SliceIsSorted(entries, func(i, j int) bool { return key(entries[i]) < key(entries[j]) }) {
			t.Error("not sorted")
		}
	})
}

// sameEntries writes entries as a tree and reads them back.
func sameEntries(entries []Entry) bool {
	var b []byte
	for _, e := range entries {
		b = fmt.Appendf(b, "%o %s\x00%s", e.Mode, e.Name, e.ID[:])
	}
	again, err := Parse(b)
	return err == nil && slices.Equal(again, entries)
}
