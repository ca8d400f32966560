package pack

import (
	"context"
	"crypto/sha1"
	"hash"
	"io"
	"os"
)

const chunkSize = 128 << 10

// pump copies the stream to the file, in one goroutine, and lets another one read what is written. It never reads ahead by more than
// its few chunks.
type pump struct {
	file       *os.File
	there      bool // the stream is the file: nothing needs to be written
	free, full chan []byte
	quit       chan struct{} // closed when nobody reads any more
	now        []byte        // the reader's chunk and what is left of it
	rest       []byte

	// Valid once full is closed.
	err  error // why the stream ended, nil for its end
	size int64
	sum  hash.Hash // of all but the last 20 bytes
	tail []byte    // the last 20 bytes
}

func newPump(f *os.File) *pump {
	const chunks = 6
	p := &pump{file: f, free: make(chan []byte, chunks), full: make(chan []byte, chunks), quit: make(chan struct{}), sum: sha1.New()}
	for range chunks {
		p.free <- make([]byte, chunkSize)
	}
	return p
}

// run reads r to its end or to the first error.
func (p *pump) run(ctx context.Context, r io.Reader) {
	defer close(p.full)
	for {
		var chunk []byte
		select {
		case chunk = <-p.free:
		case <-p.quit:
			return
		}
		if ctx.Err() != nil {
			p.err = context.Cause(ctx)
			return
		}
		n, err := r.Read(chunk)
		if n > 0 {
			if !p.there {
				if _, werr := p.file.Write(chunk[:n]); werr != nil {
					p.err = werr
					return
				}
			}
			p.size += int64(n)
			p.hash(chunk[:n])
		}
		p.full <- chunk[:n]
		if err == io.EOF {
			return
		}
		if err != nil {
			p.err = err
			return
		}
	}
}

// hash hashes what cannot be the trailer.
func (p *pump) hash(b []byte) {
	if len(b) >= trailerSize {
		p.sum.Write(p.tail)
		p.sum.Write(b[:len(b)-trailerSize])
		p.tail = append(p.tail[:0], b[len(b)-trailerSize:]...)
		return
	}
	p.tail = append(p.tail, b...)
	if more := len(p.tail) - trailerSize; more > 0 {
		p.sum.Write(p.tail[:more])
		p.tail = append(p.tail[:0], p.tail[more:]...)
	}
}

// Read gives what run has written.
func (p *pump) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.now != nil {
			p.free <- p.now[:cap(p.now)]
			p.now = nil
		}
		chunk, ok := <-p.full
		if !ok {
			if p.err != nil {
				return 0, p.err
			}
			return 0, io.EOF
		}
		p.now, p.rest = chunk, chunk
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}
