package checkout

import (
	"path/filepath"
	"strings"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// Inside tells whether path is dir or below it, links followed as far as both exist. An empty path is nowhere.
func Inside(path, dir string) bool {
	_, ok := below(dir, path)
	return ok
}

// below is path relative to dir, "." for dir itself. ok is false if it is elsewhere.
func below(dir, path string) (rel string, ok bool) {
	p, known := fsx.Physical(path)
	d, ok := fsx.Physical(dir)
	if path == "" || !ok || !known {
		return "", false
	}
	rel, err := filepath.Rel(d, p)
	return rel, err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// ValidateAll refuses checkouts that would undo each other: two into one directory, or one inside another.
func ValidateAll(repos []Repo) error {
	for i, a := range repos {
		for j, b := range repos {
			if i != j && Inside(a.Dir, b.Dir) {
				return fail.Errorf(fail.Usage, "checkout %q is in the checkout %q, which would remove it", a.Dir, b.Dir).WithHint("put them beside each other")
			}
		}
	}
	return nil
}

// kept are those of the paths that are inside dir, relative to it.
func kept(dir string, paths []string) (inside []string) {
	for _, p := range paths {
		if rel, ok := below(dir, p); ok && rel != "." {
			inside = append(inside, rel)
		}
	}
	return inside
}

// leadsTo tells whether name, below root, is one of the kept paths or a directory with nothing in it but the way to one.
func leadsTo(root *fsx.Dir, name string, kept []string) bool {
	way := false
	for _, k := range kept {
		if k == name {
			return true
		}
		way = way || strings.HasPrefix(k, name+"/")
	}
	if !way {
		return false
	}
	d, err := root.OpenDir(name)
	if err != nil {
		return false
	}
	defer d.Close()
	names, err := d.Names()
	for _, n := range names {
		if !leadsTo(root, name+"/"+n, kept) {
			return false
		}
	}
	return err == nil
}
