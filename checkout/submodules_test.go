package checkout

import (
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/wire"
	"run-task/checkout/internal/worktree"
	"run-task/internal/fail"
)

// Bounds hold before anything is opened or asked for, and what .gitmodules says is never run.
func TestSubmoduleBounds(t *testing.T) {
	u, err := wire.ParseURL("https://host/group/repo")
	if err != nil {
		t.Fatal(err)
	}
	one := worktree.Submodule{Path: "sub", Commit: plumbing.NewHash(strings.Repeat("1", 40)), Name: "sub", URL: "../lib"}
	for name, c := range map[string]struct {
		change func(*worktree.Submodule)
		level  int
		want   string
	}{
		"good":          {func(*worktree.Submodule) {}, 31, ""},
		"left out":      {func(s *worktree.Submodule) { s.Update, s.URL = "none", "" }, 32, ""},
		"no commit":     {func(s *worktree.Submodule) { s.Commit = plumbing.ZeroHash }, 0, "has no commit"},
		"a command":     {func(s *worktree.Submodule) { s.Update = "!none" }, 0, "asks for a command"},
		"unknown":       {func(s *worktree.Submodule) { s.Update = "none " }, 0, "which git does not know"},
		"no URL":        {func(s *worktree.Submodule) { s.URL = "" }, 0, "has no URL"},
		"a wrong URL":   {func(s *worktree.Submodule) { s.URL = "../../../x" }, 0, `submodule "sub" of commit 2222`},
		"too many deep": {func(*worktree.Submodule) {}, 32, "is itself in 32 others"},
	} {
		s, p := one, &pin{commit: plumbing.NewHash(strings.Repeat("2", 40))}
		c.change(&s)
		o := Options{nesting: nesting{level: c.level}}
		_, err := o.pick(&intake{u: u}, p, []worktree.Submodule{s})
		if c.want == "" && err != nil || c.want != "" && (fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), c.want) || fail.Hint(err) == "") {
			t.Errorf("%s: %v", name, err)
		}
		if picked := len(p.submodules) == 1 && p.submodules[0].url.String() == "https://host/group/lib"; c.want == "" && picked != (name == "good") {
			t.Errorf("%s: %+v", name, p.submodules)
		}
	}
	total := maxSubmodules
	o := Options{nesting: nesting{level: 1, total: &total}}
	_, err = o.submodules(t.Context(), quiet, &Repo{}, nil, "", &pin{submodules: []submodule{{one, u}}})
	if fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), "more than 10000 submodules in all") {
		t.Error(err)
	}
}

// Git reads back what was written, whatever a name has in it.
func TestModulesConfig(t *testing.T) {
	u, err := wire.ParseURL("https://me:secret@host/x")
	if err != nil {
		t.Fatal(err)
	}
	got := modulesConfig([]submodule{{worktree.Submodule{Name: `a "b" \c`, Update: "merge"}, u}, {worktree.Submodule{Name: "d]"}, u}})
	want := "[submodule \"a \\\"b\\\" \\\\c\"]\n\tactive = true\n\turl = \"https://host/x\"\n\tupdate = merge\n[submodule \"d]\"]\n\tactive = true\n\turl = \"https://host/x\"\n"
	if got != want {
		t.Errorf("%s", got)
	}
}
