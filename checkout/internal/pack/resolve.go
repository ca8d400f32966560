package pack

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
)

// ref is a REF_DELTA.
type ref struct {
	base  ID
	entry uint32
	taken atomic.Bool // of two equal objects only one resolves it
}

// resolve finds out what the remaining deltas are.
func (rc *receiver) resolve() error {
	rc.recent.drop()
	slices.SortFunc(rc.refs, func(a, b *ref) int {
		return cmp.Or(bytes.Compare(a.base[:], b.base[:]), cmp.Compare(a.entry, b.entry))
	})
	for i := rc.table.n; i > 0; i-- {
		if e := rc.table.at(i - 1); e.base != 0 {
			rc.table.at(e.base - 1).weight += e.weight + 1
		}
	}
	var roots []uint32
	for i := range rc.table.n {
		if rc.table.at(i).done && rc.hasChildren(i) {
			roots = append(roots, i)
		}
	}
	if err := rc.families(roots); err != nil {
		return err
	}
	return rc.complete()
}

// families resolves all that descends from these entries, which are known and none of which descends from another through
// unknown ones.
func (rc *receiver) families(roots []uint32) error {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(rc.Workers, len(roots)) {
		workers.Go(func() {
			w := &resolver{receiver: rc, hash: newHasher()}
			w.opener = opener{file: rc.file, end: rc.end, spill: rc.dir, whole: rc.Whole}
			for i := next.Add(1) - 1; i < int64(len(roots)) && rc.err() == nil; i = next.Add(1) - 1 {
				rc.fail(w.family(roots[i]))
			}
		})
	}
	workers.Wait()
	return rc.err()
}

// resolver is a worker that resolves deltas, depth first, without recursion: a chain may be thousands long.
type resolver struct {
	*receiver
	opener
	hash  *hasher
	stack []frame
	held  int64 // bytes in memory in stack
}

// frame is an object whose deltas are being resolved. Its content may have been given up to save memory.
type frame struct {
	entry uint32
	data  content
	kids  []uint32
}

// family resolves all that descends from an entry.
func (w *resolver) family(root uint32) (err error) {
	defer func() {
		for len(w.stack) > 0 {
			w.pop()
		}
	}()
	w.push(frame{entry: root, kids: w.children(root)})
	for len(w.stack) > 0 {
		if err := w.err(); err != nil {
			return err
		}
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		if err := w.step(); err != nil {
			return err
		}
	}
	return nil
}

// step resolves one delta of the object on top of the stack.
func (w *resolver) step() error {
	f := &w.stack[len(w.stack)-1]
	if len(f.kids) == 0 { // of two equal objects, the other one has them
		w.pop()
		return nil
	}
	if !f.data.held() {
		data, err := w.rebuild(f.entry)
		if err != nil {
			return err
		}
		f.data = data
		w.held += int64(cap(data.mem))
	}
	kid := f.kids[len(f.kids)-1]
	f.kids = f.kids[:len(f.kids)-1]
	data, err := w.resolve(kid, f.entry, f.data)
	if err != nil {
		return err
	}
	if len(f.kids) == 0 {
		w.pop() // before going deeper: a chain needs two contents, however long it is
	}
	kids := w.children(kid)
	if len(kids) == 0 {
		data.release()
		return nil
	}
	w.push(frame{kid, data, kids})
	return nil
}

func (w *resolver) push(f frame) {
	w.stack = append(w.stack, f)
	w.held += int64(cap(f.data.mem))
	// The lowest are needed last.
	for i := 0; i < len(w.stack)-1 && w.held > w.Memory/2/int64(w.Workers); i++ {
		w.drop(&w.stack[i])
	}
}

func (w *resolver) pop() {
	w.drop(&w.stack[len(w.stack)-1])
	w.stack = w.stack[:len(w.stack)-1]
}

func (w *resolver) drop(f *frame) {
	w.held -= int64(cap(f.data.mem))
	f.data.release()
	f.data = content{}
}

// resolve makes an object of a delta and hands it out.
func (w *resolver) resolve(i, parent uint32, base content) (content, error) {
	e, p := w.table.at(i), w.table.at(parent)
	e.base, e.typ = parent+1, p.typ
	data, err := w.apply(base, w.ops(i), func(size int64) io.Writer {
		w.hash.start(e.typ, size)
		return w.hash
	})
	if errors.Is(err, errDelta) {
		err = deltaError(e)
	}
	if err != nil {
		return content{}, err
	}
	if data.file == nil {
		err = w.known(e, w.hash, data.mem)
	} else if e.id, err = w.hash.sum(); err == nil {
		err = w.handOut(Object{ID: e.id, Type: e.typ, Size: data.size})
	}
	if err != nil {
		data.release()
		return content{}, err
	}
	e.done = true
	return data, nil
}

// ops finds an entry's data.
func (w *resolver) ops(i uint32) ops {
	e := w.table.at(i)
	return ops{w.deltas.data[i], e.off + int64(e.head), e.size}
}

// rebuild makes an object's content anew, from the nearest base that is at hand.
func (w *resolver) rebuild(i uint32) (data content, err error) {
	var path []uint32
	borrowed := false
	for ; ; i = w.table.at(i).base - 1 {
		if at := slices.IndexFunc(w.stack, func(f frame) bool { return f.entry == i && f.data.held() }); at >= 0 {
			data, borrowed = w.stack[at].data, true
			break
		}
		if !w.table.at(i).isDelta() {
			o := w.ops(i)
			w.start(o.off, o.size)
			if data, err = w.load(o.size); err != nil {
				return content{}, err
			}
			break
		}
		path = append(path, i)
	}
	for _, i := range slices.Backward(path) {
		next, err := w.apply(data, w.ops(i), nil)
		if !borrowed {
			data.release()
		}
		if err != nil {
			return content{}, err
		}
		data, borrowed = next, false
	}
	return data, nil
}

// children lists the deltas of an entry that nobody has resolved or is going to. They are taken from the end: the one that most
// descends from comes last, when its base is not needed any more, so that what is held is at most a logarithm of the pack.
func (w *resolver) children(i uint32) (kids []uint32) {
	e := w.table.at(i)
	for kid := e.child; kid != 0; kid = w.table.at(kid - 1).next {
		if !w.table.at(kid - 1).done {
			kids = append(kids, kid-1)
		}
	}
	for _, r := range w.refsTo(e.id) {
		if !r.taken.Swap(true) {
			kids = append(kids, r.entry)
		}
	}
	slices.SortFunc(kids, func(a, b uint32) int { return cmp.Compare(w.table.at(b).weight, w.table.at(a).weight) })
	return kids
}

// refsTo has the REF_DELTAs of an object.
func (rc *receiver) refsTo(id ID) []*ref {
	byBase := func(r *ref, id ID) int { return bytes.Compare(r.base[:], id[:]) }
	from, ok := slices.BinarySearchFunc(rc.refs, id, byBase)
	to := from
	for ok && to < len(rc.refs) && rc.refs[to].base == id {
		to++
	}
	return rc.refs[from:to]
}

func (rc *receiver) hasChildren(i uint32) bool {
	e := rc.table.at(i)
	for kid := e.child; kid != 0; kid = rc.table.at(kid - 1).next {
		if !rc.table.at(kid - 1).done {
			return true
		}
	}
	return len(rc.refsTo(e.id)) > 0
}
