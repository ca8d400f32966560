package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
)

// goHistory makes a repository with a history of the toolchain's own files: some are there from the first commit, others come little by little, and meanwhile
// lines of them change and some are renamed or deleted. The same toolchain gives the same commits. What is made already is not made again.
func goHistory(root string, commits int) (repo string, err error) {
	repo = filepath.Join(root, "history.git")
	if _, err := os.Stat(repo); err == nil {
		return repo, nil
	}
	src, err := toolchainSource()
	if err != nil {
		return "", err
	}
	dirs, err := directories(src)
	if err != nil {
		return "", err
	}
	return importHistory(repo, func(in io.Writer) error { return writeHistory(in, src, dirs, commits) })
}

// importHistory makes a packed repository of what write gives git fast-import.
func importHistory(repo string, write func(io.Writer) error) (string, error) {
	if err := inTurn([][]string{{"git", "init", "-q", "--bare", repo}}); err != nil {
		return "", err
	}
	load := exec.Command("git", "-C", repo, "fast-import", "--quiet")
	load.Stderr = os.Stderr
	in, err := load.StdinPipe()
	if err != nil {
		return "", err
	}
	if err := load.Start(); err != nil {
		return "", err
	}
	err = write(in)
	in.Close()
	if werr := load.Wait(); werr != nil {
		return "", fmt.Errorf("git fast-import: %w", werr)
	}
	if err != nil {
		return "", err
	}
	return repo, inTurn([][]string{{"git", "-C", repo, "symbolic-ref", "HEAD", "refs/heads/main"}, {"git", "-C", repo, "repack", "-a", "-d", "-q"}})
}

// directories are the regular files below src, one list for each directory that has some, in the order of their names.
func directories(src string) ([][]string, error) {
	var dirs [][]string
	index := map[string]int{}
	err := filepath.WalkDir(src, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		dir := filepath.Dir(p)
		if _, ok := index[dir]; !ok {
			index[dir] = len(dirs)
			dirs = append(dirs, nil)
		}
		dirs[index[dir]] = append(dirs[index[dir]], p[len(src)+1:])
		return nil
	})
	return dirs, err
}

// history is a history being written as git fast-import reads it.
type history struct {
	*bufio.Writer
	*rand.Rand
	src    string
	coming []string // files that are not there yet, directory by directory
	live   []*file  // those that may change
}

type file struct {
	name  string
	mode  int
	lines [][]byte
}

const firstFiles = 2500

func writeHistory(to io.Writer, src string, dirs [][]string, commits int) error {
	h := &history{Writer: bufio.NewWriter(to), Rand: rand.New(rand.NewPCG(3, 5)), src: src}
	h.Shuffle(len(dirs), func(i, k int) { dirs[i], dirs[k] = dirs[k], dirs[i] })
	h.coming = slices.Concat(dirs...)
	for c := range commits {
		message := fmt.Sprintf("commit %d\n", c)
		fmt.Fprintf(h, "commit refs/heads/main\ncommitter bench <bench@localhost> %d +0000\ndata %d\n%s", 1700000000+60*c, len(message), message)
		if c == 0 {
			if err := h.add(firstFiles); err != nil {
				return err
			}
			continue
		}
		h.change()
		if err := h.add(h.IntN(5)); err != nil { // 2 on average
			return err
		}
	}
	return h.Flush()
}

// add brings the next n files of the toolchain.
func (h *history) add(n int) error {
	n = min(n, len(h.coming))
	for _, name := range h.coming[:n] {
		data, err := os.ReadFile(filepath.Join(h.src, name))
		if err != nil {
			return err
		}
		info, err := os.Stat(filepath.Join(h.src, name))
		if err != nil {
			return err
		}
		f := &file{name: name, mode: 644, lines: bytes.Split(data, []byte("\n"))}
		if info.Mode()&0o100 != 0 {
			f.mode = 755
		}
		if path.Base(name)[0] != '.' { // .gitattributes stays as it is: git would act on what we change
			h.live = append(h.live, f)
		}
		h.put(f)
	}
	h.coming = h.coming[n:]
	return nil
}

// change edits up to three files of one directory, and now and then renames or deletes a file.
func (h *history) change() {
	dir := path.Dir(h.any().name)
	var near []*file
	for _, f := range h.live {
		if path.Dir(f.name) == dir {
			near = append(near, f)
		}
	}
	h.Shuffle(len(near), func(i, k int) { near[i], near[k] = near[k], near[i] })
	for _, f := range near[:min(len(near), 1+h.IntN(3))] {
		h.edit(f)
	}
	if h.IntN(10) == 0 { // half of them into another directory
		f, into := h.any(), dir
		if h.IntN(2) == 0 {
			into = path.Dir(f.name)
		}
		name := path.Join(into, fmt.Sprintf("r%d_%s", h.Uint32(), path.Base(f.name)))
		fmt.Fprintf(h, "R %s %s\n", strconv.Quote(f.name), strconv.Quote(name))
		f.name = name
	}
	if h.IntN(15) == 0 {
		i := h.IntN(len(h.live))
		fmt.Fprintf(h, "D %s\n", strconv.Quote(h.live[i].name))
		h.live = slices.Delete(h.live, i, i+1)
	}
}

// edit puts a few lines, some of them of another file, in the place of up to three.
func (h *history) edit(f *file) {
	other := h.any().lines
	from := h.IntN(len(other))
	lines := append([][]byte{fmt.Appendf(nil, "// %d", h.Uint32())}, other[from:min(len(other), from+h.IntN(5))]...)
	at := h.IntN(len(f.lines))
	f.lines = slices.Replace(f.lines, at, min(len(f.lines), at+h.IntN(4)), lines...)
	h.put(f)
}

func (h *history) any() *file { return h.live[h.IntN(len(h.live))] }

func (h *history) put(f *file) {
	data := bytes.Join(f.lines, []byte("\n"))
	fmt.Fprintf(h, "M %d inline %s\ndata %d\n%s\n", f.mode, strconv.Quote(f.name), len(data), data)
}
