package pack

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"run-task/internal/fsx"
)

// fillItems reads the files of a job into its frame.
func (w *writer) fillItems(j *job) error {
	for i := range j.items {
		it := &j.items[i]
		if it.Type != File || it.known && w.w == nil {
			if w.w != nil {
				j.raw, _ = it.appendHeader(j.raw)
			}
			continue
		}
		if err := w.fillFile(j, it); err != nil {
			return err
		}
	}
	return nil
}

// fillFile reads a small file.
func (w *writer) fillFile(j *job, it *item) error {
	read := func(fd int, st fsx.Stat) error { return w.readFile(j, it, fd, st) }
	if it.file != nil {
		st, err := fsx.FileStat(it.file)
		if err != nil {
			return err
		}
		return read(int(it.file.Fd()), st)
	}
	err := it.dir.View(it.base, read)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
		return w.vanished(it)
	}
	return err
}

func (w *writer) readFile(j *job, it *item, fd int, st fsx.Stat) (err error) {
	if !st.IsRegular() {
		return w.vanished(it)
	}
	it.Entry.of(st)
	if w.Xattrs {
		if it.Xattrs, err = fsx.UserXattrs(fd); err != nil {
			return err
		}
	}
	start := len(j.raw)
	if w.w != nil {
		j.raw, _ = it.appendHeader(j.raw)
	}
	body := len(j.raw)
	j.raw = slices.Grow(j.raw, int(it.Size))[:body+int(it.Size)]
	n, err := fsx.Read(fd, j.raw[body:])
	if err != nil {
		return err
	}
	j.raw = j.raw[:body+n]
	it.Sum = sha256.Sum256(j.raw[body:])
	if st.Size != it.stat.Size || int64(n) != it.Size || !st.SameTime(it.stat) {
		w.Warn("%q changed while it was read", it.Name)
	}
	short := int64(n) != it.Size
	it.Size = int64(n)
	if w.w == nil {
		j.raw = j.raw[:0]
		return nil
	}
	if short { // the header says so, and is as long
		header, _ := it.appendHeader(nil)
		copy(j.raw[start:], header)
	}
	j.raw = append(j.raw, make([]byte, padding(it.Size))...)
	return nil
}

func (w *writer) vanished(it *item) error {
	it.gone = true
	w.Warn("%q vanished while it was read: left out", it.Name)
	return nil
}

// file is one that has frames of its own.
type file struct {
	entry *Entry
	f     *os.File
	stat  fsx.Stat
	short bool // bytes were missing; it belongs to whoever has the hash
}

// chunk is a run of a big file's stored bytes, and what stands before it. The hash of them all goes from one to the next.
type chunk struct {
	*file
	head         []byte
	offset, size int64
	wait, next   chan hash.Hash
	last, passed bool
}

// pass hands the turn on if that was not done.
func (c *chunk) pass() {
	if c.passed {
		return
	}
	c.passed = true
	h := <-c.wait
	if c.next <- h; c.last {
		c.f.Close()
	}
}

// big makes jobs of the frames of a big file, or of one with holes.
func (k *walk) big(it item) (err error) {
	if err := k.flush(); err != nil {
		it.release()
		return err
	}
	e := it.Entry
	b := &file{entry: &e, f: it.file, stat: it.stat}
	if it.stat.Holes() {
		if e.Data, err = fsx.Extents(it.file, e.Size, maxParts); err != nil {
			it.release()
			return err
		}
	}
	if k.Xattrs {
		if e.Xattrs, err = fsx.UserXattrs(int(it.file.Fd())); err != nil {
			it.release()
			return err
		}
	}
	head, _ := e.appendHeader(nil)
	stored := e.stored()
	turn := make(chan hash.Hash, 1)
	turn <- sha256.New()
	for offset := int64(0); ; {
		c := &chunk{file: b, head: head, offset: offset, size: min(int64(frameBytes-len(head)), stored-offset), wait: turn, next: make(chan hash.Hash, 1)}
		offset += c.size
		c.last = offset == stored
		turn, head = c.next, nil
		if err := k.submit(k.ctx, &job{chunk: c}); err != nil {
			if !c.last {
				b.f.Close()
			}
			return err
		}
		if c.last {
			return nil
		}
	}
}

func (w *writer) fillChunk(j *job) error {
	c := j.chunk
	j.raw = append(j.raw, c.head...)
	data := j.raw[len(j.raw):][:c.size]
	clear(data)
	j.raw = j.raw[:len(j.raw)+len(data)]
	n, err := readParts(c.f, c.entry.parts(), c.offset, data)
	if err != nil {
		return err
	}
	h := <-c.wait
	h.Write(data)
	if n < len(data) {
		c.short = true
	}
	if c.last {
		c.entry.Sum = [sha256.Size]byte(h.Sum(nil))
		st, err := fsx.FileStat(c.f)
		if err != nil || c.short || st.Size != c.stat.Size || !st.SameTime(c.stat) {
			w.Warn("%q changed while it was read", c.entry.Name)
		}
		j.raw = append(j.raw, make([]byte, padding(c.entry.stored()))...)
	}
	c.wait <- h
	return nil
}

// readParts reads from the parts as if they followed each other. What the file lacks stays as it is in b, and is not counted.
func readParts(f io.ReaderAt, parts []Part, offset int64, b []byte) (n int, err error) {
	for _, p := range parts {
		if offset >= p.Size {
			offset -= p.Size
			continue
		}
		if len(b) == 0 {
			break
		}
		some := b[:min(int64(len(b)), p.Size-offset)]
		got, err := f.ReadAt(some, p.Offset+offset)
		if err != nil && err != io.EOF {
			return n, err
		}
		n += got
		b, offset = b[len(some):], 0
	}
	return n, nil
}
