//go:build linux

package tests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// However large files are and however many, a save, a restore, and a save of what is known to be unchanged need less than this. With more processors they need more: eight are as many as
// are used.
const cacheMemory = 128 << 20

// scattered makes a file of that size with so much data of no order in it, in pieces with holes between them.
func scattered(t *testing.T, name string, size, data int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, 4<<20)
	source := rand.NewChaCha8([32]byte{1})
	for at, step := int64(0), size/(data/int64(len(piece))); data > 0; at += step {
		source.Read(piece)
		if _, err := f.WriteAt(piece, at&^4095); err != nil {
			t.Fatal(err)
		}
		data -= int64(len(piece))
	}
}

func TestCacheMemory(t *testing.T) {
	t.Parallel()
	k := newTrunk(t)
	mkdirAll(t, k.dir+"/tree")
	scattered(t, k.dir+"/tree/large", 1<<30, 160<<20)
	const small = 5_000
	for i := range small {
		dir := fmt.Sprintf("%s/tree/%d", k.dir, i/200)
		if i%200 == 0 {
			mkdirAll(t, dir)
		}
		if err := os.WriteFile(fmt.Sprintf("%s/file-%d", dir, i), fmt.Appendf(nil, "content of file %d", i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	own(t, k.dir)
	measure := func(what string, args ...string) {
		t.Helper()
		file := t.TempDir() + "/peak"
		c := &command{dir: k.dir, env: append(k.env, "GOMAXPROCS=8"), args: slices.Concat([]string{"probe", "peak", file, "run-task"}, args)}
		c.must(t)
		said, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		peak, err := strconv.ParseInt(string(said), 10, 64)
		t.Logf("%s: %d MB", what, peak>>20)
		if err != nil || peak < 1<<20 || peak > cacheMemory {
			t.Errorf("%s needs %d MB, more than %d: %v", what, peak>>20, cacheMemory>>20, err)
		}
	}
	measure("save", slices.Concat([]string{"cache", "save"}, asUser(), k.flag(""))...)
	remove(k.dir + "/tree")
	measure("restore, and save of what has not changed", slices.Concat(asUser(), k.flag(",policy=pull-push"), []string{"--", "probe", "exit", "0"})...)
	var st unix.Stat_t
	if err := unix.Stat(k.dir+"/tree/large", &st); err != nil || st.Size != 1<<30 || st.Blocks*512 > 400<<20 {
		t.Errorf("%d bytes in %d blocks, %v", st.Size, st.Blocks, err)
	}
}
