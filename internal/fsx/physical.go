//go:build unix

package fsx

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Physical is path, absolute, with the links in its existing part resolved; the rest need not exist. It is false where a
// link leads nowhere or something may not be looked at. Like filepath.Clean it takes "x/.." away before it looks.
func Physical(path string) (string, bool) {
	p, err := filepath.Abs(path)
	for rest := ""; err == nil; p = filepath.Dir(p) {
		real, e := filepath.EvalSymlinks(p)
		if e == nil {
			return filepath.Join(real, rest), true
		}
		if _, exists := os.Lstat(p); exists == nil || !errors.Is(e, fs.ErrNotExist) {
			return "", false
		}
		rest = filepath.Join(filepath.Base(p), rest)
	}
	return "", false
}
