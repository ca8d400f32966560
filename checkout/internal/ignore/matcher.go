package ignore

import "slices"

// Matcher follows a walk through a worktree and says what is ignored in the directory that the walk is in. It is not for
// use by several goroutines.
//
// To keep what git clean -ffd keeps, a walk asks Ignored about each name that the commit has not. If it says yes, the name
// stays, a directory with all that is in it. If it says no, a file is removed; so is a directory that is a git repository of
// its own, whatever is in it; any other directory is entered, and removed unless something in it stays. Directories in which
// the commit has files are entered even if they are ignored: then the matcher ignores all that the commit has not in them.
type Matcher struct {
	path   string  // of the directory that the walk is in, from the top: empty or with a slash at its end
	levels []level // the first is info/exclude, the last is that directory
}

type level struct {
	rules    *Rules
	base     int // where the paths that rules see begin in Matcher.path
	excluded bool
}

// New is a matcher in the top directory of a worktree, with the rules of info/exclude, which yield to all others, and of the
// top's .gitignore. Either may be nil.
func New(exclude, top *Rules) *Matcher {
	return &Matcher{levels: []level{{rules: exclude}, {rules: top}}}
}

// Clone is a matcher of its own in the same directory.
func (m *Matcher) Clone() *Matcher { return &Matcher{m.path, slices.Clone(m.levels)} }

// Enter goes into a directory, which has the rules of its .gitignore or nil. Git does not read that file if the directory or
// one above it is ignored; then rules have no effect.
func (m *Matcher) Enter(name string, rules *Rules) {
	excluded := m.Ignored(name, true)
	m.path += name + "/"
	m.levels = append(m.levels, level{rules, len(m.path), excluded})
}

// Leave goes back to where the last Enter without a Leave came from.
func (m *Matcher) Leave() {
	m.levels = m.levels[:len(m.levels)-1]
	m.path = m.path[:m.levels[len(m.levels)-1].base]
}

// Ignored says whether git would ignore a name in the directory that the walk is in. dir is for directories alone: a symbolic
// link to one is none. A directory that is not ignored may have names in it that are; one that is has no others.
//
// Its time is at most of the order of the length of the path times that of all patterns on the way to it, whatever they are.
func (m *Matcher) Ignored(name string, dir bool) bool {
	if m.levels[len(m.levels)-1].excluded {
		return true
	}
	path := m.path + name
	for i := len(m.levels) - 1; i >= 0; i-- {
		if r := m.levels[i].rules.find(path[m.levels[i].base:], name, dir); r != nil {
			return !r.negated
		}
	}
	return false
}
