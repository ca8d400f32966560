package keys

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"run-task/internal/fail"
)

// source has a few variables.
func source() Source {
	s := full()
	s.Env = func(name string) string {
		return map[string]string{"A": "main", "B": "feature/x", "C": "a b", "D": "..", "E": strings.Repeat("x", 500), "F": "/", "G": "feature-x", "H": "v1.2", "I": "a..b.", "J": "é\n"}[name]
	}
	return s
}

// full has every variable: its own name.
func full() Source {
	return Source{
		Files: func(globs []string) ([]byte, error) {
			sum := sha256.Sum256([]byte(fmt.Sprintf("%q", globs)))
			return sum[:], nil
		},
		Tree: func(path string) (string, error) { return hash(path)[:40], nil },
		Env:  func(name string) string { return name },
		Arch: "amd64", OS: "linux", Self: func() (string, error) { return "0123", nil },
	}
}

func hash(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

func TestExpand(t *testing.T) {
	for template, want := range map[string]string{
		"plain": "plain", "a/b": "a/b", "._@+=,~-"[1:]: "_@+=,~-", "a./b.": "a./b.",
		"ruby-{{arch}}-{{ os }}": "ruby-amd64-linux", "{{run-task}}/{{\tarch}}": "0123/amd64",
		`{{tree "w"}}`: hash("w")[:40], "{{tree w}}": hash("w")[:40],
		`x-{{files "a" "b}},"}}`: "x-" + hash(`["a" "b}},"]`), `{{files a **/b "\xff"}}`: hash(`["a" "**/b" "\xff"]`),
		"{{env A}}": "main", `{{env "A"}}`: "main", "{{env G}}": "feature-x", "{{env H}}": "v1.2",
		"{{env B}}": "feature-x-" + hash("feature/x")[:8], "b/{{env C}}": "b/a_b-" + hash("a b")[:8],
		"{{env D}}": "__-" + hash("..")[:8], "{{env F}}": "--" + hash("/")[:8], "{{env I}}": "a._b_-" + hash("a..b.")[:8], "{{env J}}": "___-" + hash("é\n")[:8],
		"x.{{env D}}.y": "x.__-" + hash("..")[:8] + ".y",
	} {
		if got, err := Expand(template, source()); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", template, got, err, want)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, template := range []string{
		"", "/a", "a/", "a//b", ".", "..", "a/../b", "a..b", ".a", "a/.b", ".{{env A}}", "/{{env A}}", "{{env A}}/", "a*", "a b", "a\x00", "a\n", "é", `a"b`, "a:b", `a\b`, "{", "}}", "a{b}",
		"{{", "{{}}", "{{ }}", "{{env A}", "{{env A}}}", "{{{env A}}", "{{env}}", "{{env A B}}", "{{env {A}}}", `{{env "A}}`, `{{env "A"B}}`, `{{env A"B"}}`, `{{env ""}}`, "{{env `A`}}", "{{env 'A'}}",
		`{{env "\q"}}`, "{{env A\n}}", "{{arch x}}", "{{os x}}", "{{run-task x}}", "{{tree}}", "{{tree a b}}", "{{files}}", "{{nothing}}", "{{Env A}}", `{{"\x00"}}`,
		"{{files ..}}", "{{files /etc/passwd}}", "{{files a//b}}", "{{files [}}", `{{files ok "../no"}}`,
	} {
		if err := Check(template); err == nil || fail.Of(err) != fail.Usage || fail.Hint(err) == "" {
			t.Errorf("%q: %v", template, err)
		}
		if key, err := Expand(template, full()); err == nil {
			t.Errorf("%q: %q", template, key)
		}
	}
}

func TestExpandFails(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		template string
		change   func(*Source)
		reason   fail.Reason
		is       error
	}{
		"unset":       {"{{env NONE}}", func(*Source) {}, fail.Usage, nil},
		"nothing set": {"{{env A}}", func(s *Source) { s.Env = nil }, fail.Usage, nil},
		"no files":    {"{{files a}}", func(s *Source) { s.Files = nil }, fail.Usage, nil},
		"no tree":     {"{{tree a}}", func(s *Source) { s.Tree = nil }, fail.Usage, nil},
		"no self":     {"{{run-task}}", func(s *Source) { s.Self = nil }, fail.Usage, nil},
		"no arch":     {"a{{arch}}", func(s *Source) { s.Arch = "" }, fail.Internal, nil},
		"no os":       {"a{{os}}", func(s *Source) { s.OS = "a/b" }, fail.Internal, nil},
		"empty tree":  {"a{{tree x}}", func(s *Source) { s.Tree = func(string) (string, error) { return "", nil } }, fail.Internal, nil},
		"bad tree":    {"a{{tree x}}", func(s *Source) { s.Tree = func(string) (string, error) { return "0123\n", nil } }, fail.Internal, nil},
		"empty files": {"a{{files x}}", func(s *Source) { s.Files = func([]string) ([]byte, error) { return nil, nil } }, fail.Internal, nil},
		"files fail":  {"{{files x}}", func(s *Source) { s.Files = func([]string) ([]byte, error) { return nil, ErrNoMatch } }, 0, ErrNoMatch},
		"tree fails":  {"{{tree x}}", func(s *Source) { s.Tree = func(string) (string, error) { return "x", broken } }, 0, broken},
		"self fails":  {"{{run-task}}", func(s *Source) { s.Self = func() (string, error) { return "x", broken } }, 0, broken},
	} {
		s := source()
		c.change(&s)
		key, err := Expand(c.template, s)
		if err == nil || key != "" || c.is != nil && !errors.Is(err, c.is) || c.is == nil && fail.Of(err) != c.reason {
			t.Errorf("%s: %q, %v", name, key, err)
		}
		if _, _, err := Fallback(c.template+"*", s); err == nil {
			t.Errorf("%s: a fallback is made of it", name)
		}
	}
}

