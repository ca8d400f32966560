//go:build unix

package fsx

import (
	"fmt"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// Temp makes an empty file without a name in a directory, for reading and writing: it is gone when it is closed, however the process ends.
func Temp(dir string) (*os.File, error) {
	d, err := Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if f, err := unnamed(d); err == nil {
		return f, nil
	}
	name := fmt.Sprintf(".run-task-temp-%x", rand.Uint64())
	f, err := d.OpenFile(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err == nil {
		err = d.Unlink(name)
	}
	return f, err
}
