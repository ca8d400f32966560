package caches

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"run-task/internal/fail"
)

func TestRequirements(t *testing.T) {
	got, err := Options{UID: 1000, GID: 100, Require: []string{"z=1,2 3", "A=", "z=1,2 3", "a=b=c", "ü=é"}}.Requirements()
	want := []string{"A=", "a=b=c", "gid=100", "uid=1000", "version=1", "z=1,2 3", "ü=é"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	for _, bad := range []string{"", "a", "=b", "a=b\nuid=0", "a=b\r", "a\x00=b", "uid=0", "gid=0", "version=2", "a=" + strings.Repeat("x", maxRequires)} {
		_, err := Options{Require: []string{bad}}.Requirements()
		wantReason(t, err, fail.Usage)
	}
}

func TestParseRequires(t *testing.T) {
	for in, want := range map[string][]string{
		"gid=1\nuid=1\nversion=1":         {"gid=1", "uid=1", "version=1"},
		"version=1\r\nuid=1\r\ngid=1\r\n": {"gid=1", "uid=1", "version=1"},
		"b\ra\rb\r":                       {"a", "b"},
		"\n":                              {""},
		"a\n\n":                           {"", "a"},
		"a\x0bb\x0cc\xc2\x85d":            {"a\x0bb\x0cc\xc2\x85d"}, // line ends for str.splitlines, not for bytes
	} {
		if got, err := parseRequires([]byte(in)); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
	if _, err := parseRequires(nil); !errors.Is(err, errEmpty) {
		t.Errorf("no bytes: %v", err)
	}
}

// splitlines is bytes.splitlines written out, byte by byte.
func splitlines(b []byte) (lines []string) {
	var line []byte
	for i := 0; i < len(b); i++ {
		if b[i] != '\n' && b[i] != '\r' {
			line = append(line, b[i])
			if i < len(b)-1 {
				continue
			}
		} else if b[i] == '\r' && i+1 < len(b) && b[i+1] == '\n' {
			i++
		}
		lines, line = append(lines, string(line)), nil
	}
	return lines
}

func FuzzRequirements(f *testing.F) {
	for _, s := range []string{"", "\n", "a", "a\n", "a\r\nb", "gid=1000\nuid=1000\nversion=1", "a\r\r\nb\n\r", "\r", "\x00\xff=\n\n\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseRequires(b)
		if len(b) == 0 {
			if err == nil {
				t.Fatal("an empty file was accepted")
			}
			return
		}
		want := splitlines(b)
		slices.Sort(want)
		if want = slices.Compact(want); err != nil || !slices.Equal(got, want) {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
		if len(minus(got, got)) != 0 || !slices.Equal(minus(got, nil), got) {
			t.Fatalf("minus is wrong for %q", got)
		}
		if again, err := parseRequires([]byte(strings.Join(got, "\n"))); len(strings.Join(got, "")) > 0 && got[len(got)-1] != "" && (err != nil || !slices.Equal(again, got)) {
			t.Fatalf("%q does not survive writing: %q, %v", got, again, err)
		}
	})
}

func TestName(t *testing.T) {
	hash := "0123456789ABCDEF0123" + strings.Repeat("f", 44)
	if got, err := Name("checkouts", hash); err != nil || got != "checkouts-0123456789abcdef0123" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"", "a b", "a\n", "a\xff"} {
		_, err := Name(bad, hash)
		wantReason(t, err, fail.Usage)
	}
	if _, err := Name("a", hash[:40]); fail.Of(err) != fail.Internal {
		t.Errorf("a short hash: %v", err)
	}
}
