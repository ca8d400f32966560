//go:build linux

package tests

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"run-task/tests/gitserver"
)

// pitted is a server that clients reach through a tarpit.
type pitted struct {
	scheme string
	addr   string                                                        // of the server
	url    func(addr string) string                                      // of the repository there, at another address
	client func(t *testing.T, addr string) (args []string, env []string) // what is needed to get it there
}

func newPitted(t *testing.T, scheme, repo string) *pitted {
	t.Helper()
	root, name := filepath.Split(repo)
	p := &pitted{scheme: scheme, client: func(*testing.T, string) (args, env []string) { return nil, nil }}
	p.url = func(addr string) string { return scheme + "://" + addr + "/" + name }
	switch scheme {
	case "git":
		p.addr = strings.TrimPrefix(gitserver.Daemon(t, root, gitserver.Options{}), "git://")
	case "https":
		p.addr = strings.TrimPrefix(gitserver.HTTP(t, root, gitserver.Options{TLS: true}), "https://")
		ca := authority(t, p.addr)
		p.client = func(*testing.T, string) (args, env []string) { return nil, []string{"SSL_CERT_FILE=" + ca} }
	case "ssh":
		s := gitserver.SSH(t, true, gitserver.Options{})
		user, addr, _ := strings.Cut(strings.TrimPrefix(s.URL, "ssh://"), "@")
		p.addr = addr
		p.url = func(addr string) string { return "ssh://" + user + "@" + addr + repo }
		p.client = func(t *testing.T, addr string) (args, env []string) {
			key, hosts := filesOfSSH(t, s, addr)
			return []string{"--ssh-key", key, "--known-hosts", hosts}, nil
		}
	}
	return p
}

// authority is a file with the certificate that a server shows.
func authority(t *testing.T, addr string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	file := tempDir(t) + "/ca.pem"
	plant(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: conn.ConnectionState().PeerCertificates[0].Raw})))
	return file
}

// filesOfSSH are the key that a server takes and its host key as files of the task's user, for another address if it is reached through that.
func filesOfSSH(t *testing.T, s gitserver.SSHServer, addr string) (key, hosts string) {
	t.Helper()
	dir := tempDir(t)
	read := func(file string) string {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	line := read(s.KnownHosts)
	if addr != "" {
		host, port, _ := net.SplitHostPort(addr)
		_, rest, _ := strings.Cut(line, " ")
		line = fmt.Sprintf("[%s]:%s %s", host, port, rest)
	}
	key, hosts = dir+"/key", dir+"/hosts"
	plant(t, key, read(s.Key))
	plant(t, hosts, line)
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	own(t, dir)
	return key, hosts
}

// task is a run-task that wants a commit through the tarpit at an address.
func (p *pitted) task(t *testing.T, addr, sha string, args ...string) *command {
	t.Helper()
	more, env := p.client(t, addr)
	dir := tempDir(t)
	own(t, dir)
	return wants(dir, p.url(addr), sha, env, append(more, args...)...)
}

// wants is a run-task that wants a commit in src, with a command that does nothing.
func wants(dir, url, sha string, env []string, args ...string) *command {
	all := slices.Concat([]string{"run-task"}, asUser(), []string{"--checkout", "src", "--repo", url, "--sha", sha}, args, []string{"--", "probe", "exit", "0"})
	return &command{dir: dir, env: env, args: all}
}

// In whatever stage of a conversation a server falls silent, or begins to drip, with its connection open, run-task gives up in time, and TERM ends it at
// once. Where the connection is reset instead, it tries again.
func TestTarpits(t *testing.T) {
	t.Parallel()
	if _, err := user.Current(); err != nil {
		skip(t, t.Name(), "needs an account for this uid")
	}
	path, shas := steps(t, 1)
	tests := map[string]func(t *testing.T){}
	// Bytes that the server has sent; -1 is one that does not even read. TLS has shaken hands after 2 kB, SSH after 3.
	for scheme, stages := range map[string][]int64{
		"git":   {-1, 0, 10, 100, 300},
		"https": {-1, 0, 10, 700, 1200, 1600, 2000},
		"ssh":   {-1, 0, 10, 40, 700, 1200, 1600, 2000, 2500, 3000, 3500},
	} {
		p := newPitted(t, scheme, path)
		whole := gitserver.NewTarpit(t, p.addr, gitserver.Pit{After: 1 << 40})
		c := p.task(t, whole.Addr, shas[0])
		c.must(t)
		judge(t, c.dir+"/src", shas[0])

		for _, after := range append(stages, whole.Passed()/2) {
			to, stage := p.addr, fmt.Sprintf("%s, %d of %d bytes, then ", scheme, after, whole.Passed())
			pit := gitserver.Pit{After: after}
			if after < 0 {
				to = ""
			} else {
				dripping := gitserver.Pit{After: after, Pause: 100 * time.Millisecond}
				tests[stage+"drips"] = func(t *testing.T) { p.givesUp(t, gitserver.NewTarpit(t, to, dripping), shas[0]) }
				once := gitserver.Pit{After: after, Reset: true, First: 1}
				tests[stage+"a reset"] = func(t *testing.T) { p.triesAgain(t, gitserver.NewTarpit(t, to, once), shas[0]) }
			}
			tests[stage+"nothing"] = func(t *testing.T) { p.givesUp(t, gitserver.NewTarpit(t, to, pit), shas[0]) }
			tests[stage+"TERM"] = func(t *testing.T) {
				pit := gitserver.NewTarpit(t, to, pit)
				p.task(t, pit.Addr, shas[0]).ends(t, pit.Caught, syscall.SIGTERM, 143)
			}
		}
	}
	together(t, 40, tests)
}

func (p *pitted) givesUp(t *testing.T, pit *gitserver.Tarpit, sha string) {
	c := p.task(t, pit.Addr, sha, append(limits(), "--git-limit", "tries=1")...)
	s := &shaky{T: t, dir: c.dir}
	code, _, stderr := c.run(t)
	s.said("in a tarpit", code, 69, p.scheme+"://", stderr)
	if !strings.Contains(stderr, "run-task: hint: ") {
		t.Errorf("no hint:\n%s", stderr)
	}
	s.empty("src")
}

func (p *pitted) triesAgain(t *testing.T, pit *gitserver.Tarpit, sha string) {
	c := p.task(t, pit.Addr, sha)
	if code, _, stderr := c.run(t); code != 0 || strings.Count(stderr, "trying again") != 1 {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	stands(t, c.dir+"/src", sha)
}

// ends starts the command, sends it a signal once it has come so far, and wants it to end with that code.
func (c *command) ends(t *testing.T, far <-chan struct{}, sig syscall.Signal, want int) {
	t.Helper()
	var errs notify
	cmd := c.cmd()
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	watchdog := time.NewTimer(time.Minute)
	defer watchdog.Stop()
	select {
	case <-far:
		cmd.Process.Signal(sig)
	case err := <-ended:
		t.Fatalf("it ended before: %v\n%s", err, errs.String())
	case <-watchdog.C:
	}
	select {
	case <-ended:
	case <-watchdog.C:
		cmd.Process.Kill()
		<-ended
		t.Errorf("it hung\n%s", errs.String())
	}
	if code := cmd.ProcessState.ExitCode(); code != want || strings.Count(errs.String(), "run-task: error: ") != 1 {
		t.Errorf("exit %d, want %d\n%s", code, want, errs.String())
	}
}
