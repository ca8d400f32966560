//go:build linux

package tests

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"run-task/tests/gitserver"
)

// entry is one line of a tree object, written as it is: git itself would refuse most of these.
type entry struct{ mode, name, object string }

// forge makes a commit of a tree that no git would make.
func forge(t *testing.T, repo string, entries []entry) (commit string) {
	t.Helper()
	var b bytes.Buffer
	for _, e := range entries {
		raw, err := hex.DecodeString(e.object)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %s\x00%s", e.mode, e.name, raw)
	}
	tree := gitserver.GitInput(t, repo, &b, "hash-object", "--literally", "-w", "-t", "tree", "--stdin")
	return gitserver.Git(t, repo, "commit-tree", "-m", "forged", tree)
}

// TestHostileTrees checks out trees that were made to write where they must not. Each must be refused, with the path and nothing of it written.
func TestHostileTrees(t *testing.T) {
	root := tempDir(t)
	gitserver.Git(t, root, "init", "-q", "--bare", "x.git")
	repo := filepath.Join(root, "x.git")
	put := func(data string) string {
		return gitserver.GitInput(t, repo, strings.NewReader(data), "hash-object", "-w", "--stdin")
	}
	blob, target := put("evil\n"), put("/etc")
	file := func(name string) []entry { return []entry{{"100644", name, blob}} }
	treeOf := func(entries ...entry) string {
		return gitserver.Git(t, repo, "rev-parse", forge(t, repo, entries)+"^{tree}")
	}
	inner := treeOf(entry{"100644", "x", blob})
	modules := func(text string) []entry {
		return []entry{{"100644", ".gitmodules", put(text)}, {"160000", "sub", "0123456789012345678901234567890123456789"}}
	}

	hostile := map[string][]entry{
		"duplicate":              {{"100644", "a", blob}, {"100644", "a", target}},
		"file and directory":     {{"100644", "a", blob}, {"40000", "a", inner}},
		"link and directory":     {{"120000", "a", target}, {"40000", "a", inner}},
		"directory then link":    {{"40000", "a", inner}, {"120000", "a", target}},
		"not in order":           {{"100644", "b", blob}, {"100644", "a", blob}, {"100644", "b", target}},
		"linked .gitmodules":     {{"120000", ".gitmodules", target}},
		"in a directory":         {{"40000", "sub", treeOf(entry{"100644", ".git", blob})}},
		"a directory .git":       {{"40000", ".git", inner}},
		"a link .git":            {{"120000", ".git", target}},
		"a submodule .git":       {{"160000", ".git", "0123456789012345678901234567890123456789"}},
		"submodule path":         modules("[submodule \"s\"]\n\tpath = ../sub\n\turl = /x\n"),
		"submodule name":         modules("[submodule \"../../evil\"]\n\tpath = sub\n\turl = /x\n"),
		"submodule path dash":    modules("[submodule \"s\"]\n\tpath = -sub\n\turl = /x\n"),
		"submodule through link": {{"100644", ".gitmodules", put("[submodule \"s\"]\n\tpath = link/sub\n\turl = /x\n")}, {"120000", "link", target}},
		"blob that is a tree":    {{"100644", "a", inner}},
		"tree that is a blob":    {{"40000", "a", blob}},
		"object not there":       {{"100644", "a", "0123456789012345678901234567890123456789"}},
		"strange mode":           {{"020666", "a", blob}},
	}
	for _, name := range []string{"", ".", "..", "a/b", "/etc", "../up", ".git", ".GIT", ".gIt", "git~1", "GIT~1", ".git ", ".git.", ".git. .", ".git::$INDEX_ALLOCATION", ".git:x", ".g\u200cit", "\u200d.git", ".git\ufeff"} {
		hostile[fmt.Sprintf("name %q", name)] = file(name)
	}

	url := gitserver.HTTP(t, root, gitserver.Options{}) + "/x.git"
	for name, entries := range hostile {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sha := forge(t, repo, entries)
			for _, from := range []string{url, repo} {
				if from == url && slices.Contains([]string{`name ""`, "object not there", "tree that is a blob"}, name) {
					continue // git's server dies of these, again and again
				}
				dir := tempDir(t)
				code, stderr := checkOut(t, dir, "--checkout", "src", "--repo", from, "--sha", sha)
				want := 65
				if name == "object not there" {
					want = 66 // a repository that lacks something
				}
				if code != want {
					t.Errorf("%s: exit %d\n%s", from, code, stderr)
				}
				if left, _ := os.ReadDir(filepath.Join(dir, "src")); len(left) > 1 {
					t.Errorf("%s: written: %v", from, left)
				}
				if _, err := os.Stat(filepath.Join(dir, "src/.git/HEAD")); err == nil {
					t.Errorf("%s: it looks like a repository", from)
				}
			}
		})
	}

	// Odd, but harmless: all of these are names and targets that Linux and git take.
	t.Run("allowed", func(t *testing.T) {
		var odd []entry
		names := []string{"line\nend", `back\slash`, "co:lon", "aux.c", "nul", strings.Repeat("n", 255), "\xff\xfe not utf-8", " space ", "tail.", "-rf", "...", ".gitignore2", ".github", "git~2", "\u200b", "a*?[", "\x01\x1b[2J", "HEAD", "~"}
		slices.Sort(names)
		for _, n := range names {
			odd = append(odd, entry{"100644", n, blob})
		}
		odd = append(odd, entry{"120000", "\xff\xff1", target}, entry{"120000", "\xff\xff2", put("../../../../etc/passwd")}, entry{"120000", "\xff\xff3", put(strings.Repeat("x", 300))}, entry{"100755", "\xff\xff4", blob})
		sha := forge(t, repo, odd)
		for _, from := range []string{url, repo} {
			dir := tempDir(t)
			stderr := mustCheckOut(t, dir, "--verbose", "--checkout", "src", "--repo", from, "--sha", sha)
			judge(t, filepath.Join(dir, "src"), sha)
			if strings.ContainsRune(stderr, '\x1b') {
				t.Errorf("a name drives the terminal: %q", stderr)
			}
		}
	})

	// Links and what is behind them, one commit after the other: nothing is written or removed through a link.
	t.Run("links turn into directories", func(t *testing.T) {
		dir := tempDir(t)
		plant(t, dir+"/outside/x", "mine")
		own(t, dir+"/outside")
		before := snapshot(t, dir+"/outside")
		link := forge(t, repo, []entry{{"120000", "a", put("../outside")}})
		tree := forge(t, repo, []entry{{"40000", "a", inner}})
		for _, sha := range []string{link, tree, link, tree} {
			mustCheckOut(t, dir, "--checkout", "src", "--repo", url, "--sha", sha)
			judge(t, dir+"/src", sha)
		}
		if after := snapshot(t, dir+"/outside"); after != before {
			t.Errorf("outside is\n%swas\n%s", after, before)
		}
	})
}

