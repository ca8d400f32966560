// Package gitserver serves git repositories to tests: the real git http-backend, git daemon and sshd on 127.0.0.1, each
// stopped when its test ends. It is for tests only.
package gitserver

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// Options are what the servers differ in.
type Options struct {
	V0     bool                            // speak protocol version 0 whatever the client asks for
	Config []string                        // "key=value" for the server's git
	Wrap   func(http.Handler) http.Handler // HTTP: sees each request first
	TLS    bool                            // HTTP: with httptest's certificate
	Host   string                          // HTTP: the address to listen on, 127.0.0.1 if it is empty
}

// Env is the environment for git in tests: nothing of the machine's configuration, fixed names and dates, and config on top.
func Env(config ...string) []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=A U Thor", "GIT_AUTHOR_EMAIL=author@example.org", "GIT_AUTHOR_DATE=1700000000 +0000",
		"GIT_COMMITTER_NAME=C O Mitter", "GIT_COMMITTER_EMAIL=committer@example.org", "GIT_COMMITTER_DATE=1700000000 +0000",
	}
	config = append([]string{"safe.directory=*", "init.defaultBranch=main", "gc.auto=0", "maintenance.auto=false"}, config...)
	for i, c := range config {
		key, value, _ := strings.Cut(c, "=")
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, key), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, value))
	}
	return append(env, fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(config)))
}

// Git runs git in dir and returns what it prints, without the last line end. A failure ends the test.
func Git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	return GitInput(t, dir, nil, args...)
}

// GitInput is Git with a standard input.
func GitInput(t testing.TB, dir string, in io.Reader, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, Env(), in, &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, &errs)
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// quiet has no use for clients that go in the middle of a handshake or an answer.
var quiet = log.New(io.Discard, "", 0)

// HTTP serves the repositories below root through git http-backend and returns the URL of root, without a slash at its end.
func HTTP(t testing.TB, root string, o Options) string {
	t.Helper()
	backend := filepath.Join(Git(t, root, "--exec-path"), "git-http-backend")
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		env := append(Env(o.Config...), "GIT_PROJECT_ROOT="+root, "GIT_HTTP_EXPORT_ALL=1")
		if o.V0 {
			r.Header.Del("Git-Protocol")
		}
		(&cgi.Handler{Path: backend, Env: env, Stderr: io.Discard, Logger: quiet}).ServeHTTP(w, r)
	})
	if o.Wrap != nil {
		h = o.Wrap(h)
	}
	s := httptest.NewUnstartedServer(h)
	if o.Host != "" {
		s.Listener.Close()
		l, err := net.Listen("tcp", net.JoinHostPort(o.Host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		s.Listener = l
	}
	s.Config.ErrorLog = quiet
	if o.TLS {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.CloseClientConnections) // run before Close, which would wait for stalled ones
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	return s.URL
}

// Daemon serves the repositories below root through git daemon and returns the URL of root.
func Daemon(t testing.TB, root string, o Options) string {
	t.Helper()
	addr := serve(t, func(conn *os.File) *exec.Cmd {
		cmd := exec.Command("git", "daemon", "--inetd", "--export-all", "--informative-errors", "--base-path="+root)
		cmd.Env, cmd.Stdin = Env(o.Config...), conn
		if o.V0 {
			cmd.Stdin = withoutVersion(conn)
		}
		return cmd
	})
	return "git://" + addr
}

// withoutVersion takes the extra parameters off a client's first line, as servers that know no other version ignore them.
func withoutVersion(conn io.Reader) io.Reader {
	r := bufio.NewReader(conn)
	head := make([]byte, 4)
	io.ReadFull(r, head)
	n, _ := strconv.ParseUint(string(head), 16, 16)
	line := make([]byte, max(4, n)-4)
	io.ReadFull(r, line)
	before, _, _ := bytes.Cut(line, []byte("\x00\x00"))
	before = append(before, 0)
	return io.MultiReader(strings.NewReader(fmt.Sprintf("%04x%s", len(before)+4, before)), r)
}

// SSHServer is where an sshd is, and what one needs to get in.
type SSHServer struct {
	URL        string // ssh://user@127.0.0.1:port, to be followed by an absolute path
	Key        string // file of the private key that it accepts
	KnownHosts string // file with its host key
}

// SSH starts an sshd. acceptEnv says whether it lets GIT_PROTOCOL through, without which it speaks version 0.
func SSH(t testing.TB, acceptEnv bool, o Options) SSHServer {
	t.Helper()
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		sshd = "/usr/sbin/sshd"
	}
	if os.Getuid() == 0 { // where sshd, started by root, insists on a directory of its own
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	host, client := newKey(t, filepath.Join(dir, "host")), newKey(t, filepath.Join(dir, "client"))
	authorized := string(ssh.MarshalAuthorizedKey(client))
	lines := []string{
		"HostKey " + filepath.Join(dir, "host"), "AuthorizedKeysFile " + filepath.Join(dir, "authorized"), "StrictModes no", "UsePAM no",
		"PasswordAuthentication no", "PermitRootLogin prohibit-password", "PidFile none",
	}
	if acceptEnv {
		lines = append(lines, "AcceptEnv GIT_PROTOCOL")
	}
	for _, v := range Env(o.Config...) {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, "GIT_CONFIG") {
			lines = append(lines, fmt.Sprintf("SetEnv %s=%q", name, value))
		}
	}
	// Only the first SetEnv line counts.
	lines = joinSetEnv(lines)
	write(t, filepath.Join(dir, "authorized"), authorized)
	write(t, filepath.Join(dir, "config"), strings.Join(lines, "\n")+"\n")
	addr := serve(t, func(conn *os.File) *exec.Cmd {
		cmd := exec.Command(sshd, "-i", "-e", "-f", filepath.Join(dir, "config"))
		cmd.Stdin = conn
		return cmd
	})
	h, p, _ := net.SplitHostPort(addr)
	write(t, filepath.Join(dir, "known_hosts"), fmt.Sprintf("[%s]:%s %s", h, p, ssh.MarshalAuthorizedKey(host)))
	return SSHServer{"ssh://" + me.Username + "@" + addr, filepath.Join(dir, "client"), filepath.Join(dir, "known_hosts")}
}

