package worktree

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
)

// withModules is a commit with a .gitmodules file, and submodules at dir/mine, other, sub and unknown, beside a link.
func withModules(r repo, text string) plumbing.Hash {
	b := r.blob("x")
	return r.commitTree(r.tree(line("100644", ".gitmodules", r.blob(text)), line("40000", "dir", r.tree(line("100644", "file", b), line("160000", "mine", b))), line("120000", "link", b),
		line("160000", "other", b), line("160000", "sub", b), line("160000", "unknown", b)))
}

// The caller is told what there is before anything is changed, and what it takes is its own: nobody looks into it, and what is no directory makes room.
func TestSubmodulesOfTheCaller(t *testing.T) {
	r := newRepo(t)
	c := withModules(r, "[submodule \"n\"]\n\tpath = dir/mine\n\tURL = ../x # where\n\tbranch = b\n\tshallow\n[submodule \"other\"]\n\tpath = other\n\tupdate = none\n[core]\n\tpath = z\n")
	id := r.blob("x")
	want := []Submodule{{Path: "dir/mine", Commit: id, Name: "n", URL: "../x", Branch: "b"}, {Path: "other", Commit: id, Name: "other", Update: "none"}, {Path: "sub", Commit: id}, {Path: "unknown", Commit: id}}
	for _, clean := range []Clean{All, KeepIgnored, None} {
		w := newWork(t)
		write(t, w.path("dir"), "in the way", 0o644)
		no, asked := errors.New("no"), 0
		_, err := w.checkout(r, c, Options{Clean: clean, Submodules: func(all []Submodule) ([]string, error) {
			if asked++; !slices.Equal(all, want) {
				t.Errorf("%+v", all)
			}
			return nil, no
		}})
		if data, _ := os.ReadFile(w.path("dir")); !errors.Is(err, no) || string(data) != "in the way" {
			t.Errorf("%v; changed before it was asked: %q", err, data)
		}
		o := Options{Clean: clean, Submodules: func([]Submodule) ([]string, error) {
			asked++
			return []string{"unknown", "dir/mine"}, nil
		}}
		w.must(r, c, o)
		for _, path := range []string{"dir/mine", "other", "unknown"} {
			write(t, w.path(path+"/.git/stray"), "x", 0o644)
			write(t, w.path(path+"/stray"), "x", 0o644)
		}
		sum := w.must(r, c, o)
		for path, stays := range map[string]bool{
			"dir/mine/.git/stray": true, "dir/mine/stray": true, "unknown/.git/stray": true, "unknown/stray": true, "other/.git/stray": clean == None, "other/stray": clean == None,
		} {
			if _, err := os.Lstat(w.path(path)); (err == nil) != stays {
				t.Errorf("clean %d: %q: %v", clean, path, err)
			}
		}
		if asked != 3 || !slices.Equal(sum.Notes, []string{`2 submodules, left as empty directories: "other" and others`}) {
			t.Errorf("asked %d times, %q", asked, sum.Notes)
		}
		for _, path := range []string{"dir/mine", "unknown"} {
			os.RemoveAll(w.path(path))
		}
		write(t, w.path("dir/mine"), "a file", 0o644)
		w.must(r, c, o)
		kept := o
		kept.Keep = []string{"dir/mine"}
		if _, err := w.checkout(r, c, kept); fail.Of(err) != fail.Usage || !strings.Contains(err.Error(), "dir/mine") {
			t.Errorf("somebody else's directory is taken: %v", err)
		}
		for _, path := range []string{"dir/mine", "unknown"} {
			if err := os.Remove(w.path(path)); err != nil {
				t.Errorf("clean %d: %q is not an empty directory: %v", clean, path, err)
			}
		}
		if sum = w.must(r, c, Options{Clean: clean}); !slices.Equal(sum.Notes, []string{`4 submodules, left as empty directories: "dir/mine" and others`}) {
			t.Errorf("%q", sum.Notes)
		}
	}
}

