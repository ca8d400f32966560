// Package pack writes a directory tree into one file and reads it back. The file is a tar archive, compressed with zstd (RFC 8878), that `tar --zstd -x` reads. It is
// written by what is also all that it takes from it: nothing in it is believed that is not exactly as Write would have written it.
//
// # Format
//
// The file is a sequence of zstd frames. Data frames are independent of each other, hold at most 1 MiB each, and give one POSIX.1-2001 tar stream. In between are
// skippable frames: manifest frames, each with a zstd frame of records (see Entry) of what the data frames hold, in the same order; at the end a table of all frames
// before it with the SHA-256 of each, and a footer of a fixed size with the SHA-256 of the table, and of itself. So each byte is proven by the footer, and a frame
// can be proven before it is decoded. The skippable frames are not at the front because tar recognizes its format there.
//
// Times are whole seconds in the tar headers; the manifest has the nanoseconds. Owners are in neither.
package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	frameBytes  = 1 << 20 // of a data or manifest frame before it is compressed, at most
	tableFrames = 1 << 16 // in one frame of the table

	magicManifest = 0x184d2a52
	magicTable    = 0x184d2a53
	magicFooter   = 0x184d2a54
	skippableHead = 8

	kindData, kindManifest = 0, 1

	rowSize = 1 + 4 + 4 + sha256.Size
	// FooterSize is how many bytes at the end of an archive ReadFooter needs.
	FooterSize = skippableHead + 8 + 6*8 + 3*sha256.Size
)

var signature = [8]byte{'r', 'u', 'n', 't', 'a', 's', 'k', 1}

// ErrDamaged is wrapped by the errors of archives that are not what Write writes: cut off, changed, foreign or hostile.
var ErrDamaged = errors.New("the archive is damaged")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDamaged}, args...)...)
}

// Footer is what the end of an archive tells of it.
type Footer struct {
	Entries int64 // of every type, the root included
	Files   int64 // regular ones, each once whatever its names
	Bytes   int64 // of their contents, without holes
	Stream  int64 // of the tar stream
	// Content is the same for two trees if they have the same names, types, permissions, contents, links and, where they are kept, extended attributes; times do not count.
	Content [sha256.Size]byte

	frames int64 // that the table lists
	table  [sha256.Size]byte
	packed int64 // bytes before the table
}

func (f *Footer) encode() []byte {
	b := skippable(magicFooter, FooterSize-skippableHead)
	b = append(b, signature[:]...)
	for _, n := range []int64{f.Entries, f.Files, f.Bytes, f.Stream, f.frames, f.packed} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	b = append(append(b, f.Content[:]...), f.table[:]...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// ReadFooter reads the footer from bytes at the end of an archive; earlier ones do not matter.
func ReadFooter(end []byte) (f Footer, err error) {
	if len(end) < FooterSize {
		return f, damaged("it has only %d bytes", len(end))
	}
	end = end[len(end)-FooterSize:]
	body, sum := end[:FooterSize-sha256.Size], [sha256.Size]byte(end[FooterSize-sha256.Size:])
	if !bytes.Equal(body[:skippableHead], skippable(magicFooter, FooterSize-skippableHead)) || [8]byte(body[skippableHead:]) != signature {
		return f, damaged("its end is missing, or it is another kind of file")
	}
	if sha256.Sum256(body) != sum {
		return f, damaged("its footer has changed")
	}
	body = body[skippableHead+len(signature):]
	for _, n := range []*int64{&f.Entries, &f.Files, &f.Bytes, &f.Stream, &f.frames, &f.packed} {
		*n = int64(binary.LittleEndian.Uint64(body))
		if body = body[8:]; *n < 0 {
			return f, damaged("its footer has a size of more than 2^63 bytes")
		}
	}
	f.Content, f.table = [sha256.Size]byte(body), [sha256.Size]byte(body[sha256.Size:])
	return f, nil
}

func skippable(magic, size uint32) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, magic), size)
}

// row is a frame as the table lists it. Frames follow each other without a gap.
type row struct {
	kind        byte
	packed, raw uint32 // bytes: in the file, and decoded
	sum         [sha256.Size]byte
	offset      int64 // in the file; not written
}

// encodeTable gives skippable frames, and what the footer says of them.
func encodeTable(rows []row) (frames []byte, sum [sha256.Size]byte) {
	h := sha256.New()
	for len(rows) > 0 {
		some := rows[:min(len(rows), tableFrames)]
		rows = rows[len(some):]
		frames = append(frames, skippable(magicTable, uint32(len(some)*rowSize))...)
		body := len(frames)
		for _, r := range some {
			frames = append(frames, r.kind)
			frames = binary.LittleEndian.AppendUint32(frames, r.packed)
			frames = binary.LittleEndian.AppendUint32(frames, r.raw)
			frames = append(frames, r.sum[:]...)
		}
		h.Write(frames[body:])
	}
	return frames, [sha256.Size]byte(h.Sum(nil))
}

// readTable reads the rows that lie between the frames and the footer of a file of that size.
func readTable(r io.ReaderAt, size int64, f *Footer) ([]row, error) {
	chunks := (f.frames + tableFrames - 1) / tableFrames
	if f.frames > size/skippableHead || f.packed+f.frames*rowSize+chunks*skippableHead+FooterSize != size {
		return nil, damaged("it has %d bytes, and its footer tells of others", size)
	}
	rows := make([]row, 0, f.frames)
	h := sha256.New()
	at, offset := f.packed, int64(0)
	for int64(len(rows)) < f.frames {
		n := min(f.frames-int64(len(rows)), tableFrames)
		b := make([]byte, skippableHead+n*rowSize)
		if _, err := r.ReadAt(b, at); err != nil {
			return nil, fmt.Errorf("read the table of frames: %w", err)
		}
		at += int64(len(b))
		if !bytes.Equal(b[:skippableHead], skippable(magicTable, uint32(n*rowSize))) {
			return nil, damaged("its table of frames has changed")
		}
		b = b[skippableHead:]
		h.Write(b)
		for ; len(b) > 0; b = b[rowSize:] {
			r := row{kind: b[0], packed: binary.LittleEndian.Uint32(b[1:]), raw: binary.LittleEndian.Uint32(b[5:]), sum: [sha256.Size]byte(b[9:]), offset: offset}
			rows = append(rows, r)
			offset += int64(r.packed)
		}
	}
	if [sha256.Size]byte(h.Sum(nil)) != f.table {
		return nil, damaged("its table of frames has changed")
	}
	if offset != f.packed {
		return nil, damaged("its table of frames does not fit it")
	}
	for _, r := range rows {
		if r.kind > kindManifest || r.raw > frameBytes || r.raw == 0 || r.packed > 2*frameBytes || r.packed < skippableHead {
			return nil, damaged("its table has a frame that is none of ours")
		}
	}
	return rows, nil
}
