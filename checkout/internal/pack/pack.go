// Package pack receives git packs: a stream becomes a verified pack file with its index, and its objects are handed out as soon as
// they are known. It also reads such pairs. The formats are those of git's gitformat-pack(5).
//
// Files are read with pread, never mapped: a pack that somebody truncates under us is then an error and not a SIGBUS.
package pack

import (
	"runtime"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
)

// ID is an object's SHA-1.
type ID = plumbing.Hash

// Type is an object's type, never a delta's.
type Type = plumbing.ObjectType

// Object is an object whose content had its checksums verified and whose ID was computed from it.
type Object struct {
	ID   ID
	Type Type
	Size int64
	Data []byte // nil if larger than Options.Whole; valid during the call only, and not to be changed
}

// Options says how to receive. The zero value is useful.
type Options struct {
	// Workers is how many goroutines hash, hand out and resolve deltas besides the one that inflates. Default: GOMAXPROCS, at most 4.
	Workers int

	// Memory bounds the bytes of objects held for others: in queues, as bases of deltas, as deltas still to be resolved. Each
	// worker holds at most three objects of Whole bytes more, and there are 60 to 80 bytes for each object of the pack. Default 16 MiB.
	Memory int64

	// Whole is the size up to which an object is held in one piece. Larger ones are streamed; a larger base or result of
	// a delta goes to a temporary file without a name. Default 8 MiB.
	Whole int64

	// Object, if not nil, is called for every object that the pack has, also for the second of two equal ones, but not for
	// appended bases. Commits, trees and tags that arrive whole or as a delta of one that came shortly before are handed out while the stream
	// arrives, by one goroutine, in the pack's order. Blobs that arrive whole are handed out while the stream
	// arrives, by several goroutines, each after all such commits, trees and tags that stand before it in the pack. What is left,
	// deltified objects, follows when the stream has ended, by several goroutines and in any order. So calls are concurrent. A slow
	// call holds the stream up; an error ends Receive, which returns it.
	Object func(Object) error

	// Base, if not nil, allows thin packs: it gives an object that is not in the pack, or an error that is plumbing.ErrObjectNotFound. It
	// is called concurrently. The objects are appended to the pack, so that what is stored is complete (as git index-pack --fix-thin does).
	Base func(ID) (Base, error)

	// Progress, if not nil, is told now and then, and at the end, how much of the stream is parsed. Calls do not overlap.
	Progress func(objects, total uint32, bytes int64)
}

func (o Options) withDefaults() Options {
	if o.Workers <= 0 {
		o.Workers = min(4, runtime.GOMAXPROCS(0))
	}
	if o.Memory <= 0 {
		o.Memory = 16 << 20
	}
	if o.Whole <= 0 {
		o.Whole = 8 << 20
	}
	return o
}

// Base is an object that is not in the pack.
type Base struct {
	Type   Type
	Data   []byte
	Packed []byte // Data as a zlib stream, if there is one already
}

const (
	headerSize  = 12 // "PACK", version, number of objects
	trailerSize = 20 // SHA-1 of all before it
	maxHead     = 32 // bytes before an object's zlib stream: at most 9 of type and size and 20 of a base

	// maxDelta is the largest object that may be a delta: the format's copies cannot reach further into a base.
	maxDelta = 1<<32 - 1
)

// entry is an object of a pack that is being received.
type entry struct {
	off  int64 // of its head
	size int64 // inflated; of a delta, the delta's
	id   ID    // valid once done
	crc  uint32
	// Numbers of entries plus one, 0 being none: what it is a delta of; its first delta by offset; the next delta of the same base.
	base, child, next uint32
	weight            uint32 // how many descend from it by offsets, once resolve counted them
	packed            Type   // as the pack has it, deltas included
	typ               Type   // what it is, plumbing.InvalidObject if not known yet
	head              uint8  // bytes before the zlib stream
	done              bool
}

func (e *entry) isDelta() bool { return e.packed.IsDelta() }

// table grows without moving its entries, so that workers can fill in some while others are added.
type table struct {
	slabs [][]entry
	n     uint32
}

const slabBits = 10

func (t *table) at(i uint32) *entry { return &t.slabs[i>>slabBits][i&(1<<slabBits-1)] }

func (t *table) add() *entry {
	if t.n>>slabBits == uint32(len(t.slabs)) {
		t.slabs = append(t.slabs, make([]entry, 1<<slabBits))
	}
	t.n++
	return t.at(t.n - 1)
}

// findOffset finds the entry that begins at off, which is before all those added later.
func (t *table) findOffset(off int64) (uint32, bool) {
	lo, hi := uint32(0), t.n
	for lo < hi {
		if mid := lo + (hi-lo)/2; t.at(mid).off < off {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < t.n && t.at(lo).off == off
}

func bad(format string, args ...any) error { return fail.Errorf(fail.BadData, format, args...) }