func TestFallback(t *testing.T) {
	y, z := strings.Repeat("y", 150), strings.Repeat("z", 117)
	for template, want := range map[string]string{
		"ruby-": "ruby- true", "ruby*": "ruby true", "ruby": "ruby false", "a/*": "a/ true", "{{env A}}-": "main- true", "{{env A}}*": "main true", "a.*": "a. true", "-": "- true", "a-*": "a- true",
		"{{env B}}": "feature-x-" + hash("feature/x")[:8] + " false", "{{env B}}/-": "feature-x-" + hash("feature/x")[:8] + "/- true", `a{{env "A-"}}`: "",
		y + "/" + z + "*": y[:117] + "-" + hash(y)[:32] + "/" + z + " true", z + "z*": "", y[:100] + "/" + y[:100] + "/" + y[:100] + "*": "",
		"*": "", "": "", "a**": "", "/-": "", ".*": "", "a/.*": "", "a..*": "", "*a": "", "a*-": "", "a b-": "", "{{*": "", "{{env -": "", "{{env NONE}}-": "",
	} {
		got, prefix, err := Fallback(template, source())
		if want == "" {
			if err == nil || got != "" || fail.Of(err) != fail.Usage || fail.Hint(err) == "" {
				t.Errorf("%s: %q %v, %v", template, got, prefix, err)
			}
		} else if err != nil || fmt.Sprint(got, " ", prefix) != want {
			t.Errorf("%s: %q %v, %v; want %s", template, got, prefix, err, want)
		}
	}
}

// A beginning finds the keys that begin so, those that were cut as well.
func TestFallbackFindsLongKeys(t *testing.T) {
	for part := range 20 {
		for _, length := range []int{1, 50, 116, 117, 149, 150, 151, 200} {
			head := strings.Repeat(strings.Repeat("y", length)+"/", part)
			key, err := Expand(head+strings.Repeat("x", 110)+"-"+strings.Repeat("z", 300), full())
			begins, prefix, err2 := Fallback(head+strings.Repeat("x", 110)+"-", full())
			if err != nil || err2 == nil && (!prefix || !strings.HasPrefix(key, begins)) {
				t.Errorf("%d of %d: %v, %v\n%s\n%s", part, length, err, err2, key, begins)
			}
			if err2 != nil && part*min(length+1, 151)+111 <= keepKey {
				t.Errorf("%d of %d: %v", part, length, err2)
			}
		}
	}
}

