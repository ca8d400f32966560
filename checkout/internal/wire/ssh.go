package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/internal/retry"
)

// openSSH runs git-upload-pack at the other end (gitprotocol-pack, "SSH Transport"). The library knows neither contexts nor
// time limits, so the connection is closed when either ends.
func openSSH(ctx context.Context, log *logs.Log, u URL, o Options) (link, *advert, error) {
	config, closeAgent, err := sshConfig(ctx, log, u, o)
	if err != nil {
		return nil, nil, err
	}
	defer closeAgent()
	conn, err := (&net.Dialer{Timeout: o.Limits.Connect}).DialContext(ctx, "tcp", u.address())
	if err != nil {
		return nil, nil, retry.Net(err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	closer := func() { stop(); conn.Close() }
	conn.SetDeadline(time.Now().Add(o.Limits.TLS))
	client, err := handshake(conn, u, config)
	if err != nil {
		closer()
		return nil, nil, err
	}
	run, err := uploadPack(client, log, u)
	if err != nil {
		closer()
		return nil, nil, retry.Net(err)
	}
	conn.SetDeadline(time.Time{})
	s := &stream{w: run.in, r: newPktReader(watch(run.out, o.Limits, closer)), closer: closer, limits: o.Limits, idle: true}
	a, err := readAdvert(s.r)
	if err != nil {
		if early(err) == io.ErrUnexpectedEOF { // then stderr tells why, once it is complete
			conn.SetDeadline(time.Now().Add(o.Limits.TLS))
			run.Wait()
		}
		closer()
		return nil, nil, greetingError(err, run.said.String())
	}
	return s, a, nil
}

// program is a git-upload-pack that runs at the other end.
type program struct {
	*ssh.Session
	in   io.Writer
	out  io.Reader
	said firstBytes // on stderr
}

func uploadPack(client *ssh.Client, log *logs.Log, u URL) (*program, error) {
	session, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	p := &program{Session: session}
	// Servers may refuse it, and then speak version 0.
	if err := p.Setenv("GIT_PROTOCOL", "version=2"); err != nil {
		log.Verbosef("the server takes no GIT_PROTOCOL")
	}
	p.Stderr = &p.said
	if p.in, err = p.StdinPipe(); err != nil {
		return nil, err
	}
	if p.out, err = p.StdoutPipe(); err != nil {
		return nil, err
	}
	return p, p.Start("git-upload-pack " + quote(u.Path))
}

// quote makes one word of s for the shell at the other end, which may be a csh: "!" stands outside of the quotes as well.
func quote(s string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(s) + "'"
}

// hostKeys is a client configuration that also keeps what was wrong with the host key: the library only says that the handshake failed.
type hostKeys struct {
	ssh.ClientConfig
	err error
}

func sshConfig(ctx context.Context, log *logs.Log, u URL, o Options) (*hostKeys, func(), error) {
	hosts, err := knownHosts(log, o)
	if err != nil {
		return nil, nil, err
	}
	auth, closeAgent, err := sshAuth(ctx, log, u, o)
	if err != nil {
		return nil, nil, err
	}
	var published []ssh.PublicKey
	if o.Credentials.WellKnown {
		published = wellKnownKeys(u.address())
	}
	c := &hostKeys{ClientConfig: ssh.ClientConfig{User: u.User, Auth: auth, HostKeyAlgorithms: append(hosts.HostKeyAlgorithms(u.address()), algorithms(published)...)}}
	c.HostKeyCallback = func(name string, remote net.Addr, key ssh.PublicKey) error {
		err := hosts.HostKeyCallback()(name, remote, key)
		if among(published, key) && (knownhosts.IsHostUnknown(err) || knownhosts.IsHostKeyChanged(err)) { // but not one that was revoked
			err = nil
		}
		c.err = hostKeyError(err, u, key, len(published) > 0)
		return c.err
	}
	if c.User == "" {
		c.User = "git"
	}
	return c, closeAgent, nil
}

func handshake(conn net.Conn, u URL, config *hostKeys) (*ssh.Client, error) {
	c, channels, requests, err := ssh.NewClientConn(conn, u.address(), &config.ClientConfig)
	if err != nil {
		return nil, handshakeError(err, config.err, config.User, u)
	}
	return ssh.NewClient(c, channels, requests), nil
}

func handshakeError(err, hostErr error, user string, u URL) error {
	var none *ssh.AlgorithmNegotiationError
	switch {
	case hostErr != nil:
		return hostErr
	case strings.Contains(err.Error(), "unable to authenticate"): // it has no type
		return fail.Errorf(fail.Denied, "%s accepts no key of ours for user %q", u.Host, user).
			WithHint("give the right key, or an agent that has it")
	case errors.As(err, &none):
		return fail.Errorf(fail.Denied, "ssh to %s: %w", u.Host, clipped{err}).
			WithHint("the server offers no host key of a kind that known_hosts has for it: compare with ssh-keyscan's, over a channel that you trust")
	}
	return retry.Net(clipped{err})
}

// hostKeyError says what is wrong with a host key. published tells that the host's owner publishes others.
func hostKeyError(err error, u URL, key ssh.PublicKey, published bool) error {
	switch {
	case err == nil:
		return nil
	case knownhosts.IsHostUnknown(err) && published:
		return fail.Errorf(fail.Denied, "the host key of %s is none of those that it publishes: %s %s", u.Host, key.Type(), ssh.FingerprintSHA256(key)).
			WithHint("someone may be between us and the server; if it has a new key, give that in a known_hosts file")
	case knownhosts.IsHostUnknown(err):
		return fail.Errorf(fail.Denied, "the host key of %s is not known: %s %s", u.Host, key.Type(), ssh.FingerprintSHA256(key)).
			WithHint("compare the fingerprint with what the server's owner publishes, then add the key to known_hosts")
	case knownhosts.IsHostKeyChanged(err):
		return fail.Errorf(fail.Denied, "the host key of %s is not the one in known_hosts: %s %s", u.Host, key.Type(), ssh.FingerprintSHA256(key)).
			WithHint("someone may be between us and the server; if its key was changed on purpose, replace it in known_hosts")
	}
	return fail.Errorf(fail.Denied, "the host key of %s: %w", u.Host, err).WithHint("look for a line of this host in known_hosts")
}

// knownHosts reads the files of known host keys: those that were given, else the usual ones, which need not exist.
func knownHosts(log *logs.Log, o Options) (*knownhosts.HostKeyDB, error) {
	if given := o.Credentials.KnownHosts; len(given) > 0 {
		return givenHosts(given)
	}
	candidates := []string{"/etc/ssh/ssh_known_hosts"}
	if o.Home != "" {
		candidates = append([]string{filepath.Join(o.Home, ".ssh", "known_hosts")}, candidates...)
	}
	var files []string
	for _, f := range candidates {
		if _, err := os.Stat(f); err == nil {
			files = append(files, f)
		}
	}
	if len(files) == 0 {
		log.Verbosef("there is no known_hosts file")
	}
	hosts, err := knownhosts.NewDB(files...)
	if err != nil {
		return nil, fail.Errorf(fail.Denied, "known_hosts: %w", err).WithHint("make the file readable and correct")
	}
	return hosts, nil
}

func givenHosts(files []string) (*knownhosts.HostKeyDB, error) {
	bad := func(err error) error {
		return fail.Errorf(fail.Usage, "the known hosts: %w", err).WithHint("give files as ssh-keyscan prints them, that uid %d can read", os.Getuid())
	}
	for _, name := range files {
		f, err := openText(name)
		if err != nil {
			return nil, bad(err)
		}
		f.Close()
	}
	hosts, err := knownhosts.NewDB(files...)
	if err != nil {
		return nil, bad(err)
	}
	return hosts, nil
}

// sshAuth collects our keys as one method: the library tries each method only once.
func sshAuth(ctx context.Context, log *logs.Log, u URL, o Options) ([]ssh.AuthMethod, func(), error) {
	var signers []ssh.Signer
	closeAgent := func() {}
	if given := o.Credentials.SSHKeys; len(given) > 0 {
		for _, k := range given {
			signer, err := k.signer()
			if err != nil {
				return nil, nil, err
			}
			signers = append(signers, signer)
		}
		return methods(u, signers), closeAgent, nil
	}
	if o.SSHAuthSock != "" {
		conn, err := (&net.Dialer{Timeout: o.Limits.Connect}).DialContext(ctx, "unix", o.SSHAuthSock)
		if err == nil {
			// It signs while the handshake goes on, which begins after this and after the connection.
			conn.SetDeadline(time.Now().Add(o.Limits.Connect + 2*o.Limits.TLS))
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			closeAgent = func() { stop(); conn.Close() }
			signers, err = agent.NewClient(conn).Signers()
		}
		if err != nil {
			log.Warnf("the ssh agent cannot be used: %v", err)
		}
	}
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		if o.Home == "" {
			break
		}
		key, err := readKey(filepath.Join(o.Home, ".ssh", name))
		if err == nil {
			signers = append(signers, key)
		} else if !errors.Is(err, fs.ErrNotExist) {
			log.Verbosef("key not used: %v", err)
		}
	}
	return methods(u, signers), closeAgent, nil
}

func (k SSHKey) signer() (ssh.Signer, error) {
	pem := k.PEM
	if pem == nil {
		text, err := readText(k.Name)
		if err != nil {
			return nil, fail.Errorf(fail.Usage, "the ssh key %q: %w", k.Name, err).WithHint("give a file that uid %d can read", os.Getuid())
		}
		pem = []byte(text)
	}
	signer, err := ssh.ParsePrivateKey(pem)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, fail.Errorf(fail.Usage, "the ssh key %q has a passphrase, and nobody can be asked for it", k.Name).
			WithHint("give a key without one, such as a deploy key, or an agent that has it")
	case err != nil:
		return nil, fail.Errorf(fail.Usage, "the ssh key %q cannot be used: %w", k.Name, err).WithHint("give a private key as ssh-keygen makes it, whole and with its line ends")
	}
	return signer, nil
}

func methods(u URL, signers []ssh.Signer) (m []ssh.AuthMethod) {
	if len(signers) > 0 {
		m = append(m, ssh.PublicKeys(signers...))
	}
	if u.password != "" {
		m = append(m, ssh.Password(u.password))
	}
	return m
}

func readKey(file string) (ssh.Signer, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", file, err)
	}
	return key, nil
}

// firstBytes keeps the beginning of what is written to it.
type firstBytes struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (f *firstBytes) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buf.Write(p[:min(len(p), max(0, 4096-f.buf.Len()))])
	return len(p), nil
}

// String is the lines of it that have words: servers put frames and empty lines around what they say.
func (f *firstBytes) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []string
	for line := range strings.Lines(f.buf.String()) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "remote:"))
		if strings.ContainsFunc(line, unicode.IsLetter) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}