// What could be read in two ways is refused, but only where submodules are asked for.
func TestAmbiguousModules(t *testing.T) {
	r := newRepo(t)
	for text, want := range map[string]string{
		"[submodule \"a\"]\npath=sub\n[submodule \"b\"]\npath=sub\n":         `the path "sub" is that of two submodules`,
		"[submodule \"a\"]\npath=sub\n[Submodule \"a\"]\nPath=other\n":       `it has "path" twice`,
		"[submodule \"a\"]\npath=sub\nurl=x\n[submodule.a]\nurl=x\n":         `it has "url" twice`,
		"[submodule \"a\"]\npath=sub\nurl=\n":                                `it has a "url" without a value`,
		"[submodule \"a\"]\npath=sub\nupdate\n":                              `it has a "update" without a value`,
		"[submodule \"a\"\npath=sub\n":                                       "line 1 of it is no configuration",
		"[submodule \"a\"]\npath=sub\nurl=x\n[submodule \"b]\npath=y\n":      "line 4 of it is no configuration",
		"[submodule \"a\"]\npath=sub\nurl=x\n# \x00\nbranch=a\x00b\nupdate=": `it has a "update" without a value`,
	} {
		c, w := withModules(r, text), newWork(t)
		_, err := w.checkout(r, c, Options{Submodules: func([]Submodule) ([]string, error) {
			t.Errorf("%q: asked", text)
			return nil, nil
		}})
		if fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
		if names, _ := os.ReadDir(w.dir); len(names) != 1 {
			t.Errorf("%q: %q", text, names)
		}
		w.must(r, c, Options{})
	}
}

// What leads elsewhere is refused whether or not submodules are asked for, also before a line at which git stops reading, and behind a NUL.
func TestModulesThatLeadElsewhere(t *testing.T) {
	r := newRepo(t)
	const name, path = `its name has ".." in it`, "its path "
	for text, want := range map[string]string{
		"[submodule \"a\"]\npath=sub\n[\n":                     "",
		"# \x00\n[submodule \"a..b\"]\npath=...\n":             "",
		"[core]\npath=../x\n[submodule]\npath=x\n":             "",
		"[submodule \"..\"]\nurl=x\n":                          name,
		"[SubModule \"a/../b\"]\nurl=x\n":                      name,
		"[submodule...]\nurl=x\n":                              name,
		"[submodule \"a\\\\..\\\\b\"]\nurl=x\n":                name,
		"\ufeff[submodule \"..\"]\nurl=x\n":                    name,
		"[submodule \"../x\"]\npath=sub\n[\n":                  name,
		"# \x00\n[submodule \"../x\"]\nurl=x\n":                name,
		"[submodule \"-a\"]\nurl=x\n":                          `its name begins with "-"`,
		"[submodule \"a\"]\npath=\"../x\"\n":                   path + `"../x" has ".." in it`,
		"[submodule \"a\"]\npath=a/\\\n../x\n":                 path + `"a/../x" has ".." in it`,
		"[submodule \"a\"]\npath=ok\npath=..\n":                path + `".." has ".." in it`,
		"[submodule \"a\"]\nPATH = -x\n":                       path + `"-x" begins with "-"`,
		"[submodule \"a\"]\npath = -x\npath = sub\nurl\n\x00":  path + `"-x" begins with "-"`,
		"[submodule \"a\"]\npath=sub\x00x\n":                   path + `"sub\x00x" has a carriage return or NUL in it`,
		"[submodule \"a\"]\npath=\"sub\r\"\n":                  path + `"sub\r" has a carriage return or NUL in it`,
		"[submodule \"a\"]\npath=link/sub\n":                   path + `"link/sub" goes through a symbolic link`,
		"[submodule \"a\"]\r\npath=link/\\\r\nsub\r\nurl = \"": path + `"link/sub" goes through a symbolic link`,
	} {
		_, err := newWork(t).checkout(r, withModules(r, text), Options{})
		if want == "" && err != nil || want != "" && (fail.Of(err) != fail.BadData || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
