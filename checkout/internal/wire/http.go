package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/internal/retry"
)

// web is a link over smart HTTP (gitprotocol-http, "Smart Server Response"): each request is a conversation of its own.
type web struct {
	client *http.Client
	base   *url.URL // where the repository is, redirects followed
	log    *logs.Log
	u      URL
	limits Limits
	shown  shown         // to the host that u names
	sent   string        // what of it the last request had, for messages
	last   *pktReader    // the answer that is being read
	cancel func()        // ends it
	waited time.Duration // for its beginning
}

const maxRedirects = 10

func openHTTP(ctx context.Context, log *logs.Log, u URL, o Options) (link, *advert, error) {
	base, err := url.Parse(u.String())
	if err != nil {
		return nil, nil, fail.Errorf(fail.Usage, "the repository's URL cannot be parsed")
	}
	config, err := tlsConfig(o)
	if err != nil {
		return nil, nil, err
	}
	h := &web{base: base, log: log, u: u, limits: o.Limits, shown: o.shown, client: &http.Client{
		Transport: &http.Transport{
			Proxy:               masked(log, o.Proxy),
			DialContext:         (&net.Dialer{Timeout: o.Limits.Connect}).DialContext,
			TLSHandshakeTimeout: o.Limits.TLS,
			TLSClientConfig:     config,

			OnProxyConnectResponse: throughProxy,
			// One stream at a time has nothing to gain from HTTP/2's windows, and a proxy that breaks it much to lose.
			TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	a, err := h.advert(ctx)
	if err != nil {
		h.close()
		return nil, nil, err
	}
	return h, a, nil
}

func (h *web) lasting() bool { return true }

func (h *web) close() {
	if h.cancel != nil {
		h.cancel()
	}
	h.client.CloseIdleConnections()
}

// advert asks for info/refs. Where a redirect leads, later requests go as well, as git does it.
func (h *web) advert(ctx context.Context) (*advert, error) {
	const suffix = "/info/refs"
	at := *h.base
	at.Path, at.RawPath, at.RawQuery = at.Path+suffix, at.EscapedPath()+suffix, "service=git-upload-pack"
	h.waited = 0
	for range maxRedirects {
		res, err := h.do(ctx, http.MethodGet, &at, nil)
		if err != nil {
			return nil, err
		}
		if res.StatusCode >= 300 && res.StatusCode < 400 && res.Header.Get("Location") != "" {
			next, err := redirect(&at, res.Header.Get("Location"))
			if err != nil {
				return nil, err
			}
			at = *next
			continue
		}
		p, err := h.answer(res, "application/x-git-upload-pack-advertisement")
		if err != nil {
			return nil, err
		}
		if err := h.rebase(&at, suffix); err != nil {
			return nil, err
		}
		a, err := readAdvert(p)
		if err != nil {
			err = greetingError(err, "")
		}
		return a, err
	}
	return nil, fail.Errorf(fail.Denied, "more than %d redirects", maxRedirects)
}

func redirect(from *url.URL, location string) (*url.URL, error) {
	to, err := from.Parse(location)
	switch {
	case err != nil:
		return nil, fail.Errorf(fail.Unavailable, "the server redirects to something that is no URL")
	case to.Scheme != "https" && (to.Scheme != "http" || from.Scheme == "https"):
		return nil, fail.Errorf(fail.Denied, "the server redirects from %s to %s, which is not allowed", from.Scheme, clip(to.Scheme+"://"+to.Host)).
			WithHint("give the URL that is meant")
	case to.Host == "":
		return nil, fail.Errorf(fail.Unavailable, "the server redirects to a URL without a host")
	}
	to.User, to.Fragment = nil, ""
	return to, nil
}

// rebase learns the repository's address from where info/refs was found.
func (h *web) rebase(at *url.URL, suffix string) error {
	path, ok := strings.CutSuffix(at.EscapedPath(), suffix)
	if !ok {
		return fail.Errorf(fail.Denied, "the server redirects to %s, which is no repository", clip(at.Scheme+"://"+at.Host+at.EscapedPath())).
			WithHint("log in there, or give the URL that is meant")
	}
	base := *at
	base.RawQuery, base.RawPath, base.Path = "", path, strings.TrimSuffix(at.Path, suffix)
	if base.String() != h.base.String() {
		h.log.Verbosef("redirected to %s", clip(base.String()))
		h.base = &base
	}
	return nil
}

func (h *web) ask(ctx context.Context, request []byte) (*pktReader, error) {
	at := *h.base
	at.Path, at.RawPath = at.Path+"/git-upload-pack", at.EscapedPath()+"/git-upload-pack"
	h.waited = 0
	res, err := h.do(ctx, http.MethodPost, &at, request)
	if err != nil {
		return nil, err
	}
	return h.answer(res, "application/x-git-upload-pack-result")
}

// do ends the answer before, sends one request and waits for the head of its answer.
func (h *web) do(ctx context.Context, method string, at *url.URL, body []byte) (*http.Response, error) {
	if h.last != nil {
		h.last.Peek(1) // only a connection whose answer was read to its end is used again
		h.last = nil
	}
	if h.cancel != nil {
		h.cancel()
	}
	ctx, h.cancel = context.WithCancel(ctx)
	if !h.mayHaveCredentials(at) {
		ctx = context.WithValue(ctx, elsewhere{}, true)
	}
	req, err := http.NewRequestWithContext(ctx, method, at.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fail.Errorf(fail.Usage, "the repository's URL cannot be used")
	}
	// Some servers only take "git/" for a git client where the path does not end in .git.
	req.Header.Set("User-Agent", "git/2.0 (run-task)")
	req.Header.Set("Git-Protocol", "version=2")
	if body != nil {
		req.Header.Set("Content-Type", "application/x-git-upload-pack-request")
		req.Header.Set("Accept", "application/x-git-upload-pack-result")
	}
	h.show(req, at)
	unanswered, start := time.AfterFunc(h.limits.Answer-h.waited, h.cancel), time.Now()
	res, err := h.client.Do(req)
	h.waited += time.Since(start)
	if !unanswered.Stop() {
		return nil, retry.Net(h.limits.slowAnswer())
	}
	var u *url.Error
	if errors.As(err, &u) { // it only repeats the method and the address
		err = u.Err
	}
	if err != nil {
		return nil, connectError(err)
	}
	return res, nil
}

// show gives a request what the server may see of ours.
func (h *web) show(req *http.Request, at *url.URL) {
	switch {
	case !h.shown.is():
		h.sent = "without credentials"
	case !h.mayHaveCredentials(at):
		h.sent = "without credentials: those " + h.shown.source + " are for another server"
	case h.shown.secure && at.Scheme != "https":
		h.sent = "without credentials: those " + h.shown.source + " are not sent without TLS"
	default:
		h.sent = "with the credentials " + h.shown.source
		req.SetBasicAuth(h.shown.user, h.shown.password)
	}
}

// mayHaveCredentials tells whether at is the host that the user's URL names: never another one that it redirects to. The
// same host's step from http to https counts as the same.
func (h *web) mayHaveCredentials(at *url.URL) bool {
	to := URL{Scheme: at.Scheme, Host: strings.ToLower(at.Hostname()), Port: at.Port()}
	if to.Port == ports[to.Scheme] {
		to.Port = ""
	}
	if to.Host != h.u.Host {
		return false
	}
	return to.Scheme == h.u.Scheme && to.Port == h.u.Port || to.Scheme == "https" && to.Port == "" && h.u.Port == ""
}

// answer checks an answer's status and type.
func (h *web) answer(res *http.Response, want string) (*pktReader, error) {
	if err := retry.Status(res.StatusCode, res.Header, time.Now()); err != nil {
		return nil, err
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch {
	case res.StatusCode == http.StatusProxyAuthRequired:
		return nil, errProxy(status(res))
	case res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden:
		return nil, fail.Errorf(fail.Denied, "the server answered %s to a request %s", status(res), h.sent).
			WithHint("check the credentials for %s", h.base.Host)
	case res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusGone:
		return nil, errNoAccess("the server answered %s to a request %s", status(res), h.sent)
	case res.StatusCode >= 500:
		return nil, fail.Errorf(fail.Unavailable, "the server answered %s", status(res))
	case res.StatusCode != http.StatusOK:
		return nil, fail.Errorf(fail.Refused, "the server answered %s", status(res)).WithHint("check the repository's URL")
	case kind == want:
		body := watch(res.Body, h.limits, h.cancel)
		body.waited = h.waited
		h.last = newPktReader(body)
		return h.last, nil
	case kind == "text/html" || kind == "application/xhtml+xml":
		return nil, fail.Errorf(fail.Denied, "the server answered with a web page, not with git: a login page, or the wrong address").
			WithHint("check the repository's URL and the credentials for %s", h.base.Host)
	case kind == "text/plain":
		return nil, errDumb()
	}
	return nil, fail.Errorf(fail.Unavailable, "the server answered with %q, not with git", clip(kind)).WithHint("check the repository's URL")
}

// errDumb says what a web server is that gives out a repository's files: it has no upload-pack to ask.
func errDumb() error {
	return fail.Errorf(fail.Usage, "the server speaks only git's dumb HTTP protocol").
		WithHint("serve the repository through git http-backend, or use another URL of it")
}

func status(res *http.Response) string {
	return fmt.Sprintf("%d %s", res.StatusCode, http.StatusText(res.StatusCode))
}
