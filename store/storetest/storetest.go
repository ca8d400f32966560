// Package storetest is what every store must be able to do, whatever it is made of.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"run-task/internal/fail"
	"run-task/store"
)

// Run tests the stores that open makes: each an empty one. Those that are store.Lister are tested as such, too.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, suite)
	}{
		{"a missing object", missing},
		{"keys that are none", badKeys},
		{"put and get", putAndGet},
		{"sizes", sizes},
		{"files of others", foreignFile},
		{"a file that is put twice", twice},
		{"unless unchanged", unless},
		{"the last bytes", last},
		{"only new", onlyNew},
		{"several at a time, only new", onlyOneIsNew},
		{"tags", tags},
		{"progress", progress},
		{"readers keep what they opened", readersKeep},
		{"writers and readers at a time", together},
		{"a cancelled put", cancelledPut},
		{"a cancelled get", cancelledGet},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, suite{open(t)}) })
	}
	s := open(t)
	if _, ok := s.(store.Lister); ok {
		runLister(t, open)
	}
}

// suite is a store with what all the tests do with one.
type suite struct{ store.Store }

// random is content that no compression or sparse file makes small. The same seed gives the same bytes.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1}).Read(b)
	return b
}

// put fills a file from Temp, puts it and closes it.
func (s suite) put(t *testing.T, key string, content []byte, o store.PutOptions) (store.Info, error) {
	t.Helper()
	f, err := s.Temp()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	return s.Put(t.Context(), key, f, o)
}

func (s suite) mustPut(t *testing.T, key string, content []byte) store.Info {
	t.Helper()
	info, err := s.put(t, key, content, store.PutOptions{})
	if err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
	if info.Key != key || info.Size != int64(len(content)) {
		t.Errorf("put %q tells %+v", key, info)
	}
	return info
}

func (s suite) get(t *testing.T, key string, o store.GetOptions) ([]byte, store.Info, error) {
	t.Helper()
	f, info, err := s.Get(t.Context(), key, o)
	if err != nil {
		if f != nil {
			t.Errorf("get %q: a file and an error", key)
		}
		return nil, info, err
	}
	defer f.Close()
	return readAll(t, f), info, nil
}

// readAll reads a file as users do: at offsets.
func readAll(t *testing.T, f *os.File) []byte {
	t.Helper()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, st.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s suite) holds(t *testing.T, key string, want []byte) store.Info {
	t.Helper()
	got, info, err := s.get(t, key, store.GetOptions{})
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("get %q: %d bytes, not the %d that were put", key, len(got), len(want))
	}
	if info.Key != key || info.Size != int64(len(want)) {
		t.Errorf("get %q tells %+v", key, info)
	}
	return info
}

func missing(t *testing.T, s suite) {
	for _, key := range []string{"a", "a/b/c"} {
		if _, _, err := s.get(t, key, store.GetOptions{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("get: %v", err)
		}
		if _, _, err := s.get(t, key, store.GetOptions{Last: 5, Unless: "x"}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("get: %v", err)
		}
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("stat: %v", err)
		}
	}
	s.mustPut(t, "a/b", []byte("x"))
	for _, key := range []string{"a", "a/c", "a/bb", "b"} { // "a" is a directory now, where there are any
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("stat %q: %v", key, err)
		}
	}
}

func badKeys(t *testing.T, s suite) {
	for _, key := range []string{"", "/a", "../a", "a/../b", ".a", "a b", "a\x00"} {
		_, _, get := s.get(t, key, store.GetOptions{})
		_, stat := s.Stat(t.Context(), key)
		_, put := s.put(t, key, []byte("x"), store.PutOptions{})
		for _, err := range []error{get, stat, put} {
			if fail.Of(err) != fail.Usage {
				t.Errorf("%q: %v", key, err)
			}
		}
	}
}

