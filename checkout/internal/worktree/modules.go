package worktree

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/treepath"
	"run-task/internal/fail"
)

// Submodule is a commit of another repository that the tree has at a path, and what the tree's .gitmodules (gitmodules(5)) says about it.
type Submodule struct {
	Path   string
	Commit plumbing.Hash

	Name                string // "" if .gitmodules does not have the path
	URL, Branch, Update string // as they are there, "" if they are not
}

const modulesName = ".gitmodules"

// checkModules refuses a .gitmodules whose names or paths would lead a submodule's files elsewhere: names become directories
// below .git, paths below the worktree (CVE-2018-11235 and its like), if not here then in the task's next git command. That it is no configuration
// from some line on is no error here: what is before it counts.
func (p *plan) checkModules(data []byte) error {
	all, _ := parseConfig(data)
	for _, s := range all {
		section, name, key := s.cut()
		if section != "submodule" {
			continue
		}
		err := leadsElsewhere(name)
		if err != nil {
			return fail.Errorf(fail.BadData, ".gitmodules: submodule %q is refused: its name %w", name, err)
		}
		if key != "path" {
			continue
		}
		if err = leadsElsewhere(s.value); err == nil {
			err = p.throughLink(s.value)
		}
		if err != nil {
			return fail.Errorf(fail.BadData, ".gitmodules: submodule %q is refused: its path %q %w", name, s.value, err)
		}
	}
	return nil
}

// Submodules are those of a tree, in the order of their paths, where nothing is to be written. The errors about the tree and its .gitmodules are those of Write.
func Submodules(ctx context.Context, tree plumbing.Hash, objects Source) ([]Submodule, error) {
	p, err := makePlan(ctx, tree, objects, nil, nil)
	if err != nil {
		return nil, err
	}
	return p.submodules()
}

// submodules are those in the cone, in the order of their paths.
func (p *plan) submodules() (all []Submodule, err error) {
	var said map[string]*Submodule
	for i := range p.files {
		f := &p.files[i]
		if f.Mode != treepath.Gitlink || f.Skip {
			continue
		}
		if said == nil {
			if said, err = p.modulesByPath(); err != nil {
				return nil, err
			}
		}
		s := Submodule{Path: f.Path, Commit: f.ID}
		if is := said[f.Path]; is != nil {
			s.Name, s.URL, s.Branch, s.Update = is.Name, is.URL, is.Branch, is.Update
		}
		all = append(all, s)
	}
	return all, nil
}

// handOver asks the caller which of the submodules are its own.
func (p *plan) handOver(ask func([]Submodule) ([]string, error)) error {
	if ask == nil {
		return nil
	}
	all, err := p.submodules()
	if err == nil {
		p.callers, err = ask(all)
		slices.Sort(p.callers)
	}
	return err
}

func (p *plan) isCallers(path string) bool {
	_, is := slices.BinarySearch(p.callers, path)
	return is
}

// emptied tells which files are submodules that become empty directories.
func (p *plan) emptied(f *file) bool {
	return f.Mode == treepath.Gitlink && !f.Skip && !p.isCallers(f.Path)
}

// modulesByPath reads .gitmodules. What is in it twice is refused: which one counts is not the same everywhere in git.
func (p *plan) modulesByPath() (map[string]*Submodule, error) {
	f := p.find(modulesName)
	if f == nil || f.Mode == treepath.Gitlink {
		return map[string]*Submodule{}, nil
	}
	data, err := readAs(p.objects, plumbing.BlobObject, f.ID)
	if err != nil {
		return nil, fmt.Errorf("path %q: %w", modulesName, err)
	}
	if err := p.checkModules(data); err != nil {
		return nil, err
	}
	settings, err := parseConfig(data)
	if err != nil {
		return nil, fmt.Errorf("path %q: %w", modulesName, err)
	}
	byName, byPath := map[string]*Submodule{}, map[string]*Submodule{}
	for _, s := range settings {
		section, name, key := s.cut()
		if section != "submodule" || name == "" { // git passes over a name that is empty, too
			continue
		}
		if byName[name] == nil {
			byName[name] = &Submodule{Name: name}
		}
		m := byName[name]
		to := map[string]*string{"path": &m.Path, "url": &m.URL, "branch": &m.Branch, "update": &m.Update}[key]
		switch {
		case to == nil:
			continue
		case !s.set || s.value == "":
			return nil, fail.Errorf(fail.BadData, ".gitmodules: submodule %q is refused: it has a %q without a value", name, key)
		case *to != "":
			return nil, fail.Errorf(fail.BadData, ".gitmodules: submodule %q is refused: it has %q twice", name, key)
		case key == "path" && byPath[s.value] != nil:
			return nil, fail.Errorf(fail.BadData, ".gitmodules: the path %q is that of two submodules, %q and %q", s.value, byPath[s.value].Name, name)
		case key == "path":
			byPath[s.value] = m
		}
		*to = s.value
	}
	return byPath, nil
}

func leadsElsewhere(s string) error {
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == '/' || r == '\\' })
	switch {
	case slices.Contains(parts, ".."):
		return errors.New(`has ".." in it`)
	case strings.HasPrefix(s, "-"):
		return errors.New(`begins with "-"`)
	case strings.ContainsAny(s, "\r\x00"):
		return errors.New("has a carriage return or NUL in it")
	}
	return nil
}

func (p *plan) throughLink(path string) error {
	for i, c := range path + "/" {
		if c != '/' || i == 0 {
			continue
		}
		if f := p.find(path[:i]); f != nil && f.Mode == treepath.Link {
			return errors.New("goes through a symbolic link")
		}
	}
	return nil
}
