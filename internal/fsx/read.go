//go:build unix

package fsx

import (
	"bytes"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ReadFile reads a regular file of at most max bytes whose name a user gave: links to it are followed, and a FIFO is not waited for. EFBIG means a longer
// one, EINVAL one that is no regular file.
func ReadFile(name string, max int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readRegular(f, max, func(err error) error { return &fs.PathError{Op: "read", Path: name, Err: err} })
}

// readRegular reads what is regular and short; wrap tells of what else it is.
func readRegular(f *os.File, max int64, wrap func(error) error) ([]byte, error) {
	st, err := FileStat(f)
	if err != nil {
		return nil, err
	}
	if !st.IsRegular() {
		return nil, wrap(unix.EINVAL)
	}
	if st.Size > max {
		return nil, wrap(unix.EFBIG)
	}
	var b bytes.Buffer
	b.Grow(int(st.Size) + bytes.MinRead) // it may grow meanwhile
	if _, err = b.ReadFrom(io.LimitReader(f, max+1)); err == nil && int64(b.Len()) > max {
		err = wrap(unix.EFBIG)
	}
	return b.Bytes(), err
}
