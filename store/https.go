package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"run-task/internal/fail"
	"run-task/internal/mask"
	"run-task/internal/retry"
)

// web is a server that takes GET, HEAD and PUT (RFC 9110): a WebDAV server, a bucket's presigned URL, GitLab's generic package registry
// (docs.gitlab.com, "Generic packages API"). It lists nothing.
type web struct {
	Options
	base   *url.URL // without userinfo
	client *http.Client
	login  *Login
}

func openHTTP(u *url.URL, o Options) (Store, error) {
	t, err := o.transport()
	if err != nil {
		return nil, err
	}
	base := *u
	base.User = nil
	base.RawPath = given(u)
	w := &web{Options: o, base: &base, client: &http.Client{Transport: t, CheckRedirect: checkRedirect}}
	if u.User != nil {
		secret, _ := u.User.Password()
		w.login = &Login{User: u.User.Username(), Secret: secret, HTTP: true}
	}
	for i, l := range o.Logins {
		if w.login == nil && l.fits(u) {
			w.login = &o.Logins[i]
		}
	}
	if w.login != nil {
		o.Log.Mask(append(mask.Forms(w.login.Secret), base64.StdEncoding.EncodeToString([]byte(w.login.User+":"+w.login.Secret)))...)
	}
	for _, values := range base.Query() { // a signature is one of them; the short ones are ordinary words
		for _, v := range values {
			if len(v) >= 16 && !strings.Contains(v, "{key}") {
				o.Log.Mask(mask.Forms(v)...)
			}
		}
	}
	return w, nil
}

// fits tells whether a URL leads to the login's server.
func (l *Login) fits(u *url.URL) bool {
	port := func(p string) string { return cmp.Or(p, map[string]string{"https": "443", "http": "80"}[u.Scheme]) }
	host, its, err := net.SplitHostPort(l.Host)
	if err != nil {
		host, its = strings.Trim(l.Host, "[]"), ""
	}
	return host != "" && strings.EqualFold(host, u.Hostname()) && port(its) == port(u.Port()) && (u.Scheme == "https" || l.HTTP)
}

// checkRedirect lets redirects lead elsewhere, without what the first server was shown.
func checkRedirect(r *http.Request, via []*http.Request) error {
	first := via[0].URL
	r.Header.Del("Referer") // it has the query, which may be a signature
	switch {
	case r.Method != via[0].Method: // 301, 302 and 303 make a GET of an upload, and its success would look like the upload's
		return fail.Errorf(fail.Denied, "the server redirects uploads to another page").WithHint("give the location that it redirects to, or check the credentials")
	case len(via) > 10:
		return fail.Errorf(fail.Denied, "more than 10 redirects")
	case r.URL.Scheme != "https" && first.Scheme == "https":
		return fail.Errorf(fail.Denied, "the server redirects from https to %s, which is not allowed", r.URL.Scheme)
	case r.URL.Host != first.Host:
		for name := range r.Header {
			if secretHeader(name) {
				r.Header.Del(name)
			}
		}
	}
	return nil
}

// secretHeader tells whether a header is none of those that we set for the object's sake. A Referer has the query, and so what a presigned URL is good for.
func secretHeader(name string) bool {
	switch name {
	case "Range", "If-Match", "If-None-Match", "User-Agent", "Content-Type", "Expect":
		return false
	}
	return true
}

func (w *web) String() string { return w.base.Scheme + "://" + w.base.Host + w.base.EscapedPath() }

func (w *web) Temp() (*os.File, error) { return w.temp() }

