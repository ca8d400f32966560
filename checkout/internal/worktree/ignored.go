package worktree

import (
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/ignore"
	"run-task/checkout/internal/odb"
	"run-task/checkout/internal/treepath"
	"run-task/internal/fail"
	"run-task/internal/fsx"
)

const ignoreName = ".gitignore"

// ignoreRules are those that the tree has for a directory ("" or ending with "/"): what a task made of the file does not count. As in git a link has none.
func (p *plan) ignoreRules(prefix string) (*ignore.Rules, error) {
	f := p.find(prefix + ignoreName)
	if f == nil || f.Mode == treepath.Link || f.Mode == treepath.Gitlink || f.Skip {
		return nil, nil
	}
	data, err := readAs(p.objects, plumbing.BlobObject, f.ID)
	if errors.Is(err, odb.ErrLarge) {
		err = fail.Errorf(fail.BadData, "the ignore patterns are more than %d bytes", ignore.MaxFile)
	}
	var rules *ignore.Rules
	if err == nil {
		rules, err = ignore.Parse(data)
	}
	if err != nil {
		return nil, fmt.Errorf("path %q: %w", f.Path, err)
	}
	return rules, nil
}

// strayRules are those of a directory that is not in the worktree by the plan: caches of tools are often ignored by a file of their own. One that cannot
// be read says nothing, nor does one that a commit had there: it goes, and what it named with it.
func (s *scan) strayRules(d *fsx.Dir, full string) *ignore.Rules {
	name := full + "/" + ignoreName
	if s.plan.find(name) != nil || s.old.hasFile(name) {
		return nil
	}
	data, err := d.ReadFile(ignoreName, ignore.MaxFile)
	if err != nil {
		return nil
	}
	rules, err := ignore.Parse(data)
	if err != nil {
		return nil
	}
	return rules
}
