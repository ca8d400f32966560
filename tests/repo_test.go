//go:build linux

package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// repo is a bare repository that native git made.
type repo struct {
	Path string
	SHA  map[string]string // by the names of history
}

// history is what git fast-import makes a repository of:
//
//	first - second - tip      main; tag v1 names second
//	     \- forced            was on topic before a force push
//	     \- topic             is there now
//	     \- oldmerge, merge   refs/pull/1/merge before and after it was rewritten
//
// first and tip differ in every way that a worktree can: content, mode, a file that becomes a directory and the reverse, a link that becomes a file.
const history = `
commit refs/heads/main
mark :1
committer A U Thor <a@example.com> 1700000000 +0000
data <<END
first
END
M 644 inline README
data <<END
the first
END
M 644 inline empty
data 0
M 755 inline run.sh
data <<END
#!/bin/sh
echo hello
END
M 120000 inline link
data 6
README
M 644 inline becomes-dir
data <<END
a file
END
M 644 inline becomes-file/inner
data <<END
inner
END
M 120000 inline becomes-plain
data 4
gone
M 644 inline "odd \"name\"\n, and more"
data <<END
odd
END
M 644 inline deep/er/est/file
data <<END
deep
END

commit refs/heads/main
mark :2
committer A U Thor <a@example.com> 1700000100 +0000
data <<END
second
END
from :1
M 644 inline README
data <<END
the second
END

tag v1
mark :20
from :2
tagger A U Thor <a@example.com> 1700000150 +0000
data <<END
version 1
END

commit refs/heads/main
mark :3
committer A U Thor <a@example.com> 1700000200 +0000
data <<END
tip
END
from :2
M 644 inline README
data <<END
the tip
END
M 644 inline run.sh
data <<END
#!/bin/sh
echo hello again
END
D becomes-dir
M 644 inline becomes-dir/inner
data <<END
in a directory
END
D becomes-file
M 644 inline becomes-file
data <<END
a file now
END
M 644 inline becomes-plain
data <<END
no link any more
END
M 644 inline .gitignore
data <<END
*.o
END

commit refs/heads/topic
mark :4
committer A U Thor <a@example.com> 1700000300 +0000
data <<END
forced
END
from :1
M 644 inline README
data <<END
forced away
END

commit refs/heads/other
mark :5
committer A U Thor <a@example.com> 1700000400 +0000
data <<END
topic
END
from :1
M 644 inline README
data <<END
on topic
END

commit refs/pull/1/merge
mark :6
committer A U Thor <a@example.com> 1700000500 +0000
data <<END
oldmerge
END
from :1
merge :4
M 644 inline README
data <<END
old merge
END

commit refs/heads/last
mark :7
committer A U Thor <a@example.com> 1700000600 +0000
data <<END
merge
END
from :2
merge :5
M 644 inline README
data <<END
new merge
END

reset refs/heads/topic
from :5

reset refs/pull/1/merge
from :7

reset refs/heads/other
from 0000000000000000000000000000000000000000

reset refs/heads/last
from 0000000000000000000000000000000000000000
`

var marks = map[string]string{":1": "first", ":2": "second", ":3": "tip", ":4": "forced", ":5": "topic", ":6": "oldmerge", ":7": "merge", ":20": "tag"}

func makeRepo(dir string) (*repo, error) {
	r := &repo{Path: dir, SHA: map[string]string{}}
	if _, err := r.try("", "init", "-q", "--bare", "-b", "main", dir); err != nil {
		return nil, err
	}
	list := filepath.Join(dir, "marks")
	if _, err := r.try(strings.TrimPrefix(history, "\n"), "-C", dir, "fast-import", "--quiet", "--force", "--export-marks="+list); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(list)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		mark, sha, _ := strings.Cut(strings.TrimSpace(line), " ")
		r.SHA[marks[mark]] = sha
	}
	return r, os.Remove(list)
}

func newRepo(t *testing.T) *repo {
	t.Helper()
	r, err := makeRepo(filepath.Join(tempDir(t), "repo.git"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// try runs native git, which neither the machine's nor the user's configuration changes.
func (r *repo) try(stdin string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "LC_ALL=C",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}
	cmd.Stdin = strings.NewReader(stdin)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %q: %w: %s", args, err, errs.String())
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

// tempDir is a directory that every user can enter, unlike t.TempDir's.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "test-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(dir) })
	return dir
}
