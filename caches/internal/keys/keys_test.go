package keys

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

func TestParse(t *testing.T) {
	base := Spec{Path: "p", Key: "k", Policy: Pull, When: OnSuccess, Level: "fastest"}
	with := func(change func(*Spec)) Spec {
		s := base
		change(&s)
		return s
	}
	for text, want := range map[string]Spec{
		`path=p,key=k`: base,
		`key=k,path=p`: base,
		`path=p,key=k,policy=push,when=always,store=dir:/c,level=best,xattrs=true`: {Path: "p", Key: "k", Policy: Push, When: Always, Store: "dir:/c", Level: "best", Xattrs: true},
		`path=p,key=k,fallback=a-,fallback=b*`:                                     with(func(s *Spec) { s.Fallbacks = []string{"a-", "b*"} }),
		`path=p,"key=a,b"`:                                                         with(func(s *Spec) { s.Key = "a,b" }),
		`"path=a,""b""",key=k`:                                                     with(func(s *Spec) { s.Path = `a,"b"` }),
		`path=p,key=ruby-{{files "Gemfile.lock"}}`:                                 with(func(s *Spec) { s.Key = `ruby-{{files "Gemfile.lock"}}` }),
		`path=p,key={{files "a,b" "c}},d"}}-x`:                                     with(func(s *Spec) { s.Key = `{{files "a,b" "c}},d"}}-x` }),
		`path=p,key={{files "a\",b"}}`:                                             with(func(s *Spec) { s.Key = `{{files "a\",b"}}` }),
		`path=p,"key={{files ""a,b""}}"`:                                           with(func(s *Spec) { s.Key = `{{files "a,b"}}` }),
		`path=p,key={{env NAME}},store=s3://b/p?endpoint=http://h:1`:               with(func(s *Spec) { s.Key, s.Store = "{{env NAME}}", "s3://b/p?endpoint=http://h:1" }),
	} {
		if got, err := Parse(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "path=p", "key=k", "path=p,key=", "path=,key=k", "path=p,key=k,", "path=p,key=k,path=q", "path=p,key=k,key=l", "path=p,key=k,policy=both", "path=p,key=k,when=never",
		"path=p,key=k,level=9", "path=p,key=k,xattrs=yes", "path=p,key=k,nonsense=1", "path=p,key={{files", `path=p,key={{files "}}`, `path=p,"key=k`, `path=p,"key=k"x`, "path=p,key=k,word", "path=p\x00,key=k",
		"path=p,key=a b", "path=p,key={{}}", "path=p,key={{nothing}}", "path=p,key={{tree}}", "path=p,key={{arch x}}", "path=p,key={{files}}", "path=p,key=k,fallback=a b", `path=p,key={{env "A"B}}`, "path=p,key=}}"} {
		if s, err := Parse(text); fail.Of(err) != fail.Usage || err == nil || fail.Hint(err) == "" {
			t.Errorf("%q: %+v, %v", text, s, err)
		}
	}
}

func source() Source {
	return Source{
		Files: func(globs []string) ([]byte, error) { return []byte(strings.Join(globs, "+")), nil },
		Tree:  func(path string) (string, error) { return "tree-of-" + path, nil },
		Env: func(name string) string {
			return map[string]string{"A": "main", "B": "feature/x", "C": "a b", "D": "..", "E": strings.Repeat("x", 500), "F": "/", "G": "feature-x"}[name]
		},
		Arch: "amd64", OS: "linux", Self: func() (string, error) { return "0123", nil },
	}
}

func TestExpand(t *testing.T) {
	for template, want := range map[string]string{
		"plain": "plain", "a/b": "a/b", "ruby-{{arch}}-{{ os }}": "ruby-amd64-linux", "{{run-task}}": "0123", `{{tree "w"}}`: "tree-of-w", "{{tree w}}": "tree-of-w",
		`x-{{files "a" "b"}}`: "x-612b62", "{{env A}}": "main", `{{env "A"}}`: "main", "{{env B}}": "feature-x-217d2bf5", "{{env G}}": "feature-x", "b/{{env C}}": "b/a_b-c8687a08",
	} {
		if got, err := Expand(template, source()); err != nil || got != want {
			t.Errorf("%s: %q, %v", template, got, err)
		}
	}
	for _, template := range []string{"", "/a", "a/", "a//b", "..", "a/../b", ".a", "{{env NONE}}", "a/{{env D}}", "a*", "{{env F}}/{{env D}}", strings.Repeat("x", 200)} {
		if got, err := Expand(template, source()); fail.Of(err) != fail.Usage || err == nil {
			t.Errorf("%s: %q, %v", template, got, err)
		}
	}
	long := strings.Repeat(strings.Repeat("y", 150)+"/", 5)
	a, err := Expand(long+"a", source())
	b, err2 := Expand(long+"b", source())
	if err := errors.Join(err, err2); err != nil || a == b || len(a) > maxKey {
		t.Errorf("%v\n%s\n%s", err, a, b)
	}
	for template, want := range map[string]string{"ruby-": "ruby- true", "ruby*": "ruby true", "ruby": "ruby false", "a/*": "a/ true", "{{env A}}-": "main- true"} {
		if got, prefix, err := Fallback(template, source()); err != nil || fmt.Sprint(got, " ", prefix) != want {
			t.Errorf("%s: %q %v, %v", template, got, prefix, err)
		}
	}
	for _, template := range []string{"*", "a**", "/-", ".*"} {
		if got, _, err := Fallback(template, source()); err == nil && template != "*" {
			t.Errorf("%s: %q", template, got)
		}
	}
}

func TestFiles(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"go.sum", "a/go.sum", "a/b/go.sum", "a/b/c.lock", ".hidden/go.sum", ".git/go.sum", "x[1]", "bytes\xff/go.sum"} {
		name = filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(name[len(root):]), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a", root+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("go.sum", root+"/l.lock"); err != nil {
		t.Fatal(err)
	}
	d, err := fsx.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	sums := map[string]string{}
	for _, globs := range [][]string{{"go.sum"}, {"**/go.sum"}, {"a/**"}, {"a/**/go.sum"}, {"*/go.sum"}, {"go.sum", "a/go.sum"}, {"**/*.lock"}, {"x\\[1\\]"}, {"**/**/c.lock"}} {
		sum, err := Files(d, globs)
		if err != nil {
			t.Fatal(globs, err)
		}
		var names []string
		filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
			name, _ := filepath.Rel(root, p)
			if e.Type().IsRegular() && slices.ContainsFunc(globs, func(g string) bool { return slow(strings.Split(g, "/"), strings.Split(name, "/")) }) && !strings.HasPrefix(name, ".git/") {
				names = append(names, name)
			}
			return err
		})
		exact, err := Files(d, quote(names))
		if err != nil || string(exact) != string(sum) {
			t.Errorf("%q is not %q, %v", globs, names, err)
		}
		sums[string(sum)] = fmt.Sprint(globs)
	}
	if len(sums) != 8 { // "**/*.lock" and the last are one
		t.Errorf("%q", sums)
	}
	if again, err := Files(d, []string{"a/go.sum", "go.sum", "go.sum", "./go.sum"}); err != nil || sums[string(again)] != "[go.sum a/go.sum]" {
		t.Errorf("%q, %v", sums[string(again)], err)
	}
	if err := os.WriteFile(root+"/go.sum", []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if sum, err := Files(d, []string{"go.sum"}); err != nil || sums[string(sum)] != "" {
		t.Errorf("a change is not seen: %v", err)
	}
	for _, glob := range []string{"none", "link/go.sum", "l.lock", "a", ".git/go.sum", "a/none/**"} {
		if sum, err := Files(d, []string{glob}); !errors.Is(err, ErrNoMatch) {
			t.Errorf("%s: %x, %v", glob, sum, err)
		}
	}
	for _, glob := range []string{"", "..", "../x", "/etc/passwd", "a//b", "[", "a/./b"} {
		if sum, err := Files(d, []string{glob}); fail.Of(err) != fail.Usage {
			t.Errorf("%s: %x, %v", glob, sum, err)
		}
	}
}

func quote(names []string) (all []string) {
	for _, n := range names {
		all = append(all, strings.NewReplacer("[", `\[`, "]", `\]`, "*", `\*`).Replace(n))
	}
	return all
}

// slow is what a pattern means, word by word.
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

func FuzzParse(f *testing.F) {
	f.Add(`path=p,key=ruby-{{files "Gemfile.lock"}},fallback=ruby-,policy=pull,"store=dir:/a,b"`)
	f.Add(`path=p,key={{env A}}`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			if fail.Of(err) != fail.Usage {
				t.Error(err)
			}
			return
		}
		key, err := Expand(s.Key, source())
		if err == nil && (len(key) > maxKey || strings.Contains(key, "..") && slices.Contains(strings.Split(key, "/"), "..") || strings.HasPrefix(key, "/") || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' })) {
			t.Errorf("%q", key)
		}
		if again, _ := Expand(s.Key, source()); again != key {
			t.Errorf("%q and %q", key, again)
		}
	})
}
