package worktree

import (
	"strings"

	"run-task/internal/fail"
)

// setting is one line of a file as git-config(1) describes it.
type setting struct {
	key   string // "section.subsection.name": only the subsection's letters are as they were written
	value string
	set   bool // there was an "=": git takes a name alone for true
}

// parseConfig reads such a file as git does: the same settings, in their order, or an error where git has one, with the settings before it, which some of
// git heeds. What it includes is not looked at. A NUL is kept, where git cuts a value.
func parseConfig(data []byte) (all []setting, err error) {
	text := strings.ReplaceAll(strings.TrimPrefix(string(data), "\ufeff"), "\r\n", "\n")
	c := &config{rest: text}
	section := "" // ends with a dot, but for what comes before all sections
	for c.rest != "" {
		ok := true
		switch b := c.next(); {
		case space(b):
		case b == '#' || b == ';':
			c.comment()
		case b == '[':
			section, ok = c.section()
			section += "."
		case letter(b):
			s := setting{}
			if s, ok = c.setting(b); ok {
				s.key = section + s.key
				all = append(all, s)
			}
		default:
			ok = false
		}
		if !ok {
			return all, fail.Errorf(fail.BadData, "line %d of it is no configuration", 1+strings.Count(strings.TrimSuffix(text[:len(text)-len(c.rest)], "\n"), "\n"))
		}
	}
	return all, nil
}

// config is what is left to be read of a file.
type config struct{ rest string }

// next is a line end where nothing is left.
func (c *config) next() byte {
	if c.rest == "" {
		return '\n'
	}
	b := c.rest[0]
	c.rest = c.rest[1:]
	return b
}

func (c *config) comment() {
	if i := strings.IndexByte(c.rest, '\n'); i >= 0 {
		c.rest = c.rest[i+1:]
	} else {
		c.rest = ""
	}
}

func space(b byte) bool  { return b == ' ' || b == '\t' || b == '\n' || b == '\r' }
func letter(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' }
func inName(b byte) bool { return letter(b) || b >= '0' && b <= '9' || b == '-' }

func lower(b byte) byte {
	if letter(b) {
		return b | 0x20
	}
	return b
}

// section reads a header behind its "[".
func (c *config) section() (string, bool) {
	var name []byte
	for {
		switch b := c.next(); {
		case b == ']':
			return string(name), true
		case space(b):
			sub, ok := c.subsection(b)
			return string(name) + "." + sub, ok
		case inName(b) || b == '.':
			name = append(name, lower(b))
		default:
			return "", false
		}
	}
}

// subsection reads the rest of a header, which has a name in quotes.
func (c *config) subsection(b byte) (string, bool) {
	for space(b) {
		if b == '\n' {
			return "", false
		}
		b = c.next()
	}
	if b != '"' {
		return "", false
	}
	var name []byte
	for b = c.next(); b != '"'; b = c.next() {
		if b == '\\' {
			b = c.next()
		}
		if b == '\n' {
			return "", false
		}
		name = append(name, b)
	}
	return string(name), c.next() == ']'
}

// setting reads a line that begins with a letter.
func (c *config) setting(b byte) (s setting, ok bool) {
	var name []byte
	for ; inName(b); b = c.next() {
		name = append(name, lower(b))
	}
	for b == ' ' || b == '\t' {
		b = c.next()
	}
	s.key = string(name)
	switch b {
	case '\n':
		return s, true
	case '=':
		s.value, ok = c.value()
		s.set = true
	}
	return s, ok
}

var escapes = map[byte]byte{'t': '\t', 'b': '\b', 'n': '\n', '\\': '\\', '"': '"'}

// value reads what is behind the "=", which may go on in the next line.
func (c *config) value() (string, bool) {
	var value []byte
	quoted, end := false, 0 // the spaces behind end are no part of the value unless something follows
	for {
		b := c.next()
		switch {
		case b == '\n':
			return string(value[:end]), !quoted
		case space(b) && !quoted:
			if len(value) > 0 {
				value = append(value, b)
			}
			continue
		case (b == '#' || b == ';') && !quoted:
			c.comment()
			return string(value[:end]), true
		case b == '"':
			quoted = !quoted
		case b == '\\':
			escaped := c.next()
			if escaped == '\n' {
				continue
			}
			known, ok := escapes[escaped]
			if !ok {
				return "", false
			}
			value = append(value, known)
		default:
			value = append(value, b)
		}
		end = len(value)
	}
}

// cut divides a key into section, subsection and name.
func (s *setting) cut() (section, sub, name string) {
	first, last := strings.IndexByte(s.key, '.'), strings.LastIndexByte(s.key, '.')
	if first == last {
		return s.key[:max(first, 0)], "", s.key[last+1:]
	}
	return s.key[:first], s.key[first+1 : last], s.key[last+1:]
}
