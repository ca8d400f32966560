//go:build linux

package tests

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fleet gives the flags of a checkout that uses nothing but a store of the fleet's and the server, and the objects in that store.
func (s *shop) fleet(dir, commit string, more ...string) []string {
	return append(append([]string{"--repo", s.url, "--sha", s.repo.SHA[commit]}, more...), "--checkout", dir)
}

func (s *shop) bundles() (names []string) {
	s.Helper()
	found, err := filepath.Glob(s.dir + "/shelf/git/*/*")
	if err != nil {
		s.Fatal(err)
	}
	return found
}

// A pipeline asks git once: one machine publishes the commit, and all others, also fresh ones and retries after the server has lost it, take it from the fleet's store.
func TestFleet(t *testing.T) {
	t.Parallel()
	for name, more := range map[string][]string{
		"one commit": nil,
		"history":    {"--depth", "0"},
		"submodules": {"--submodules", "none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			first := mustCheckOut(t, s.dir, s.fleet("first", "tip", append(more, "--git-publish", "dir:"+s.dir+"/shelf")...)...)
			if len(s.bundles()) != 1 || !strings.Contains(first, "is published in dir:") || s.packs.Load() != 1 {
				t.Fatalf("%d packs asked for, %q\n%s", s.packs.Load(), s.bundles(), first)
			}
			// Who publishes what is there already changes nothing.
			before := contentOf(t, s.dir+"/shelf")
			mustCheckOut(t, s.dir, s.fleet("again", "tip", append(more, "--git-publish", "dir:"+s.dir+"/shelf", "--git-seed", "dir:"+s.dir+"/shelf")...)...)
			if after := contentOf(t, s.dir+"/shelf"); after != before || s.packs.Load() != 1 {
				t.Errorf("%d packs asked for; the store was\n%s\nand is\n%s", s.packs.Load(), before, after)
			}
			// The server loses everything.
			if err := os.Rename(s.repo.Path, s.repo.Path+".gone"); err != nil {
				t.Fatal(err)
			}
			out := mustCheckOut(t, s.dir, s.fleet("fresh", "tip", append(more, "--git-seed", "dir:"+s.dir+"/shelf")...)...)
			judge(t, s.dir+"/fresh", s.repo.SHA["tip"])
			if !strings.Contains(out, "seed") {
				t.Errorf("from elsewhere:\n%s", out)
			}
			// Another commit, or another shape of this one, is none that was published.
			for _, args := range [][]string{s.fleet("other", "second", more...), s.fleet("other", "tip", "--depth", "2"), s.fleet("other", "tip", append(more, "--trust", "other")...)} {
				if code, stderr := checkOut(t, s.dir, append(args, "--git-seed", "dir:"+s.dir+"/shelf")...); code == 0 {
					t.Errorf("%q: exit %d\n%s", args, code, stderr)
				}
			}
		})
	}
}

// The git store of a host fills the fleet's, and is filled from it.
func TestFleetAndGitStore(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	code, _, stderr := (&command{dir: s.dir, args: append([]string{"run-task", "store", "pin"}, append(asUser(), "--git-store", s.dir+"/store", "--repo", s.url, "--sha", s.repo.SHA["tip"],
		"--git-publish", "dir:"+s.dir+"/shelf")...)}).run(t)
	if code != 0 || len(s.bundles()) != 1 {
		t.Fatalf("exit %d, %q\n%s", code, s.bundles(), stderr)
	}
	if err := os.Rename(s.repo.Path, s.repo.Path+".gone"); err != nil {
		t.Fatal(err)
	}
	mustCheckOut(t, s.dir, s.fleet("elsewhere", "tip", "--git-store", s.dir+"/store2", "--git-seed", "dir:"+s.dir+"/shelf")...)
	judge(t, s.dir+"/elsewhere", s.repo.SHA["tip"])
	mustCheckOut(t, s.dir, s.fleet("borrows", "tip", "--git-store", s.dir+"/store2")...)
	judge(t, s.dir+"/borrows", s.repo.SHA["tip"])
}

