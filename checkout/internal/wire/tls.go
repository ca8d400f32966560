package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/internal/mask"
	"run-task/internal/retry"
	"run-task/internal/roots"
)

// tlsConfig is o.TLS with the certificates of o.Credentials.
func tlsConfig(o Options) (*tls.Config, error) {
	config := &tls.Config{}
	if o.TLS != nil {
		config = o.TLS.Clone()
	}
	if config.RootCAs == nil {
		roots.Embed()
	}
	if file := o.Credentials.CA; file != "" {
		if err := addRoots(config, file); err != nil {
			return nil, fail.Errorf(fail.Usage, "the certificate authorities in %q: %w", file, err).WithHint("give a file of certificates in PEM that uid %d can read", os.Getuid())
		}
	}
	cert, key := o.Credentials.ClientCert, o.Credentials.ClientKey
	if cert == "" && key == "" {
		return config, nil
	}
	if cert == "" {
		return nil, fail.Errorf(fail.Usage, "the client's key %q has no certificate", key).WithHint("give the file of the certificate, too")
	}
	if key == "" { // in the same file
		key = cert
	}
	pair, err := readPair(cert, key)
	if err != nil {
		return nil, fail.Errorf(fail.Usage, "the client's certificate %q with the key %q: %w", cert, key, err).
			WithHint("give files in PEM that belong together, the key without a passphrase, and that uid %d can read", os.Getuid())
	}
	config.GetClientCertificate = func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if asked.Context().Value(elsewhere{}) != nil || asked.SupportsCertificate(&pair) != nil {
			return &tls.Certificate{}, nil // none
		}
		return &pair, nil
	}
	return config, nil
}

// elsewhere is in the context of a request that must show nothing of ours: a redirect leads to another host.
type elsewhere struct{}

// addRoots adds a file's certificates to those that are trusted anyway.
func addRoots(config *tls.Config, file string) error {
	pem, err := readText(file)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if config.RootCAs != nil {
		pool = config.RootCAs.Clone()
	} else if system, err := x509.SystemCertPool(); err == nil {
		pool = system
	}
	if !pool.AppendCertsFromPEM([]byte(pem)) {
		return errors.New("there is no certificate in it")
	}
	config.RootCAs = pool
	return nil
}

func readPair(cert, key string) (tls.Certificate, error) {
	certPEM, err := readText(cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	keyPEM, err := readText(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair([]byte(certPEM), []byte(keyPEM))
}

// masked is a choice of proxies whose passwords are in no log.
func masked(log *logs.Log, proxy func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	if proxy == nil {
		return nil
	}
	return func(r *http.Request) (*url.URL, error) {
		p, err := proxy(r)
		if p != nil && p.User != nil {
			password, _ := p.User.Password()
			for _, secret := range append(mask.Forms(password), basic(p.User.Username(), password)) {
				log.Mask(secret)
			}
		}
		return p, err
	}
}

// throughProxy looks at a proxy's answer to CONNECT.
func throughProxy(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
	switch code := res.StatusCode; {
	case code == http.StatusOK:
		return nil
	case code == http.StatusProxyAuthRequired:
		return errProxy(status(res))
	case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		return retry.Again(fail.Errorf(fail.Unavailable, "the proxy answered %s", status(res)).WithHint("check that the proxy can reach the server"), 0)
	}
	return fail.Errorf(fail.Denied, "the proxy does not let us through: it answered %s", status(res)).WithHint("let the proxy's owner allow the server, or use no proxy for it")
}

func errProxy(status string) error {
	return fail.Errorf(fail.Denied, "the proxy answered %s", status).WithHint("check the user and password in the proxy's URL")
}

// connectError gives what went wrong before an answer its reason.
func connectError(err error) error {
	var known *fail.Error
	var op *net.OpError
	switch {
	case errors.As(err, &known) && retry.Marked(err):
		return retry.Again(known, 0)
	case errors.As(err, &known):
		return known
	case errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate"): // a TLS alert, which has no type
		return fail.Errorf(fail.Denied, "%w", clipped{fmt.Errorf("the server does not take our certificate: %w", err)}).
			WithHint("give the client certificate that the server wants, and its key")
	}
	return retry.Net(clipped{err})
}
