package checkout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/odb"
	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// TreeHash is git's name of what is at a path of the commit that run-task checked out into dir: git rev-parse COMMIT:PATH. fail.Usage: dir is no worktree of run-task's, or the
// commit has no such path. It takes no lock; the repository's content is believed to be what run-task left.
func TreeHash(dir, path string) (string, error) {
	root, err := fsx.Open(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	p := &pin{}
	raw, err := root.ReadFile(gitName+"/"+stateFile, 64<<20)
	if err == nil {
		err = json.Unmarshal(raw, &p.state)
	}
	if err != nil || !hexID.MatchString(p.SHA) || !all(packName, p.Packs) {
		return "", fail.Errorf(fail.Usage, "%q is no checkout of run-task's: the hash of %q is not known", dir, path).WithHint("use {{tree}} in, or after, a task that checks out with run-task")
	}
	packs, err := packsOf(root)
	if err != nil {
		return "", err
	}
	defer packs.Close()
	if len(p.Packs) == 0 { // they are the store's
		names, err := packs.Names()
		if err != nil {
			return "", err
		}
		for _, n := range names {
			if name, ok := strings.CutSuffix(n, ".idx"); ok && packName.MatchString(name) {
				p.Packs = append(p.Packs, name)
			}
		}
	}
	if p.store, err = odb.Open(packs, nil, p.Packs); err != nil {
		return "", fmt.Errorf("read the repository in %q: %w", dir, err)
	}
	defer p.store.Close()
	if p.commit, p.tree, err = p.store.Commit(plumbing.NewHash(p.SHA)); err != nil {
		return "", err
	}
	id, err := p.path(path)
	return id.String(), err
}

// packsOf opens the directory that a worktree's packs are in: its own, or the store's that it borrows from.
func packsOf(root *fsx.Dir) (*fsx.Dir, error) {
	borrowed, err := root.ReadFile(gitName+"/objects/info/alternates", 1<<16)
	if errors.Is(err, fs.ErrNotExist) {
		return root.OpenDir(gitName + "/" + packDir)
	}
	if err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(string(borrowed), "\n")
	return fsx.Open(first + "/pack")
}
