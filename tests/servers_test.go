//go:build linux

package tests

import (
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"run-task/tests/gitserver"
)

// A web server that nothing of git or Go is in gives the same commits, with and without a password.
func TestLighttpd(t *testing.T) {
	t.Parallel()
	root := tempDir(t)
	c := gitserver.Repo(t, root, "repo.git")
	if err := os.Mkdir(root+"/private", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(root+"/repo.git", root+"/private/repo.git"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("private/repo.git", root+"/open.git"); err != nil {
		t.Fatal(err)
	}
	url, ok := gitserver.Lighttpd(t, root, "job", "s3cr3t-t0ken", gitserver.Options{})
	if !ok {
		skip(t, t.Name(), "needs lighttpd")
	}
	login := strings.Replace(url, "http://", "http://job:s3cr3t-t0ken@", 1)
	for _, args := range map[string][]string{
		"depth 1":           {"--repo", url + "/open.git", "--sha", c.Forced},
		"depth 0":           {"--repo", url + "/open.git", "--sha", c.Merge, "--depth", "0"},
		"password, depth 1": {"--repo", login + "/private/repo.git", "--sha", c.OldMerge},
		"password, depth 0": {"--repo", login + "/private/repo.git", "--sha", c.Tip, "--depth", "0"},
	} {
		dir := tempDir(t)
		said := mustCheckOut(t, dir, append(args, "--verbose", "--checkout", "src")...)
		judge(t, filepath.Join(dir, "src"), args[3])
		noSecret(t, dir, said)
	}
	for name, url := range map[string]string{
		"no password":    url,
		"wrong password": strings.Replace(url, "http://", "http://job:wr0ng@", 1),
	} {
		code, stderr := checkOut(t, tempDir(t), "--checkout", "src", "--repo", url+"/private/repo.git", "--sha", c.Tip)
		if code != 77 || !strings.Contains(stderr, "401") || !strings.Contains(stderr, "run-task: hint: ") {
			t.Errorf("%s: exit %d\n%s", name, code, stderr)
		}
	}
	code, stderr := checkOut(t, tempDir(t), "--checkout", "src", "--repo", url+"/open.git", "--sha", c.Gone)
	if code != 66 {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

// A real sshd, with a key and its host key in files that are named, and nothing in the home directory.
func TestSSHFiles(t *testing.T) {
	t.Parallel()
	if _, err := user.Current(); err != nil {
		skip(t, t.Name(), "needs an account for this uid")
	}
	r := newRepo(t)
	server, other := gitserver.SSH(t, true, gitserver.Options{}), gitserver.SSH(t, true, gitserver.Options{})
	key, hosts := filesOfSSH(t, server, "")
	wrongKey, otherHosts := filesOfSSH(t, other, "")
	_, wrongHosts := filesOfSSH(t, other, server.URL[strings.LastIndexByte(server.URL, '@')+1:])
	for name, c := range map[string]struct {
		key, hosts string
		code       int
		says       string
	}{
		"right":            {key, hosts, 0, ""},
		"another key":      {wrongKey, hosts, 77, "accepts no key of ours"},
		"no host key":      {key, otherHosts, 77, "the host key of 127.0.0.1 is not known"},
		"another host key": {key, wrongHosts, 77, "the host key of 127.0.0.1 is not the one"},
		"no file of a key": {key + ".missing", hosts, 64, key + ".missing"},
		"no file of hosts": {key, hosts + ".missing", 64, hosts + ".missing"},
		"a key of no kind": {hosts, hosts, 64, hosts},
	} {
		dir := tempDir(t)
		code, stderr := checkOut(t, dir, "--ssh-key", c.key, "--known-hosts", c.hosts, "--checkout", "src", "--repo", server.URL+r.Path, "--sha", r.SHA["tip"])
		if code != c.code || !strings.Contains(stderr, c.says) {
			t.Errorf("%s: exit %d, want %d and %q\n%s", name, code, c.code, c.says, stderr)
		}
		if code == 0 {
			judge(t, dir+"/src", r.SHA["tip"])
		} else {
			(&shaky{T: t, dir: dir}).empty("src")
		}
	}
}
