//go:build unix

package fsx

import (
	"errors"
	"io"
	"os"
)

// Extent is a run of a file's bytes.
type Extent struct{ Offset, Size int64 }

// Xattr is an extended attribute.
type Xattr struct{ Name, Value string }

// CopyContent makes an empty file's content that of another one of that size: the same blocks where the file system can share them, else with the same holes.
func CopyContent(to, from *os.File, size int64) error {
	if Clone(to, from) == nil {
		return nil
	}
	extents, err := Extents(from, size, 1<<20)
	if err != nil {
		return err
	}
	if extents == nil {
		extents = []Extent{{0, size}}
	}
	for _, e := range extents {
		if _, err = to.Seek(e.Offset, io.SeekStart); err == nil {
			_, err = from.Seek(e.Offset, io.SeekStart)
		}
		if err == nil {
			_, err = io.CopyN(to, from, e.Size)
		}
		if err != nil && !errors.Is(err, io.EOF) { // it shrank: the rest is a hole
			return err
		}
	}
	return to.Truncate(size)
}
