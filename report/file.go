//go:build unix

package report

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// File is an open status file. It is written in place, because it may be a mount of a single file (Kubernetes'
// /dev/termination-log) in a directory where nothing can be created, and through the descriptor, because it may be root's
// and is still written when root is gone.
type File struct {
	f    *os.File
	size int64
	mask func(string) string
}

// OpenFile opens the status file, and makes it with mode 0644 if it is missing. What it holds stays until the first Write.
// mask hides secrets in what is written later.
//
// It must be a regular file with one name and no link: the path may lead through directories that others can write. As
// root no directory on the way may be a link either. Anything else is Usage, a file that cannot be opened for another reason IO.
func OpenFile(path string, mask func(string) string) (*File, error) {
	f, err := open(path)
	var cause *fs.PathError
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return nil, unusable(path, "it or a directory on the way is a symbolic link or no directory")
	case errors.Is(err, unix.EISDIR):
		return nil, unusable(path, "it is a directory")
	case errors.Is(err, unix.ENXIO): // a FIFO without a reader, a socket
		return nil, unusable(path, "it is no regular file")
	case errors.Is(err, fs.ErrNotExist):
		return nil, unusable(path, "its directory does not exist")
	case errors.As(err, &cause):
		return nil, fail.Errorf(fail.IO, "status file %q: %s: %w", path, cause.Op, cause.Err)
	case err != nil:
		return nil, fail.Errorf(fail.IO, "status file %q: %w", path, err)
	}
	st, err := fsx.FileStat(f)
	switch {
	case err != nil:
	case !st.IsRegular():
		err = unusable(path, "it is a "+st.Kind())
	case st.Nlink != 1:
		err = unusable(path, fmt.Sprintf("it has %d names (hard links)", st.Nlink))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &File{f: f, size: st.Size, mask: mask}, nil
}

func unusable(path, why string) error {
	return fail.Errorf(fail.Usage, "status file %q: %s", path, why).WithHint("name a regular file, or a new one in an existing directory, by its real path")
}

func open(path string) (*os.File, error) {
	const flags = os.O_WRONLY | os.O_CREATE
	if os.Geteuid() != 0 { // we can do no more than whoever put a link there
		return os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	root, err := fsx.Open("/")
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.OpenFile(path[1:], flags, 0o644)
}

// Write replaces what the file holds by s: one line of JSON, at most MaxSize bytes. A kill at any instant leaves the old or the
// new object, but for an old file that was larger than MaxSize, which may be left empty.
func (f *File) Write(s Status) error {
	b := encode(s, f.mask)
	if f.size > MaxSize {
		if err := f.f.Truncate(0); err != nil {
			return fmt.Errorf("status file: %w", err)
		}
		f.size = 0
	}
	length := int64(len(b))
	if rest := f.size - length; rest > 0 { // blank what is left of the old one in the same write, then cut it off
		b = append(b, bytes.Repeat([]byte(" "), int(rest))...)
	}
	if _, err := f.f.WriteAt(b, 0); err != nil {
		return fmt.Errorf("status file: %w", err)
	}
	f.size = int64(len(b))
	if err := f.f.Truncate(length); err != nil {
		return fmt.Errorf("status file: %w", err)
	}
	f.size = length
	return nil
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }
