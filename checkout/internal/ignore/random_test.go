package ignore

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
)

// seed makes all that is random here; a failure names it and the round.
const seed = 20230117

var (
	parts = []string{
		"a", "b", "x", "foo", "*", "*", "**", "?", "/", "/", "**/", "/**", "/**/", "[ab]", "[!a]", "[^a-b]", "[[:alpha:]]", "[![:digit:]b]",
		"[[:punct:]]", "[]x]", "[a-", "[[:foo:]]", "[[:a]", "[\\]a]", "[a-\\b]", "[x-]",
		"\\", "\\a", "\\*", "\\/", "\\ ", " ", "!", "#", "[", "]", "-", "\xff", "\r", "\t", ".", ":", "^", "***", "\x00",
	}
	names = []string{
		"a", "b", "x", "foo", "ab", "ax", "ba", "aab", "1", "*", "\\", "[", "]", "-", " ", "a ",
		"\xff", "\xffa", "\xc3\xa9", "#a", "!a", ".a", "a\r", "\t", "\n", ":", "^",
	}
)

func pick(r *rand.Rand, list []string) string { return list[r.IntN(len(list))] }

func randomPattern(r *rand.Rand) string {
	var b strings.Builder
	if r.IntN(8) == 0 {
		b.WriteByte('/')
	}
	for range 1 + r.IntN(5) {
		b.WriteString(pick(r, parts))
	}
	if r.IntN(6) == 0 {
		b.WriteByte('/')
	}
	return b.String()
}

func randomFile(r *rand.Rand, lines int) string {
	var b strings.Builder
	if r.IntN(10) == 0 {
		b.WriteString("\ufeff")
	}
	for range lines {
		if r.IntN(3) == 0 {
			b.WriteByte('!')
		}
		b.WriteString(randomPattern(r))
		b.WriteString([]string{"\n", "\n", "\n", "\r\n", " \n"}[r.IntN(5)])
	}
	s := b.String()
	return s[:len(s)-r.IntN(2)]
}

// randomPath is sometimes made of a pattern, so that more of them match.
func randomPath(r *rand.Rand, pattern string) string {
	var s string
	if r.IntN(3) > 0 {
		var b strings.Builder
		for i := 0; i < len(pattern); i++ {
			switch c := pattern[i]; c {
			case '*':
				b.WriteString(pick(r, []string{"", "", "a", "x", "ab", "a/b"}))
			case '?':
				b.WriteByte("abx/"[r.IntN(4)])
			case '[':
				if n := strings.LastIndexByte(pattern[i:], ']'); n > 0 && r.IntN(4) > 0 {
					b.WriteByte("abx1-]:\xff"[r.IntN(8)])
					i += n
				} else {
					b.WriteByte(c)
				}
			case '\\':
			default:
				b.WriteByte(c)
			}
		}
		s = b.String()
	} else {
		for range 1 + r.IntN(3) {
			s += "/" + pick(r, names)
		}
	}
	s = strings.Trim(path.Clean("/"+strings.ReplaceAll(s, "\x00", "")), "/")
	if s == "" || strings.Contains("/"+s+"/", "/.git/") {
		return pick(r, names)
	}
	return s
}

// One pattern or two, and nothing else that could decide.
func TestPatternsLikeGit(t *testing.T) {
	r, rnd := newRepo(t), rand.New(rand.NewPCG(seed, 0))
	w := world{}
	var paths []string
	for i := range 400 {
		in := fmt.Sprintf("p%d/", i)
		r.mkdir(in + "a/b")
		pattern := randomPattern(rnd)
		w[in+".gitignore"] = pattern
		if i%4 == 0 {
			w[in+".gitignore"] = randomFile(rnd, 2)
		}
		paths = append(paths, in+"a", in+"a/b")
		for range 60 {
			paths = append(paths, in+randomPath(rnd, pattern))
		}
	}
	ignored := r.compare(fmt.Sprintf("seed %d", seed), w, paths)
	t.Logf("%d of %d paths are ignored", ignored, len(paths))
	if ignored < len(paths)/10 || ignored > len(paths)*9/10 {
		t.Errorf("%d of %d paths are ignored: this compares too little", ignored, len(paths))
	}
}

// Several files with several patterns.
func TestFilesLikeGit(t *testing.T) {
	r := newRepo(t)
	dirs := []string{"a", "a/b", "a/b/a", "ab", "foo", "foo/x", "\xff", "[", "[/ "}
	r.mkdir(dirs...)
	ignored, all := 0, 0
	for round := range 100 {
		rnd := rand.New(rand.NewPCG(seed, uint64(round)))
		w := world{".gitignore": randomFile(rnd, 1+rnd.IntN(5))}
		if rnd.IntN(2) == 0 {
			w[exclude] = randomFile(rnd, 1+rnd.IntN(3))
		}
		for _, d := range dirs {
			if rnd.IntN(3) == 0 {
				w[d+"/.gitignore"] = randomFile(rnd, 1+rnd.IntN(4))
			}
		}
		paths := slices.Clone(dirs)
		for range 80 {
			p := randomPath(rnd, strings.TrimPrefix(pick(rnd, strings.Split(w[".gitignore"], "\n")), "!"))
			if rnd.IntN(2) == 0 {
				p = pick(rnd, dirs) + "/" + p
			}
			paths = append(paths, p)
		}
		all += len(paths)
		ignored += r.compare(fmt.Sprintf("seed %d, round %d", seed, round), w, paths)
	}
	t.Logf("%d of %d paths are ignored", ignored, all)
	if ignored < all/10 || ignored > all*9/10 {
		t.Errorf("%d of %d paths are ignored: this compares too little", ignored, all)
	}
}

// Every class with every byte that a name can have.
func TestClassesLikeGit(t *testing.T) {
	r, w := newRepo(t), world{}
	var paths []string
	for _, name := range []string{"alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "xdigit", "word", "ascii"} {
		w[name+"/.gitignore"] = "x[[:" + name + ":]]\ny[^[:" + name + ":]]"
		for c := 1; c < 256; c++ {
			if c != '/' {
				paths = append(paths, name+"/x"+string([]byte{byte(c)}), name+"/y"+string([]byte{byte(c)}))
			}
		}
	}
	if r.compare("classes", w, paths) == 0 {
		t.Error("nothing is ignored")
	}
}
