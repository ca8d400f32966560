package worktree

import (
	"slices"
	"strings"

	"run-task/checkout/internal/index"
)

// Cone is a sparse checkout in git's cone mode (git-sparse-checkout(1)): some directories with all below them, and the files directly in each of their
// parents, the top included. Nil is everything.
type Cone struct {
	dirs    []string        // sorted, none below another
	parents map[string]bool // of them, "" for the top
}

// NewCone is the cone of some directories: relative paths without "." and "..", such as "a/b". No directories are the files at the top alone.
func NewCone(dirs []string) *Cone {
	c := &Cone{parents: map[string]bool{"": true}}
	for _, d := range slices.Sorted(slices.Values(dirs)) {
		if !slices.ContainsFunc(c.dirs, func(have string) bool { return within(d, have) }) {
			c.dirs = append(c.dirs, d)
		}
	}
	for _, d := range c.dirs {
		for i, b := range []byte(d) {
			if b == '/' {
				c.parents[d[:i]] = true
			}
		}
	}
	return c
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir) && path[len(dir)] == '/'
}

// Has tells whether a file, link or submodule is in the cone.
func (c *Cone) Has(path string) bool {
	if c == nil {
		return true
	}
	dir := ""
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir = path[:i]
	}
	return c.parents[dir] || c.whole(dir)
}

// Enters tells whether there may be something of the cone in a directory.
func (c *Cone) Enters(dir string) bool { return c == nil || c.parents[dir] || c.whole(dir) }

func (c *Cone) whole(dir string) bool {
	for _, d := range c.dirs {
		if within(dir, d) {
			return true
		}
	}
	return false
}

// Patterns are the cone as .git/info/sparse-checkout has it.
func (c *Cone) Patterns() string {
	escape := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace
	all := []string{"/*", "!/*/"}
	for parent := range c.parents {
		if parent != "" {
			all = append(all, "/"+escape(parent)+"/", "!/"+escape(parent)+"/*/")
		}
	}
	slices.SortFunc(all[2:], func(a, b string) int { return strings.Compare(strings.TrimPrefix(a, "!"), strings.TrimPrefix(b, "!")) })
	for _, d := range c.dirs {
		all = append(all, "/"+escape(d)+"/")
	}
	return strings.Join(all, "\n") + "\n"
}

// Missing are the directories of the cone that a plan has no files in.
func (c *Cone) missing(p *plan) (dirs []string) {
	if c == nil {
		return nil
	}
	for _, d := range c.dirs {
		if !p.hasDir(d) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

// hasDir tells whether the tree has a directory, in the cone or outside.
func (p *plan) hasDir(path string) bool {
	i := p.search(path + "/")
	return i < len(p.files) && strings.HasPrefix(p.files[i].Path, path+"/")
}

// narrow marks what is outside of a cone, and tells whether that is not as before.
func (p *plan) narrow(c *Cone) (changed bool) {
	for i := range p.files {
		f := &p.files[i]
		skip := !c.Has(f.Path)
		if skip != f.Skip {
			f.Skip, f.known, changed = skip, false, true
		}
		if skip {
			f.keep, f.known, f.Stat = true, false, index.Stat{} // its content need not be here
		}
	}
	if c != nil {
		p.visible = make([]int, len(p.files)+1)
		for i := range p.files {
			p.visible[i+1] = p.visible[i]
			if !p.files[i].Skip {
				p.visible[i+1]++
			}
		}
	}
	return changed
}

// shows tells whether a directory is in the worktree.
func (p *plan) shows(dir *index.Tree) bool {
	return p.visible == nil || p.visible[dir.First+dir.Files] > p.visible[dir.First]
}
