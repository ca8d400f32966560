package worktree

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"run-task/checkout/internal/treepath"
)

// attributes remembers the first .gitattributes file that asks for each kind of conversion.
type attributes struct {
	crlf, encoding, ident, filter string
}

// parse looks for attributes that would change content at checkout (gitattributes(5)). Whether their patterns match a file is
// not asked. Git LFS is left out: its pointer files are recognised by content.
func (a *attributes) parse(path string, data []byte) {
	for line := range bytes.Lines(data) {
		for _, word := range words(string(line)) {
			key, value, _ := strings.Cut(word, "=")
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

// isPointer recognises a Git LFS pointer file by its first line; the specification bounds it to 1024 bytes.
func isPointer(head []byte, size int64) bool {
	return size < 1024 && bytes.HasPrefix(head, []byte("version https://git-lfs.github.com/spec/v1\n"))
}

// warnings says what git, with everything that it may call, would have done and Write did not.
func warnings(p *plan, mounts []string) (all []string) {
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
	for _, c := range []struct {
		what  string
		paths []string
	}{
		{"Git LFS pointers, what they stand for is not fetched", p.paths(func(f *file) bool { return f.lfs })},
		{"submodules, left as empty directories", p.paths(func(f *file) bool { return f.mode == treepath.Gitlink })},
		{"mount points among what is not in the commit, left alone", slices.Sorted(slices.Values(mounts))},
	} {
		if len(c.paths) > 0 {
			more := ""
			if len(c.paths) > 1 {
				more = " and others"
			}
			all = append(all, fmt.Sprintf("%d %s: %q%s", len(c.paths), c.what, c.paths[0], more))
		}
	}
	return all
}

func (p *plan) paths(which func(*file) bool) (all []string) {
	for i := range p.files {
		if which(&p.files[i]) {
			all = append(all, p.files[i].path)
		}
	}
	return all
}
