package pack

import (
	"strconv"

	"github.com/pjbgf/sha1cd"
)

// hasher computes IDs. It detects what looks like an attempt at a SHA-1 collision (https://shattered.io) and refuses it.
type hasher struct {
	h   sha1cd.CollisionResistantHash
	buf [64]byte
}

func newHasher() *hasher { return &hasher{h: sha1cd.New().(sha1cd.CollisionResistantHash)} }

func (h *hasher) start(t Type, size int64) {
	b := append(h.buf[:0], t.Bytes()...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, size, 10)
	h.h.Reset()
	h.h.Write(append(b, 0))
}

// Write adds to the content.
func (h *hasher) Write(p []byte) (int, error) { return h.h.Write(p) }

func (h *hasher) sum() (id ID, err error) {
	_, collision := h.h.CollisionResistantSum(h.buf[:0])
	copy(id[:], h.buf[:])
	if collision {
		return id, bad("object %s is part of a SHA-1 collision attack", id)
	}
	return id, nil
}

func (h *hasher) whole(t Type, data []byte) (ID, error) {
	h.start(t, int64(len(data)))
	h.h.Write(data)
	return h.sum()
}
