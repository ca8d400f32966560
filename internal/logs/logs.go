// Package logs is the one writer of everything that run-task itself says. Every line that it writes is a single line of
// printable text, and every secret that it was told of is masked.
package logs

import (
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/mask"
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
	stamps   bool
	sections sections
	secrets  map[string]bool
	drawn    bool // a progress line stands on the terminal, without its line end

	masks atomic.Pointer[mask.Set] // of secrets; needs no lock, so that who has one of its own can format lines
}

// New makes a Log that writes to w, one Write a line. terminal says that w is one: progress is then redrawn in place.
func New(w io.Writer, level Level, terminal bool) *Log {
	return &Log{shared: &shared{w: w, level: level, terminal: terminal, secrets: map[string]bool{}}}
}

// Timestamps has the prefix of each line tell the time, too: "[step TIME] ".
func (l *Log) Timestamps() { l.stamps = true }

// Divert sends to w what went elsewhere: what knows of others who write to the same file.
func (l *Log) Divert(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.w = w
}

// IsTerminal tells whether a file is a terminal that understands cursor movements.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil
}

// For is the same writer with lines that start with "[step] ".
func (l *Log) For(step string) *Log { return &Log{l.shared, step} }

// Mask makes [MASKED] of values wherever they would be printed from now on. What is shorter than mask.Min would mask ordinary words and is not taken.
func (l *Log) Mask(values ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, value := range values {
		quoted := strconv.Quote(value)
		quoted = quoted[1 : len(quoted)-1]
		for _, v := range []string{value, OneLine(value), quoted, OneLine(quoted)} { // errors quote, and fail.Print escapes before it writes
			l.secrets[v] = true
		}
	}
	l.masks.Store(mask.New(slices.Collect(maps.Keys(l.secrets))...))
}

// Masks are the values that Mask was told of.
func (l *Log) Masks() *mask.Set { return l.masks.Load() }

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
	s = l.Line("%s", s)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(l.sections.enter(l.step) + s)
}

// Line is a line as Infof prints it, for who prints it elsewhere.
func (l *Log) Line(format string, args ...any) string {
	s := OneLine(l.Masked(fmt.Sprintf(format, args...)))
	switch {
	case l.stamps:
		step := l.step
		if step == "" {
			step = "run-task"
		}
		s = "[" + step + " " + Stamp(time.Now()) + "] " + s
	case l.step != "":
		s = "[" + l.step + "] " + s
	}
	return l.Masked(s) + "\n" // again: a prefix can make a secret whole
}

// Stamp is how times are written, in UTC.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// Write prints whole lines as they are but for masked secrets: for what is laid out elsewhere, as fail.Print and --plan do. It clears a progress line first, and ends a section.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.write(l.sections.leave() + l.Masked(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// write prints lines. The caller holds mu.
func (s *shared) write(lines string) error {
	if lines == "" {
		return nil
	}
	if s.drawn {
		lines, s.drawn = "\r\x1b[K"+lines, false
	}
	_, err := io.WriteString(s.w, lines)
	return err
}

var (
	// Over HTTP a lone user name is often a token; ssh://git@host is not a secret.
	userinfo = regexp.MustCompile(`(https?://)[^/\s"]+@|([A-Za-z][A-Za-z0-9+.-]*://)[^/\s"@:]*:[^/\s"]*@`)
	// What a URL's query signs or allows: S3's, Google's and Azure's presigned ones, and tokens of GitLab's.
	signed = regexp.MustCompile(`(?i)([?&](?:x-(?:amz|goog)-(?:signature|credential|security-token)|awsaccesskeyid|signature|sig|[a-z_-]*token)=)[^&\s"#]+`)
	// What GitLab, GitHub, npm, PyPI, Docker, Slack, Vault and Stripe give out begins like this.
	tokens = regexp.MustCompile(`\b(?:gl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|soat|oas|wt|ffct)-[\w.-]{8,}|GR1348941[\w-]{8,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|npm_\w{16,}|pypi-[\w-]{16,}|dckr_[po]at_[\w-]{8,}|xox[abeprs]-[\w-]{8,}|hv[sbr]\.[\w-]{16,}|[rs]k_live_\w{8,})`)
)

// Masked is text as it may be shown, with known secrets, the userinfo of URLs, signatures in their queries and what looks like a token replaced: for what is written elsewhere than to the log.
func (l *Log) Masked(text string) string {
	text = l.masks.Load().String(text)
	text = userinfo.ReplaceAllString(text, "${1}${2}[MASKED]@")
	text = signed.ReplaceAllString(text, "${1}[MASKED]")
	return tokens.ReplaceAllString(text, "[MASKED]")
}
