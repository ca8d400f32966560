package ignore

import (
	"strings"
	"testing"
)

// slow is match as it is defined: it tries all ways, and remembers those that failed.
func slow(glob, s string) bool {
	type state struct{ p, i int }
	failed := map[state]bool{}
	var try func(p, i int) bool
	try = func(p, i int) (ok bool) {
		at := state{p, i}
		if failed[at] {
			return false
		}
		defer func() { failed[at] = !ok }()
		if p == len(glob) {
			return i == len(s)
		}
		if glob[p] != '*' {
			if i == len(s) {
				return false
			}
			next, ok := one(glob, p, s[i])
			return ok && try(next, i+1)
		}
		end := p
		for end < len(glob) && glob[end] == '*' {
			end++
		}
		anything, orNothing := isDeep(glob, p, end)
		if orNothing && try(end+1, i) {
			return true
		}
		for ; ; i++ {
			if try(end, i) {
				return true
			}
			if i == len(s) || s[i] == '/' && !anything {
				return false
			}
		}
	}
	return try(0, 0)
}

func FuzzMatch(f *testing.F) {
	for _, c := range table {
		f.Add(c.file, strings.ReplaceAll(c.yes, "|", "/"))
		f.Add(c.file, c.not)
	}
	f.Add("/**/a*b/**/c*\\/**/d", "x/aab/y/cz/d")
	f.Add("*a*[ab]?*/**/*b*", "aaab/a/b/ab")
	f.Fuzz(func(t *testing.T, file, path string) {
		if len(file) > 200 || len(path) > 200 {
			return
		}
		r, err := Parse([]byte(file))
		if err != nil {
			t.Fatal(err)
		}
		if len(r.list) > strings.Count(file, "\n")+1 {
			t.Errorf("%q has %d patterns", file, len(r.list))
		}
		name := path[strings.LastIndex(path, "/")+1:]
		for _, one := range r.list {
			for _, s := range []string{name, path} {
				if got, want := match(one.glob, s), slow(one.glob, s); got != want {
					t.Errorf("match(%q, %q) = %v", one.glob, s, got)
				}
			}
		}
		if strings.Contains(name, "\n") || strings.Contains(name, "\x00") || name == "" {
			return
		}
		checkQuoted(t, r, name)
	})
}

// checkQuoted puts a pattern that is a quoted name above and below others.
func checkQuoted(t *testing.T, r *Rules, name string) {
	var quoted strings.Builder
	for i := range len(name) {
		quoted.WriteString(`\` + name[i:i+1])
	}
	quoted.WriteString("\r\n") // a CR at the name's end would be the line's otherwise
	own, err := Parse([]byte(quoted.String()))
	if err != nil {
		t.Fatal(err)
	}
	not, err := Parse([]byte("!" + quoted.String()))
	if err != nil {
		t.Fatal(err)
	}
	if !New(r, own).Ignored(name, false) || New(r, not).Ignored(name, false) {
		t.Errorf("%q does not decide about %q", quoted.String(), name)
	}
	if own.find(name+"x", name+"x", false) != nil {
		t.Errorf("%q is for %q", quoted.String(), name+"x")
	}
	m := New(own, r)
	if r.find(name, name, true) == nil && !m.Ignored(name, true) {
		t.Errorf("info/exclude does not decide about %q", name)
	}
	m = New(nil, own)
	m.Enter(name, r)
	m.Enter("x", r)
	if !m.Ignored("y", false) {
		t.Errorf("%q is ignored and what is in it is not", name)
	}
}
