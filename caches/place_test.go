package caches

import (
	"os"
	"testing"
)

func TestRootAndContains(t *testing.T) {
	tmp := tempDir(t)
	mkdir(t, tmp, "cache", "deep")
	mkdir(t, tmp, "cache", "nested")
	mkdir(t, tmp, "cache2")
	mkdir(t, tmp, "volume")
	mkdir(t, tmp, "out")
	os.Symlink("cache", tmp+"/alias")
	os.Symlink(tmp+"/out", tmp+"/cache/leads-out")
	os.Symlink(tmp+"/none", tmp+"/cache/dangling")
	os.Symlink(tmp+"/cache/deep", tmp+"/out/leads-in")
	o := Options{Dirs: []string{tmp + "/alias", tmp + "/cache/nested", tmp + "/missing"}, Volumes: []string{tmp + "/volume"}}
	for _, c := range []struct {
		path           string
		root, contains bool
	}{
		{"cache", true, false},
		{"cache/.", true, false},
		{"alias", true, false},
		{"cache/deep", false, true},
		{"cache/deep/not/yet", false, true},
		{"alias/not-yet", false, true},
		{"cache/nested", true, true},
		{"cache/nested/x", false, true},
		{"cache2", false, false},
		{"cache2/x", false, false},
		{"volume", false, true},
		{"volume/x", false, true},
		{"out/leads-in", false, true},
		{"out/leads-in/x", false, true},
		{"out", false, false},
		{"cache/leads-out", false, false},
		{"cache/leads-out/x", false, false},
		{"cache/dangling", false, false},
		{"cache/dangling/x", false, false},
		{"missing", false, false},
		{".", false, false},
	} {
		if got := Root(o, tmp+"/"+c.path); got != c.root {
			t.Errorf("Root(%s) is %v", c.path, got)
		}
		if got := Contains(o, tmp+"/"+c.path); got != c.contains {
			t.Errorf("Contains(%s) is %v", c.path, got)
		}
	}
	for path, want := range map[string]bool{"cache": true, "cache/leads-out/x": true, "alias/leads-out/x": true, "cache/nested/x": true, "missing/x": false,
		"volume": true, "volume/x": true, "out/leads-in/x": true, "out/x": false, "cache2/x": false, "missing2": false} {
		if got := Passes(o, tmp+"/"+path); got != want {
			t.Errorf("Passes(%s) is %v", path, got)
		}
	}
	t.Chdir(tmp + "/cache")
	if o := (Options{Dirs: []string{"."}}); !Root(o, tmp+"/alias") || !Contains(o, "x") {
		t.Error("relative paths")
	}
}