// A fleet's store is kept bounded as one of archives is, and nothing else in it is touched.
func TestFleetIsCollected(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	shelf := "dir:" + s.dir + "/shelf"
	for _, commit := range []string{"tip", "second"} {
		mustCheckOut(t, s.dir, s.fleet(commit, commit, "--git-publish", shelf)...)
	}
	old := time.Now().Add(-48 * time.Hour)
	for _, name := range s.bundles() {
		if strings.Contains(name, s.repo.SHA["second"]) {
			if err := os.Chtimes(name, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	plant(t, s.dir+"/shelf/git/README", "mine")
	gc := func(more ...string) (left int) {
		t.Helper()
		code, _, stderr := (&command{dir: s.dir, args: append(append([]string{"run-task", "cache", "gc"}, append(asUser(), "--cache-store", shelf)...), more...)}).run(t)
		if code != 0 {
			t.Fatalf("exit %d\n%s", code, stderr)
		}
		return len(s.bundles())
	}
	if left := gc("--max-age", "24h"); left != 1 || !strings.Contains(s.bundles()[0], s.repo.SHA["tip"]) {
		t.Errorf("by age %q are left", s.bundles())
	}
	if left := gc("--max-size", "1"); left != 0 {
		t.Errorf("by size %q are left", s.bundles())
	}
	if b, err := os.ReadFile(s.dir + "/shelf/git/README"); string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
}

// What somebody did to the fleet's store leads to no other commit: the server is asked, and without it the task fails.
func TestFleetIsHostile(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	shelf := []string{"--git-publish", "dir:" + s.dir + "/shelf"}
	mustCheckOut(t, s.dir, s.fleet("first", "tip", shelf...)...)
	mustCheckOut(t, s.dir, s.fleet("second", "second", shelf...)...)
	names := s.bundles()
	if len(names) != 2 {
		t.Fatalf("%q", names)
	}
	var tip, second []byte
	var name string
	for _, n := range names {
		data, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(n, s.repo.SHA["tip"]) {
			tip, name = data, n
		} else {
			second = data
		}
	}
	line := bytes.IndexByte(tip, '\n') + 1
	flipped := func(i int) []byte {
		b := bytes.Clone(tip)
		b[i] ^= 0x10
		return b
	}
	renamed := bytes.ReplaceAll(second, []byte(s.repo.SHA["second"]), []byte(s.repo.SHA["tip"]))
	for what, data := range map[string][]byte{
		"empty": nil, "half": tip[:len(tip)/2], "no packs": tip[:line], "another commit": second, "another commit by that name": renamed, "no line": bytes.Repeat([]byte("x"), 1000),
		"more at the end": append(bytes.Clone(tip), 0), "a changed pack": flipped(line + (len(tip)-line)/2), "a changed end": flipped(len(tip) - 1), "a changed line": flipped(line / 2),
		"other sizes": bytes.Replace(bytes.Clone(tip), []byte(`"sizes":[`), []byte(`"sizes":[1,`), 1), "negative sizes": bytes.Replace(bytes.Clone(tip), []byte(`"sizes":[`), []byte(`"sizes":[-`), 1),
	} {
		t.Run(what, func(t *testing.T) {
			if err := os.WriteFile(name, data, 0o644); err != nil {
				t.Fatal(err)
			}
			dir := strings.ReplaceAll(what, " ", "-")
			asked := s.packs.Load()
			out := mustCheckOut(t, s.dir, s.fleet(dir, "tip", "--git-seed", "dir:"+s.dir+"/shelf")...)
			judge(t, s.dir+"/"+dir, s.repo.SHA["tip"])
			if s.packs.Load() != asked+1 || !strings.Contains(out, "warning: ") {
				t.Errorf("%d packs asked for\n%s", s.packs.Load()-asked, out)
			}
			if err := os.Rename(s.repo.Path, s.repo.Path+".gone"); err != nil {
				t.Fatal(err)
			}
			if code, stderr := checkOut(t, s.dir, s.fleet(dir+"-alone", "tip", "--git-seed", "dir:"+s.dir+"/shelf")...); code == 0 {
				t.Errorf("exit %d\n%s", code, stderr)
			}
			if err := os.Rename(s.repo.Path+".gone", s.repo.Path); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A store that cannot be reached costs a warning; the command gets no key of it.
func TestFleetOutOfReach(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	at := "s3://bucket/fleet?endpoint=http://127.0.0.1:1&region=x"
	c := &command{dir: s.dir, env: []string{"AWS_ACCESS_KEY_ID=AKIDPUBLISH", "AWS_SECRET_ACCESS_KEY=secret-of-the-publisher", "OTHER=kept"},
		args: append([]string{"run-task"}, append(asUser(), append(s.fleet("src", "tip", "--git-publish", at, "--git-seed", at), "--", "probe")...)...)}
	code, stdout, stderr := c.run(t)
	if code != 0 || strings.Count(stderr, "warning: ") != 2 {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	if strings.Contains(stdout+stderr, "secret-of-the-publisher") || strings.Contains(stdout, "AKIDPUBLISH") || !strings.Contains(stdout, "OTHER") {
		t.Errorf("%s%s", stdout, stderr)
	}
	judge(t, s.dir+"/src", s.repo.SHA["tip"])
}
