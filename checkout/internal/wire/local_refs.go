package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
)

// maxRef is the longest name of a ref that is read.
const maxRef = 1000

// tagRefs are the refs below refs/tags, unpeeled: gitrepository-layout, "refs" and "packed-refs". What is no ref there, and
// symbolic ones, are ignored.
func (r *repository) tagRefs() (map[string]plumbing.Hash, error) {
	tags, err := r.packedRefs(func(name string) bool { return strings.HasPrefix(name, "refs/tags/") })
	if err != nil {
		return nil, err
	}
	for dirs := []string{"refs/tags"}; len(dirs) > 0; {
		dir := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		entries, err := os.ReadDir(filepath.Join(r.common, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, r.error(err)
		}
		for _, e := range entries {
			name := path.Join(dir, e.Name())
			switch {
			case len(name) > maxRef:
			case e.IsDir():
				dirs = append(dirs, name)
			case e.Type().IsRegular() && !strings.HasSuffix(name, ".lock"):
				h, ok, err := r.looseRef(name)
				if err != nil {
					return nil, r.error(err)
				}
				if ok {
					tags[name] = h
				}
			}
		}
	}
	return tags, nil
}

const maxSymbolic = 5 // refs that lead to refs; git follows as many

// ref finds a ref by its full name, symbolic ones followed. It reports false if there is none, or one that leads to nothing yet.
func (r *repository) ref(name string) (h plumbing.Hash, ok bool, err error) {
	for range maxSymbolic {
		dir := r.common
		if name == "HEAD" {
			dir = r.own
		}
		text, err := readRef(filepath.Join(dir, name))
		if err != nil {
			return h, false, r.error(err)
		}
		target, symbolic := strings.CutPrefix(text, "ref:")
		if !symbolic {
			if h, ok := parseHash(strings.TrimSpace(text)); ok {
				return h, true, nil
			}
			packed, err := r.packedRefs(func(n string) bool { return n == name })
			h, ok := packed[name]
			return h, ok, err
		}
		if name = strings.TrimSpace(target); name == "refs/heads/.invalid" { // what other programs shall see of a reftable
			return h, false, fail.Errorf(fail.Usage, "repository %q: its refs are in a reftable, which is not supported", r.path).
				WithHint("give the commit's full SHA, or the repository's URL at a server")
		}
		if !ValidRef(name) {
			return h, false, nil
		}
	}
	return h, false, nil
}

// readRef is the beginning of a ref's file, "" where there is none.
func readRef(file string) (string, error) {
	f, err := openText(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, errIrregular) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRef+10))
	return string(b), err
}

// localNamed are those of the refs that a repository on this machine has.
func localNamed(ctx context.Context, u URL, names []string) (refs []ref, err error) {
	r, err := openRepository(u.Path, nil)
	if err != nil {
		return nil, err
	}
	defer r.close()
	for _, name := range names {
		h, ok, err := r.ref(name)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		chain := &walk{repository: r, ctx: ctx, seen: map[plumbing.Hash]bool{}}
		commit, err := chain.peel(h)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			err = r.objectError(commit, err)
		}
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref{name: name, hash: h, peeled: commit})
	}
	return refs, nil
}

func (r *repository) looseRef(name string) (h plumbing.Hash, ok bool, err error) {
	f, err := openText(filepath.Join(r.common, name))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errIrregular) { // now
		return h, false, nil
	}
	if err != nil {
		return h, false, err
	}
	defer f.Close()
	line, err := bufio.NewReaderSize(f, 64).Peek(2 * len(h))
	if err == nil {
		h, ok = parseHash(string(line))
	}
	return h, ok, nil
}

// packedRefs are those in the file packed-refs whose names are wanted.
func (r *repository) packedRefs(wanted func(name string) bool) (map[string]plumbing.Hash, error) {
	refs := map[string]plumbing.Hash{}
	f, err := openText(filepath.Join(r.common, "packed-refs"))
	if errors.Is(err, fs.ErrNotExist) {
		return refs, nil
	}
	if err != nil {
		return nil, r.error(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if line == "" || line[0] == '#' || line[0] == '^' { // a comment, or what the tag before leads to
			continue
		}
		id, name, _ := strings.Cut(line, " ")
		h, ok := parseHash(id)
		if !ok || name == "" {
			return nil, r.badRefs(fmt.Errorf("%.100q", line))
		}
		if len(name) <= maxRef && wanted(name) {
			refs[name] = h
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, r.badRefs(err)
	} else if err != nil {
		return nil, r.error(err)
	}
	return refs, nil
}

func (r *repository) badRefs(err error) error {
	return &repositoryError{fail.Errorf(fail.BadData, "repository %q: packed-refs is damaged: %w", r.path, err).WithHint("look with git fsck")}
}