func putAndGet(t *testing.T, s suite) {
	all := map[string][]byte{}
	for i, key := range []string{"a", "b/c", "b/d/e.tar.zst", "Z/_@+=,~-.x", "b/c2"} {
		all[key] = random(uint64(i), 1000+i)
		s.mustPut(t, key, all[key])
	}
	for key, content := range all {
		s.holds(t, key, content)
		info, err := s.Stat(t.Context(), key)
		if err != nil || info.Size != int64(len(content)) || info.Key != key {
			t.Errorf("stat %q: %+v, %v", key, info, err)
		}
	}
	s.mustPut(t, "b/c", []byte("another"))
	s.holds(t, "b/c", []byte("another"))
	s.holds(t, "b/c2", all["b/c2"])
}

// Sizes about those at which things are done in another way, none and many parts included.
func sizes(t *testing.T, s suite) {
	for _, n := range []int{0, 1, 64 << 10, 16 << 20, 16<<20 + 1} {
		content := random(uint64(n), n)
		s.mustPut(t, "sized", content)
		s.holds(t, "sized", content)
	}
}

func foreignFile(t *testing.T, s suite) {
	f := file(t, []byte("mine"))
	defer f.Close()
	f.Seek(2, io.SeekStart) // it is put from its first byte on
	if _, err := s.Put(t.Context(), "k", f, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("MINE"), 0); err != nil {
		t.Fatal(err)
	}
	s.holds(t, "k", []byte("mine"))
}

func twice(t *testing.T, s suite) {
	f, err := s.Temp()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteString("content")
	for _, key := range []string{"one", "d/two", "one"} {
		if _, err := s.Put(t.Context(), key, f, store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	s.holds(t, "one", []byte("content"))
	s.holds(t, "d/two", []byte("content"))
}

func unless(t *testing.T, s suite) {
	s.mustPut(t, "k", []byte("first"))
	info := s.holds(t, "k", []byte("first"))
	if info.Tag == "" {
		t.Fatal("no tag")
	}
	if _, _, err := s.get(t, "k", store.GetOptions{Unless: info.Tag}); !errors.Is(err, store.ErrUnchanged) {
		t.Errorf("unchanged: %v", err)
	}
	s.mustPut(t, "k", []byte("other"))
	got, _, err := s.get(t, "k", store.GetOptions{Unless: info.Tag})
	if err != nil || string(got) != "other" {
		t.Errorf("changed: %q, %v", got, err)
	}
}

func last(t *testing.T, s suite) {
	for _, size := range []int{0, 1, 10, 11, 5000} {
		content := random(7, size)
		s.mustPut(t, "k", content)
		got, _, err := s.get(t, "k", store.GetOptions{Last: 10})
		if err != nil || !bytes.HasSuffix(content, got) || len(got) < min(10, size) {
			t.Errorf("the last 10 of %d bytes: %d, %v", size, len(got), err)
		}
	}
}

func onlyNew(t *testing.T, s suite) {
	for _, content := range [][]byte{[]byte("first"), random(1, 17<<20)} { // in one, and in parts
		key := fmt.Sprintf("new/%d", len(content))
		if _, err := s.put(t, key, content, store.PutOptions{New: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.put(t, key, random(2, len(content)), store.PutOptions{New: true}); !errors.Is(err, store.ErrDuplicate) {
			t.Errorf("a second one: %v", err)
		}
		s.holds(t, key, content)
	}
}

func onlyOneIsNew(t *testing.T, s suite) {
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { _, errs[i] = s.put(t, "k", []byte{byte(i)}, store.PutOptions{New: true}) })
	}
	wg.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won >= 0:
			t.Error("two were new")
		case err == nil:
			won = i
		case !errors.Is(err, store.ErrDuplicate):
			t.Error(err)
		}
	}
	s.holds(t, "k", []byte{byte(won)})
}

