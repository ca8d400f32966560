//go:build linux

package tests

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// The subcommands of run-task store on one store, as their users would use them one after the other.
func TestStoreCommands(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	ok := func(words ...string) string {
		t.Helper()
		code, out, errs := s.sub(words...)
		if code != 0 {
			t.Fatalf("%q: exit %d\n%s%s", words, code, out, errs)
		}
		return out
	}
	tip, first := s.repo.SHA["tip"], s.repo.SHA["first"]
	for _, verb := range []string{"list", "verify", "gc"} {
		if code, _, errs := s.sub(verb); code != 64 || !strings.Contains(errs, "there is no git store") {
			t.Errorf("%s without a store: exit %d\n%s", verb, code, errs)
		}
	}
	if _, err := os.Lstat(s.dir + "/store"); err == nil {
		t.Error("looking for a store made one")
	}
	if out := ok("pin", "--repo", s.url, "--resolve", "main", "--pin-holder", "one", "--pin-ttl", "2h"); out != tip+"\n" {
		t.Errorf("pin printed %q", out)
	}
	ok("pin", "--repo", s.url, "--sha", tip, "--pin-holder", "two", "--pin-ttl", "30d")
	ok("pin", "--repo", s.url, "--sha", first, "--depth", "0", "--pin-holder", "one")
	if n := s.packs.Load(); n != 2 {
		t.Errorf("%d packs for two commits", n)
	}
	var list []struct {
		SHA, Holder, URL, Trust string
		Depth                   int
		Bytes                   int64
	}
	if err := json.Unmarshal([]byte(ok("list", "--json")), &list); err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, p := range list {
		if p.URL != s.url || p.Bytes == 0 || !slices.Contains([]string{tip, first}, p.SHA) || (p.Depth == 0) != (p.SHA == first) {
			t.Errorf("listed %+v", p)
		}
	}
	if out := ok("list"); strings.Count(out, tip) != 2 || strings.Count(out, `"one"`) != 2 || strings.Count(out, "\n") != 4 {
		t.Errorf("listed\n%s", out)
	}
	path := strings.TrimSuffix(ok("path", "--repo", s.url), "\n")
	if got := s.glob("objects"); len(got) != 1 || got[0] != path+"/objects" {
		t.Errorf("%q, not %q", path, got)
	}
	if other := ok("path", "--repo", s.url, "--trust", "x"); other == path+"\n" {
		t.Error("another label has the same place")
	}
	if out := ok("verify"); out != "" {
		t.Errorf("verify printed %q", out)
	}

	if out := ok("unpin", "--repo", s.url, "--sha", tip, "--pin-holder", "nobody"); out != "0 pins removed\n" {
		t.Error(out)
	}
	if out := ok("unpin", "--repo", s.url, "--sha", tip, "--pin-holder", "one"); out != "1 pins removed\n" {
		t.Error(out)
	}
	packs := func() int { return len(s.glob("objects/pack/*.pack")) }
	ok("gc", "--grace", "1ns")
	ok("gc", "--grace", "1ns")
	if packs() != 2 {
		t.Errorf("%d packs are left of two that are pinned", packs())
	}
	if out := ok("unpin", "--repo", s.url, "--sha", tip, "--all-holders"); out != "1 pins removed\n" {
		t.Error(out)
	}
	before := packs()
	ok("gc", "--dry-run", "--grace", "1ns")
	if ok("gc"); packs() != before {
		t.Error("a pack went before its time")
	}
	if marked := s.glob("objects/pack/*.condemned"); len(marked) != 1 {
		t.Errorf("marked: %q", marked)
	}
	// Who wants it now takes it back.
	s.must("src", "tip", "--pin-holder", "three")
	if marked := s.glob("objects/pack/*.condemned"); len(marked) != 0 && s.packs.Load() == 2 {
		t.Errorf("pinned and marked: %q", marked)
	}
	ok("unpin", "--repo", s.url, "--sha", tip, "--all-holders")
	ok("gc", "--grace", "1ns")
	ok("gc", "--grace", "1ns")
	if packs() != 1 {
		t.Errorf("%d packs are left of one that is pinned", packs())
	}
	// The size alone.
	ok("gc", "--max-size", "1", "--grace", "1ns")
	ok("gc", "--max-size", "1", "--grace", "1ns")
	if packs() != 0 || ok("list", "--json") != "[]\n" {
		t.Errorf("%d packs are left", packs())
	}
	if info, err := os.Stat(s.dir + "/store/version"); err != nil || info.Size() != 2 {
		t.Error("no store is left")
	}

	for _, c := range []struct {
		words []string
		code  int
		says  string
	}{
		{[]string{"list", "x"}, 64, "unexpected argument"}, {[]string{"bogus"}, 64, "unknown subcommand"}, {[]string{"pin"}, 64, "--repo"},
		{[]string{"pin", "--repo", s.url, "--sha", "abc"}, 64, "full commit SHA"}, {[]string{"unpin", "--repo", s.url}, 64, "--sha"}, {[]string{"path"}, 64, "--repo"},
		{[]string{"gc", "--max-size", "many"}, 64, "many"}, {[]string{"gc", "--grace", "5"}, 64, "unit"}, {[]string{"gc", "--grace", "-5s"}, 64, "unit"},
		{[]string{"pin", "--repo", s.url, "--resolve", "none"}, 64, "refs/heads/none"},
		{[]string{"pin", "--repo", s.url, "--sha", strings.Repeat("1", 40)}, 66, "is gone from"},
	} {
		code, out, errs := s.sub(c.words...)
		if code != c.code || !strings.Contains(errs, c.says) || out != "" {
			t.Errorf("%q: exit %d\n%s%s", c.words, code, out, errs)
		}
	}
	if code, out, _ := (&command{args: []string{"run-task", "store", "list"}, dir: s.dir}).run(t); code != 64 || out != "" {
		t.Errorf("no store: exit %d\n%s", code, out)
	}
}
