package storetest

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"time"

	"run-task/store"
)

func runLister(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, suite, store.Lister)
	}{
		{"list", list},
		{"delete", remove},
		{"delete what was replaced", conflict},
		{"delete while others put", removeAndPut},
		{"sweep", sweep},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			c.test(t, suite{s}, s.(store.Lister))
		})
	}
}

func keys(t *testing.T, l store.Lister, prefix string) (all []string) {
	t.Helper()
	infos, err := l.List(t.Context(), prefix)
	if err != nil {
		t.Fatalf("list %q: %v", prefix, err)
	}
	for _, i := range infos {
		all = append(all, i.Key)
	}
	return all
}

func list(t *testing.T, s suite, l store.Lister) {
	if got := keys(t, l, ""); len(got) != 0 {
		t.Errorf("an empty store has %q", got)
	}
	put := []string{"b", "a/x", "a/x-2", "a-b", "a/y/z", "ab/c", "A", "a/x.1"}
	for _, key := range put {
		s.mustPut(t, key, []byte(key))
	}
	for prefix, want := range map[string][]string{
		"":      {"A", "a-b", "a/x", "a/x-2", "a/x.1", "a/y/z", "ab/c", "b"},
		"a":     {"a-b", "a/x", "a/x-2", "a/x.1", "a/y/z", "ab/c"},
		"a/":    {"a/x", "a/x-2", "a/x.1", "a/y/z"},
		"a/x":   {"a/x", "a/x-2", "a/x.1"},
		"a/x-":  {"a/x-2"},
		"a/y":   {"a/y/z"},
		"a/y/z": {"a/y/z"},
		"c":     nil,
		"b/":    nil,
	} {
		if got := keys(t, l, prefix); !slices.Equal(got, want) {
			t.Errorf("list %q: %q, want %q", prefix, got, want)
		}
	}
	infos, err := l.List(t.Context(), "a/")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		stat, err := s.Stat(t.Context(), i.Key)
		if err != nil || stat.Tag != i.Tag || stat.Size != i.Size || i.Size != int64(len(i.Key)) || i.Modified.IsZero() || time.Since(i.Modified).Abs() > time.Hour {
			t.Errorf("list tells %+v, stat %+v, %v", i, stat, err)
		}
	}
}

func remove(t *testing.T, s suite, l store.Lister) {
	for _, key := range []string{"a/b/c", "a/d"} {
		s.mustPut(t, key, []byte("x"))
	}
	info, err := s.Stat(t.Context(), "a/b/c")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a missing one is fine
		if err := l.Delete(t.Context(), info); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Stat(t.Context(), "a/b/c"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat: %v", err)
	}
	if got := keys(t, l, ""); !slices.Equal(got, []string{"a/d"}) {
		t.Errorf("left: %q", got)
	}
	s.mustPut(t, "a/b/c", []byte("again"))
	s.holds(t, "a/b/c", []byte("again"))
}

func conflict(t *testing.T, s suite, l store.Lister) {
	s.mustPut(t, "k", []byte("old"))
	info, err := s.Stat(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	s.mustPut(t, "k", []byte("new"))
	if err := l.Delete(t.Context(), info); !errors.Is(err, store.ErrConflict) {
		t.Errorf("delete: %v", err)
	}
	s.holds(t, "k", []byte("new"))
}

// Directories that one removes because they are empty are no hindrance to another who puts something there.
func removeAndPut(t *testing.T, s suite, l store.Lister) {
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			key := fmt.Sprintf("a/b/%d", w)
			for range 20 {
				info, err := s.put(t, key, []byte(key), store.PutOptions{})
				if err == nil {
					s.holds(t, key, []byte(key))
					err = l.Delete(t.Context(), info)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := keys(t, l, ""); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

func sweep(t *testing.T, s suite, l store.Lister) {
	s.mustPut(t, "a/b", []byte("x"))
	for _, before := range []time.Time{time.Now().Add(-time.Hour), time.Now().Add(time.Hour)} {
		if n, bytes, err := l.Sweep(t.Context(), before); n != 0 || bytes != 0 || err != nil {
			t.Errorf("%d things, %d bytes, %v: there was nothing to sweep", n, bytes, err)
		}
	}
	s.holds(t, "a/b", []byte("x"))
}
