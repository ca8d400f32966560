package retry

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"

	"run-task/internal/fail"
)

type again struct {
	err   error
	after time.Duration
}

func (a *again) Error() string { return a.err.Error() }
func (a *again) Unwrap() error { return a.err }

// Again marks an error as one that may pass: Do tries once more, not before after has gone by.
func Again(err error, after time.Duration) error { return &again{err, after} }

// Marked tells whether Again marked err or one that it wraps.
func Marked(err error) bool {
	var a *again
	return errors.As(err, &a)
}

// Net gives the error of a network operation its reason, and marks it where it may pass. A certificate that cannot be
// verified is Denied and final; a name that does not exist is final too; all else (connect, reset, early end, time limits, DNS trouble) may pass.
func Net(err error) error {
	var u *url.Error
	if errors.As(err, &u) { // it only repeats the method and the address
		err = u.Err
	}
	// These repeat a header, which may be the address of a redirect, and in it a signature.
	if err != nil && strings.HasPrefix(err.Error(), "failed to parse Location header") {
		return fail.Errorf(fail.Unavailable, "the server redirects to what is no address")
	}
	if errors.As(err, new(textproto.ProtocolError)) {
		err = errors.New("the server's answer has a header that cannot be read")
	}
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &cert):
		return fail.Errorf(fail.Denied, "%w", err).WithHint("give the certificate authority of the server: --ca FILE, or SSL_CERT_FILE")
	case errors.As(err, &dns) && dns.IsNotFound:
		return fail.Errorf(fail.Unavailable, "%w", err).WithHint("check the host name and this machine's DNS")
	}
	return Again(fail.Errorf(fail.Unavailable, "%w", err).WithHint("check that the server is up and can be reached from this container"), 0)
}

// Status is nil for an HTTP status that will not pass by itself, else a marked error: Busy for 429, a rate limit, and
// Unavailable for 408, 425, 500, 502, 503 and 504. It honours Retry-After in both its forms (RFC 9110, section 10.2.3).
func Status(code int, h http.Header, now time.Time) error {
	reason := fail.Unavailable
	switch code {
	case http.StatusTooManyRequests:
		reason = fail.Busy
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		return nil
	}
	return Again(fail.Errorf(reason, "the server answered %d %s", code, http.StatusText(code)), After(h, now))
}

// After is what a Retry-After asks for, 0 if there is none.
func After(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}
