//go:build linux

package pins

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func TestGCPhases(t *testing.T) {
	s, r := newRepo(t)
	now := time.Now()
	live, old := put(t, r, pinOf(1, "a", now.Add(100*time.Hour).UTC())), put(t, r, pinOf(2, "a", now.Add(time.Minute).UTC()))
	for _, step := range []struct {
		at   time.Duration
		want Freed
	}{
		{0, Freed{Left: 16}},
		{2 * time.Minute, Freed{Pins: 1, Condemned: 1, Left: 16}},
		{time.Hour, Freed{Condemned: 1, Left: 16}},
		{-time.Hour, Freed{Condemned: 1, Left: 16}}, // the clock went back: Grace begins anew
		{59 * time.Minute, Freed{Condemned: 1, Left: 16}},
		{24 * time.Hour, Freed{Packs: 1, Bytes: 8, Left: 8}},
	} {
		o := GC{Now: now.Add(step.at), Grace: 2 * time.Hour}
		if step.at == 24*time.Hour {
			before := tree(t, s.path)
			dry := o
			dry.DryRun = true
			if f := collect(t, s, dry); !reflect.DeepEqual(f, step.want) {
				t.Errorf("%s, dry: %+v", step.at, f)
			}
			if after := tree(t, s.path); !reflect.DeepEqual(before, after) {
				t.Errorf("a dry run changed %v to %v", before, after)
			}
		}
		if f := collect(t, s, o); !reflect.DeepEqual(f, step.want) {
			t.Errorf("%s: %+v", step.at, f)
		}
	}
	if !found(t, r, live) || exists(packFile(r, old, ".pack")) || exists(packFile(r, old, ".condemned")) || exists(filepath.Dir(pinFile(r, old))) {
		t.Error("too much or too little went")
	}
}

// tree is all that is in a directory, with content and times.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		all[name] = st.Mode().String() + st.ModTime().String()
		if d.Type().IsRegular() {
			raw, err := os.ReadFile(name)
			all[name] += string(raw)
			return err
		}
		return nil
	}))
	return all
}

func TestDryRunMakesNoLocks(t *testing.T) {
	s, r := newRepo(t)
	put(t, r, pinOf(1, "a", later()))
	must(t, os.RemoveAll(r.Path()+"/locks"))
	collect(t, s, GC{DryRun: true})
	if exists(r.Path() + "/locks") {
		t.Error("it made locks")
	}
}

// A pack that somebody pins is kept, however long it was condemned.
func TestWriteSavesCondemned(t *testing.T) {
	s, r := newRepo(t)
	now := time.Now()
	p := put(t, r, pinOf(1, "a", now.UTC()))
	if f := collect(t, s, GC{Now: now, Grace: time.Hour}); f.Condemned != 1 {
		t.Fatalf("%+v", f)
	}
	must(t, r.Write(pinOf(1, "b", now.Add(9*time.Hour).UTC())))
	if f := collect(t, s, GC{Now: now.Add(2 * time.Hour), Grace: time.Hour}); f.Packs != 0 || exists(packFile(r, p, ".condemned")) {
		t.Errorf("%+v", f)
	}
}

func TestMaxSize(t *testing.T) {
	for max, want := range map[int64]Freed{100: {Left: 24}, 24: {Left: 24}, 23: {Pins: 2, Packs: 1, Bytes: 8, Left: 16}, 8: {Pins: 3, Packs: 2, Bytes: 16, Left: 8}, 1: {Pins: 4, Packs: 3, Bytes: 24}} {
		s, r := newRepo(t)
		for n := range 3 { // the one that expires last was written first
			put(t, r, pinOf(n, "a", later().Add(-time.Duration(n)*time.Minute)))
		}
		must(t, r.Write(pinOf(2, "b", later().Add(-90*time.Second)))) // its pack is needed until both of its pins went
		dry := collect(t, s, GC{MaxSize: max, DryRun: true})
		if f := collect(t, s, GC{MaxSize: max}); !reflect.DeepEqual(f, want) || !reflect.DeepEqual(dry, want) {
			t.Errorf("%d: %+v, dry %+v", max, f, dry)
		}
		if left, _ := s.Pins(); len(left) != 4-want.Pins || len(left) > 0 && left[0].SHA != hex40(0) {
			t.Errorf("%d: %+v stay", max, left)
		}
	}
}

// A GC that was killed after it took an index away left it under another name.
func TestKilledRemoval(t *testing.T) {
	s, r := newRepo(t)
	p := put(t, r, pinOf(1, "a", later()))
	idx := packFile(r, p, ".idx")
	must(t, os.Rename(idx, idx+dying))
	collect(t, s, GC{Grace: time.Hour})
	if !found(t, r, p) {
		t.Error("the pin is lost")
	}
}

// Leftovers beside the packs stay for their hour.
func TestLeftovers(t *testing.T) {
	s, r := newRepo(t)
	put(t, r, pinOf(1, "a", later()))
	at := filepath.Join(r.Path(), packDir)
	for _, name := range []string{"young", "old", "tmp_pack_old", "pack-old.idx"} {
		must(t, os.WriteFile(at+"/"+name, nil, 0o666))
		if name != "young" {
			age(t, at+"/"+name)
		}
	}
	collect(t, s, GC{})
	if names, _ := filepath.Glob(at + "/*"); len(names) != 3 || !exists(at+"/young") {
		t.Error(names)
	}
}

func TestGCSkipsBusy(t *testing.T) {
	s, r := newRepo(t)
	p := put(t, r, pinOf(1, "a", time.Now().UTC()))
	l, err := r.Lock(context.Background(), hex40(2), func(string) {})
	must(t, err)
	if f := collect(t, s, GC{}); len(f.Busy) != 1 || f.Busy[0] != r.Path() || !exists(packFile(r, p, ".pack")) {
		t.Errorf("%+v", f)
	}
	must(t, l.Close())
	if f := collect(t, s, GC{}); f.Packs != 1 {
		t.Errorf("%+v", f)
	}
}

// A pin that is written after GC has looked keeps its packs, of which it is the only one.
func TestWriteDuringGC(t *testing.T) {
	s, r := newRepo(t)
	put(t, r, pinOf(1, "a", time.Now().UTC()))
	g := &collection{GC: GC{Now: time.Now()}, store: s}
	defer g.release()
	must(t, g.enter(s.Repo(testURL, "")))
	late := pinOf(1, "b", later())
	must(t, r.Write(late), g.collect(g.repos[0]))
	if !found(t, r, late) || g.freed.Packs != 0 || g.freed.Left != 8 {
		t.Errorf("%+v", g.freed)
	}
}
