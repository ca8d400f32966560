package keys

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// ErrNoMatch is wrapped by Files' error for a pattern that fits no file.
var ErrNoMatch = errors.New("no file fits")

// Files is the SHA-256 of the regular files that the patterns fit, sorted by the bytes of their names: for each the length of its name as unsigned LEB128,
// its name, and the SHA-256 of its content.
//
// In a pattern * and ? and [a-z] stand for parts of a name, ** for any number of directories and, at its end, for all that is below. Hidden files are no
// exception, but what is called .git is left out. No link is followed. A pattern that leads out of dir is fail.Usage. A context that ends ends it with its cause.
func Files(ctx context.Context, dir *fsx.Dir, globs []string) ([]byte, error) {
	w := &walk{ctx: ctx, fits: make([]bool, len(globs))}
	var states []state
	for i, g := range globs {
		parts, err := parseGlob(g)
		if err != nil {
			return nil, err
		}
		w.globs, states = append(w.globs, parts), append(states, state{glob: i})
	}
	if err := w.dir(dir, "", states, fsx.TooDeep); err != nil {
		return nil, fmt.Errorf("{{files}}: %w", err)
	}
	if i := slices.Index(w.fits, false); i >= 0 {
		return nil, fmt.Errorf("{{files %q}}: %w", globs[i], ErrNoMatch)
	}
	slices.SortFunc(w.found, func(a, b file) int { return strings.Compare(a.name, b.name) })
	all := sha256.New()
	for _, f := range w.found {
		all.Write(append(binary.AppendUvarint(nil, uint64(len(f.name))), f.name...))
		all.Write(f.sum)
	}
	return all.Sum(nil), nil
}

// parseGlob takes a pattern apart at its slashes.
func parseGlob(glob string) ([]string, error) {
	parts := strings.Split(strings.TrimPrefix(glob, "./"), "/")
	for _, part := range parts {
		if _, err := path.Match(part, ""); err != nil || part == "" || part == "." || part == ".." {
			return nil, fail.Errorf(fail.Usage, "{{files %q}}: it is no pattern of names below the working directory", glob).
				WithHint(`say {{files "go.sum"}} or {{files "**/package-lock.json"}}`)
		}
	}
	return parts, nil
}

type file struct {
	name string
	sum  []byte
}

// walk is in a directory once, with all patterns: with each at a time, a tree can be made in which several ** take for ever.
type walk struct {
	ctx   context.Context
	globs [][]string
	fits  []bool // of each pattern, whether it fits any file
	found []file
}

// state is the part of a pattern that the next name is to fit.
type state struct{ glob, part int }

// step gives the states below a name, and the patterns that end with it.
func (w *walk) step(states []state, name string) (below []state, ends []int) {
	for _, s := range states {
		parts := w.globs[s.glob]
		for ; parts[s.part] == "**"; s.part++ { // each may stand for nothing
			below = append(below, s)
			if s.part == len(parts)-1 {
				break
			}
		}
		if parts[s.part] != "**" {
			if ok, _ := path.Match(parts[s.part], name); !ok {
				continue
			}
		}
		if s.part == len(parts)-1 {
			ends = append(ends, s.glob)
		} else {
			below = append(below, state{s.glob, s.part + 1})
		}
	}
	slices.SortFunc(below, func(a, b state) int { return cmp.Or(a.glob-b.glob, a.part-b.part) })
	return slices.Compact(below), ends
}

func (w *walk) dir(d *fsx.Dir, prefix string, states []state, levels int) error {
	if levels == 0 {
		return fsx.ErrTooDeep
	}
	names, err := d.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		if name == ".git" {
			continue
		}
		below, ends := w.step(states, name)
		if len(below)+len(ends) == 0 {
			continue
		}
		// What is gone by now might as well have gone before it was listed.
		if err := w.visit(d, prefix, name, below, ends, levels); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (w *walk) visit(d *fsx.Dir, prefix, name string, below []state, ends []int, levels int) error {
	st, err := d.Lstat(name)
	switch {
	case err != nil:
		return err
	case st.IsRegular() && len(ends) > 0:
		sum, err := digest(w.ctx, d, name)
		if err != nil {
			return err
		}
		w.found = append(w.found, file{prefix + name, sum})
		for _, i := range ends {
			w.fits[i] = true
		}
	case st.IsDir() && len(below) > 0:
		sub, err := d.OpenDir(name)
		if err != nil {
			return err
		}
		defer sub.Close()
		return w.dir(sub, prefix+name+"/", below, levels-1)
	}
	return nil
}

// digest is the SHA-256 of a file's content.
func digest(ctx context.Context, d *fsx.Dir, name string) ([]byte, error) {
	f, err := d.OpenFile(name, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := fsx.FileStat(f); err != nil {
		return nil, err
	} else if !st.IsRegular() { // it was when we looked
		return nil, &fs.PathError{Op: "read", Path: f.Name(), Err: unix.EINVAL}
	}
	h := sha256.New()
	_, err = io.Copy(h, reader{ctx, f})
	return h.Sum(nil), err
}

// reader reads until its context ends.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(b)
}
