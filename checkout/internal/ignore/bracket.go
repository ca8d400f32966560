package ignore

import "strings"

// set reads a bracket expression for one byte.
type set struct {
	glob    string
	next    int // what is read next
	c       byte
	in      bool // c is in what was read
	low     byte // what a range may begin with, 0 if nothing
	closing int  // the first "]" behind the last "[:" for which it was looked
}

// bracket matches a byte with the bracket expression at glob[p]; next is behind it. No byte matches one that has no end, or a
// class that git has not.
func bracket(glob string, p int, c byte) (next int, ok bool) {
	s := set{glob: glob, next: p + 1, c: c}
	negated := s.next < len(glob) && (glob[s.next] == '!' || glob[s.next] == '^')
	if negated {
		s.next++
	}
	for first := s.next; s.next < len(glob); {
		if s.next > first && glob[s.next] == ']' {
			return s.next + 1, s.in != negated && c != '/'
		}
		if !s.item() {
			break
		}
	}
	return 0, false
}

// item reads a byte, the end of a range or a class. It is false if that is malformed.
func (s *set) item() bool {
	b, rest := s.glob[s.next], s.glob[s.next+1:]
	if b == '[' && strings.HasPrefix(rest, ":") {
		if isClass, known := s.class(); isClass {
			return known
		}
	}
	upTo := b == '-' && s.low != 0 && rest != "" && rest[0] != ']'
	if upTo {
		s.next++
		b, rest = rest[0], rest[1:]
	}
	if b == '\\' {
		if rest == "" {
			return false
		}
		s.next++
		b = rest[0]
	}
	s.next++
	if upTo {
		s.in = s.in || s.low <= s.c && s.c <= b
		s.low = 0
	} else {
		s.in = s.in || s.c == b
		s.low = b
	}
	return true
}

// class reads "[:name:]". If there is no colon before the first "]" it is none, and nothing is read.
func (s *set) class() (isClass, known bool) {
	name := s.next + 2
	if s.closing < name { // otherwise the time would be quadratic in "[[:[:[:"
		n := strings.IndexByte(s.glob[name:], ']')
		if n < 0 {
			return true, false
		}
		s.closing = name + n
	}
	class, isClass := strings.CutSuffix(s.glob[name:s.closing], ":")
	if !isClass {
		return false, true
	}
	in, known := inClass(class, s.c)
	s.in = s.in || in
	s.low = 0
	s.next = s.closing + 1
	return true, known
}

// inClass says whether a byte is in one of POSIX's classes as git has them: of ASCII alone, and without \v and \f in space.
func inClass(name string, c byte) (in, known bool) {
	lower, upper, digit := 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9'
	alnum, graph := lower || upper || digit, '!' <= c && c <= '~'
	switch name {
	case "alnum":
		return alnum, true
	case "alpha":
		return lower || upper, true
	case "blank":
		return c == ' ' || c == '\t', true
	case "cntrl":
		return c < ' ' || c == 0x7f, true
	case "digit":
		return digit, true
	case "graph":
		return graph, true
	case "lower":
		return lower, true
	case "print":
		return graph || c == ' ', true
	case "punct":
		return graph && !alnum, true
	case "space":
		return strings.IndexByte(" \t\n\r", c) >= 0, true
	case "upper":
		return upper, true
	case "xdigit":
		return digit || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F', true
	}
	return false, false
}