// given is a URL's path as it was written, a %2F in it too, and what cannot be sent so escaped: for one such byte EscapedPath would escape all of it anew.
func given(u *url.URL) string {
	var b strings.Builder
	for _, c := range []byte(cmp.Or(u.RawPath, u.EscapedPath())) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>\\^`{|}", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// place is where the key stands in a path that is escaped.
const place = "%7Bkey%7D"

// request is one for an object. A location with {key} has its place, elsewhere it follows the path.
func (w *web) request(ctx context.Context, method, key string, body io.Reader) (*http.Request, error) {
	if err := ValidKey(key); err != nil {
		return nil, err
	}
	u := *w.base
	at := u.EscapedPath() // a %2F in it is no /: GitLab's projects are named so
	if !strings.Contains(at, place) && !strings.Contains(u.RawQuery, "{key}") {
		at = strings.TrimSuffix(at, "/") + "/" + place
	}
	at = strings.ReplaceAll(at, place, strings.ReplaceAll(key, "+", "%2B")) // some servers, S3 among them, read a + as a blank
	path, err := url.PathUnescape(at)
	if err != nil {
		return nil, fail.Errorf(fail.Usage, "the store's location is no URL")
	}
	u.Path, u.RawPath = path, at
	u.RawQuery = strings.ReplaceAll(u.RawQuery, "{key}", url.QueryEscape(key))
	r, err := http.NewRequestWithContext(ctx, method, u.String(), body) // u's query is as it was given
	if err != nil {
		return nil, fail.Errorf(fail.Usage, "the store's location is no URL")
	}
	r.Header.Set("User-Agent", "run-task")
	if l := w.login; l != nil && l.Header != "" {
		r.Header.Set(l.Header, l.Secret)
	} else if l != nil {
		r.SetBasicAuth(l.User, l.Secret)
	}
	return r, nil
}

// do sends a request. What it gives has a status of success, or 304.
func (w *web) do(r *http.Request) (*http.Response, error) {
	res, err := w.client.Do(r)
	if known := (*fail.Error)(nil); errors.As(err, &known) { // checkRedirect's
		return nil, known
	}
	if err != nil {
		return nil, retry.Net(err)
	}
	if res.StatusCode/100 == 2 || res.StatusCode == http.StatusNotModified {
		return res, nil
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	err = w.failure(res, string(said))
	if r.Header.Get("If-None-Match") == "*" && res.StatusCode == http.StatusPreconditionFailed || r.Method == http.MethodPut && strings.Contains(string(said), "Duplicate package is not allowed") {
		err = ErrDuplicate
	} else if r.Method == http.MethodPut && errors.Is(err, fs.ErrNotExist) {
		err = fail.Errorf(fail.Denied, "the server answered %d to an upload", res.StatusCode).WithHint("check the location, and that the login for %s may write there", w.base.Host)
	}
	return nil, err
}

func (w *web) failure(res *http.Response, said string) error {
	what := fmt.Sprintf("the server answered %d %s", res.StatusCode, http.StatusText(res.StatusCode))
	switch code := res.StatusCode; code {
	case http.StatusNotFound, http.StatusGone:
		return fmt.Errorf("%s: %w", what, fs.ErrNotExist)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return fail.Errorf(fail.Denied, "%s", what).WithHint("give a login with --store-auth host=%s,..., or check its rights", w.base.Host)
	case http.StatusRequestEntityTooLarge:
		return fail.Errorf(fail.Unavailable, "%s: it takes no archives of that size", what).WithHint("raise its limit, or keep less in the archive")
	case http.StatusRequestedRangeNotSatisfiable, http.StatusPreconditionFailed:
		return changed()
	default:
		if err := retry.Status(code, res.Header, time.Now()); err != nil {
			return err
		}
	}
	// It may repeat the address, and that a signature: the location's, or one that another server redirected us with.
	if said = strings.TrimSpace(said); res.Request.URL.RawQuery == "" && len(said) > 0 && len(said) < 300 && !strings.HasPrefix(said, "<") {
		what += fmt.Sprintf(": %q", said)
	}
	return fail.Errorf(fail.Unavailable, "%s", what)
}

func infoFrom(key string, res *http.Response) Info {
	i := Info{Key: key, Size: res.ContentLength, Tag: res.Header.Get("ETag")}
	i.Modified, _ = http.ParseTime(res.Header.Get("Last-Modified"))
	return i
}

func (w *web) Stat(ctx context.Context, key string) (i Info, err error) {
	err = w.try(ctx, func(ctx context.Context, _ *watch) error {
		for _, method := range []string{http.MethodHead, http.MethodGet} {
			r, err := w.request(ctx, method, key, nil)
			if err != nil {
				return err
			}
			res, err := w.do(r)
			if err == nil {
				res.Body.Close()
				i = infoFrom(key, res)
				return nil
			}
			if !strings.Contains(err.Error(), "answered 405") && !strings.Contains(err.Error(), "answered 501") { // no HEAD there
				return err
			}
		}
		return fail.Errorf(fail.Unavailable, "the server takes neither HEAD nor GET")
	})
	return i, err
}

func (w *web) Get(ctx context.Context, key string, o GetOptions) (*os.File, Info, error) {
	return w.download(ctx, o.Progress, func(ctx context.Context, have int64, tag string) (*piece, error) {
		r, err := w.request(ctx, http.MethodGet, key, nil)
		if err != nil {
			return nil, err
		}
		strong := tag != "" && !strings.HasPrefix(tag, "W/")
		switch {
		case o.Last > 0:
			r.Header.Set("Range", fmt.Sprintf("bytes=-%d", o.Last))
		case have > 0 && strong:
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
			r.Header.Set("If-Match", tag)
		}
		if o.Unless != "" && have == 0 {
			r.Header.Set("If-None-Match", o.Unless)
		}
		res, err := w.do(r)
		if errors.Is(err, errChanged) {
			o.Last = 0 // 416: an empty object has no last bytes
		}
		if err != nil {
			return nil, err
		}
		p := &piece{ReadCloser: res.Body, Info: infoFrom(key, res)}
		if res.StatusCode == http.StatusNotModified {
			res.Body.Close()
			return nil, ErrUnchanged
		}
		switch {
		case res.StatusCode != http.StatusPartialContent:
		case o.Last > 0:
			p.total = total(res.Header.Get("Content-Range"))
		default:
			p.isPart(res.Header.Get("Content-Range"))
		}
		if sum := res.Header.Get("X-Checksum-SHA256"); sum != "" && res.StatusCode == http.StatusOK {
			p.sum = func(f *os.File) error { return check(f, sum) }
		}
		return p, nil
	})
}

// isPart notes where a part begins, and how much there is from there on: a server may send less than it was asked for.
func (p *piece) isPart(contentRange string) {
	p.from = start(contentRange)
	if all := total(contentRange); all > p.from {
		p.Size = all - p.from
	}
}

// start is the first number of "bytes 5-9/10" (RFC 9110, section 14.4); -1 if it is none.
func start(contentRange string) int64 {
	first, _, _ := strings.Cut(strings.TrimPrefix(contentRange, "bytes "), "-")
	n, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// total is the last number of it; 0 if it is none.
func total(contentRange string) int64 {
	n, _ := strconv.ParseInt(contentRange[strings.LastIndex(contentRange, "/")+1:], 10, 64)
	return n
}

// refused tells with ErrDuplicate that there is such an object: many servers ignore If-None-Match on uploads.
func refused(ctx context.Context, s Store, key string) error {
	_, err := s.Stat(ctx, key)
	switch {
	case err == nil:
		return ErrDuplicate
	case errors.Is(err, fs.ErrNotExist), fail.Of(err) == fail.Denied: // who may write need not be allowed to read
		return nil
	}
	return err
}

// check compares a file with the SHA-256 that the server has of it.
func check(f *os.File, sum string) error {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); !strings.EqualFold(got, sum) {
		return retry.Again(fail.Errorf(fail.Unavailable, "what came has not the checksum that the server tells of"), 0)
	}
	return nil
}

func (w *web) Put(ctx context.Context, key string, f *os.File, o PutOptions) (i Info, err error) {
	st, err := f.Stat()
	if err != nil {
		return i, err
	}
	if o.New {
		if err := refused(ctx, w, key); err != nil {
			return i, err
		}
	}
	size := st.Size()
	err = w.try(ctx, func(ctx context.Context, watch *watch) error {
		sent := int64(0)
		body := func() (io.ReadCloser, error) {
			sent = 0
			return io.NopCloser(&reader{io.NewSectionReader(f, 0, size), watch, func(n int) {
				if sent += int64(n); o.Progress != nil {
					o.Progress(sent, size)
				}
			}}), nil
		}
		r, err := w.request(ctx, http.MethodPut, key, http.NoBody)
		if err != nil {
			return err
		}
		if size > 0 {
			r.Body, _ = body()
			r.GetBody = body
		}
		r.ContentLength = size
		r.Header.Set("Content-Type", "application/octet-stream")
		if size > 1<<20 {
			r.Header.Set("Expect", "100-continue") // a refusal comes before the bytes
		}
		if o.New {
			r.Header.Set("If-None-Match", "*")
		}
		res, err := w.do(r)
		if err != nil {
			return err
		}
		io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
		res.Body.Close()
		i = Info{Key: key, Size: size, Modified: time.Now()}
		if tag := res.Header.Get("ETag"); !strings.HasPrefix(tag, "W/") { // a weak one is the answer's own, as GitLab's
			i.Tag = tag
		}
		return nil
	})
	return i, err
}
