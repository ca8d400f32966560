package caches

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"run-task/internal/fail"
)

const (
	requiresName = ".cacherequires"
	maxRequires  = 64 << 10 // bytes; both what we write and what we read
)

// Requirements is what a cache says about this task: the lines of the requirement file, sorted bytewise. It fails with
// fail.Usage for an o.Require that cannot be one.
func (o Options) Requirements() ([]string, error) {
	lines := []string{"version=1", fmt.Sprintf("uid=%d", o.UID), fmt.Sprintf("gid=%d", o.GID)}
	size := 0
	for _, r := range o.Require {
		key, _, ok := strings.Cut(r, "=")
		switch {
		case !ok || key == "" || strings.ContainsFunc(r, unicode.IsControl):
			return nil, fail.Errorf(fail.Usage, "requirement %q is not KEY=VALUE on one line", r).
				WithHint("for example --require toolchain=gcc-14")
		case key == "version" || key == "uid" || key == "gid":
			return nil, fail.Errorf(fail.Usage, "requirement %q: run-task sets %s itself", r, key).WithHint("use another key")
		}
		size += len(r) + 1
		lines = append(lines, r)
	}
	if size > maxRequires/2 {
		return nil, fail.Errorf(fail.Usage, "the requirements are longer than %d bytes", maxRequires/2).WithHint("use a hash")
	}
	slices.Sort(lines)
	return slices.Compact(lines), nil
}

var errEmpty = errors.New("it is empty, as no run-task leaves it")

// parseRequires splits a requirement file as Python's bytes.splitlines does: at \n, \r\n and \r, a last line end being no
// line of its own. A file without bytes is errEmpty.
func parseRequires(b []byte) ([]string, error) {
	if len(b) == 0 {
		return nil, errEmpty
	}
	s := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(b))
	lines := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	slices.Sort(lines)
	return slices.Compact(lines), nil
}

func minus(theirs, ours []string) []string {
	return slices.DeleteFunc(slices.Clone(theirs), func(l string) bool { return slices.Contains(ours, l) })
}

func isOwner(line string) bool {
	return strings.HasPrefix(line, "uid=") || strings.HasPrefix(line, "gid=")
}

// Name is a cache name tied to a content: NAME-<first 20 hex digits of hash>, hash being a sha256 in hex (of the run-task
// binary, whose change then never meets old state). It fails with fail.Usage for a name that is empty or not printable without
// spaces.
func Name(name, hash string) (string, error) {
	odd := func(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) || r == unicode.ReplacementChar }
	if name == "" || strings.ContainsFunc(name, odd) {
		return "", fail.Errorf(fail.Usage, "%q is no cache name", name).WithHint("use letters, digits, dots and dashes")
	}
	if b, err := hex.DecodeString(hash); err != nil || len(b) != 32 {
		return "", fail.Errorf(fail.Internal, "%q is no sha256", hash)
	}
	return name + "-" + strings.ToLower(hash[:20]), nil
}
