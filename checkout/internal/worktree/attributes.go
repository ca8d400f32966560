package worktree

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/treepath"
)

const attributesName = ".gitattributes"

// attributes remembers the first .gitattributes file that asks for each kind of conversion.
type attributes struct {
	crlf, encoding, ident, filter string
	lfs                           bool // Git LFS is in use
}

// parse looks for attributes that would change content at checkout (gitattributes(5)). Whether their patterns match a file is
// not asked. Git LFS is left out: its pointer files are recognised by content.
func (a *attributes) parse(path string, data []byte) {
	for line := range bytes.Lines(data) {
		for _, word := range words(string(line)) {
			key, value, _ := strings.Cut(word, "=")
			a.lfs = a.lfs || word == "filter=lfs"
			var first *string
			switch {
			case word == "eol=crlf":
				first = &a.crlf
			case key == "working-tree-encoding" && value != "" && !strings.EqualFold(value, "utf-8"):
				first = &a.encoding
			case word == "ident":
				first = &a.ident
			case key == "filter" && value != "" && value != "lfs":
				first = &a.filter
			default:
				continue
			}
			if *first == "" {
				*first = path
			}
		}
	}
}

// words are the attributes on a line, its pattern or macro name left out. A pattern may be quoted as in C.
func words(line string) []string {
	line = strings.TrimLeft(line, " \t\r\n")
	if strings.HasPrefix(line, "#") {
		return nil
	}
	end := strings.IndexAny(line, " \t\r\n")
	if strings.HasPrefix(line, `"`) {
		end = 1
		for end < len(line) && line[end] != '"' {
			if line[end] == '\\' {
				end++
			}
			end++
		}
		end++
	}
	if end < 0 || end >= len(line) {
		return nil
	}
	return strings.FieldsFunc(line[end:], func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) })
}

// maxPointer is the bound that Git LFS has for its pointer files.
const maxPointer = 1024

// isPointer recognises a Git LFS pointer file by its first line.
func isPointer(head []byte, size int64) bool {
	return size < maxPointer && bytes.HasPrefix(head, []byte("version https://git-lfs.github.com/spec/v1\n"))
}

// warnings says what git, with everything that it may call, would have done and Write did not.
func (p *plan) warnings() (all []string, err error) {
	if err := p.lookForPointers(); err != nil {
		return nil, err
	}
	for _, c := range []struct{ path, what string }{
		{p.attributes.crlf, "eol=crlf: files are written with the repository's line ends"},
		{p.attributes.encoding, "working-tree-encoding: files are written in UTF-8, as the repository has them"},
		{p.attributes.ident, "ident: $Id$ is not expanded"},
		{p.attributes.filter, "a filter: it is not run"},
	} {
		if c.path != "" {
			all = append(all, fmt.Sprintf("%q asks for %s", c.path, c.what))
		}
	}
	return append(all, class("Git LFS pointers, what they stand for is not fetched", p.paths(func(f *file) bool { return f.lfs }))...), nil
}

// lookForPointers reads the files that nobody had to read so far.
func (p *plan) lookForPointers() error {
	for i := range p.files {
		f := &p.files[i]
		if !p.attributes.lfs || !f.known || !f.keep || f.Mode != treepath.File || f.Stat.Size() > maxPointer {
			continue
		}
		data, err := readAs(p.objects, plumbing.BlobObject, f.ID)
		if err != nil {
			return err
		}
		f.lfs = isPointer(data, int64(len(data)))
	}
	return nil
}

// class is one line about all of some paths, none if there are none.
func class(what string, paths []string) []string {
	switch len(paths) {
	case 0:
		return nil
	case 1:
		return []string{fmt.Sprintf("1 %s: %q", what, paths[0])}
	}
	return []string{fmt.Sprintf("%d %s: %q and others", len(paths), what, paths[0])}
}

func (p *plan) paths(which func(*file) bool) (all []string) {
	for i := range p.files {
		if which(&p.files[i]) {
			all = append(all, p.files[i].Path)
		}
	}
	return all
}
