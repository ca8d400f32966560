package worktree

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	formatcfg "github.com/go-git/go-git/v5/plumbing/format/config"

	"run-task/checkout/internal/treepath"
	"run-task/internal/fail"
)

// checkModules refuses a .gitmodules (gitmodules(5)) whose names or paths would lead a submodule's files elsewhere: names become directories
// below .git, paths below the worktree (CVE-2018-11235 and its like). Submodules are not checked out here, but by the
// task's next git command. A file that is no configuration says nothing to git either.
func (p *plan) checkModules(data []byte) error {
	cfg := formatcfg.New()
	if formatcfg.NewDecoder(bytes.NewReader(data)).Decode(cfg) != nil {
		return nil
	}
	for _, sub := range cfg.Section("submodule").Subsections {
		err := leadsElsewhere(sub.Name)
		if err != nil {
			return fail.Errorf(fail.BadData, ".gitmodules: submodule %q is refused: its name %w", sub.Name, err)
		}
		for _, path := range sub.OptionAll("path") {
			if err = leadsElsewhere(path); err == nil {
				err = p.throughLink(path)
			}
			if err != nil {
				return fail.Errorf(fail.BadData, ".gitmodules: submodule %q is refused: its path %q %w", sub.Name, path, err)
			}
		}
	}
	return nil
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
