package index

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fsx"
)

// treeOf is the tree that covers entries.
func treeOf(name, prefix string, first int, entries []Entry) *Tree {
	t := &Tree{Name: name, ID: plumbing.ComputeHash(plumbing.TreeObject, []byte(prefix)), First: first, Files: len(entries)}
	for i := 0; i < len(entries); {
		sub, _, dir := strings.Cut(entries[i].Path[len(prefix):], "/")
		n := 1
		if dir {
			for i+n < len(entries) && strings.HasPrefix(entries[i+n].Path, prefix+sub+"/") {
				n++
			}
			t.Subs = append(t.Subs, treeOf(sub, prefix+sub+"/", first+i, entries[i:i+n]))
		}
		i += n
	}
	return t
}

// some is an index with names of all lengths, and some entries that are not in the worktree if sparse.
func some(sparse bool) Index {
	r := rand.New(rand.NewPCG(1, 2))
	seen := map[string]bool{}
	for len(seen) < 500 {
		var parts []string
		for range 1 + r.IntN(4) {
			parts = append(parts, string("abc-.~\xff"[r.IntN(7)])+strings.Repeat("x", r.IntN(40)*r.IntN(3)))
		}
		seen[strings.Join(parts, "/")] = true
	}
	seen["long/"+strings.Repeat("n", 0xfff-5)], seen["longer/"+strings.Repeat("n/", 3000)+"n"] = true, true
	var x Index
	for p := range seen {
		if !slices.ContainsFunc([]string{p}, func(p string) bool { // no file that is a directory, too
			for q := range seen {
				if strings.HasPrefix(q, p+"/") {
					return true
				}
			}
			return false
		}) {
			e := Entry{Path: p, Mode: 0o100644, ID: plumbing.ComputeHash(plumbing.BlobObject, []byte(p)), Skip: sparse && r.IntN(2) == 0}
			for i := range e.Stat {
				if i != 6 {
					e.Stat[i] = r.Uint32()
				}
			}
			x.Entries = append(x.Entries, e)
		}
	}
	slices.SortFunc(x.Entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	x.Top = treeOf("", "", 0, x.Entries)
	return x
}

func TestParseGivesWhatWasEncoded(t *testing.T) {
	for _, sparse := range []bool{false, true} {
		x := some(sparse)
		y, err := Parse(Encode(x))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(x, y) {
			t.Error("another index")
		}
	}
	if x, err := Parse(Encode(Index{Top: &Tree{}})); err != nil || len(x.Entries) != 0 {
		t.Error(x, err)
	}
}

// git lists the same entries, also those that are skipped.
func TestGitAgrees(t *testing.T) {
	dir := t.TempDir()
	git := func(args ...string) string {
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(args, err)
		}
		return string(out)
	}
	git("init", "-q")
	for _, sparse := range []bool{false, true} {
		x := some(sparse)
		if err := os.WriteFile(filepath.Join(dir, ".git/index"), Encode(x), 0o644); err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		for _, e := range x.Entries {
			tag := "H"
			if e.Skip {
				tag = "S"
			}
			fmt.Fprintf(&want, "%s %o %s 0\t%s\x00", tag, e.Mode, e.ID, e.Path)
		}
		if got := git("ls-files", "-s", "-t", "-z"); got != want.String() {
			t.Error("git lists something else")
		}
	}
}

// Every byte of an index matters, and an index of git's without a tree is none of ours.
func TestParseRefuses(t *testing.T) {
	good := Encode(Index{Entries: []Entry{{Path: "a/b", Mode: 0o100644}, {Path: "c", Mode: 0o100644}}, Top: &Tree{Files: 2, Subs: []*Tree{{Name: "a", Files: 1}}}})
	if _, err := Parse(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1
		if _, err := Parse(bad); err == nil {
			t.Errorf("byte %d does not matter", i)
		}
		if _, err := Parse(good[:i]); err == nil {
			t.Errorf("%d bytes are enough", i)
		}
	}
	e := func(p string) Entry { return Entry{Path: p, Mode: 0o100644} }
	for name, x := range map[string]Index{
		"order":        {[]Entry{e("b"), e("a")}, &Tree{Files: 2}},
		"twice":        {[]Entry{e("a"), e("a")}, &Tree{Files: 2}},
		"no name":      {[]Entry{e("")}, &Tree{Files: 1}},
		"too many":     {[]Entry{e("a")}, &Tree{Files: 2}},
		"invalid tree": {[]Entry{e("a")}, &Tree{Files: -1}},
		"no subtree":   {[]Entry{e("a/b")}, &Tree{Files: 1}},
		"another":      {[]Entry{e("a/b")}, &Tree{Files: 1, Subs: []*Tree{{Name: "b", Files: 1}}}},
		"one more":     {[]Entry{e("a/b")}, &Tree{Files: 1, Subs: []*Tree{{Name: "a", Files: 1}, {Name: "b"}}}},
		"its count":    {[]Entry{e("a/b"), e("a/c")}, &Tree{Files: 2, Subs: []*Tree{{Name: "a", Files: 1}}}},
		"a top's name": {nil, &Tree{Name: "x"}},
	} {
		if _, err := Parse(Encode(x)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestBefore(t *testing.T) {
	at := func(csec, cnsec, msec, mnsec int64) Stat {
		return StatOf(fsx.Stat{CtimeSec: csec, CtimeNsec: cnsec, MtimeSec: msec, MtimeNsec: mnsec})
	}
	for s, want := range map[Stat]bool{at(5, 9, 5, 9): true, at(6, 9, 6, 9): true, at(6, 10, 6, 9): false, at(6, 9, 6, 10): false, at(7, 0, 5, 0): false, at(5, 0, 7, 0): false} {
		if s.Before(6, 10) != want {
			t.Errorf("%v: not %v", s, want)
		}
	}
}

func TestSub(t *testing.T) {
	top := some(false).Top
	for _, sub := range top.Subs {
		if top.Sub(sub.Name) != sub {
			t.Errorf("%q is not found", sub.Name)
		}
	}
	var none *Tree
	if top.Sub("nothing") != nil || none.Sub("a") != nil {
		t.Error("found")
	}
}

// Whatever an index holds, reading it gives an error or something that is written and read the same again.
func FuzzParse(f *testing.F) {
	for _, x := range []Index{{Top: &Tree{}}, {[]Entry{{Path: "a/b", Mode: 0o100755, Skip: true}, {Path: "c"}}, &Tree{Files: 2, Subs: []*Tree{{Name: "a", Files: 1}}}}} {
		data := Encode(x)
		f.Add(data[:len(data)-sha1.Size])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		sum := sha1.Sum(data)
		x, err := Parse(append(slices.Clip(data), sum[:]...))
		if err != nil {
			return
		}
		y, err := Parse(Encode(x))
		if err != nil || !reflect.DeepEqual(x, y) {
			t.Errorf("%s: %v", hex.EncodeToString(data), err)
		}
	})
}
