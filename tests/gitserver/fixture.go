package gitserver

import (
	"os"
	"path/filepath"
	"testing"
)

// Commits are the commits of a repository that lived a little.
type Commits struct {
	Tip      string // of main
	Ancestor string // three commits before it
	Forced   string // what main was before a push --force: in the repository still, reachable from nothing
	OldMerge string // what refs/pull/1/merge was before it was rewritten, likewise
	Merge    string // what it is now: a merge of Tip and Topic, advertised, but no branch or tag
	Topic    string // of the branch topic
	Gone     string // was forced away as well, and then pruned
	First    string // the root commit, which the lightweight tag "light" names too
	Tag      string // the annotated tag v1 of First
}

// Repo makes root/name, a bare repository with all of Commits in it.
func Repo(t testing.TB, root, name string) Commits {
	t.Helper()
	work, bare := t.TempDir(), filepath.Join(root, name)
	Git(t, root, "init", "-q", "--bare", name)
	git := func(args ...string) string { t.Helper(); return Git(t, work, args...) }
	git("init", "-q")
	git("remote", "add", "origin", bare)
	commit := func(file, content string) string {
		t.Helper()
		path := filepath.Join(work, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, content)
		git("add", "-A")
		git("commit", "-qm", content)
		return git("rev-parse", "HEAD")
	}
	var c Commits
	c.First = commit("README", "first\n")
	git("tag", "-am", "release", "v1")
	c.Tag = git("rev-parse", "refs/tags/v1")
	git("tag", "light")
	commit("src/a/b.txt", "second\n")
	c.Ancestor = commit("src/a/c.txt", "third\n")
	git("push", "-q", "--tags", "origin", "main")

	c.Gone = commit("README", "gone\n")
	git("push", "-q", "origin", "main")
	git("reset", "-q", "--hard", c.Ancestor)
	git("push", "-qf", "origin", "main")
	Git(t, bare, "reflog", "expire", "--expire=now", "--all")
	Git(t, bare, "gc", "-q", "--prune=now")

	c.Forced = commit("README", "forced away\n")
	git("push", "-q", "origin", "main")
	git("reset", "-q", "--hard", c.Ancestor)
	commit("src/d.txt", "fourth\n")
	commit("README", "fifth\n")
	c.Tip = commit("README", "sixth\n")
	git("push", "-qf", "origin", "main")

	git("checkout", "-qb", "topic", c.Ancestor)
	commit("topic", "topic 1\n")
	c.OldMerge = mergeRef(t, work, c.Tip, "topic")
	c.Topic = commit("topic", "topic 2\n")
	git("push", "-q", "origin", "topic")
	c.Merge = mergeRef(t, work, c.Tip, "topic")
	return c
}

// mergeRef does what code hosts do for a merge request: a merge commit that only refs/pull/1/merge names.
func mergeRef(t testing.TB, work, base, branch string) string {
	t.Helper()
	Git(t, work, "checkout", "-q", "--detach", base)
	Git(t, work, "merge", "-q", "--no-edit", branch)
	sha := Git(t, work, "rev-parse", "HEAD")
	Git(t, work, "push", "-qf", "origin", "HEAD:refs/pull/1/merge")
	Git(t, work, "checkout", "-q", branch)
	return sha
}
