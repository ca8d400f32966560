package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
	"run-task/internal/retry"
)

// Options are what a conversation needs from outside: this package reads no environment. The zero value works for
// repositories that need no authentication.
type Options struct {
	Home        string // for known_hosts, id_ed25519, id_ecdsa and id_rsa in its .ssh; "" means that there is none
	SSHAuthSock string // the socket of an agent, whose keys go first; "" for none

	Temp *fsx.Dir // ours alone: deltas with large contents in a local repository make files without names there

	Proxy func(*http.Request) (*url.URL, error) // for HTTP; nil means none
	TLS   *tls.Config                           // for HTTPS; nil means the system's roots, or the embedded ones where it has none

	Credentials Credentials
	Stats       *Stats // counts what is done; may be nil

	Limits Limits
	Retry  retry.Policy

	shown shown // chosen from Credentials
}

// link is a conversation with one upload-pack. Opening one reads its advertisement.
type link interface {
	// ask sends a request and gives the reader of its answer, which is valid until the next call.
	ask(ctx context.Context, request []byte) (*pktReader, error)
	// lasting tells whether there can be more requests after a fetch.
	lasting() bool
	close()
}

func open(ctx context.Context, log *logs.Log, u URL, o Options) (link, *advert, error) {
	switch u.Scheme {
	case "http", "https":
		return openHTTP(ctx, log, u, o)
	case "ssh":
		return openSSH(ctx, log, u, o)
	case "git":
		return openGit(ctx, u, o)
	}
	return nil, nil, fail.Errorf(fail.Usage, "a repository of scheme %q is not supported", u.Scheme)
}

// stream is a link over one connection that both sides read and write in turn.
type stream struct {
	w      io.Writer
	r      *pktReader
	closer func()
	limits Limits
	idle   bool // nothing was asked for
}

func (s *stream) ask(_ context.Context, request []byte) (*pktReader, error) {
	s.idle = false
	unread := time.AfterFunc(s.limits.Answer, s.closer)
	defer unread.Stop()
	if _, err := s.w.Write(request); err != nil {
		return nil, err
	}
	s.r.begin()
	return s.r, nil
}

func (s *stream) lasting() bool { return false }

func (s *stream) close() {
	if s.idle {
		unread := time.AfterFunc(s.limits.TLS, s.closer)
		io.WriteString(s.w, "0000") // gitprotocol-pack, "Packfile Negotiation": a graceful end
		unread.Stop()
	}
	s.closer()
}

// openGit speaks gitprotocol-pack, "Git Transport".
func openGit(ctx context.Context, u URL, o Options) (link, *advert, error) {
	conn, err := (&net.Dialer{Timeout: o.Limits.Connect}).DialContext(ctx, "tcp", u.address())
	if err != nil {
		return nil, nil, retry.Net(err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	host := u.Host
	if u.Port != "" {
		host = net.JoinHostPort(u.Host, u.Port)
	}
	s := &stream{
		w: conn, r: newPktReader(watch(conn, o.Limits, func() { conn.Close() })), idle: true, limits: o.Limits,
		closer: func() { stop(); conn.Close() },
	}
	hello := fmt.Sprintf("git-upload-pack %s\x00host=%s\x00\x00version=2\x00", u.Path, host)
	if len(hello)+4 > maxPkt {
		s.closer()
		return nil, nil, fail.Errorf(fail.Usage, "the repository's path is too long")
	}
	if _, err = fmt.Fprintf(conn, "%04x%s", len(hello)+4, hello); err != nil {
		s.closer()
		return nil, nil, retry.Net(err)
	}
	a, err := readAdvert(s.r)
	if err != nil {
		s.closer()
		return nil, nil, greetingError(err, "")
	}
	return s, a, nil
}

// greetingError gives the failure of an advertisement its reason. said is what the server wrote beside the protocol.
func greetingError(err error, said string) error {
	var server *serverError
	if errors.As(err, &server) {
		said = server.text
	}
	var known *fail.Error
	said = clip(said)
	switch lower := strings.ToLower(said); {
	case errors.As(err, &known):
		return err
	case said == "":
		return retry.Net(early(err))
	case strings.Contains(lower, "denied"), strings.Contains(lower, "not found"), strings.Contains(lower, "not be found"), strings.Contains(lower, "not exported"),
		strings.Contains(lower, "does not exist"), strings.Contains(lower, "does not appear to be"), strings.Contains(lower, "no such"),
		strings.Contains(lower, "not allowed"), strings.Contains(lower, "unauthorized"):
		return errNoAccess("the server says %q", said)
	}
	return retry.Again(fail.Errorf(fail.Unavailable, "the server says %q", said), 0)
}

func errNoAccess(format string, args ...any) *fail.Error {
	return fail.Errorf(fail.Denied, "repository not found or no access: "+format, args...).
		WithHint("check the repository's URL and the credentials for it: servers hide private repositories that way")
}
