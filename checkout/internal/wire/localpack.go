package wire

import (
	"bufio"
	"compress/zlib"
	"context"
	"crypto"
	"encoding/binary"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/hash"
)

// writePack writes a pack without deltas (gitformat-pack), one object in memory at a time. Each
// object's content was compared with its name: the receiver could only say that one is missing.
func (r *repository) writePack(ctx context.Context, out io.Writer, list []plumbing.Hash) error {
	sum := hash.New(crypto.SHA1)
	buf := bufio.NewWriterSize(io.MultiWriter(out, sum), 64<<10)
	head := []byte("PACK\x00\x00\x00\x02")
	buf.Write(binary.BigEndian.AppendUint32(head, uint32(len(list))))
	z, err := zlib.NewWriterLevel(buf, zlib.BestSpeed)
	if err != nil {
		return err
	}
	for _, h := range list {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		o, err := r.object(h)
		if err != nil {
			return r.objectError(h, err)
		}
		buf.Write(entryHeader(o.typ, o.size))
		z.Reset(buf)
		if err := r.writeContent(z, h, o); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
	}
	if err := buf.Flush(); err != nil {
		return err
	}
	_, err = out.Write(sum.Sum(nil))
	return err
}

func (r *repository) writeContent(w io.Writer, h plumbing.Hash, o object) error {
	if o.stream == nil {
		_, err := w.Write(o.data)
		return err
	}
	defer o.stream.Close()
	if _, err := io.Copy(w, o.stream); err != nil {
		return r.objectError(h, err)
	}
	return nil
}

// entryHeader is an entry's type and size: four bits of the size with the type, then seven a byte.
func entryHeader(t plumbing.ObjectType, size int64) []byte {
	b := []byte{byte(t)<<4 | byte(size&15)}
	for size >>= 4; size > 0; size >>= 7 {
		b[len(b)-1] |= 0x80
		b = append(b, byte(size&0x7f))
	}
	return b
}
