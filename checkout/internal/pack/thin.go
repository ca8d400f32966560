package pack

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
)

// batch is how many bases are compressed before they are appended.
const batch = 64

// complete appends the bases that are not in the pack and resolves what descends from them.
func (rc *receiver) complete() error {
	before := rc.table.n
	var missing []ID
	for ids := range slices.Chunk(rc.absent(), batch) {
		none, err := rc.appendBases(ids)
		if err != nil {
			return err
		}
		missing = append(missing, none...)
	}
	var roots []uint32
	for i := before; i < rc.table.n; i++ {
		roots = append(roots, i)
	}
	if err := rc.families(roots); err != nil {
		return err
	}
	if err := rc.checkAll(missing); err != nil || rc.table.n == before {
		return err
	}
	return rc.seal()
}

// absent lists the bases of the unresolved, in the pack's order.
func (rc *receiver) absent() (ids []ID) {
	var waiting []*ref
	for _, r := range rc.refs {
		if !rc.table.at(r.entry).done {
			waiting = append(waiting, r)
		}
	}
	slices.SortFunc(waiting, func(a, b *ref) int { return cmp.Compare(a.entry, b.entry) })
	seen := map[ID]bool{}
	for _, r := range waiting {
		if !seen[r.base] {
			seen[r.base] = true
			ids = append(ids, r.base)
		}
	}
	return ids
}

// checkAll reports what is still not resolved. missing are the bases that were asked for in vain: those that turned out to be in the pack after all are fine.
func (rc *receiver) checkAll(missing []ID) error {
	unknown := map[ID]bool{}
	for _, r := range rc.refs {
		if !rc.table.at(r.entry).done {
			unknown[r.base] = true
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	missing = slices.DeleteFunc(missing, func(id ID) bool { return !unknown[id] })
	var names []string
	for _, id := range missing[:min(3, len(missing))] {
		names = append(names, id.String())
	}
	if len(missing) > 3 {
		names = append(names, fmt.Sprintf("%d more", len(missing)-3))
	}
	return bad("the pack has deltas of objects that are missing: %s", strings.Join(names, ", "))
}

// base is an object to be appended.
type base struct {
	id     ID
	typ    Type
	size   int64
	packed []byte // head and zlib stream, nil if there is no such object
}

// appendBases appends the objects that Base has, and lists those that it has not.
func (rc *receiver) appendBases(ids []ID) (missing []ID, err error) {
	if rc.Base == nil {
		return ids, nil
	}
	bases := make([]base, len(ids))
	jobs := make(chan int)
	var workers sync.WaitGroup
	for range rc.Workers {
		workers.Go(func() {
			h := newHasher()
			for i := range jobs {
				if rc.err() == nil {
					var err error
					bases[i], err = rc.fetchBase(ids[i], h)
					rc.fail(err)
				}
			}
		})
	}
	for i := range ids {
		jobs <- i
	}
	close(jobs)
	workers.Wait()
	if err := rc.err(); err != nil {
		return nil, err
	}
	for i, b := range bases {
		if b.packed == nil {
			missing = append(missing, ids[i])
			continue
		}
		if _, err := rc.file.WriteAt(b.packed, rc.end); err != nil {
			return nil, err
		}
		e := rc.table.add()
		*e = entry{off: rc.end, size: b.size, id: b.id, crc: crc32.ChecksumIEEE(b.packed), packed: b.typ, typ: b.typ, done: true}
		e.head = uint8(len(appendHead(nil, b.typ, b.size)))
		rc.end += int64(len(b.packed))
	}
	return missing, nil
}

// fetchBase gets an object, verifies it and packs it. The stream is read once and soon: speed matters more than size.
func (rc *receiver) fetchBase(id ID, h *hasher) (base, error) {
	o, err := rc.Base(id)
	typ, data := o.Type, o.Data
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return base{}, nil
	}
	if err != nil {
		return base{}, fmt.Errorf("the base %s of a delta: %w", id, err)
	}
	if got, err := h.whole(typ, data); err != nil {
		return base{}, err
	} else if got != id {
		return base{}, bad("object %s, the base of a delta, has the content of %s", id, got)
	}
	var b bytes.Buffer
	b.Write(appendHead(nil, typ, int64(len(data))))
	if o.Packed != nil {
		b.Write(o.Packed)
		return base{id, typ, int64(len(data)), b.Bytes()}, nil
	}
	z, err := zlib.NewWriterLevel(&b, zlib.BestSpeed)
	if err != nil {
		return base{}, fail.Errorf(fail.Internal, "%w", err)
	}
	_, err = z.Write(data)
	err = errors.Join(err, z.Close())
	return base{id, typ, int64(len(data)), b.Bytes()}, err
}

// appendHead appends the head of an object that is no delta.
func appendHead(b []byte, typ Type, size int64) []byte {
	c := byte(typ)<<4 | byte(size&15)
	for size >>= 4; size > 0; size >>= 7 {
		b = append(b, c|0x80)
		c = byte(size & 0x7f)
	}
	return append(b, c)
}

// seal writes the new number of objects and the new checksum.
func (rc *receiver) seal() error {
	if _, err := rc.file.WriteAt(binary.BigEndian.AppendUint32(nil, rc.table.n), 8); err != nil {
		return err
	}
	h := sha1.New()
	if _, err := io.CopyBuffer(h, io.NewSectionReader(rc.file, 0, rc.end), make([]byte, chunkSize)); err != nil {
		return err
	}
	rc.pump.tail = h.Sum(nil)
	_, err := rc.file.WriteAt(rc.pump.tail, rc.end)
	return err
}
