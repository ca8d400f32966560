package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	stdlog "log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/internal/mask"
	"run-task/tests/gitserver"
)

// serverCert is a file with the certificate that a server shows.
func serverCert(t *testing.T, url string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return writeFile(t, certPEM(conn.ConnectionState().PeerCertificates[0].Raw), 0o600)
}

func certPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// newPair makes a certificate for clients, and its key, both in PEM.
func newPair(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(certPEM(der)))
	return certPEM(der), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})), pool
}

func TestCA(t *testing.T) {
	root, c := fixture(t)
	server := gitserver.HTTP(t, root, gitserver.Options{TLS: true})
	ca := serverCert(t, server)
	other, _, _ := newPair(t)
	text, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]struct {
		ca     string
		reason fail.Reason
	}{
		"none":    {"", fail.Denied},
		"right":   {ca, 0},
		"several": {writeFile(t, "text before\n"+other+string(text), 0o600), 0},
		"other":   {writeFile(t, other, 0o600), fail.Denied},
		"rubbish": {writeFile(t, "-----BEGIN", 0o600), fail.Usage},
		"missing": {"/nowhere/ca.pem", fail.Usage},
		"dir":     {t.TempDir(), fail.Usage},
	} {
		cl := newClient(t, server+"/r.git", c.Tip)
		cl.o.Credentials.CA = k.ca
		_, err := cl.fetch()
		if k.reason == 0 && err != nil || k.reason != 0 && fail.Of(err) != k.reason || k.reason == fail.Usage && !strings.Contains(err.Error(), fmt.Sprintf("%q", k.ca)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The caller's own roots stay.
	cl := newClient(t, server+"/r.git", c.Tip)
	cl.o.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	cl.o.TLS.RootCAs.AppendCertsFromPEM(text)
	cl.o.Credentials.CA = writeFile(t, other, 0o600)
	if _, err := cl.fetch(); err != nil {
		t.Error(err)
	}
}

func TestClientCertificate(t *testing.T) {
	root, c := fixture(t)
	cert, key, pool := newPair(t)
	otherCert, otherKey, _ := newPair(t)
	inner, err := url.Parse(gitserver.HTTP(t, root, gitserver.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { forward(w, r, inner) }))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	s.Config.ErrorLog = stdlog.New(io.Discard, "", 0) // of handshakes that fail
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := writeFile(t, certPEM(s.Certificate().Raw), 0o600)
	file := func(text string) string { return writeFile(t, text, 0o600) }
	for name, k := range map[string]struct {
		cert, key string
		reason    fail.Reason
		words     string
	}{
		"right":       {file(cert), file(key), 0, ""},
		"one file":    {file(cert + key), "", 0, ""},
		"none":        {"", "", fail.Denied, "does not take our certificate"},
		"other":       {file(otherCert), file(otherKey), fail.Denied, "does not take our certificate"},
		"mixed":       {file(cert), file(otherKey), fail.Usage, "does not match"},
		"no key":      {file(cert), "", fail.Usage, "the client's certificate"},
		"no cert":     {"", file(key), fail.Usage, "has no certificate"},
		"missing":     {"/nowhere/cert", file(key), fail.Usage, "/nowhere/cert"},
		"no key file": {file(cert), "/nowhere/key", fail.Usage, "/nowhere/key"},
	} {
		cl := newClient(t, s.URL+"/r.git", c.Tip)
		cl.o.Credentials.CA, cl.o.Credentials.ClientCert, cl.o.Credentials.ClientKey = ca, k.cert, k.key
		_, err := cl.fetch()
		if k.reason == 0 && err != nil || k.reason != 0 && (fail.Of(err) != k.reason || !strings.Contains(err.Error(), k.words)) {
			t.Errorf("%s: %v (%v)", name, err, fail.Of(err))
		}
	}
}

// A certificate of ours goes to the host that the user named, and to none that it redirects to.
func TestClientCertificateAndRedirects(t *testing.T) {
	root, c := fixture(t)
	cert, key, pool := newPair(t)
	inner, err := url.Parse(gitserver.HTTP(t, root, gitserver.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	var atNamed, atOther atomic.Int32
	secure := func(seen *atomic.Int32, handle http.HandlerFunc) *httptest.Server {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen.Add(int32(len(r.TLS.PeerCertificates)))
			handle(w, r)
		}))
		s.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s
	}
	other := secure(&atOther, func(w http.ResponseWriter, r *http.Request) { forward(w, r, inner) })
	named := secure(&atNamed, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+r.URL.String(), http.StatusFound)
	})
	cl := newClient(t, named.URL+"/r.git", c.Tip)
	cl.o.Credentials.CA = writeFile(t, certPEM(named.Certificate().Raw)+certPEM(other.Certificate().Raw), 0o600)
	cl.o.Credentials.ClientCert, cl.o.Credentials.ClientKey = writeFile(t, cert, 0o600), writeFile(t, key, 0o600)
	if _, err := cl.fetch(); err != nil || atNamed.Load() != 1 || atOther.Load() != 0 {
		t.Errorf("%v, certificates seen: %d where they may be, %d elsewhere", err, atNamed.Load(), atOther.Load())
	}
}

