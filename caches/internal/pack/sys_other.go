//go:build unix && !linux

package pack

import (
	"errors"
	"os"
)

// parts finds no holes: their bytes are read as zeros.
func parts(*os.File, int64) ([]Part, error) { return nil, nil }

func xattrs(int) ([]Xattr, error) { return nil, errors.ErrUnsupported }

func setXattr(int, Xattr) error { return errors.ErrUnsupported }
