package wire

import (
	"path/filepath"
	"strings"

	"run-task/internal/fail"
)

// Join is the repository that a submodule's URL means in a repository at u (git-submodule(1)): one that begins with "./" or "../" is relative to u, as if
// u were a directory, and keeps its credentials. Any other stands for itself, and gets u's credentials only if it has none and leads to the same server
// over HTTP or HTTPS. On this machine's file system is only what a repository there names: otherwise any repository could have files of the machine
// brought into a worktree (CVE-2022-39253). Errors are fail.BadData and repeat none of rel.
func (u URL) Join(rel string) (URL, error) {
	if !strings.HasPrefix(rel, "./") && !strings.HasPrefix(rel, "../") {
		return u.beside(rel)
	}
	up, below := 0, rel
	for {
		if rest, ok := strings.CutPrefix(below, "./"); ok {
			below = rest
		} else if rest, ok := strings.CutPrefix(below, "../"); ok {
			below, up = rest, up+1
		} else {
			break
		}
	}
	dir, root := strings.TrimRight(u.Path, "/"), u.Scheme != "ssh" || strings.HasPrefix(u.Path, "/")
	for range up {
		i := strings.LastIndexByte(dir, '/')
		if i < 0 && (root || dir == "" || dir[0] == '~') {
			return URL{}, unusable("it has more %q than %s has directories", "../", u)
		}
		dir = dir[:max(i, 0)]
	}
	joined := u
	switch joined.Path = strings.TrimRight(dir+"/"+below, "/"); {
	case dir == "" && !root: // beside what is in the home directory
		joined.Path = strings.TrimLeft(joined.Path, "/")
	case u.Scheme == "file":
		joined.Path = filepath.Clean(joined.Path)
	}
	again, err := ParseURL(joined.String())
	if err == nil {
		err = joined.check()
	}
	if err != nil {
		return URL{}, notValid(err)
	}
	if again.Path != joined.Path || again.Host != u.Host {
		return URL{}, unusable("what it leads to from %s has no canonical form", u)
	}
	return joined, nil
}

// beside is a URL that is not relative.
func (u URL) beside(s string) (URL, error) {
	other, err := ParseURL(s)
	if err != nil {
		return URL{}, notValid(err)
	}
	switch {
	case other.Scheme == "file" && u.Scheme != "file":
		return URL{}, unusable("it is a path on this machine, and %s is not", u)
	case other.Scheme == "file" && !filepath.IsAbs(s) && !strings.Contains(s, "://"):
		return URL{}, unusable("it is a path that is relative to nothing")
	}
	if (u.Scheme == "https" || u.Scheme == "http") && other.userinfo == "" && other.Scheme == u.Scheme && other.Host == u.Host && other.Port == u.Port {
		other.User, other.password, other.userinfo = u.User, u.password, u.userinfo
	}
	return other, nil
}

func unusable(format string, args ...any) *fail.Error {
	return fail.Errorf(fail.BadData, "its URL in .gitmodules cannot be used: "+format, args...).
		WithHint("correct .gitmodules: absolute URLs of https, http, ssh or git, or such that begin with ./ or ../, which are relative to the repository's own")
}

func notValid(err error) error { return unusable("%s", err.Error()) }
