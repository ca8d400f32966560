package keys

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// ErrNoMatch is wrapped by Files' error for a pattern that fits no file.
var ErrNoMatch = errors.New("no file fits")

// Files is the SHA-256 of the files that the patterns fit, sorted by name: for each the length of its name as unsigned LEB128, its name, and the SHA-256 of its content.
// In a pattern * and ? and [a-z] stand for parts of a name, ** for any number of directories. No link is followed, and no directory called .git looked into.
func Files(dir *fsx.Dir, patterns []string) ([]byte, error) {
	w := &walk{found: map[string]bool{}}
	for _, p := range patterns {
		p = strings.TrimPrefix(p, "./")
		parts := slices.CompactFunc(strings.Split(p, "/"), func(a, b string) bool { return a == "**" && b == "**" })
		for _, part := range parts {
			if _, err := path.Match(part, ""); err != nil || part == "" || part == "." || part == ".." {
				return nil, fail.Errorf(fail.Usage, "{{files %q}}: it is no pattern of names below the working directory", p).WithHint(`say {{files "go.sum"}} or {{files "**/package-lock.json"}}`)
			}
		}
		n := len(w.found)
		w.matched = false
		if err := w.walk(dir, "", parts, 0); err != nil {
			return nil, fmt.Errorf("{{files %q}}: %w", p, err)
		}
		if len(w.found) == n && !w.matched {
			return nil, fmt.Errorf("{{files %q}}: %w", p, ErrNoMatch)
		}
	}
	names := make([]string, 0, len(w.found))
	for n := range w.found {
		names = append(names, n)
	}
	slices.Sort(names)
	all := sha256.New()
	for _, n := range names {
		sum, err := digest(dir, n)
		if err != nil {
			return nil, fmt.Errorf("{{files}}: %w", err)
		}
		all.Write(append(binary.AppendUvarint(nil, uint64(len(n))), n...))
		all.Write(sum)
	}
	return all.Sum(nil), nil
}

func digest(dir *fsx.Dir, name string) ([]byte, error) {
	f, err := dir.OpenFile(name, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return h.Sum(nil), err
}

type walk struct {
	found   map[string]bool
	matched bool // something fits that was found before
}

func (w *walk) walk(d *fsx.Dir, at string, parts []string, depth int) error {
	names, err := d.Names()
	if err != nil {
		return err
	}
	if depth > fsx.TooDeep {
		return fsx.ErrTooDeep
	}
	for _, name := range names {
		if err := w.visit(d, at, name, parts, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) visit(d *fsx.Dir, at, name string, parts []string, depth int) error {
	full := path.Join(at, name)
	for i := 0; i < len(parts); i++ { // each ** may stand for nothing
		fits := parts[i] == "**"
		if !fits {
			fits, _ = path.Match(parts[i], name)
		}
		if fits {
			rest := parts[i:]
			if parts[i] != "**" {
				rest = parts[i+1:]
			}
			if err := w.take(d, full, name, rest, parts[i] == "**", depth); err != nil {
				return err
			}
		}
		if parts[i] != "**" {
			break
		}
	}
	return nil
}

// take goes into a directory with what is left of the pattern, or finds a file with which it ends.
func (w *walk) take(d *fsx.Dir, full, name string, rest []string, any bool, depth int) error {
	st, err := d.Lstat(name)
	if err != nil {
		return err
	}
	if st.IsRegular() && (len(rest) == 0 || any && len(rest) == 1) {
		w.found[full], w.matched = true, true
	}
	if !st.IsDir() || len(rest) == 0 || name == ".git" {
		return nil
	}
	sub, err := d.OpenDir(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	return w.walk(sub, full, rest, depth+1)
}
