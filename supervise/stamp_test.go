//go:build unix

package supervise

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"testing"

	"run-task/internal/logs"
)

// stamped is what a stamper makes of the pieces, with "|" for each prefix.
func stamped(flush bool, pieces ...string) string {
	var s stamper
	var out []byte
	for _, p := range pieces {
		out = s.append(out, []byte(p))
		if flush {
			out = s.flush(out)
		}
	}
	return regexp.MustCompile(`\[task \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\] `).ReplaceAllString(string(s.flush(out)), "|")
}

// plainly says the same of the whole text at once, byte by byte.
func plainly(text string) string {
	var b strings.Builder
	begin := true
	for i := range len(text) {
		if begin {
			b.WriteByte('|')
		}
		b.WriteByte(text[i])
		begin = text[i] == '\n' || text[i] == '\r' && !strings.HasPrefix(text[i+1:], "\n")
	}
	return b.String()
}

// However the bytes come, each line has one prefix and no byte is lost. A \r whose \n comes later is the one end that cannot be told at once.
func TestStampsOfAllSplits(t *testing.T) {
	texts := []string{""}
	for range 6 {
		var longer []string
		for _, text := range texts {
			longer = append(longer, text+"a", text+"\n", text+"\r")
		}
		texts = longer
		for _, text := range texts {
			want := plainly(text)
			for i := range len(text) {
				for j := i; j < len(text); j++ {
					for _, flush := range []bool{false, true} {
						if got := stamped(flush, text[:i], text[i:j], text[j:]); got != want {
							t.Fatalf("%q in pieces %q %q %q (flushed: %t): %q, want %q", text, text[:i], text[i:j], text[j:], flush, got, want)
						}
					}
				}
			}
		}
	}
}

func TestLinesWaitForTheirEnd(t *testing.T) {
	var s stamper
	if out := s.append(nil, []byte("half")); len(out) > 0 || !s.holds() {
		t.Errorf("the beginning of a line is shown at once: %q", out)
	}
	if out := s.append(nil, []byte(" and half\nnext")); bytes.Count(out, []byte("[task ")) != 1 || !bytes.HasSuffix(out, []byte("half and half\n")) {
		t.Errorf("%q", out)
	}
	if out := s.append(nil, bytes.Repeat([]byte("x"), 10<<20)); len(out) < 10<<20 || s.holds() {
		t.Errorf("of a long line %d bytes are shown, %d held", len(out), len(s.held))
	}
	s.interrupted()
	if out := s.append(nil, []byte("rest\n")); !bytes.HasPrefix(out, []byte("[task ")) {
		t.Errorf("after a line of ours: %q", out)
	}
}

// For each size of output and each way to write it: what fits is shown, and of the rest the last part.
func TestTail(t *testing.T) {
	const limit = 40
	for size := range 200 {
		text := strings.Repeat("0123456\n", 40)[:size]
		for piece := 1; piece <= 50; piece += 7 {
			tail := newTail(limit, "\n", logs.New(io.Discard, logs.Normal, false))
			var out []byte
			for rest := text; rest != ""; rest = rest[min(piece, len(rest)):] {
				out = tail.append(out, []byte(rest[:min(piece, len(rest))]))
			}
			got := string(append(out, tail.end()...))
			if size <= limit {
				if got != text {
					t.Fatalf("%d bytes in pieces of %d: %q", size, piece, got)
				}
				continue
			}
			shown, after, ok := strings.Cut(got, "[output] the limit of 40 B is reached: of what follows only the last 10 B will be shown, at the end\n")
			_, last, left := strings.Cut(after, " left out\n")
			if !left {
				last = after
			}
			if !ok || len(shown) > limit+1 || !strings.HasPrefix(text, strings.TrimSuffix(shown, "\n")) || !strings.HasSuffix(text, last) || len(last) > 10 || last == "" {
				t.Fatalf("%d bytes in pieces of %d: %q", size, piece, got)
			}
			if hidden := len(text) - len(strings.TrimSuffix(shown, "\n")) - len(last); left != (hidden > 1) {
				t.Fatalf("%d bytes in pieces of %d: %d are hidden: %q", size, piece, hidden, got)
			}
		}
	}
}
