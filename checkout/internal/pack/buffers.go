package pack

import (
	"math/bits"
	"sync"

	"run-task/checkout/internal/inflate"
)

// pools has free buffers by the power of two that they have room for.
var pools [32]sync.Pool

// getBuf gives a buffer with the slack that inflating likes.
func getBuf(n int64) []byte {
	class := bits.Len64(uint64(n+inflate.Slack) - 1)
	if class >= len(pools) {
		return make([]byte, n, n+inflate.Slack)
	}
	if p, ok := pools[class].Get().(*[]byte); ok {
		return (*p)[:n]
	}
	return make([]byte, n, 1<<class)
}

// putBuf takes back what getBuf gave; nil is fine.
func putBuf(b []byte) {
	if class := bits.Len(uint(cap(b))) - 1; cap(b) > 0 && class < len(pools) && cap(b) == 1<<class {
		pools[class].Put(&b)
	}
}

// budget bounds what is in use at the same time.
type budget struct {
	mu        sync.Mutex
	changed   sync.Cond
	used, max int64
}

func newBudget(max int64) *budget {
	b := &budget{max: max}
	b.changed.L = &b.mu
	return b
}

// take waits until there is room for n bytes, or nothing else is in use.
func (b *budget) take(n int64) {
	b.mu.Lock()
	for b.used > 0 && b.used+n > b.max {
		b.changed.Wait()
	}
	b.used += n
	b.mu.Unlock()
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	b.used -= n
	b.mu.Unlock()
	b.changed.Signal()
}