// A repository on a local path whose objects do not hash to their names.
func TestTamperedRepository(t *testing.T) {
	root := tempDir(t)
	gitserver.Git(t, root, "init", "-q", "--bare", "x.git")
	repo := filepath.Join(root, "x.git")
	good := gitserver.GitInput(t, repo, strings.NewReader("good\n"), "hash-object", "-w", "--stdin")
	evil := gitserver.GitInput(t, repo, strings.NewReader("evil\n"), "hash-object", "-w", "--stdin")
	sha := forge(t, repo, []entry{{"100644", "file", good}})
	at := func(object string) string { return filepath.Join(repo, "objects", object[:2], object[2:]) }
	data, err := os.ReadFile(at(evil))
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(at(good))
	if err := os.WriteFile(at(good), data, 0o444); err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	code, stderr := checkOut(t, dir, "--checkout", "src", "--repo", repo, "--sha", sha)
	if code != 65 {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "src/file")); err == nil {
		t.Errorf("it was written: %q", data)
	}
}

// A server that sends another object than was asked for, or a pack in which a byte was changed on the way.
func TestTamperedAnswer(t *testing.T) {
	root := tempDir(t)
	c := gitserver.Repo(t, root, "repo.git")
	for name, change := range map[string]func([]byte){
		"one byte of the pack": func(b []byte) {
			if i := bytes.Index(b, []byte("PACK")); i >= 0 {
				b[i+40] ^= 1
			}
		},
		"the pack's checksum": func(b []byte) {
			if bytes.Contains(b, []byte("PACK")) {
				b[len(b)-10] ^= 1
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := gitserver.HTTP(t, root, gitserver.Options{Wrap: changing(change)})
			dir := tempDir(t)
			code, stderr := checkOut(t, dir, "--checkout", "src", "--repo", url+"/repo.git", "--sha", c.Tip)
			if code < 64 || code == 70 || code > 77 {
				t.Errorf("exit %d\n%s", code, stderr)
			}
			if left, _ := os.ReadDir(filepath.Join(dir, "src")); len(left) > 1 {
				t.Errorf("written: %v", left)
			}
		})
	}
}

// changing changes a server's answers on their way.
func changing(change func([]byte)) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			body := rec.Body.Bytes()
			change(body)
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(rec.Code)
			w.Write(body)
		})
	}
}
