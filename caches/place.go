package caches

import (
	"io/fs"
	"os"
	"path/filepath"

	"run-task/internal/fsx"
)

// Root tells whether path is the root of one of the caches, under whatever name. A checkout there would clean the
// requirement file away. Links are followed; a path that does not exist is no root.
func Root(o Options, path string) bool {
	info, err := os.Stat(path)
	return err == nil && among(info, infos(o.Dirs))
}

// Contains tells whether path, which need not exist, is inside a cache or is or is inside a volume: places that tasks fill
// and run-task may clean. The root of a cache is not inside it. Links in the existing part of path are followed first, so
// that one inside a cache that leads out of it does not count; where that cannot be told the answer is no. Like filepath.Clean
// it takes "x/.." away before it looks: use the cleaned path.
func Contains(o Options, path string) bool {
	real, ok := fsx.Physical(path)
	if !ok {
		return false
	}
	if info, err := os.Stat(real); err == nil && among(info, infos(o.Dirs)) {
		return below(filepath.Dir(real), infos(o.Dirs), infos(o.Volumes))
	}
	return below(real, infos(o.Dirs), infos(o.Volumes))
}

// Passes tells whether the way to path, which need not exist, leads through or into a cache or volume: whoever opens it
// meets what a task may have planted there.
func Passes(o Options, path string) bool {
	return below(absolute(path), infos(o.Dirs), infos(o.Volumes)) || Contains(o, path)
}

// below tells whether a path, which need not exist, is one of the directories or is spelt as something below one.
func below(real string, dirs ...[]fs.FileInfo) bool {
	for {
		if info, err := os.Stat(real); err == nil {
			for _, set := range dirs {
				if among(info, set) {
					return true
				}
			}
		}
		if real == "/" {
			return false
		}
		real = filepath.Dir(real)
	}
}

func among(info fs.FileInfo, set []fs.FileInfo) bool {
	for _, i := range set {
		if os.SameFile(info, i) {
			return true
		}
	}
	return false
}

func infos(paths []string) []fs.FileInfo {
	var all []fs.FileInfo
	for _, p := range paths {
		if i, err := os.Stat(p); err == nil {
			all = append(all, i)
		}
	}
	return all
}

func absolute(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	return abs
}