// No value can be chosen that becomes what another one becomes.
func TestValuesStayApart(t *testing.T) {
	expand := func(value string) string {
		s := full()
		s.Env = func(string) string { return value }
		key, err := Expand("k/{{env A}}", s)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimPrefix(key, "k/")
	}
	seen := map[string]string{}
	note := func(value string) {
		key := expand(value)
		if was, ok := seen[key]; ok && was != value {
			t.Errorf("%q and %q both become %q", was, value, key)
		}
		seen[key] = value
	}
	all("a./_- ", 5, func(value string) {
		if value != "" {
			note(value)
			note(expand(value))         // what it becomes, as a value
			note(expand(expand(value))) // and again
		}
	})
	for n := range 500 {
		value := strings.Repeat("x", n+1)
		note(value)
		note(expand(value))
	}
	if got := expand("abc-20261123"); got == "abc-20261123" {
		t.Error("a value passes for one that was changed")
	}
	if got := expand("abc-20261123x"); got != "abc-20261123x" {
		t.Errorf("%q was changed for no reason", got)
	}
}

func TestLongKeys(t *testing.T) {
	y := strings.Repeat("y", 99) + "/"
	for _, c := range []struct{ template, want string }{
		{strings.Repeat("y", 149), strings.Repeat("y", 149)},
		{strings.Repeat("y", 151), strings.Repeat("y", 117) + "-" + hash(strings.Repeat("y", 151))[:32]},
		{strings.Repeat(y, 3) + strings.Repeat("y", 100), strings.Repeat(y, 3) + strings.Repeat("y", 100)}, // 400
		{strings.Repeat(y, 3) + strings.Repeat("y", 101), strings.Repeat(y, 3) + "-" + hash(strings.Repeat(y, 3) + strings.Repeat("y", 101))[:32]},
	} {
		if got, err := Expand(c.template, full()); err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.template, got, err, c.want)
		}
	}
	a, _ := Expand(strings.Repeat(y, 5)+"a", full())
	b, _ := Expand(strings.Repeat(y, 5)+"b", full())
	if again, err := Expand(a, full()); err != nil || a == b || again == a {
		t.Errorf("%v\n%s\n%s\n%s", err, a, b, again)
	}
	s := full()
	s.Env = func(string) string { return "s3cret" }
	if _, _, err := Fallback(strings.Repeat("{{env A}}", 100)+"-", s); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("%v", err)
	}
}

// stored is what a store takes, written anew: relative, parts of certain bytes that do not begin with a dot, and room for an archive's suffix.
var stored = regexp.MustCompile(`^[A-Za-z0-9_@+=,~-][A-Za-z0-9._@+=,~-]{0,191}(/[A-Za-z0-9_@+=,~-][A-Za-z0-9._@+=,~-]{0,191})*$`)

func FuzzExpand(f *testing.F) {
	f.Add("ruby-{{files \"Gemfile.lock\"}}-{{env A}}", "feature/x")
	f.Add("{{env A}}/{{env A}}.{{arch}}*", "..")
	f.Add(strings.Repeat("{{env A}}/", 9)+"-", strings.Repeat("x.", 70))
	f.Fuzz(func(t *testing.T, template, value string) {
		s := full()
		s.Env = func(string) string { return value }
		key, err := Expand(template, s)
		if again, err2 := Expand(template, s); again != key || (err == nil) != (err2 == nil) {
			t.Errorf("%q, %v, and then %q, %v", key, err, again, err2)
		}
		switch checked := Check(template); {
		case err == nil && (checked != nil || len(key) > 400 || strings.Contains(key, "..") || !stored.MatchString(key)):
			t.Errorf("%q, check %v", key, checked)
		case err != nil && (fail.Of(err) != fail.Usage || fail.Hint(err) == "" || key != ""):
			t.Errorf("%q, %v", key, err)
		case err != nil && checked == nil && value != "":
			t.Errorf("a value fails: %v", err)
		}
		key, prefix, err := Fallback(template, s)
		if err == nil && prefix && (len(key) > 400 || strings.Contains(key, "..") || !stored.MatchString(key+"x")) || err == nil && !prefix && !stored.MatchString(key) {
			t.Errorf("fallback %q %v", key, prefix)
		}
		if err != nil && fail.Of(err) != fail.Usage {
			t.Error(err)
		}
	})
}
