package keys

import (
	"encoding/csv"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"run-task/internal/fail"
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
		`path=p,key=k,policy=pull-push,when=on_failure,level=default,xattrs=false`: {Path: "p", Key: "k", Policy: PullPush, When: OnFailure, Level: "default"},
		`path=p,key=k,fallback=b*,fallback=a-,fallback=c`:                          with(func(s *Spec) { s.Fallbacks = []string{"b*", "a-", "c"} }),
		`path=p,"key=a,b"`:                         with(func(s *Spec) { s.Key = "a,b" }),
		`"path=a,""b""",key=k`:                     with(func(s *Spec) { s.Path = `a,"b"` }),
		`path=p,key=ruby-{{files "Gemfile.lock"}}`: with(func(s *Spec) { s.Key = `ruby-{{files "Gemfile.lock"}}` }),
		`path=p,key={{files "a" "b,c"}}`:           with(func(s *Spec) { s.Key = `{{files "a" "b,c"}}` }),
		`path=p,key={{files a,b}}-x,fallback={{files "c,d"}}-`: with(func(s *Spec) {
			s.Key, s.Fallbacks = `{{files a,b}}-x`, []string{`{{files "c,d"}}-`}
		}),
		`path=p,key={{files "a,b" "c}},d"}}-x`:                       with(func(s *Spec) { s.Key = `{{files "a,b" "c}},d"}}-x` }),
		`path=p,key={{files "a\",b"}}`:                               with(func(s *Spec) { s.Key = `{{files "a\",b"}}` }),
		`path=p,key={{env "a\\"}},xattrs=true`:                       with(func(s *Spec) { s.Key, s.Xattrs = `{{env "a\\"}}`, true }),
		`path=p,"key={{files ""a,b""}}"`:                             with(func(s *Spec) { s.Key = `{{files "a,b"}}` }),
		`path=p,key={{env NAME}},store=s3://b/p?endpoint=http://h:1`: with(func(s *Spec) { s.Key, s.Store = "{{env NAME}}", "s3://b/p?endpoint=http://h:1" }),
	} {
		if got, err := Parse(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "path=p", "key=k", "path=p,key=", "path=,key=k", "path=p,key=k,", ",path=p,key=k", "path=p,key=k,path=q", "path=p,key=k,key=l", "path=p,key=k,fallback=",
		"path=p,key=k,policy=both", "path=p,key=k,policy=push,policy=push", "path=p,key=k,when=never", "path=p,key=k,level=9", "path=p,key=k,level=", "path=p,key=k,xattrs=yes",
		"path=p,key=k,nonsense=1", "path=p,key=k,Policy=pull", "path=p,key=k,word", "path=p\x00,key=k", "path=p,key=k\n", "path=p,\r\nkey=k",
		"path=p,key={{files", `path=p,key={{files "}}`, `path=p,"key=k`, `path=p,"key=k"x`, `path="p",key=k`, `path=p,key="a,b"`, `path=p,key={{env "A"B}}`,
		"path=p,key=a b", "path=p,key={{}}", "path=p,key={{nothing}}", "path=p,key=}}", "path=p,key=k,fallback=a b", "path=p,key=k,fallback=*", "path=p,key=k*",
	} {
		if s, err := Parse(text); err == nil || fail.Of(err) != fail.Usage || fail.Hint(err) == "" {
			t.Errorf("%q: %+v, %v", text, s, err)
		}
	}
}

// What follows a comma may be the rest of a password.
func TestParseRepeatsNoSecret(t *testing.T) {
	for _, text := range []string{
		"path=p,key=k,store=https://u:hun,ter2@h", "path=p,key=k,store=https://u:hun,ter2=@h", "path=p,key=k,store=https://u:ter2@h,store=ter2", `path=p,key=k,"store=https://u:ter2@h`,
		`path=p,key=k,store=https://u:ter2"@h`, "path=p,key=k,store=ter2\x00", "key=k,store=ter2",
	} {
		if _, err := Parse(text); err == nil || strings.Contains(err.Error()+fail.Hint(err), "ter2") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestParsePolicy(t *testing.T) {
	for text, want := range map[string][2]bool{"pull": {true, false}, "push": {false, true}, "pull-push": {true, true}} {
		if p, err := ParsePolicy(text); err != nil || [2]bool{p.Pulls(), p.Pushes()} != want {
			t.Errorf("%s: %q, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "Pull", "push-pull"} {
		if p, err := ParsePolicy(text); err == nil || fail.Of(err) != fail.Usage || fail.Hint(err) == "" {
			t.Errorf("%q: %q, %v", text, p, err)
		}
	}
}

// all calls try with every text of the given letters that is not longer than n.
func all(letters string, n int, try func(string)) {
	try("")
	if n == 0 {
		return
	}
	for _, l := range letters {
		all(letters, n-1, func(rest string) { try(string(l) + rest) })
	}
}

// Without templates it is CSV, as the standard library reads it.
func TestSplitIsCSV(t *testing.T) {
	tried := 0
	all(`a,"{`, 7, func(text string) {
		if text == "" || strings.Contains(text, "{{") {
			return
		}
		tried++
		r := csv.NewReader(strings.NewReader(text))
		want, err := r.Read()
		got, err2 := split(text)
		if (err == nil) != (err2 == nil) || err == nil && !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v; want %q, %v", text, got, err2, want, err)
		}
		if _, end := r.Read(); err == nil && end != io.EOF {
			t.Fatalf("%q is more than a line", text)
		}
	})
	if tried < 10000 {
		t.Errorf("only %d", tried)
	}
}

// A template can stand in a field as it is, whatever its quoted word is.
func TestSplitLeavesTemplates(t *testing.T) {
	all(`a,}\"`, 5, func(inner string) {
		template := "x{{" + "w " + quote(inner) + "}}y"
		quoted := `"` + strings.ReplaceAll("key="+template, `"`, `""`) + `"`
		for _, text := range []string{"a,key=" + template + ",b", "a," + quoted + ",b"} {
			if got, err := split(text); err != nil || !slices.Equal(got, []string{"a", "key=" + template, "b"}) {
				t.Errorf("%s: %q, %v", text, got, err)
			}
		}
	})
}

func quote(s string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"` }

func FuzzParse(f *testing.F) {
	f.Add(`path=p,key=ruby-{{files "Gemfile.lock"}},fallback=ruby-,policy=pull,"store=dir:/a,b"`)
	f.Add(`path=p,key={{env A}}`)
	f.Add(`path=p,"key={{files ""a,b""}}",fallback={{env "A\"}},"}}-*`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			if fail.Of(err) != fail.Usage || fail.Hint(err) == "" {
				t.Error(err)
			}
			return
		}
		// Quoted as a whole, each of its fields means the same.
		fields := []string{"path=" + s.Path, "key=" + s.Key, "policy=" + string(s.Policy), "when=" + string(s.When), "level=" + s.Level}
		for _, b := range s.Fallbacks {
			fields = append(fields, "fallback="+b)
		}
		if s.Store != "" {
			fields = append(fields, "store="+s.Store)
		}
		if s.Xattrs {
			fields = append(fields, "xattrs=true")
		}
		for i, field := range fields {
			fields[i] = `"` + strings.ReplaceAll(field, `"`, `""`) + `"`
		}
		if again, err := Parse(strings.Join(fields, ",")); err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%+v, again %+v, %v", s, again, err)
		}
		if _, err := Expand(s.Key, full()); err != nil {
			t.Errorf("what Parse takes has no key: %v", err)
		}
	})
}
