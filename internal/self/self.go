// Package self knows the running binary: its version, its content's hash, and how to put it somewhere else.
package self

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// Name is the binary's file name wherever Install puts it.
const Name = "run-task"

// Version is the module's version and the commit that it was built from, as the Go tool recorded them.
func Version() (version, commit string) {
	version, commit = "devel", "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version, commit
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		version = v
	}
	dirty := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty {
		commit += " (modified)"
	}
	return version, commit
}

// Hash is the sha256 of the running binary in hex: what ties a cache's name or requirements to this very program.
var Hash = sync.OnceValues(func() (string, error) {
	f, err := open()
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("hash of the running binary: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
})

func open() (*os.File, error) {
	name, err := os.Executable()
	if err != nil {
		return nil, fail.Errorf(fail.OS, "find the running binary: %w", err).WithHint("mount /proc in the container")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fail.Errorf(fail.IO, "open the running binary: %w", err)
	}
	return f, nil
}

// Install puts the running binary into dir (made if missing) as an executable file that appears whole or not at all; one that is there is replaced.
// The file's path is returned.
func Install(dir string) (string, error) {
	f, err := open()
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	d, err := fsx.Open(dir)
	if err != nil {
		return "", err
	}
	defer d.Close()
	return dir + "/" + Name, d.WriteFile(Name, data, 0o755)
}
