package pack

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"

	"run-task/internal/fsx"
)

// Level is how hard to compress.
type Level string

// The levels. Fastest is about zstd's 1, Standard its 3, Best its 11.
const (
	Fastest  Level = "fastest"
	Standard Level = "default"
	Best     Level = "best"
)

// Options say how a tree is read and written. The zero value will do.
type Options struct {
	Level    Level  // default Fastest
	Xattrs   bool   // keep extended attributes of the user's
	Known    *Index // contents that need not be read; nil for none. An Index is used once.
	Progress func(entries, bytes int64)
	Warn     func(format string, args ...any) // is told what was not taken as it is; may be called by several goroutines
}

// Write writes the tree below root to w, and tells what its footer says. Sockets, FIFOs and devices are left out, with a warning. So is what vanishes while it is read; a
// file that grows meanwhile is cut off where it ended, one that shrinks is filled up with zeros, each with a warning. What may not be read is an error.
func Write(ctx context.Context, w io.Writer, root *fsx.Dir, o Options) (Footer, error) {
	return run(ctx, w, root, o)
}

// Digest tells what Write would, but for the sizes of the file, and reads no content that o.Known knows.
func Digest(ctx context.Context, root *fsx.Dir, o Options) (Footer, error) {
	return run(ctx, nil, root, o)
}

// writer turns jobs into frames. A walk makes them, workers fill them, and one goroutine writes them in the order in which they were made.
type writer struct {
	Options
	w       io.Writer // nil: only what the footer tells is wanted
	order   chan *job
	work    chan *job
	cancel  context.CancelCauseFunc
	buffers sync.Pool

	footer  Footer
	rows    []row
	records []byte // of the next manifest frame
	content hash.Hash
	encoder *zstd.Encoder // of the manifest
}

// job becomes one frame.
type job struct {
	items  []item
	chunk  *chunk
	end    bool // of the stream
	raw    []byte
	frame  frame
	done   chan struct{}
	err    error
	opened int // descriptors that wait with it
}

// frame is one as it is written.
type frame struct {
	row
	packed []byte
}

func workers() int { return min(max(runtime.GOMAXPROCS(0), 2), 8) }

func run(ctx context.Context, to io.Writer, root *fsx.Dir, o Options) (Footer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	n := workers()
	if o.Level == Best { // each has tables of 35 MB
		n = min(n, 2)
	}
	w := &writer{Options: o, w: to, order: make(chan *job, 2*n), work: make(chan *job, 2*n), cancel: cancel, content: sha256.New()}
	w.buffers.New = func() any { b := make([]byte, 0, frameBytes+frameBytes/8); return &b }
	if w.Warn == nil {
		w.Warn = func(string, ...any) {}
	}
	var err error
	if w.encoder, err = newEncoder(Fastest); err != nil {
		return w.footer, err
	}
	var all sync.WaitGroup
	for range n {
		all.Go(func() { w.workOff(ctx) })
	}
	all.Go(func() {
		defer close(w.work)
		defer close(w.order)
		if err := w.walk(ctx, root); err != nil {
			cancel(err)
		}
	})
	for j := range w.order {
		if <-j.done; j.err != nil {
			cancel(j.err)
		}
		if ctx.Err() == nil {
			if err := w.emit(j); err != nil {
				cancel(err)
			}
		}
		w.recycle(j)
	}
	all.Wait()
	if ctx.Err() != nil {
		return w.footer, context.Cause(ctx)
	}
	return w.footer, w.finish()
}

func newEncoder(l Level) (*zstd.Encoder, error) {
	level := map[Level]zstd.EncoderLevel{"": zstd.SpeedFastest, Fastest: zstd.SpeedFastest, Standard: zstd.SpeedDefault, Best: zstd.SpeedBestCompression}[l]
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(frameBytes))
}

// submit hands a job to the workers, in its place.
func (w *writer) submit(ctx context.Context, j *job) error {
	j.done = make(chan struct{})
	select {
	case w.order <- j:
		w.work <- j // it has as many places
		return nil
	case <-ctx.Done():
		j.drop()
		return context.Cause(ctx)
	}
}

