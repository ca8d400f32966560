package keys

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"run-task/internal/fail"
)

// Source is where the values of templates come from. Without a function, what needs it is fail.Usage.
type Source struct {
	Files func(globs []string) ([]byte, error) // {{files}}: see Files
	Tree  func(path string) (string, error)    // {{tree}}: git's hash of what is at a path of the commit
	Env   func(name string) string             // {{env}}: a variable, "" if it is not set
	Arch  string                               // {{arch}}, as amd64
	OS    string                               // {{os}}, as linux
	Self  func() (string, error)               // {{run-task}}: a hash of this binary
}

// Stores take parts of 200 bytes, and an archive's suffix comes on top. What was cut has the length of keep and a hash; a key that was cut ends with
// keepKey's rest of a part and a second hash.
const (
	maxKey, keepKey   = 400, 300
	maxPart, keepPart = 150, 117
	hashLen           = 32 // hex digits
)

const templateHint = `a template is letters, digits, . _ @ + = , ~ - with / between its parts, and ` +
	`{{files "GLOB"...}}, {{tree "PATH"}}, {{env NAME}}, {{arch}}, {{os}}, {{run-task}}`

// Check tells, as fail.Usage, why a template never makes a key.
func Check(template string) error {
	_, err := parse(template, template, "")
	return err
}

// checkFallback is Check for what Fallback takes.
func checkFallback(template string) error {
	text, prefix := beginning(template)
	if !prefix {
		return Check(template)
	}
	_, err := parse(template, text, "x")
	return err
}

// Expand makes a key of a template: parts with / between them, of letters, digits and ._@+=,~-, with no .. in them, none of which begins with a dot. A
// variable that is not set and a template that Check refuses are fail.Usage; no other value of a variable fails.
//
// In a variable's value / becomes -, and other bytes and dots where they cannot be become _. A part of its SHA-256 follows then, as it does where the value
// ends as if that had happened: no two values become one. A part of 150 bytes or more, and a key of more than 400, become their beginning and a part of their
// SHA-256. No error repeats the value of a variable.
func Expand(template string, s Source) (string, error) {
	all, err := parse(template, template, "")
	if err != nil {
		return "", err
	}
	key, err := fill(all, s.value)
	if err != nil {
		return "", err
	}
	return cut(cutParts(key), maxKey, keepKey), nil
}

// Fallback makes a key of a template, or what the newest of several begins with: then the template ends with - or, which is not a part of it, with *. A
// beginning that is too long to find keys that were cut is fail.Usage, and so is what Expand refuses.
func Fallback(template string, s Source) (key string, prefix bool, err error) {
	text, prefix := beginning(template)
	if !prefix {
		key, err = Expand(template, s)
		return key, false, err
	}
	all, err := parse(template, text, "x")
	if err != nil {
		return "", true, err
	}
	if key, err = fill(all, s.value); err != nil {
		return "", true, err
	}
	i := strings.LastIndexByte(key, '/') + 1
	last := key[i:]
	if i > 0 {
		key = cutParts(key[:i-1]) + "/" + last
	}
	if len(last) > keepPart || len(key) > keepKey {
		return "", true, fail.Errorf(fail.Usage, "the fallback %q becomes longer than %d bytes, or %d in its last part", template, keepKey, keepPart).
			WithHint("use fewer values in it")
	}
	return key, true, nil
}

// beginning tells whether a template stands for keys that begin so, and what it is without the *.
func beginning(template string) (text string, ok bool) {
	text, star := strings.CutSuffix(template, "*")
	return text, star || strings.HasSuffix(text, "-")
}

// piece is a part of a template: text, or words between braces.
type piece struct {
	text  string
	words []string
}

// parse takes apart text, which is template or the beginning of it, and looks whether it makes a key with values and end in it.
func parse(template, text, end string) (all []piece, err error) {
	wrong := func(why string) ([]piece, error) {
		return nil, fail.Errorf(fail.Usage, "the key %q %s", template, why).WithHint("%s", templateHint)
	}
	if text == "" {
		return wrong("is empty")
	}
	for rest := text; rest != ""; {
		before, after, braced := strings.Cut(rest, "{{")
		all, rest = append(all, piece{text: before}), ""
		if !braced {
			break
		}
		n, ok := closing(after)
		if !ok {
			return wrong("has a {{ or a quote that is not closed")
		}
		words, why := readWords(after[:n])
		if why != "" {
			return wrong(why)
		}
		if words[0] == "files" {
			for _, glob := range words[1:] {
				if _, err := parseGlob(glob); err != nil {
					return nil, err
				}
			}
		}
		all, rest = append(all, piece{words: words}), after[n+2:]
	}
	sample, _ := fill(all, func([]string) (string, error) { return "x", nil })
	if why := valid(sample + end); why != "" {
		return wrong(why)
	}
	return all, nil
}

