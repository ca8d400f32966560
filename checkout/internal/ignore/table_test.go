package ignore

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"run-task/internal/fail"
)

// What each pattern ignores, and what it does not. Names that end with a slash are directories. Git is asked too.
var table = []struct {
	file     string
	yes, not string // separated by "|"
}{
	{"", "", "a|d/|d/a"},
	{"a", "a|d/a|d/e/a|a/b", "b|ab|A|d/"},
	{"#a\n\\#b\n!c\n\\!d", "#b|!d", "a|#a|b|c|d|!c"},
	{"a \nb\\ \nc\\  \nd\t\n \n\\ \n", "a|b |c |d\t| ", "a |b|b  |c|c  |d"},
	{"a\r\nb\r\r\nc \r\ne\r \nf\r", "a|b\r|c|e\r|f", "a\r|b|c |e|f\r"},
	{"\ufeffa\n\ufeffb", "a|\ufeffb", "b"},
	{"a\x00b\nc", "a|c", "ab|b"},
	{"a*\n!ab\nabc", "a|ac|abc|abcd", "ab|b"},
	{"!a\na", "a", "b"},
	{"d/\n!d/e", "d/|d/a|d/e/|d/e/a", "a/d"}, // nothing is re-included below an excluded directory
	{"d/*\n!d/e", "d/a|d/f/", "d/|d/e/|d/e/a"},
	{"*/\n", "d/|d/e/|d/a", "a|b"},
	{"/\n//\n/ /", "", "a|d/|d/e/"},
	{"/a\n//b", "a", "d/a|b|d/b"},
	{"d/a", "d/a", "d/e/a|a|e/d/a"},
	{"d/e/", "d/e/|d/e/a", "d/|e/d/e/|e/"},
	{"**/a\n**/d/b", "a|d/a|d/e/a|d/b|d/d/b", "b|da|d/ea|d/e/b"},
	{"d/**", "d/a|d/e/|d/e/a", "d/|e/d/a|a"},
	{"d/**/a", "d/a|d/e/a|d/e/f/a", "a|d/ea|da"},
	{"d/**/**/a\n**/**/z", "d/a|d/e/a|d/e/f/a|z|d/z|d/e/z", "d/ea"},
	{"**", "a|d/", ""},
	{"/**", "a|d/", ""},
	{"**a\nb**", "a|ba|d/xa|b|bc", "ac"},
	{"/d*a\n/d?b\n/d[/]c\n/d[!x]f", "da|dxa|dxb|dyf", "d/a|d/b|d/c|d/f|dxf"},
	{"e/d**a", "e/da|e/dxa", "e/d/a|e/d/x/a"},
	{"e**/a", "ea|e/a|ex/y/a", "d/e/a"}, // git matches what is behind the literal part as if it were a pattern of its own
	{"d\\/a\n**\\/b", "d/a|d/b|d/e/b", "b"},
	{"?", "a|b|d/a|\xff", "ab|dd/"},
	{"a\\*\nb\\?\nc\\\\\n\\d\\e\nf\\", "a*|b?|c\\|de", "ax|bx|c|c\\\\|f|f\\"},
	{"a\\/\nf\\/", "", "a|f|a\\|d/"},
	{"[a-cx]", "a|b|c|x", "d|-|a-|[a-cx]"},
	{"[!a-c]", "d|!|^|\xff", "a|b|c"},
	{"[^a-c]", "d|^|!|\x01", "a|b|c"},
	{"[a!^]", "a|!|^", "b"},
	{"[]]\n[!]x]y", "]|ay", "a|]y|xy"},
	{"[]-a]", "]|^|_|a", "[|b|-"},
	{"[a-]\n[-b]", "a|-|b", "c"},
	{"[a-c-e]", "a|b|c|-|e", "d"},
	{"[--0]", "-|0", "-0|,|1"},
	{"[c-a]", "c", "a|b|-"}, // an empty range, but its beginning is also by itself
	{"[\\]\\-x]\n[\\a-\\c]y", "]|-|x|ay|by|cy", "\\|dy"},
	{"[[-\\]]", "[|\\|]", "a|-"},
	{"[\xc3\xa9]", "\xc3|\xa9", "\xc3\xa9"},
	{"[\x80-\xff]a", "\x80a|\xffa|\xc3a", "aa|\x7fa"},
	{"[[:digit:]]\n[![:alpha:]]z\n[[:upper:][:space:]_]y", "0|9|1z|-z|Ay| y|_y", "a|az|ay|x0"},
	{"[[:digit]x\n[[:]y\n[[:a]z", "[x|:x|dx|[y|:y|[z|:z|az", "0x|ay|bz"},
	{"[[:digit:]-z]\n[A[:digit:]-Z]", "5|-|z|A|Z", "a|y|B|Y"},
	{"[[:foo:]a]\n[[::]b]\n[[:ALPHA:]]\n[[:alpha:]", "", "a|b|[|:"},
	{"a[\na[b\na[!\na[b-\na[b\\\na[]", "", "a|a[|a[b|ab|a[]|a[!"},
	{"a]", "a]", "a"},
	{".*\n!.gitignore", ".a|.b/", ".gitignore|a"},
	{"foo.o\n*.a", "foo.o|x.a|.a|d/x.a", "foo.oo|fooxo|x.ab"},
	{"\xff\xfe", "\xff\xfe|d/\xff\xfe", "\xff"},
	{"a\tb\n\tc", "a\tb|\tc", "ab|c"},
	{"a\n\n\n# x\nb", "a|b", "# x"},
	{"*a*a*b", "aab|xaxaxb", "ab|aabx"},
	{"/d/*/*/a", "d/e/f/a", "d/e/a|d/e/f/g/a"},
	{"/**/e/*x/**/a", "e/x/a|d/e/yx/z/a|d/e/q/e/x/a", "e/y/a|e/x/b"},
}

