// Package treepath reads git trees and says which of their names may become paths. What it refuses would, on some system,
// let a commit write into its own .git directory or name one path twice.
package treepath

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// The modes that git's index knows; trees of old tools also have others, see Canonical.
const (
	Dir     = 0o040000
	File    = 0o100644
	Exec    = 0o100755
	Link    = 0o120000
	Gitlink = 0o160000 // a submodule's commit
)

const (
	typeMask = 0o170000
	regular  = 0o100000
	maxName  = 255 // NAME_MAX of every file system that Linux has
)

// Canonical is the mode that git's index has for a tree entry's: historic permissions such as 100664 become 644 or 755 by
// the owner's x bit. It fails for a type that git has not.
func Canonical(mode uint32) (uint32, error) {
	if mode <= 0o177777 {
		switch t := mode & typeMask; t {
		case Dir, Link, Gitlink:
			return t, nil
		case regular:
			if mode&0o100 != 0 {
				return Exec, nil
			}
			return File, nil
		}
	}
	return 0, fmt.Errorf("mode %o is none of git's", mode)
}

// Check says why a tree entry of that name and mode is refused, nil if it is not: empty, "." and "..", a slash or NUL, more
// than 255 bytes, ".git" or ".gitmodules" being a link, both also as NTFS or HFS+ would read the name (git's is_ntfs_dotgit,
// is_hfs_dotgit and their like), and modes that git has not. Everything else is a name, not valid UTF-8 included.
func Check(name string, mode uint32) error {
	canonical, err := Canonical(mode)
	if err != nil {
		return err
	}
	switch {
	case name == "":
		return errors.New("the name is empty")
	case name == "." || name == "..":
		return errors.New("the name means a directory that exists")
	case strings.ContainsAny(name, "/\x00"):
		return errors.New("the name holds a slash or NUL")
	case len(name) > maxName:
		return fmt.Errorf("the name is %d bytes long, %d is what file systems have", len(name), maxName)
	case isDotGit(name):
		return errors.New("the name is .git on some file system")
	case canonical == Link && isDotGitmodules(name):
		return errors.New(".gitmodules is a symbolic link")
	}
	return nil
}

// On Windows a backslash separates: "a\.git\hooks" on Linux is a/.git/hooks there, so git refuses it everywhere.
func isDotGit(name string) bool {
	if hfs(name) == ".git" {
		return true
	}
	for part := range strings.SplitSeq(name, `\`) {
		if n := ntfs(part); n == ".git" || n == "git~1" {
			return true
		}
	}
	return false
}

func isDotGitmodules(name string) bool {
	if hfs(name) == ".gitmodules" {
		return true
	}
	for part := range strings.SplitSeq(name, `\`) {
		n := ntfs(part)
		if n == ".gitmodules" || len(n) == 8 && n[:7] == "gitmod~" && n[7] >= '1' && n[7] <= '4' || hashedShortName(n) {
			return true
		}
	}
	return false
}

// hashedShortName says whether n can be the 8.3 name that NTFS gives .gitmodules once gitmod~1 to ~4 are taken: as much of
// its hash as leaves room for a tilde and a number, 8 bytes together.
func hashedShortName(n string) bool {
	head, number, tilde := strings.Cut(n, "~")
	if !tilde || len(n) != 8 || !strings.HasPrefix("gi7eba", head) || number == "" || number[0] == '0' {
		return false
	}
	return strings.Trim(number, "0123456789") == ""
}

// ntfs is the file that NTFS opens for a name: streams (":...") and trailing dots and spaces are not part of it, and case is not kept apart.
func ntfs(name string) string {
	name, _, _ = strings.Cut(name, ":")
	return lower(strings.TrimRight(name, ". "))
}

// hfs is the name as HFS+ compares it, as far as ASCII goes: some code points are skipped and case is not kept apart.
func hfs(name string) string {
	ascii := true
	for i := range len(name) {
		ascii = ascii && name[i] < utf8.RuneSelf
	}
	if ascii {
		return lower(name)
	}
	return lower(strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, name))
}

// lower folds ASCII only: strings.ToLower would make a "k" of the Kelvin sign, which no file system does.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
