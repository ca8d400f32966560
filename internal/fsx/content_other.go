//go:build unix && !linux

package fsx

import (
	"errors"
	"os"
)

// Extents finds no holes: their bytes are read as zeros.
func Extents(*os.File, int64, int) ([]Extent, error) { return nil, nil }

// UserXattrs is not supported: see Linux.
func UserXattrs(int) ([]Xattr, error) { return nil, errors.ErrUnsupported }

// SetXattr is not supported: see Linux.
func SetXattr(int, Xattr) error { return errors.ErrUnsupported }