// forward hands a request to another server.
func forward(w http.ResponseWriter, r *http.Request, to *url.URL) {
	out := r.Clone(r.Context())
	out.RequestURI, out.URL.Scheme, out.URL.Host = "", to.Scheme, to.Host
	res, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	for k, v := range res.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(res.StatusCode)
	io.Copy(w, res.Body)
}

// proxy is one for CONNECT and plain requests that wants a user, or answers with a status.
func proxy(t *testing.T, answer int) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case answer != 0:
			w.WriteHeader(answer)
		case r.Header.Get("Proxy-Authorization") != "Basic "+basic("joe", token):
			w.WriteHeader(http.StatusProxyAuthRequired)
		case r.Method != http.MethodConnect:
			forward(w, r, r.URL)
		default:
			tunnel(w, r.Host)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func tunnel(w http.ResponseWriter, to string) {
	far, err := net.Dial("tcp", to)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer far.Close()
	w.WriteHeader(http.StatusOK)
	near, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer near.Close()
	done := make(chan bool)
	go func() { io.Copy(far, buffered); far.(*net.TCPConn).CloseWrite(); close(done) }()
	io.Copy(near, far)
	near.Close()
	<-done
}

func TestProxy(t *testing.T) {
	root, c := fixture(t)
	secure := gitserver.HTTP(t, root, gitserver.Options{TLS: true})
	plain := gitserver.HTTP(t, root, gitserver.Options{})
	ca := serverCert(t, secure)
	for name, k := range map[string]struct {
		user   *url.Userinfo
		answer int
		reason fail.Reason
		words  string
		tries  string
	}{
		"right":      {url.UserPassword("joe", token), 0, 0, "", ""},
		"no user":    {nil, 0, fail.Denied, "the proxy answered 407", ""},
		"wrong user": {url.UserPassword("joe", "not"+token), 0, fail.Denied, "the proxy answered 407", ""},
		"refused":    {nil, 403, fail.Denied, "403", ""},
		"broken":     {nil, 502, fail.Unavailable, "502", "tried 5 times"},
		"rate limit": {nil, 503, fail.Unavailable, "503", "tried 5 times"},
	} {
		for _, server := range []string{plain, secure} {
			cl := newClient(t, server+"/r.git", c.Tip)
			cl.o.Credentials.CA = ca
			at, err := url.Parse(proxy(t, k.answer))
			if err != nil {
				t.Fatal(err)
			}
			at.User = k.user
			cl.o.Proxy = http.ProxyURL(at)
			_, err = cl.fetch()
			if k.reason == 0 && err != nil || k.reason != 0 && (fail.Of(err) != k.reason || !strings.Contains(err.Error(), k.words) || !strings.Contains(err.Error(), k.tries)) {
				t.Errorf("%s, %s: %v", name, server, err)
			}
			if said := cl.log.String() + fmt.Sprint(err); strings.Contains(said, token) {
				t.Errorf("a secret is in %s", said)
			}
		}
	}
}

func TestProxyPasswordsAreMasked(t *testing.T) {
	var b bytes.Buffer
	log := logs.New(&b, logs.Normal, false)
	cl, _ := webClient(t, func(http.Handler, http.ResponseWriter, *http.Request) { t.Error("the proxy was passed by") })
	at, err := url.Parse(proxy(t, http.StatusForbidden))
	if err != nil {
		t.Fatal(err)
	}
	at.User = url.UserPassword("joe", token)
	cl.o.Proxy = http.ProxyURL(at)
	if err := Check(t.Context(), log, cl.u, cl.o); fail.Of(err) != fail.Denied {
		t.Error(err)
	}
	for _, form := range append(mask.Forms(token), basic("joe", token)) {
		if said := log.Masked("the proxy says " + form); said != "the proxy says [MASKED]" {
			t.Errorf("not masked: %s", said)
		}
	}
}