func TestTable(t *testing.T) {
	r, w := newRepo(t), world{}
	var paths []string
	want := map[string]bool{}
	for i, c := range table {
		in := fmt.Sprintf("t%d/", i)
		w[in+".gitignore"] = c.file
		for ignored, names := range map[bool]string{true: c.yes, false: c.not} {
			for name := range strings.SplitSeq(names, "|") {
				if name == "" {
					continue
				}
				name, dir := strings.CutSuffix(in+name, "/")
				if dir {
					r.mkdir(name)
				}
				paths, want[name] = append(paths, name), ignored
			}
		}
	}
	git := r.ask(w, paths)
	for i, name := range paths {
		file := w[name[:strings.Index(name, "/")]+"/.gitignore"]
		if dir := r.isDir(name); w.ignored(name, dir) != want[name] {
			t.Errorf("%q: ignored(%q, %v) = %v", file, name, dir, !want[name])
		}
		if git[i] != want[name] {
			t.Errorf("%q: git's ignored(%q) = %v", file, name, git[i])
		}
	}
}

func TestPrecedence(t *testing.T) {
	r := newRepo(t)
	r.mkdir("d/e", "x/y")
	w := world{
		exclude:          "a\n!b\n/d/e/k\n/x/\nz",
		".gitignore":     "!a\nb\nd/c\n*.o\n/d/f\n!z",
		"d/.gitignore":   "!c\na\n!x.o\n/f\ne/*\n!/f",
		"d/e/.gitignore": "*\n!x.o\n",
		"x/.gitignore":   "!*\n", // not read: the directory is ignored
	}
	want := map[string]bool{
		"a": false, "b": true, "z": false, "d": false, "d/a": true, "d/b": true, "d/c": false, "d/f": false, "d/x.o": false, "d/y.o": true,
		"d/e": false, "d/e/k": true, "d/e/x.o": false, "d/e/a": true, "d/e/f/x.o": true, "x": true, "x/y": true, "x/y/a": true,
	}
	paths := slices.Sorted(maps.Keys(want))
	for i, git := range r.ask(w, paths) {
		if got := w.ignored(paths[i], r.isDir(paths[i])); got != want[paths[i]] || git != got {
			t.Errorf("%q is ignored: %v, in git %v", paths[i], got, git)
		}
	}
}

// A matcher that went through other directories answers as one that came straight.
func TestLeave(t *testing.T) {
	w := world{".gitignore": "/d/e/a\n/b\nx\n", "d/.gitignore": "b\n/e/c"}
	m := w.matcher()
	m.Enter("x", nil)
	m.Enter("y", nil)
	if !m.Ignored("z", false) {
		t.Error("x/y/z is not ignored")
	}
	m.Leave()
	m.Leave()
	m.Enter("d", w.rules("d/.gitignore"))
	m.Enter("e", nil)
	for _, name := range []string{"a", "b", "c"} {
		if !m.Ignored(name, false) {
			t.Errorf("d/e/%s is not ignored", name)
		}
	}
	m.Leave()
	if m.Ignored("c", false) || m.Ignored("a", false) || !m.Ignored("b", false) {
		t.Error("in d, after d/e")
	}
	m.Leave()
	if m.Ignored("c", false) || m.Ignored("z", false) || !m.Ignored("b", false) {
		t.Error("at the top, after d")
	}
}

func TestTooLarge(t *testing.T) {
	if _, err := Parse(make([]byte, MaxFile)); err != nil {
		t.Error(err)
	}
	if _, err := Parse(make([]byte, MaxFile+1)); fail.Of(err) != fail.BadData {
		t.Error(err)
	}
}

// Trying all ways would take these beyond the end of the universe.
func TestHostilePatterns(t *testing.T) {
	a := strings.Repeat("a", 255)
	deep := strings.Repeat("a/", 2000)
	for _, pattern := range []string{
		strings.Repeat("*a", 100) + "b",
		strings.Repeat("*?", 100) + "b",
		strings.Repeat("*[a-z]", 100) + "b",
		strings.Repeat("**/", 500) + "b",
		strings.Repeat("**/a/", 500) + "b",
		strings.Repeat("**/*a*/", 300) + "b",
		strings.Repeat("*/", 500) + strings.Repeat("**/*/", 500) + "b",
		strings.Repeat("**\\/a*", 300) + "b",
		"*[" + strings.Repeat("[:x", 5000) + "]b",
	} {
		r, err := Parse([]byte(pattern + "\n"))
		if err != nil || len(r.list) != 1 {
			t.Fatal(err, len(r.list))
		}
		if r.find(a, a, false) != nil || r.find(deep+a, a, false) != nil {
			t.Errorf("%.30q matches", pattern)
		}
	}
}
