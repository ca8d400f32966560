//go:build linux

package checkout

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"run-task/internal/logs"
	"run-task/tests/gitserver"
)

// Several checkouts of one repository through a store: from nothing, from the pin, and from one commit to the next.
func TestThroughAStore(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	c := gitserver.Repo(t, root, "r.git")
	url := gitserver.HTTP(t, root, gitserver.Options{}) + "/r.git"
	o := Options{Store: &Store{Dir: filepath.Join(dir, "store"), Holder: "a", TTL: time.Hour}}
	for i, step := range []struct {
		dir, sha string
		depth    int
		source   string
	}{
		{"one", c.Ancestor, 1, "remote-v2"}, {"two", c.Ancestor, 1, "pin"}, {"one", c.Ancestor, 1, "pin"}, {"one", c.Tip, 1, "remote-v2"}, {"two", c.Tip, 1, "pin"},
		{"three", c.Tip, 0, "remote-v2"}, {"one", c.Tip, 0, "pin"}, {"one", c.Ancestor, 1, "pin"},
	} {
		o.Repos = []Repo{{Dir: filepath.Join(dir, step.dir), URL: url, SHA: step.sha, Depth: step.depth}}
		check(t, Validate(&o.Repos[0]))
		got, err := All(t.Context(), logs.New(io.Discard, logs.Normal, false), o)
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if got[0].Source != step.source || got[0].Commit != step.sha {
			t.Errorf("step %d: %+v", i, got[0])
		}
		if out := gitserver.Git(t, o.Repos[0].Dir, "status", "--porcelain", "--ignored"); out != "" {
			t.Errorf("step %d: %s", i, out)
		}
		if out := gitserver.Git(t, o.Repos[0].Dir, "fsck", "--full", "--no-dangling"); out != "" {
			t.Errorf("step %d: %s", i, out)
		}
	}
	pins, err := Pins(o.Store.Dir)
	if err != nil || len(pins) != 3 {
		t.Errorf("%d pins, %v", len(pins), err)
	}
	if broken, err := VerifyStore(t.Context(), logs.New(io.Discard, logs.Normal, false), o.Store.Dir); err != nil || len(broken) > 0 {
		t.Errorf("broken: %v, %v", broken, err)
	}
	freed, err := CollectGarbage(t.Context(), o.Store.Dir, GC{Now: time.Now().Add(3 * time.Hour)})
	if err != nil || freed.Pins != 3 || freed.Left != 0 {
		t.Errorf("%+v, %v", freed, err)
	}
	if left, _ := filepath.Glob(filepath.Join(o.Store.Dir, "*", "*", "*", "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	os.Remove(dir)
}
