// Package ignore says which files git would ignore, by the patterns of gitignore(5) as git 2.39 reads them, always case-sensitive.
// It reads no files: patterns come as bytes, so that a commit's .gitignore can be asked and not the one in a worktree.
package ignore

import (
	"strings"

	"run-task/internal/fail"
)

// MaxFile is how many bytes Parse takes, far more than people write. Rules take about 30 times as much at most, and a file of
// the worst patterns takes seconds to be asked about a path of 4096 bytes.
const MaxFile = 256 << 10

// Rules are the patterns of one file. Nil has none. They do not change, so matchers may share them.
type Rules struct {
	list []rule
}

type rule struct {
	literal  string // what comes before the first special byte: git compares it first, and what it leaves is a pattern of its own
	glob     string // what comes after it, see match
	negated  bool
	dirOnly  bool
	anchored bool // it is for paths from the directory of its file, otherwise for names in it and in all below
}

// Parse reads a .gitignore or info/exclude. As in git, names and patterns are bytes of no encoding, and a pattern that is
// malformed matches nothing. More than MaxFile bytes are fail.BadData; nothing else is an error.
//
// Git does not follow a .gitignore that is a symbolic link: such a directory has no rules.
func Parse(data []byte) (*Rules, error) {
	if len(data) > MaxFile {
		return nil, fail.Errorf(fail.BadData, "the ignore patterns are %d bytes, the limit is %d", len(data), MaxFile)
	}
	r := &Rules{}
	for line := range strings.SplitSeq(strings.TrimPrefix(string(data), "\ufeff"), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		// One CR belongs to the line's end, the last line's too. A NUL ends what git's C strings can hold.
		line, _, _ = strings.Cut(strings.TrimSuffix(line, "\r"), "\x00")
		if one, ok := parse(trimSpaces(line)); ok {
			r.list = append(r.list, one)
		}
	}
	return r, nil
}

// trimSpaces drops the spaces at the end but an escaped one. Tabs are part of the pattern.
func trimSpaces(s string) string {
	end := 0
	for i := 0; i < len(s); i++ {
		if s[i] == ' ' {
			continue
		}
		if s[i] == '\\' {
			i++
		}
		end = i + 1
	}
	return s[:min(end, len(s))]
}

// parse reads one pattern. An empty one is not ok: it matches nothing.
func parse(s string) (r rule, ok bool) {
	s, r.negated = strings.CutPrefix(s, "!")
	s, r.dirOnly = strings.CutSuffix(s, "/")
	r.anchored = strings.Contains(s, "/")
	s = strings.TrimPrefix(s, "/")
	r.literal = s
	if i := strings.IndexAny(s, `*?[\`); i >= 0 {
		r.literal, r.glob = s[:i], s[i:]
	}
	return r, s != ""
}

// find is the last rule for a path from the rules' directory, whose last part is name.
func (r *Rules) find(path, name string, dir bool) *rule {
	if r == nil {
		return nil
	}
	for i := len(r.list) - 1; i >= 0; i-- {
		one, s := &r.list[i], name
		if one.dirOnly && !dir {
			continue
		}
		if one.anchored {
			s = path
		}
		if strings.HasPrefix(s, one.literal) && match(one.glob, s[len(one.literal):]) {
			return one
		}
	}
	return nil
}
