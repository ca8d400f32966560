package keys

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"run-task/internal/fail"
)

// Source is where the values of templates come from.
type Source struct {
	Files func(globs []string) ([]byte, error) // see Files
	Tree  func(path string) (string, error)    // git's hash of what is at a path of the commit
	Env   func(name string) string             // a variable
	Arch  string                               // {{arch}}, as amd64
	OS    string                               // {{os}}, as linux
	Self  func() (string, error)               // {{run-task}}: a hash of this binary
}

const (
	maxKey  = 400 // bytes
	cutTo   = 300
	maxPart = 180
)

const templateHint = `a template is text and {{files "GLOB"...}}, {{tree "PATH"}}, {{env NAME}}, {{arch}}, {{os}}, {{run-task}}`

// piece is a part of a template: text, or words between braces.
type piece struct {
	text  string
	words []string
}

// parse takes a template apart.
func parse(template string) (all []piece, err error) {
	wrong := func(why string) error {
		return fail.Errorf(fail.Usage, "the key %q %s", template, why).WithHint("%s", templateHint)
	}
	for rest := template; rest != ""; {
		i := strings.Index(rest, "{{")
		if i < 0 {
			i = len(rest)
		}
		if i > 0 {
			all = append(all, piece{text: rest[:i]})
		}
		if rest = rest[i:]; rest == "" {
			break
		}
		n, ok := braces(rest)
		if !ok {
			return nil, wrong("has {{ without }}")
		}
		words, ok := words(rest[2 : n-2])
		if !ok || len(words) == 0 {
			return nil, wrong("has something between {{ and }} that cannot be read")
		}
		switch want, args := map[string]int{"tree": 1, "env": 1, "arch": 0, "os": 0, "run-task": 0, "files": -1}, len(words)-1; {
		case words[0] == "files" && args > 0:
		default:
			if n, known := want[words[0]]; !known || n != args {
				return nil, wrong("has {{" + words[0] + "}} with other words than it takes, or that is not known")
			}
		}
		all, rest = append(all, piece{words: words}), rest[n:]
	}
	for _, p := range all {
		for _, c := range []byte(p.text) {
			if !plain(c) && c != '/' && c != '*' {
				return nil, wrong("has the character " + strconv.Quote(string(rune(c))) + ", which no key has")
			}
		}
	}
	return all, nil
}

// words splits at blanks; a word in quotes is a Go string.
func words(text string) (all []string, ok bool) {
	for {
		text = strings.TrimLeft(text, " \t")
		if text == "" {
			return all, true
		}
		if text[0] == '"' {
			q, err := strconv.QuotedPrefix(text)
			if err != nil {
				return nil, false
			}
			word, _ := strconv.Unquote(q)
			if text = text[len(q):]; text != "" && text[0] != ' ' && text[0] != '\t' || word == "" {
				return nil, false
			}
			all = append(all, word)
			continue
		}
		end := strings.IndexAny(text, " \t")
		if end < 0 {
			end = len(text)
		}
		if strings.ContainsAny(text[:end], `"{}`) {
			return nil, false
		}
		all, text = append(all, text[:end]), text[end:]
	}
}

// plain tells whether a byte may stand in a part of a key.
func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._@+=,~-", c) >= 0
}

// Check tells, as fail.Usage, what is wrong with a template.
func Check(template string) error {
	_, err := parse(template)
	return err
}

// Expand makes a key of a template. A key has parts with / between them, of letters, digits and ._@+=,~-, none of which begins with a dot. In a value other bytes become _, and / becomes -, and
// a part of the value's SHA-256 follows then, so that no two values become one. A key of more than 400 bytes is cut, and its SHA-256 follows as a part. What cannot be a key is fail.Usage.
func Expand(template string, s Source) (string, error) {
	key, err := s.expand(template)
	if err != nil {
		return "", err
	}
	if len(key) > maxKey {
		sum := sha256.Sum256([]byte(key))
		key = strings.TrimRight(key[:cutTo], "/") + "/" + hex.EncodeToString(sum[:16])
	}
	return key, valid(key, template)
}

// Fallback makes a key of a template, or what the newest of several begins with: the template ends with - or, which is not a part of it, with *.
func Fallback(template string, s Source) (key string, prefix bool, err error) {
	text, star := strings.CutSuffix(template, "*")
	if !star && !strings.HasSuffix(template, "-") {
		key, err = Expand(template, s)
		return key, false, err
	}
	if key, err = s.expand(text); err != nil {
		return "", true, err
	}
	return key, true, valid(strings.TrimSuffix(key, "/")+"x", template) // its end may be any
}

func (s Source) expand(template string) (string, error) {
	all, err := parse(template)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, p := range all {
		text := p.text
		if p.words != nil {
			if text, err = s.value(p.words); err != nil {
				return "", err
			}
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

func (s Source) value(words []string) (string, error) {
	switch words[0] {
	case "files":
		sum, err := s.Files(words[1:])
		return hex.EncodeToString(sum), err
	case "tree":
		return s.Tree(words[1])
	case "arch":
		return s.Arch, nil
	case "os":
		return s.OS, nil
	case "run-task":
		return s.Self()
	}
	value := s.Env(words[1])
	if value == "" {
		return "", fail.Errorf(fail.Usage, "the variable %s, which a key is made of, is not set, or empty", words[1]).WithHint("set it for this job, or leave it out of the key")
	}
	return clean(value), nil
}

// clean makes a part of a key of a value.
func clean(value string) string {
	b := []byte(value)
	for i, c := range b {
		if c == '/' {
			b[i] = '-'
		} else if !plain(c) {
			b[i] = '_'
		}
	}
	if len(b) > 64 {
		b = b[:64]
	}
	if string(b) == value {
		return value
	}
	sum := sha256.Sum256([]byte(value))
	return string(b) + "-" + hex.EncodeToString(sum[:4])
}

func valid(key, template string) error {
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part[0] == '.' || len(part) > maxPart || strings.Contains(part, "*") {
			return fail.Errorf(fail.Usage, "the key %q becomes %q, of which a part is empty, begins with a dot, has a * or is longer than %d bytes", template, key, maxPart).WithHint("%s", templateHint)
		}
	}
	return nil
}
