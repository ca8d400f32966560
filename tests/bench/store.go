package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// stores measures what a second task on a host pays for a commit that the first one brought: from a store, against what CIs do with a mirror on the host.
func stores(binary, dir string, runs int) error {
	repo, sha, all, err := theSource(dir, "git store")
	if err != nil {
		return err
	}
	defer closeAll(all)
	for _, p := range places(dir) {
		if err := storeIn(p, runs, binary, repo, sha, all[0]); err != nil {
			return err
		}
	}
	return nil
}

func storeIn(p place, runs int, binary, repo, sha string, s *server) error {
	work, err := os.MkdirTemp(p.dir, "run-task-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	url := s.URL + "/go.git"
	mirror, store := filepath.Join(work, "mirror"), filepath.Join(work, "store")
	if err := inTurn([][]string{{"git", "clone", "-q", "--mirror", repo, mirror}}); err != nil {
		return err
	}
	at := func(store, spec string) []string {
		return slices.Insert(ours(binary, url, sha, spec, 1), 2, "--git-store", store)
	}
	if err := inTurn([][]string{at(store, filepath.Join(work, "first"))}); err != nil {
		return err
	}
	var sides []*side
	var dirs []string
	add := func(name string, steps func(dir string) [][]string) {
		base := filepath.Join(work, name)
		dirs = append(dirs, base+"0")
		sides = append(sides, &side{name: name, prepare: func(run int) ([][]string, error) {
			syscall.Sync()
			return steps(base + fmt.Sprint(run)), nil
		}})
	}
	add("git fetch from a mirror", func(dir string) [][]string {
		return append([][]string{{"git", "init", "-q", dir}}, toFetchHead.steps("file://"+mirror, sha, dir, 1)...)
	})
	add("git clone --shared", func(dir string) [][]string {
		return [][]string{{"git", "clone", "-q", "--shared", "--no-checkout", mirror, dir}, {"git", "-C", dir, "checkout", "-q", "-f", "--detach", sha}}
	})
	add("no store", func(dir string) [][]string { return [][]string{ours(binary, url, sha, dir, 1)} })
	add("cold store", func(dir string) [][]string { return [][]string{at(dir+".store", dir)} })
	add("alternates=true", func(dir string) [][]string { return [][]string{at(store, dir+",alternates=true")} })
	add("warm store", func(dir string) [][]string { return [][]string{at(store, dir)} })
	if err := s.compare("git store, "+p.name, runs, sides...); err != nil {
		return err
	}
	return same(sha, dirs...)
}
