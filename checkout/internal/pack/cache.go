package pack

import "sync"

// cache has contents that deltas are likely to need again, the oldest of which make room for new ones.
type cache struct {
	mu        sync.Mutex
	data      map[int64]cached // by offset in the pack
	order     []int64
	used, max int64
}

type cached struct {
	typ Type
	content
}

func (k *cache) get(off int64) (Type, content, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, ok := k.data[off]
	return c.typ, c.content, ok
}

// put keeps a content, which is then shared: the one that it returns must be used in its place.
func (k *cache) put(off int64, typ Type, c content) content {
	size := int64(cap(c.mem))
	if c.file != nil || size > k.max/4 {
		return c
	}
	c.shared = true
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.data[off]; ok {
		return c
	}
	if k.data == nil {
		k.data = map[int64]cached{}
	}
	k.data[off] = cached{typ, c}
	k.order = append(k.order, off)
	for k.used += size; k.used > k.max; {
		k.used -= int64(cap(k.data[k.order[0]].mem))
		delete(k.data, k.order[0])
		k.order = k.order[1:]
	}
	return c
}
