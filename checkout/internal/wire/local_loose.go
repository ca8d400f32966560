package wire

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"

	"run-task/internal/fsx"
)

// looseReader reads loose objects, one at a time: zlib streams of type, space, size, NUL and content.
type looseReader struct {
	in  *bufio.Reader
	z   io.ReadCloser
	out *bufio.Reader
}

// maxLooseHead is the longest that stands before the content.
const maxLooseHead = len("commit 9223372036854775807\x00")

// read reads one, into buf if it is small and there is room.
func (l *looseReader) read(dir *fsx.Dir, h plumbing.Hash, buf []byte) (object, error) {
	name := h.String()
	f, err := dir.OpenFile(name[:2]+"/"+name[2:], unix.O_RDONLY, 0)
	if err != nil {
		return object{}, err
	}
	o, err := l.begin(f)
	if err != nil {
		f.Close()
		return object{}, err
	}
	s := &looseStream{looseReader: l, file: f, left: o.size, sum: plumbing.NewHasher(o.typ, o.size), want: h}
	if o.size > maxInline {
		o.stream = s
		return o, nil
	}
	defer f.Close()
	b := bytes.NewBuffer(slices.Grow(buf[:0], int(o.size)+bytes.MinRead))
	_, err = b.ReadFrom(s)
	o.data = b.Bytes()
	return o, err
}

func (l *looseReader) begin(f *os.File) (o object, err error) {
	if st, err := fsx.FileStat(f); err != nil {
		return o, err
	} else if !st.IsRegular() {
		return o, errIrregular
	}
	if l.in == nil {
		l.in, l.out = bufio.NewReaderSize(nil, 32<<10), bufio.NewReaderSize(nil, 32<<10)
	}
	l.in.Reset(f)
	if z, ok := l.z.(zlib.Resetter); ok {
		err = z.Reset(l.in, nil)
	} else {
		l.z, err = zlib.NewReader(l.in)
	}
	if err != nil {
		return o, noEOF(err)
	}
	l.out.Reset(l.z)
	b, err := l.out.Peek(maxLooseHead)
	if err != nil && err != io.EOF {
		return o, err
	}
	head, _, ok := strings.Cut(string(b), "\x00")
	typ, size, _ := strings.Cut(head, " ")
	n, err := strconv.ParseUint(size, 10, 63)
	if o.typ, o.size = looseTypes[typ], int64(n); !ok || o.typ == plumbing.InvalidObject || err != nil {
		return o, errors.New("no loose object")
	}
	l.out.Discard(len(head) + 1)
	return o, nil
}

var looseTypes = map[string]plumbing.ObjectType{
	"commit": plumbing.CommitObject, "tree": plumbing.TreeObject, "blob": plumbing.BlobObject, "tag": plumbing.TagObject,
}

// looseStream is a loose object's content. The Read that would give io.EOF gives another error if it is not what the name says.
type looseStream struct {
	*looseReader
	file *os.File
	left int64
	sum  plumbing.Hasher
	want plumbing.Hash
}

func (s *looseStream) Read(b []byte) (int, error) {
	n, err := s.out.Read(b)
	s.sum.Write(b[:n])
	s.left -= int64(n)
	if s.left < 0 || err == io.EOF && s.left > 0 {
		return 0, errors.New("its size is not what it says")
	}
	if err != io.EOF {
		return n, err
	}
	if got := s.sum.Sum(); got != s.want {
		return 0, fmt.Errorf("its content has the name %s", got)
	}
	if _, err := s.in.ReadByte(); err != io.EOF {
		return 0, errors.New("something follows it")
	}
	return n, io.EOF
}

func (s *looseStream) Close() error { return s.file.Close() }