func tags(t *testing.T, s suite) {
	seen := map[string]int{}
	for i := range 50 {
		content := []byte(fmt.Sprintf("%05d", i))
		put := s.mustPut(t, "k", content)
		got := s.holds(t, "k", content)
		stat, err := s.Stat(t.Context(), "k")
		if err != nil || got.Tag == "" || stat.Tag != got.Tag || put.Tag != "" && put.Tag != got.Tag {
			t.Fatalf("put %+v, get %+v, stat %+v, %v: not the same tag", put, got, stat, err)
		}
		if before, ok := seen[got.Tag]; ok {
			t.Fatalf("%d and %d have the same tag", before, i)
		}
		seen[got.Tag] = i
		for _, when := range []struct {
			name string
			info store.Info
		}{{"stat", stat}, {"get", got}} {
			if when.info.Last().Before(when.info.Modified) || when.info.Last().Before(when.info.Used) {
				t.Errorf("%s: %+v was last used %s", when.name, when.info, when.info.Last())
			}
		}
	}
}

func progress(t *testing.T, s suite) {
	content := random(3, 17<<20)
	var mu sync.Mutex
	check := func(what string) (func(done, total int64), func()) {
		var last, calls int64
		return func(done, total int64) {
				mu.Lock()
				defer mu.Unlock()
				if calls++; done < last || done > int64(len(content)) || total != int64(len(content)) && total != -1 {
					t.Errorf("%s: %d of %d, after %d", what, done, total, last)
				}
				last = done
			}, func() {
				if calls > 0 && last != int64(len(content)) {
					t.Errorf("%s: ended at %d", what, last)
				}
			}
	}
	told, end := check("put")
	if _, err := s.put(t, "k", content, store.PutOptions{Progress: told}); err != nil {
		t.Fatal(err)
	}
	end()
	told, end = check("get")
	if _, _, err := s.get(t, "k", store.GetOptions{Progress: told}); err != nil {
		t.Fatal(err)
	}
	end()
}

func readersKeep(t *testing.T, s suite) {
	s.mustPut(t, "k", []byte("old content"))
	f, _, err := s.Get(t.Context(), "k", store.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s.mustPut(t, "k", []byte("new"))
	if got := readAll(t, f); string(got) != "old content" {
		t.Errorf("it became %q", got)
	}
	s.holds(t, "k", []byte("new"))
}

func together(t *testing.T, s suite) {
	const size = 300_000 // more than goes over a connection at once
	content := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i%26)}, size+i) }
	s.mustPut(t, "k", content(0))
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := range 8 {
				if _, err := s.put(t, "k", content(w*8+i), store.PutOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 12 {
				got, info, err := s.get(t, "k", store.GetOptions{})
				if err != nil {
					t.Error(err)
				} else if len(got) < size || int64(len(got)) != info.Size || !bytes.Equal(got, content(len(got)-size)) {
					t.Errorf("a mix of %d bytes", len(got))
				}
			}
		})
	}
	wg.Wait()
}

func cancelledPut(t *testing.T, s suite) {
	for _, size := range []int{100, 17 << 20} {
		s.mustPut(t, "k", []byte("old"))
		f := file(t, random(4, size))
		ctx, cancel := context.WithCancelCause(t.Context())
		if size == 100 {
			cancel(fail.ErrInterrupted)
		}
		// Told of the first part, it is cancelled in the middle of the others; a store that copies nothing is done before.
		_, err := s.Put(ctx, "k", f, store.PutOptions{Progress: func(done, _ int64) {
			if done < int64(size) {
				cancel(fail.ErrInterrupted)
			}
		}})
		f.Close()
		if fail.Of(err) == fail.Interrupted {
			s.holds(t, "k", []byte("old"))
		} else if err != nil || ctx.Err() != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		cancel(nil)
	}
}

func cancelledGet(t *testing.T, s suite) {
	s.mustPut(t, "k", []byte("content"))
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fail.ErrInterrupted)
	if _, _, err := s.Get(ctx, "k", store.GetOptions{}); fail.Of(err) != fail.Interrupted {
		t.Errorf("get: %v", err)
	}
	if _, err := s.Stat(ctx, "k"); fail.Of(err) != fail.Interrupted {
		t.Errorf("stat: %v", err)
	}
}

// file is one that a store knows nothing of.
func file(t *testing.T, content []byte) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err == nil {
		_, err = f.Write(content)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}