func joinSetEnv(lines []string) []string {
	var rest []string
	env := "SetEnv"
	for _, l := range lines {
		if v, ok := strings.CutPrefix(l, "SetEnv"); ok {
			env += v
		} else {
			rest = append(rest, l)
		}
	}
	return append(rest, env)
}

func newKey(t testing.TB, file string) ssh.PublicKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, string(pem.EncodeToMemory(block)))
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func write(t testing.TB, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// serve accepts connections on a port of its own and runs a command for each, as inetd does: there is no start to wait
// for, and no port to race for. The connection is the commands' standard output. They are killed when the test ends.
func serve(t testing.TB, command func(conn *os.File) *exec.Cmd) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &inetd{t: t, command: command, running: map[*net.TCPConn]*os.Process{}}
	s.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.handle(conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { l.Close(); s.stop() })
	return l.Addr().String()
}

type inetd struct {
	t       testing.TB
	command func(*os.File) *exec.Cmd
	wg      sync.WaitGroup
	mu      sync.Mutex
	running map[*net.TCPConn]*os.Process
	stopped bool
}

func (s *inetd) handle(conn *net.TCPConn) {
	defer conn.Close()
	file, err := conn.File()
	if err != nil {
		s.t.Error(err)
		return
	}
	defer file.Close()
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return
	}
	s.running[conn] = nil // so that stop ends a command function that still reads
	s.mu.Unlock()
	cmd := s.command(file)
	cmd.Stdout = file
	s.mu.Lock()
	if !s.stopped {
		err = cmd.Start()
		s.running[conn] = cmd.Process
	}
	stopped := s.stopped
	s.mu.Unlock()
	if err != nil {
		s.t.Error(err)
	}
	if err != nil || stopped {
		return
	}
	cmd.Process.Wait()
	// A client's input need not end when the command does: cmd.Wait would wait for it.
	conn.CloseRead()
	conn.CloseWrite()
	cmd.Wait()
	s.mu.Lock()
	delete(s.running, conn)
	s.mu.Unlock()
}

func (s *inetd) stop() {
	s.mu.Lock()
	s.stopped = true
	for conn, p := range s.running {
		conn.CloseRead() // Close would not end a read in a descriptor that blocks
		conn.CloseWrite()
		if p != nil {
			p.Kill()
		}
	}
	s.mu.Unlock()
	s.wg.Wait()
}