func (w *writer) workOff(ctx context.Context) {
	encoder, err := newEncoder(w.Level)
	for j := range w.work {
		if j.err = err; err == nil && ctx.Err() == nil {
			j.err = w.fill(j, encoder)
		}
		j.drop()
		close(j.done)
	}
}

// drop releases what the job holds open.
func (j *job) drop() {
	for i := range j.items {
		j.items[i].release()
	}
	if j.chunk != nil {
		j.chunk.pass()
	}
}

func (w *writer) fill(j *job, encoder *zstd.Encoder) (err error) {
	j.raw = (*w.buffers.Get().(*[]byte))[:0]
	switch {
	case j.end:
		j.raw = append(j.raw, make([]byte, 2*block)...)
	case j.chunk != nil:
		err = w.fillChunk(j)
	default:
		err = w.fillItems(j)
	}
	if err != nil || w.w == nil || len(j.raw) == 0 {
		return err
	}
	j.frame = pack(encoder, kindData, j.raw, (*w.buffers.Get().(*[]byte))[:0])
	return nil
}

// pack makes a frame of bytes, in buf.
func pack(encoder *zstd.Encoder, kind byte, raw, buf []byte) frame {
	if kind == kindManifest {
		buf = append(buf, make([]byte, skippableHead)...)
	}
	buf = encoder.EncodeAll(raw, buf)
	if kind == kindManifest {
		copy(buf, skippable(magicManifest, uint32(len(buf)-skippableHead)))
	}
	return frame{row{kind: kind, packed: uint32(len(buf)), raw: uint32(len(raw)), sum: sha256.Sum256(buf)}, buf}
}

// emit writes what a job became.
func (w *writer) emit(j *job) error {
	if err := w.put(j.frame); err != nil {
		return err
	}
	w.footer.Stream += int64(len(j.raw))
	for i := range j.items {
		if it := &j.items[i]; !it.gone {
			if err := w.record(&it.Entry); err != nil {
				return err
			}
		}
	}
	if c := j.chunk; c != nil && c.last {
		return w.record(c.file.entry)
	}
	return nil
}

func (w *writer) put(f frame) error {
	if w.w == nil || f.packed == nil {
		return nil
	}
	w.rows = append(w.rows, f.row)
	w.footer.packed += int64(len(f.packed))
	_, err := w.w.Write(f.packed)
	return err
}

func (w *writer) record(e *Entry) error {
	w.footer.Entries++
	if e.Type == File {
		w.footer.Files++
		w.footer.Bytes += e.stored()
	}
	all, content := e.appendRecord(w.records)
	w.content.Write(content)
	if len(all) > frameBytes {
		one := all[len(w.records):]
		if err := w.manifest(); err != nil {
			return err
		}
		all = append(w.records[:0], one...)
	}
	if w.records = all; w.w == nil {
		w.records = all[:0]
	}
	if w.Progress != nil {
		w.Progress(w.footer.Entries, w.footer.Bytes)
	}
	return nil
}

func (w *writer) manifest() error {
	if w.w == nil || len(w.records) == 0 {
		return nil
	}
	buf := w.buffers.Get().(*[]byte)
	f := pack(w.encoder, kindManifest, w.records, (*buf)[:0])
	err := w.put(f)
	w.give(f.packed)
	return err
}

func (w *writer) recycle(j *job) {
	w.give(j.raw)
	w.give(j.frame.packed)
}

func (w *writer) give(b []byte) {
	if b != nil && cap(b) <= 2*frameBytes {
		w.buffers.Put(&b)
	}
}

// finish writes the rest of the manifest, the table and the footer.
func (w *writer) finish() error {
	if err := w.manifest(); err != nil {
		return err
	}
	w.footer.Content = [sha256.Size]byte(w.content.Sum(nil))
	if w.w == nil {
		return nil
	}
	table, sum := encodeTable(w.rows)
	w.footer.frames, w.footer.table = int64(len(w.rows)), sum
	if _, err := w.w.Write(append(table, w.footer.encode()...)); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	return nil
}
