//go:build unix

package fsx

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Move makes old of one directory new of another one on the same file system, both names with no component that is a link. A file there is replaced, and an empty directory by a directory.
func Move(from *Dir, old string, to *Dir, new string) error {
	return across("rename", from, old, to, new, unix.Renameat)
}

// LinkAcross makes a second name, in another directory, of a file or of a link itself.
func LinkAcross(from *Dir, old string, to *Dir, new string) error {
	return across("link", from, old, to, new, func(from int, old string, to int, new string) error { return unix.Linkat(from, old, to, new, 0) })
}

// Exchange makes each of two names what the other one was, at once. Not all file systems can: EINVAL, ENOSYS.
func Exchange(d *Dir, a, b string) error { return across("exchange", d, a, d, b, exchangeNames) }

func across(op string, from *Dir, old string, to *Dir, new string, call func(from int, old string, to int, new string) error) error {
	return from.at(op, old, func(ffd int, fbase string) error {
		return to.at(op, new, func(tfd int, tbase string) error { return call(ffd, fbase, tfd, tbase) })
	})
}

// Unsupported tells whether an error means that a file system or kernel cannot do a thing at all.
func Unsupported(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EMLINK)
}
