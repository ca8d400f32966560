package worktree

import (
	"path"
	"slices"
	"strings"
	"testing"
)

func TestCone(t *testing.T) {
	paths := []string{"top", "a/x", "a/b/x", "a/b/c/x", "a/b/c/d/x", "a/bb/x", "a-b/x", "a.c", "b/x", "b/c/x", "ab/x", "a/b.c/x"}
	for _, c := range []struct {
		dirs []string
		has  []string
	}{
		{nil, []string{"top", "a.c"}},
		{[]string{"a"}, []string{"top", "a/x", "a/b/x", "a/b/c/x", "a/b/c/d/x", "a/bb/x", "a.c", "a/b.c/x"}},
		{[]string{"a/b"}, []string{"top", "a/x", "a/b/x", "a/b/c/x", "a/b/c/d/x", "a.c"}},
		{[]string{"a/b", "a"}, []string{"top", "a/x", "a/b/x", "a/b/c/x", "a/b/c/d/x", "a/bb/x", "a.c", "a/b.c/x"}},
		{[]string{"a/b/c", "b/c"}, []string{"top", "a/x", "a/b/x", "a/b/c/x", "a/b/c/d/x", "a.c", "b/x", "b/c/x"}},
		{[]string{"a/b.c", "a-b"}, []string{"top", "a/x", "a-b/x", "a.c", "a/b.c/x"}},
		{[]string{"none/there"}, []string{"top", "a.c"}},
	} {
		cone := NewCone(c.dirs)
		var has []string
		for _, p := range paths {
			if !cone.Has(p) {
				continue
			}
			has = append(has, p)
			for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
				if !cone.Enters(dir) {
					t.Errorf("%q: %q is in the cone, but %q is not entered", c.dirs, p, dir)
				}
			}
		}
		if !slices.Equal(has, c.has) {
			t.Errorf("%q has %q, want %q", c.dirs, has, c.has)
		}
		if cone.Enters("elsewhere") || cone.Enters("a/elsewhere") && !slices.Contains(c.dirs, "a") {
			t.Errorf("%q enters what has nothing of it", c.dirs)
		}
	}
	var all *Cone
	if !all.Has("any/thing") || !all.Enters("any") {
		t.Error("no cone is not everything")
	}
}

// The patterns are those that git sparse-checkout set --cone writes, but for their order.
func TestPatterns(t *testing.T) {
	for _, c := range []struct{ dirs, want []string }{
		{nil, []string{"/*", "!/*/"}},
		{[]string{"a"}, []string{"/*", "!/*/", "/a/"}},
		{[]string{"a/b/c", "a/b/c/d", "e"}, []string{"/*", "!/*/", "/a/", "!/a/*/", "/a/b/", "!/a/b/*/", "/a/b/c/", "/e/"}},
		{[]string{`s*/q?/[x]/b\s`}, []string{"/*", "!/*/", `/s\*/`, `!/s\*/*/`, `/s\*/q\?/`, `!/s\*/q\?/*/`, `/s\*/q\?/\[x]/`, `!/s\*/q\?/\[x]/*/`, `/s\*/q\?/\[x]/b\\s/`}},
		{[]string{"!x", "#y"}, []string{"/*", "!/*/", "/!x/", "/#y/"}},
	} {
		if got := NewCone(c.dirs).Patterns(); got != strings.Join(c.want, "\n")+"\n" {
			t.Errorf("%q: %q, want %q", c.dirs, got, c.want)
		}
	}
}
