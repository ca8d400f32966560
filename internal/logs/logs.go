// Package logs is the one writer of everything that run-task itself says. Every line that it writes is a single line of
// printable text, and every secret that it was told of is masked.
package logs

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Level says how much is printed.
type Level int

const (
	Normal  Level = iota // a line for each step that did something
	Verbose              // and details
	Quiet                // errors only
)

// Log is the writer. The zero value is not usable: see New. A Log and all that For made of it may be used from several goroutines.
type Log struct {
	*shared
	step string
}

type shared struct {
	mu       sync.Mutex
	w        io.Writer
	level    Level
	terminal bool
	secrets  []string // longest first
	drawn    bool     // a progress line stands on the terminal, without its line end
}

// New makes a Log that writes to w, one Write a line. terminal says that w is one: progress is then redrawn in place.
func New(w io.Writer, level Level, terminal bool) *Log {
	return &Log{shared: &shared{w: w, level: level, terminal: terminal}}
}

// IsTerminal tells whether a file is a terminal that understands cursor movements.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil
}

// For is the same writer with lines that start with "[step] ".
func (l *Log) For(step string) *Log { return &Log{l.shared, step} }

// Mask makes [MASKED] of value wherever it would be printed from now on. Values shorter than 4 bytes would mask ordinary words and are not taken.
func (l *Log) Mask(value string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range []string{value, OneLine(value)} { // fail.Print escapes before it writes
		if len(v) >= 4 && !slices.Contains(l.secrets, v) {
			l.secrets = append(l.secrets, v)
		}
	}
	if len(l.secrets) > 1 {
		slices.SortFunc(l.secrets, func(a, b string) int { return len(b) - len(a) })
	}
}

// Infof prints a line unless --quiet.
func (l *Log) Infof(format string, args ...any) {
	if l.level != Quiet {
		l.line(fmt.Sprintf(format, args...))
	}
}

// Verbosef prints a line with --verbose.
func (l *Log) Verbosef(format string, args ...any) {
	if l.level == Verbose {
		l.line(fmt.Sprintf(format, args...))
	}
}

// Warnf prints "warning: " and a line unless --quiet.
func (l *Log) Warnf(format string, args ...any) { l.Infof("warning: "+format, args...) }

func (l *Log) line(s string) {
	if l.step != "" {
		s = "[" + l.step + "] " + s
	}
	io.WriteString(l, OneLine(l.Masked(s))+"\n")
}

// Write prints whole lines as they are but for masked secrets: for what is laid out elsewhere, as fail.Print and --plan do. It clears a progress line first.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.masked(string(p))
	if l.drawn {
		s, l.drawn = "\r\x1b[K"+s, false
	}
	if _, err := io.WriteString(l.w, s); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Over HTTP a lone user name is often a token; ssh://git@host is not a secret.
var userinfo = regexp.MustCompile(`(https?://)[^/\s"]+@|([A-Za-z][A-Za-z0-9+.-]*://)[^/\s"@:]*:[^/\s"]*@`)

// Masked is text as it may be shown: for what is written elsewhere than to the log.
func (l *Log) Masked(text string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.masked(text)
}

// masked replaces known secrets and the userinfo of URLs. The caller holds mu.
func (s *shared) masked(text string) string {
	for _, v := range s.secrets {
		text = strings.ReplaceAll(text, v, "[MASKED]")
	}
	return userinfo.ReplaceAllString(text, "${1}${2}[MASKED]@")
}
