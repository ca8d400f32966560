//go:build unix && !linux

package store

import (
	"errors"
	"os"
	"time"

	"run-task/internal/fsx"
)

func openUnnamed(dir, name string, perm uint32) (*os.File, error) { return nil, errors.ErrUnsupported }

func link(f *os.File, d *fsx.Dir, base string) error { return errors.ErrUnsupported }

func noteUse(d *fsx.Dir, base string, now time.Time) {}
