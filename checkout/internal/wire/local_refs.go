package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
)

// maxRef is the longest name of a ref that is read.
const maxRef = 1000

// tagRefs are the refs below refs/tags, unpeeled: gitrepository-layout, "refs" and "packed-refs". What is no ref there, and
// symbolic ones, are ignored.
func (r *repository) tagRefs() (map[string]plumbing.Hash, error) {
	tags, err := r.packedTags()
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

func (r *repository) packedTags() (map[string]plumbing.Hash, error) {
	tags := map[string]plumbing.Hash{}
	f, err := openText(filepath.Join(r.common, "packed-refs"))
	if errors.Is(err, fs.ErrNotExist) {
		return tags, nil
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
		if strings.HasPrefix(name, "refs/tags/") && len(name) <= maxRef {
			tags[name] = h
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, r.badRefs(err)
	} else if err != nil {
		return nil, r.error(err)
	}
	return tags, nil
}

func (r *repository) badRefs(err error) error {
	return &repositoryError{fail.Errorf(fail.BadData, "repository %q: packed-refs is damaged: %w", r.path, err).WithHint("look with git fsck")}
}
