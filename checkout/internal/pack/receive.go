package pack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"run-task/checkout/internal/inflate"
	"run-task/internal/fsx"
)

// receiver is one Receive.
type receiver struct {
	Options
	ctx    context.Context
	dir    *fsx.Dir
	file   *os.File
	name   string // of file, below dir
	pump   *pump
	total  uint32 // objects, as the header has it
	end    int64  // where the trailer begins
	table  table
	refs   []*ref
	queue  *budget
	recent recent
	deltas deltas

	failed struct {
		sync.Mutex
		err error
	}
}

// Receive reads a pack from r to the end of r and makes pack-<sha>.pack and pack-<sha>.idx of it in dir, both of mode 0444 and safe
// from a power cut; an equal pair there is replaced. The pack's checksum, every object's, and every ID's absence from known SHA-1
// attacks are verified, every delta is resolved. The index is, byte for byte, that of git index-pack. What links to what is not looked at.
//
// Anything wrong with the bytes is fail.BadData, an end of r before the pack's included. An error of r is returned wrapped. When ctx
// ends, or something is wrong before r's end, Receive returns as soon as the Read that is under way does: whoever ends ctx has to
// close the connection, too. With an error nothing new is left in dir, but after a kill files tmp_pack_* may be.
//
// An *os.File must be at its beginning: where the file system can, what is stored shares its blocks.
func Receive(ctx context.Context, dir *fsx.Dir, r io.Reader, o Options) (_ *Pack, err error) {
	file, name, err := newFile(dir)
	if err != nil {
		return nil, err
	}
	o = o.withDefaults()
	rc := &receiver{Options: o, ctx: ctx, dir: dir, file: file, name: name, pump: newPump(file), queue: newBudget(o.Memory / 2)}
	rc.recent.max = o.Memory / 4
	rc.deltas.max = o.Memory / 4
	defer func() {
		if err != nil {
			file.Close()
			dir.Unlink(name)
		}
	}()
	if from, ok := r.(*os.File); ok && fsx.Clone(file, from) == nil {
		r, rc.pump.there = file, true
	}
	scanned := make(chan struct{})
	go func() {
		defer close(scanned)
		defer close(rc.pump.quit)
		rc.fail(rc.scan())
	}()
	rc.pump.run(ctx, r)
	<-scanned
	if err := rc.err(); err != nil {
		return nil, err
	}
	if err := rc.resolve(); err != nil {
		return nil, err
	}
	return rc.finish()
}

// newFile makes a file whose name git, too, sweeps away when it is old.
func newFile(dir *fsx.Dir) (*os.File, string, error) {
	for {
		name := fmt.Sprintf("tmp_pack_%d_%x", os.Getpid(), rand.Uint64())
		f, err := dir.OpenFile(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			return f, name, err
		}
	}
}

// fail keeps the first error.
func (rc *receiver) fail(err error) {
	if err == nil {
		return
	}
	rc.failed.Lock()
	defer rc.failed.Unlock()
	if rc.failed.err == nil {
		rc.failed.err = err
	}
}

func (rc *receiver) err() error {
	rc.failed.Lock()
	defer rc.failed.Unlock()
	return rc.failed.err
}

// job is an object that was inflated: as it is, or the data of a delta.
type job struct {
	e      *entry
	number uint32
	data   []byte
}

// scan parses the stream: one goroutine inflates, one puts commits, trees and tags together and passes blobs on to the workers, so that each blob comes after
// what stands before it.
func (rc *receiver) scan() error {
	inflated, blobs := make(chan job, 256), make(chan job, 256)
	var workers sync.WaitGroup
	workers.Go(func() {
		defer close(blobs)
		(&assembler{receiver: rc, hash: newHasher()}).run(inflated, blobs)
	})
	for range rc.Workers {
		workers.Go(func() { rc.hashBlobs(blobs) })
	}
	err := rc.parse(inflated)
	close(inflated)
	workers.Wait()
	return err
}

func (rc *receiver) parse(jobs chan<- job) error {
	s := scanner{receiver: rc, jobs: jobs, hash: newHasher(), inflate: new(inflate.Decoder)}
	s.in.reset(rc.pump, 0, make([]byte, 2*chunkSize))
	h := s.in.need(headerSize)
	if len(h) < headerSize {
		return s.in.ended()
	}
	if version := binary.BigEndian.Uint32(h[4:]); string(h[:4]) != "PACK" || version != 2 && version != 3 {
		return bad("not a git pack of version 2 or 3: it begins with %q", h[:8])
	}
	rc.total = binary.BigEndian.Uint32(h[8:])
	s.in.skip(headerSize)
	for i := range rc.total {
		if err := s.object(); err != nil {
			return err
		}
		if i%256 == 0 {
			rc.progress(i+1, s.in.pos)
			if err := rc.err(); err != nil {
				return err
			}
		}
	}
	rc.progress(rc.total, s.in.pos+trailerSize)
	return s.trailer()
}

func (rc *receiver) progress(objects uint32, bytes int64) {
	if rc.Progress != nil {
		rc.Progress(objects, rc.total, bytes)
	}
}

// trailer checks the stream's end.
func (s *scanner) trailer() error {
	s.end = s.in.pos
	rest := s.in.need(trailerSize + 1)
	if len(rest) < trailerSize || s.in.err != nil && s.in.err != io.EOF {
		return s.in.ended()
	}
	if len(rest) > trailerSize {
		return bad("there is more after the pack's %d objects, at offset %d", s.total, s.end)
	}
	if !bytes.Equal(s.pump.sum.Sum(nil), rest) {
		return bad("the pack's checksum is wrong")
	}
	return nil
}

// hashBlobs is a worker.
func (rc *receiver) hashBlobs(jobs <-chan job) {
	h := newHasher()
	for j := range jobs {
		if rc.err() == nil {
			rc.fail(rc.known(j.e, h, j.data))
			j.e.done = true
		}
		rc.queue.give(int64(cap(j.data)))
		putBuf(j.data)
	}
}

// known computes the ID of an object and hands it out.
func (rc *receiver) known(e *entry, h *hasher, data []byte) (err error) {
	if e.id, err = h.whole(e.typ, data); err != nil {
		return err
	}
	return rc.handOut(Object{e.id, e.typ, int64(len(data)), data})
}

func (rc *receiver) handOut(o Object) error {
	if rc.Object == nil {
		return nil
	}
	return rc.Object(o)
}