// readWords reads what stands between braces: a function and what it takes, or why it is none.
func readWords(text string) (words []string, why string) {
	words, ok := splitWords(text)
	if !ok || len(words) == 0 {
		return nil, "has something between {{ and }} that cannot be read"
	}
	takes := map[string]int{"tree": 1, "env": 1, "arch": 0, "os": 0, "run-task": 0}
	n, known := takes[words[0]]
	switch given := len(words) - 1; {
	case words[0] == "files" && given == 0, known && n != given:
		return nil, "has {{" + words[0] + "}} with more or fewer words than it takes"
	case words[0] != "files" && !known:
		return nil, "has {{" + words[0] + "}}, which is not known"
	}
	return words, ""
}

// splitWords splits at blanks. A word is a Go string in double quotes or bare, and never empty.
func splitWords(text string) (words []string, ok bool) {
	for {
		if text = strings.TrimLeft(text, " \t"); text == "" {
			return words, true
		}
		end := strings.IndexAny(text, " \t")
		if end < 0 {
			end = len(text)
		}
		word := text[:end]
		if text[0] == '"' {
			q, err := strconv.QuotedPrefix(text)
			if err != nil {
				return nil, false
			}
			word, _ = strconv.Unquote(q)
			end = len(q)
		} else if strings.ContainsFunc(word, func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune("\"'`{}", r) }) {
			return nil, false
		}
		if text = text[end:]; word == "" || text != "" && text[0] != ' ' && text[0] != '\t' {
			return nil, false
		}
		words = append(words, word)
	}
}

// fill puts values in their places.
func fill(all []piece, value func(words []string) (string, error)) (string, error) {
	var b strings.Builder
	for _, p := range all {
		b.WriteString(p.text)
		if p.words == nil {
			continue
		}
		v, err := value(p.words)
		if err != nil {
			return "", err
		}
		b.WriteString(v)
	}
	return b.String(), nil
}

// value is what words between braces stand for: some bytes of those that are plain.
func (s *Source) value(words []string) (v string, err error) {
	name := words[0]
	switch {
	case name == "env" && s.Env != nil:
		if v = s.Env(words[1]); v == "" {
			return "", fail.Errorf(fail.Usage, "the variable %q, which a key is made of, is not set, or empty", words[1]).
				WithHint("set it for this job, or leave it out of the key")
		}
		return clean(v), nil
	case name == "files" && s.Files != nil:
		var sum []byte
		sum, err = s.Files(words[1:])
		v = hex.EncodeToString(sum)
	case name == "tree" && s.Tree != nil:
		v, err = s.Tree(words[1])
	case name == "run-task" && s.Self != nil:
		v, err = s.Self()
	case name == "arch":
		v = s.Arch
	case name == "os":
		v = s.OS
	default:
		return "", fail.Errorf(fail.Usage, "{{%s}} is not to be had here", name).WithHint("leave it out of the key")
	}
	if err != nil {
		return "", err
	}
	if strings.Contains(v, "/") || valid(v) != "" {
		return "", fail.Errorf(fail.Internal, "{{%s}} gave %q, which is no part of a key", name, v)
	}
	return v, nil
}

// clean makes a variable's value fit for a key, wherever in it: without a slash, and dots only where no .. and no hidden part can come of them.
func clean(value string) string {
	b := []byte(value)
	for i, c := range b {
		switch {
		case c == '/':
			b[i] = '-'
		case !plain(c), c == '.' && (i == 0 || i == len(b)-1 || b[i-1] == '.'):
			b[i] = '_'
		}
	}
	if string(b) == value && !marked(value) {
		return value
	}
	return string(b) + "-" + digits(value)[:8]
}

// marked tells whether a value ends as clean's do: else a branch could be given the name that another one's becomes, and its cache with it.
func marked(value string) bool {
	i := len(value) - 9
	return i >= 0 && value[i] == '-' && strings.Trim(value[i+1:], "0123456789abcdef") == ""
}

// cutParts cuts the parts of a key that are too long.
func cutParts(key string) string {
	parts := strings.Split(key, "/")
	for i, p := range parts {
		parts[i] = cut(p, maxPart, keepPart)
	}
	return strings.Join(parts, "/")
}

// cut makes of a text that is too long its first bytes and a part of its SHA-256. One that has just the length of these is cut too: it could be made to look
// like another one.
func cut(text string, limit, keep int) string {
	if n := len(text); n <= limit && n != keep+1+hashLen {
		return text
	}
	return text[:keep] + "-" + digits(text)[:hashLen]
}

func digits(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// valid tells why a text is no key, "" if it is one. Its length does not matter.
func valid(key string) string {
	for part := range strings.SplitSeq(key, "/") {
		switch {
		case part == "":
			return "has an empty part"
		case part[0] == '.':
			return "has a part that begins with a dot"
		case strings.Contains(part, ".."):
			return "has .. in it"
		}
		for i := range len(part) {
			if !plain(part[i]) {
				return "has " + strconv.Quote(part[i:i+1]) + ", which no key has"
			}
		}
	}
	return ""
}

// plain tells whether a byte may stand in a part of a key.
func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._@+=,~-", c) >= 0
}
