package wire

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"run-task/internal/fail"
	"run-task/tests/gitserver"
)

// Relative URLs mean what git submodule init makes of them.
func TestJoinIsWhatGitDoes(t *testing.T) {
	dir := t.TempDir()
	gitserver.Git(t, dir, "init", "-q")
	parents := []string{"https://host/group/deep/repo.git", "https://host:8443/group/repo/", "http://host/repo", "ssh://git@host/group/repo.git", "ssh://git@host:2222/~/repo.git",
		"git@host:group/repo.git", "git@host:repo", "host:/abs/repo.git", "git://host/a/b", "/srv/git/repo.git", "file:///srv/git/repo"}
	rels := []string{"../lib.git", "./lib", "./../lib", ".././lib", "../lib/../other", "./", "../", "https://other/x", "git@other:x/y.git", "../../lib", "../../group/lib/", "../../../lib", "../../../../lib"}
	modules, links := "", ""
	for i, rel := range rels { // git ends at the first that it cannot resolve: those that may be are last
		modules += fmt.Sprintf("[submodule \"%c\"]\n\tpath = %c\n\turl = %s\n", 'a'+i, 'a'+i, rel)
		links += fmt.Sprintf("160000 %040d\t%c\n", 12, 'a'+i)
	}
	gitserver.GitInput(t, dir, strings.NewReader(links), "update-index", "--index-info")
	if err := os.WriteFile(dir+"/.gitmodules", []byte(modules), 0o644); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, parent := range parents {
		if err := os.WriteFile(dir+"/.git/config", fmt.Appendf(nil, "[remote \"origin\"]\n\turl = %s\n", parent), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("git", "submodule", "--quiet", "init")
		cmd.Dir, cmd.Env = dir, gitserver.Env()
		cmd.Run()
		list := gitserver.Git(t, dir, "config", "--list")
		u, err := ParseURL(parent)
		if err != nil {
			t.Fatal(err)
		}
		for i, rel := range rels {
			_, theirs, _ := strings.Cut(list, fmt.Sprintf("submodule.%c.url=", 'a'+i))
			theirs, _, _ = strings.Cut(theirs, "\n")
			if rel == "./" || rel == "../" { // of which git leaves a slash
				theirs = strings.TrimSuffix(theirs, "/")
			}
			ours, err := u.Join(rel)
			want, bad := ParseURL(theirs)
			switch {
			case err == nil && (bad != nil || ours.String() != want.String()):
				t.Errorf("%s and %s: %s, git has %q", parent, rel, ours, theirs)
			case err != nil:
				if refused++; fail.Of(err) != fail.BadData {
					t.Errorf("%s and %s: %v", parent, rel, err)
				}
				if n := strings.Count(u.Path, "/"); strings.Count(rel, "../") <= n-1 {
					t.Errorf("%s and %s: %v, git has %q", parent, rel, err, theirs)
				}
			}
		}
	}
	if refused == 0 || refused > len(parents)*len(rels)/4 {
		t.Errorf("%d of %d are refused", refused, len(parents)*len(rels))
	}
}

// A parent's credentials go to its own server and to no other, and a submodule's own go first.
func TestJoinKeepsCredentialsAtHome(t *testing.T) {
	u, err := ParseURL("https://me:s3cret@host:8443/a/b")
	if err != nil {
		t.Fatal(err)
	}
	for rel, want := range map[string]string{
		"../c": "me:s3cret", "./c": "me:s3cret", "https://host:8443/c": "me:s3cret", "https://HOST:8443/c": "me:s3cret", "https://you:other@host:8443/c": "you:other", "https://you@host:8443/c": "you:",
		"https://host/c": ":", "http://host:8443/c": ":", "https://host.evil:8443/c": ":", "https://evil/host:8443/c": ":", "ssh://host:8443/c": ":", "git@host:c": "git:", "git://host:8443/c": ":",
	} {
		is, err := u.Join(rel)
		if got := is.User + ":" + is.password; err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", rel, got, err, want)
		}
		if strings.Contains(is.String(), "s3cret") {
			t.Errorf("%s shows it: %s", rel, is)
		}
		if want == "me:s3cret" != (is.userinfo == "me:s3cret") {
			t.Errorf("%s: %q would be masked", rel, is.userinfo)
		}
	}
}

func TestJoinRefuses(t *testing.T) {
	for parent, rels := range map[string][]string{
		"https://me:s3cret@host/a/b": {"", "-x", "--upload-pack=x", "ext::sh -c x", "file:///etc", "/etc", "etc/x", "../c?x", "../c#x", "../c\nx", "../me:s3cret@c", "../%zz", "./-x@", "../../../c", "https:/x"},
		"/srv/a":                     {"b", "b/c", "../../../c", "ftp://host/x"},
		"ssh://host/a":               {"../~b"},
		"git@host:a":                 {"../../b", "/srv/b", "../b@c", "file://localhost/srv"},
	} {
		u, err := ParseURL(parent)
		if err != nil {
			t.Fatal(err)
		}
		for _, rel := range rels {
			is, err := u.Join(rel)
			if fail.Of(err) != fail.BadData || fail.Hint(err) == "" {
				t.Errorf("%s and %q: %v, %v", parent, rel, is, err)
			} else if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%s and %q: it shows the password: %v", parent, rel, err)
			}
		}
	}
	u, _ := ParseURL("/srv/a")
	for rel, want := range map[string]string{"/srv/b": "file:///srv/b", "file:///srv/b": "file:///srv/b", "https://host/b": "https://host/b"} {
		if is, err := u.Join(rel); err != nil || is.String() != want {
			t.Errorf("%s: %s, %v", rel, is, err)
		}
	}
}
