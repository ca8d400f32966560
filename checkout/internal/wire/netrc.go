package wire

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf8"

	"run-task/internal/logs"
)

const maxNetrc = 1 << 20 // bytes of a netrc file

// netrc finds the login for a host in a file as in netrc(5), which need not exist: the first entry of that machine, else the default's. A file that
// cannot be used is no failure: perhaps the server wants no login.
func netrc(log *logs.Log, file, host string) (user, password string, ok bool) {
	text, err := readNetrc(log, file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", false
	}
	var entries []machine
	if err == nil {
		entries, err = parseNetrc(text)
	}
	if err != nil {
		log.Verbosef("netrc %q is not used: %v", file, err)
		return "", "", false
	}
	for _, anyHost := range []bool{false, true} {
		for _, m := range entries {
			if m.any == anyHost && (m.any || strings.EqualFold(m.name, host)) && m.user+m.password != "" {
				return m.user, m.password, true
			}
		}
	}
	return "", "", false
}

func readNetrc(log *logs.Log, file string) (string, error) {
	f, err := openText(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode()&0o044 != 0 {
		log.Warnf("netrc %q can be read by others than its owner: make its mode 0600", file)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxNetrc+1))
	if err == nil && len(b) > maxNetrc {
		err = fmt.Errorf("it has more than %s", logs.Bytes(maxNetrc))
	}
	return string(b), err
}

// machine is an entry of a netrc file.
type machine struct {
	name           string
	any            bool // the default's
	user, password string
}

// parseNetrc reads netrc(5): words between white space, those with blanks in quotes with \ before a quote, macros up to an empty line, comments from a # where a
// keyword may stand. Unknown words are skipped. Errors tell the line and repeat nothing of it.
func parseNetrc(text string) (entries []machine, err error) {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f }) {
		return nil, errors.New("it has control characters")
	}
	w := &words{text: text}
	var at *machine
	for {
		word, ok, err := w.next(true)
		if err != nil || !ok {
			return entries, err
		}
		if word == "default" {
			entries = append(entries, machine{any: true})
			at = &entries[len(entries)-1]
			continue
		}
		switch word {
		case "machine", "login", "password", "account", "macdef":
		default:
			continue
		}
		value, ok, err := w.next(false)
		switch {
		case err != nil:
			return nil, err
		case !ok:
			return nil, fmt.Errorf("line %d: nothing comes after %s", w.line(), word)
		case word == "machine":
			entries = append(entries, machine{name: value})
			at = &entries[len(entries)-1]
		case word == "macdef":
			w.skipMacro()
		case at == nil:
			return nil, fmt.Errorf("line %d: %s belongs to no machine", w.line(), word)
		case word == "login":
			at.user = value
		case word == "password":
			at.password = value
		}
	}
}

// words are a netrc's.
type words struct {
	text string
	at   int
}

func (w *words) line() int { return 1 + strings.Count(w.text[:w.at], "\n") }

// next is the next word; comments may stand only where a keyword may.
func (w *words) next(comments bool) (word string, ok bool, err error) {
	const blank = " \t\r\n"
	for {
		w.at = len(w.text) - len(strings.TrimLeft(w.text[w.at:], blank))
		if !comments || !strings.HasPrefix(w.text[w.at:], "#") {
			break
		}
		w.to("\n")
	}
	rest := w.text[w.at:]
	if rest == "" {
		return "", false, nil
	}
	if rest[0] != '"' {
		n := strings.IndexAny(rest, blank)
		if n < 0 {
			n = len(rest)
		}
		w.at += n
		return rest[:n], true, nil
	}
	var b strings.Builder
	for i := 1; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '"':
			w.at += i + 1
			return b.String(), true, nil
		case c == '\n':
			return "", false, fmt.Errorf("line %d: a quote is not closed", w.line())
		case c == '\\' && i+1 < len(rest) && rest[i+1] != '\n':
			i++
			b.WriteByte(rest[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", false, fmt.Errorf("line %d: a quote is not closed", w.line())
}

// to goes on behind the next end, or to the end of all.
func (w *words) to(end string) {
	if i := strings.Index(w.text[w.at:], end); i >= 0 {
		w.at += i + len(end)
		return
	}
	w.at = len(w.text)
}

// skipMacro goes on behind the first empty line.
func (w *words) skipMacro() {
	for w.to("\n"); w.at < len(w.text); w.to("\n") {
		if line, _, _ := strings.Cut(w.text[w.at:], "\n"); strings.TrimSpace(line) == "" {
			return
		}
	}
}
