package odb

import (
	"bytes"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/pack"
	"run-task/checkout/internal/treepath"
)

// links collects, while a pack arrives, what its trees name. If all of that is there nobody has to walk the trees of history afterwards: they are complete,
// whatever leads to them.
type links struct {
	shards [64]struct {
		sync.Mutex
		named map[plumbing.Hash]named
	}
	broken bool // under the first shard's lock: one of the trees is none
}

// named says as what an object was named.
type named uint8

const (
	asTree named = 1 << iota
	asBlob
)

// maxNamed bounds the memory of links: some 50 bytes each. Larger packs are walked.
const maxNamed = 4 << 20

func newLinks() *links {
	l := &links{}
	for i := range l.shards {
		l.shards[i].named = map[plumbing.Hash]named{}
	}
	return l
}

// object takes an object of the pack.
func (l *links) object(o pack.Object) {
	if o.Type != plumbing.TreeObject {
		return
	}
	if o.Data == nil || !l.tree(o.Data) {
		l.shards[0].Lock()
		l.broken = true
		l.shards[0].Unlock()
	}
}

// tree goes over a tree as treepath.Parse does, but makes nothing of it.
func (l *links) tree(data []byte) bool {
	var id plumbing.Hash
	for len(data) > 0 {
		space, nul := bytes.IndexByte(data, ' '), bytes.IndexByte(data, 0)
		if space <= 0 || nul < space || len(data) < nul+1+len(id) {
			return false
		}
		mode, err := treepath.ParseMode(data[:space])
		if err != nil {
			return false
		}
		copy(id[:], data[nul+1:])
		data = data[nul+1+len(id):]
		switch mode, err = treepath.Canonical(mode); {
		case err != nil, mode == treepath.Gitlink: // git takes unknown modes for submodules
		case mode == treepath.Dir:
			l.add(id, asTree)
		default:
			l.add(id, asBlob)
		}
	}
	return true
}

func (l *links) add(id plumbing.Hash, as named) {
	s := &l.shards[id[0]%64]
	s.Lock()
	if was := s.named[id]; was&as == 0 && len(s.named) < maxNamed/len(l.shards) {
		s.named[id] = was | as
	}
	s.Unlock()
}

// complete tells whether all that was named is there, and is what it was named as. Of a partial repository blobs may be missing.
func (l *links) complete(s *Store, partial bool) bool {
	if l.broken {
		return false
	}
	for i := range l.shards {
		if len(l.shards[i].named) == maxNamed/len(l.shards) {
			return false
		}
		for id, as := range l.shards[i].named {
			m, n, ok := s.lookup(id)
			switch {
			case !ok && partial && as == asBlob:
			case !ok, as == asTree|asBlob, !m.whole && (m.Type(n) == plumbing.TreeObject) != (as == asTree), !m.whole && as == asBlob && m.Type(n) != plumbing.BlobObject:
				return false
			}
		}
	}
	return true
}
