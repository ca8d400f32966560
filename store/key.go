package store

import (
	"fmt"
	"io/fs"
	"strings"

	"run-task/internal/fail"
)

// ValidKey tells with fail.Usage why something is no key. A key is a relative path of components of A-Za-z0-9._@+=,~- which do not begin with a dot, at most
// 512 bytes long and each component 200: what a file system, S3 and a URL all take, and what GitLab takes for a package's file.
func ValidKey(key string) error {
	switch {
	case key == "":
		return badKey(key, "is empty")
	case len(key) > 512:
		return badKey(key[:40]+"...", "is longer than 512 bytes")
	}
	for _, part := range strings.Split(key, "/") {
		switch {
		case part == "":
			return badKey(key, "has an empty component")
		case part[0] == '.':
			return badKey(key, "has a component that begins with a dot")
		case len(part) > 200:
			return badKey(key, "has a component that is longer than 200 bytes")
		case strings.ContainsFunc(part, func(r rune) bool { return !keyRune(r) }):
			return badKey(key, "has other characters than A-Za-z0-9._@+=,~-")
		}
	}
	return nil
}

func keyRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._@+=,~-", r)
}

func badKey(key, what string) error {
	return fail.Errorf(fail.Usage, "the key %q %s", key, what).WithHint("use letters, digits and . _ @ + = , ~ - in it, and / between its parts")
}

// none is the error for an object that is not there.
func none(key, where string) error {
	return fail.Errorf(fail.Gone, "%q is not in %s: %w", key, where, fs.ErrNotExist)
}

// duplicate is the error for one that is.
func duplicate(key string) error { return fmt.Errorf("%q: %w", key, ErrDuplicate) }
