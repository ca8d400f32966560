// Package index is git's index file, version 2 and 3, with its TREE extension: gitformat-index(5). It writes what git reads, and reads back what it
// wrote itself: entries at stage 0 and a tree that covers all of them. Any other index is an error, not a guess.
package index

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fsx"
)

// Entry is a file, a link or a submodule.
type Entry struct {
	Path string // from the top
	Mode uint32 // canonical: 100644, 100755, 120000, 160000
	ID   plumbing.Hash
	Skip bool // not in the worktree because it is outside of a sparse checkout (git's skip-worktree)
	Stat Stat
}

// Stat is a file's metadata when its content was known to be ID's, with as many bits as the format has.
type Stat [10]uint32

// StatOf fits metadata into the format. The size has its low 32 bits, but 0 only for empty files: to git, 0 means "content not known to be unchanged".
// Since 2.43 git does the same. The mode is the entry's and left out.
func StatOf(st fsx.Stat) Stat {
	size := uint32(st.Size)
	if size == 0 && st.Size != 0 {
		size = 1 << 31
	}
	return Stat{uint32(st.CtimeSec), uint32(st.CtimeNsec), uint32(st.MtimeSec), uint32(st.MtimeNsec), uint32(st.Dev), uint32(st.Ino), 0, st.UID, st.GID, size}
}

// Size is the file's, its low 32 bits.
func (s Stat) Size() uint32 { return s[9] }

// Before tells whether the metadata is older than a time: then a change since that time would have changed it.
func (s Stat) Before(sec, nsec int64) bool {
	before := func(a, b uint32) bool { return a < uint32(sec) || a == uint32(sec) && int64(b) < nsec }
	return before(s[0], s[1]) && before(s[2], s[3])
}

// Tree is a directory.
type Tree struct {
	Name  string // its last component, "" for the top
	ID    plumbing.Hash
	First int     // number of its first entry; Parse sets it, Encode does not need it
	Files int     // entries in it and below it
	Subs  []*Tree // in the order of the entries
}

// Index is all of it. Entries are sorted by path, bytewise.
type Index struct {
	Entries []Entry
	Top     *Tree
}

const (
	magic     = "DIRC"
	fixedSize = 62 // of an entry, up to its path
	skipFlag  = 1 << 14
	extended  = 1 << 14 // in the flags: there are more
)

// Encode gives the file.
func Encode(x Index) []byte {
	version := uint32(2)
	for i := range x.Entries {
		if x.Entries[i].Skip {
			version = 3
		}
	}
	b := make([]byte, 0, 128*len(x.Entries)+4096)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint32(b, version)
	b = binary.BigEndian.AppendUint32(b, uint32(len(x.Entries)))
	for i := range x.Entries {
		b = appendEntry(b, &x.Entries[i])
	}
	tree := appendTree(nil, x.Top)
	b = append(b, "TREE"...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(tree)))
	b = append(b, tree...)
	sum := sha1.Sum(b)
	return append(b, sum[:]...)
}

func appendEntry(b []byte, e *Entry) []byte {
	start := len(b)
	st := e.Stat
	st[6] = e.Mode
	for _, v := range st {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	b = append(b, e.ID[:]...)
	flags := uint16(min(len(e.Path), 0xfff))
	if e.Skip {
		flags |= extended
	}
	b = binary.BigEndian.AppendUint16(b, flags)
	if e.Skip {
		b = binary.BigEndian.AppendUint16(b, skipFlag)
	}
	b = append(b, e.Path...)
	return append(b, make([]byte, 8-(len(b)-start)%8)...) // 1 to 8 NULs
}

func appendTree(b []byte, t *Tree) []byte {
	b = append(b, t.Name...)
	b = append(b, 0)
	b = fmt.Appendf(b, "%d %d\n", t.Files, len(t.Subs))
	b = append(b, t.ID[:]...)
	for _, sub := range t.Subs {
		b = appendTree(b, sub)
	}
	return b
}

// Parse reads a file that Encode gave. The entries' paths share data's copy.
func Parse(data []byte) (Index, error) {
	body := len(data) - sha1.Size
	if body < 12 || string(data[:4]) != magic {
		return Index{}, errors.New("no index")
	}
	if sum := sha1.Sum(data[:body]); !bytes.Equal(sum[:], data[body:]) {
		return Index{}, errors.New("the index has a wrong checksum")
	}
	version, n := binary.BigEndian.Uint32(data[4:]), binary.BigEndian.Uint32(data[8:])
	if version != 2 && version != 3 || int64(n) > int64(body)/fixedSize {
		return Index{}, fmt.Errorf("an index of version %d with %d entries", version, n)
	}
	p := parser{data: data[:body], text: string(data[:body]), at: 12, version: version}
	x := Index{Entries: make([]Entry, n)}
	for i := range x.Entries {
		if !p.entry(&x.Entries[i]) || i > 0 && x.Entries[i-1].Path >= x.Entries[i].Path {
			return Index{}, fmt.Errorf("entry %d of the index is not one of ours", i)
		}
	}
	if x.Top = p.trees(); x.Top == nil || x.Top.Name != "" || x.Top.Files != len(x.Entries) || !x.Top.covers("", 0, x.Entries) {
		return Index{}, errors.New("the index has no TREE extension that covers it")
	}
	return x, nil
}
