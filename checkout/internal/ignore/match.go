package ignore

import "strings"

// match says whether all of s matches glob: "*" is any bytes but a slash, "**" between slashes or at an end of glob is any
// bytes, "**/" also nothing, "?" is one byte but a slash, "[...]" is one of a set, and a backslash takes the next byte as it is.
// What is malformed matches nothing.
//
// Only the last "*" and the last "**" are ever tried again with one byte more: what an earlier one could take instead, the
// later one can take as well. A "*" of which the slash behind was matched is only used up, as there is one way to reach that
// slash. So every part of glob between slashes meets each part of s at most twice for each byte of it: the steps are of the
// order of the product of the lengths.
func match(glob, s string) bool {
	var star, deep again
	p, i := 0, 0
	for p < len(glob) || i < len(s) {
		if p < len(glob) && glob[p] == '*' {
			end := len(glob) - len(strings.TrimLeft(glob[p:], "*"))
			anything, orNothing := isDeep(glob, p, end)
			p = end
			switch {
			case orNothing:
				deep = again{end, i}
				p++
			case anything:
				deep = again{end, i + 1}
			default:
				star = again{end, i + 1}
			}
			continue
		}
		if p < len(glob) && i < len(s) {
			if next, ok := one(glob, p, s[i]); ok {
				p, i = next, i+1
				continue
			}
		}
		retry := &star
		if star.at == 0 || star.from > len(s) || s[star.from-1] == '/' {
			retry = &deep
		}
		if retry.at == 0 || retry.from > len(s) {
			return false
		}
		p, i = retry.at, retry.from
		retry.from++
	}
	return true
}

// again is where to go on after a mismatch: behind a star in the pattern, 0 if there is none, and in the string.
type again struct {
	at, from int
}

// isDeep says whether the stars at glob[p:end] match slashes too, and whether they and the slash behind them may be left out:
// git asks for the latter that the slash is not escaped.
func isDeep(glob string, p, end int) (anything, orNothing bool) {
	if end-p < 2 || p > 0 && glob[p-1] != '/' {
		return false, false
	}
	slash := strings.HasPrefix(glob[end:], "/")
	return slash || end == len(glob) || strings.HasPrefix(glob[end:], `\/`), slash
}

// one matches a byte with what is at glob[p], which is no star; next is behind it.
func one(glob string, p int, c byte) (next int, ok bool) {
	switch glob[p] {
	case '?':
		return p + 1, c != '/'
	case '\\':
		return p + 2, p+1 < len(glob) && glob[p+1] == c
	case '[':
		return bracket(glob, p, c)
	}
	return p + 1, glob[p] == c
}
