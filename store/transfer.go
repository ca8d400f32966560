package store

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
	"run-task/internal/retry"
	"run-task/internal/roots"
)

// mostFile is more than any file of certificates, credentials or tokens has: 150 authorities are 220 KiB.
const mostFile = 16 << 20

// transport is how servers are reached. One stream at a time has nothing to gain from HTTP/2.
func (o *Options) transport() (*http.Transport, error) {
	roots.Embed()
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CA != "" {
		pem, err := fsx.ReadFile(o.CA, mostFile)
		if err != nil {
			return nil, fail.Errorf(fail.Usage, "the certificate authorities: %w", err).WithHint("give a file of certificates in PEM")
		}
		if config.RootCAs, err = x509.SystemCertPool(); err != nil {
			config.RootCAs = x509.NewCertPool()
		}
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fail.Errorf(fail.Usage, "there is no certificate in %q", o.CA).WithHint("give a file of certificates in PEM")
		}
	}
	return &http.Transport{
		Proxy:                 o.Proxy,
		DialContext:           (&net.Dialer{Timeout: o.Stall}).DialContext,
		TLSHandshakeTimeout:   o.Stall,
		TLSClientConfig:       config,
		ResponseHeaderTimeout: 4 * o.Stall, // an object is made of its parts meanwhile
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       o.Stall,
		MaxIdleConnsPerHost:   4,
		DisableCompression:    true, // what comes is what was put
		TLSNextProto:          map[string]func(string, *tls.Conn) http.RoundTripper{},
	}, nil
}

// temp makes a file without a name for what is on its way.
func (o *Options) temp() (*os.File, error) {
	f, err := fsx.Temp(cmp.Or(o.Temp, os.TempDir()))
	if err != nil {
		// Not wrapped: a directory that is missing here is no object that is missing there.
		return nil, fail.Errorf(fail.IO, "make a temporary file: %v", err).WithHint("set TMPDIR to a directory that uid %d can write, and that has room for what is sent and got", os.Geteuid())
	}
	return f, nil
}

// try repeats what fails in passing. Each try is given up when nothing moves for too long.
func (o *Options) try(ctx context.Context, do func(ctx context.Context, w *watch) error) error {
	return retry.Do(ctx, o.Log, o.Policy, func(ctx context.Context) error {
		inner, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		w := &watch{stall: o.Stall}
		inner = context.WithValue(inner, watchKey{}, w)
		w.timer = time.AfterFunc(4*o.Stall, func() { cancel(errStalled) })
		defer w.timer.Stop()
		err := do(inner, w)
		if after := time.Duration(w.after.Load()); after > 0 && retry.Marked(err) {
			err = retry.Again(err, after)
		}
		if err != nil && ctx.Err() == nil && context.Cause(inner) == errStalled {
			err = retry.Again(fail.Errorf(fail.Unavailable, "nothing moved for %s", o.Stall).WithHint("check that the store's server is up and can be reached from this container"), 0)
		}
		return err
	})
}

var errStalled = errors.New("the transfer stalls")

// errChanged is that of a part that does not belong to those which we have.
var errChanged = errors.New("the object changed while it came")

func changed() error { return retry.Again(fail.Errorf(fail.Unavailable, "%w", errChanged), 0) }

// watch sees what moves.
type watch struct {
	stall time.Duration
	timer *time.Timer
	after atomic.Int64 // how long the server wants to wait until it is asked again; see guard
}

// watchKey is what a try's context has its watch under.
type watchKey struct{}

func (w *watch) moved() { w.timer.Reset(w.stall) }

// reader tells the watch, and whoever wants to know, of what is read.
type reader struct {
	io.Reader
	w    *watch
	told func(n int)
}

func (r *reader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if n > 0 {
		r.w.moved()
		r.told(n)
	}
	if err == io.EOF { // a server may have to work on what it got
		r.w.timer.Reset(4 * r.w.stall)
	}
	return n, err
}

// piece is an answer with bytes of an object.
type piece struct {
	io.ReadCloser
	Info
	from  int64 // of the object's bytes: where these begin; 0 for its last ones
	total int64 // the object's size where these are its last bytes, else 0
	sum   func(*os.File) error
}

// enough is how much must come for the next failure to count as the first one.
const enough = 1 << 20

var errGotOn = errors.New("it got on")

// lasting is try for a long transfer: as long as enough comes between two failures neither the number of tries nor the budget ends it.
func (o *Options) lasting(ctx context.Context, have *int64, do func(ctx context.Context, w *watch) error) error {
	for again := *o; ; again.Policy.Start = (time.Time{}) {
		err := again.try(ctx, func(ctx context.Context, w *watch) error {
			before := *have
			err := do(ctx, w)
			if retry.Marked(err) && *have-before >= enough && ctx.Err() == nil {
				o.Log.Infof("%v: going on after %s", err, logs.Bytes(*have))
				return errGotOn
			}
			return err
		})
		if err != errGotOn {
			return err
		}
		if _, _, err := o.Policy.Pause(ctx, 1, time.Now().Add(time.Hour)); err != nil {
			return err
		}
	}
}

// download puts an object into a file without a name. ask asks for what follows the bytes that we have, which are of the object with that tag; it may give all again.
func (o *Options) download(ctx context.Context, progress func(done, total int64), ask func(ctx context.Context, have int64, tag string) (*piece, error)) (*os.File, Info, error) {
	f, err := o.temp()
	if err != nil {
		return nil, Info{}, err
	}
	var have int64
	var info Info
	err = o.lasting(ctx, &have, func(ctx context.Context, w *watch) error {
		p, err := ask(ctx, have, info.Tag)
		if errors.Is(err, errChanged) {
			have, info.Tag = 0, ""
		}
		if err != nil {
			return err
		}
		defer p.Close()
		if p.from != 0 && (p.from != have || p.Tag != info.Tag) {
			have, info.Tag = 0, "" // it was replaced meanwhile, or this is no answer to what we asked
			return changed()
		}
		if have, info = p.from, p.Info; info.Size >= 0 {
			info.Size += p.from
		}
		if err := f.Truncate(have); err != nil {
			return err
		}
		if _, err := f.Seek(have, io.SeekStart); err != nil {
			return err
		}
		_, err = copyTo(f, &reader{p, w, func(n int) {
			if have += int64(n); progress != nil {
				progress(have, info.Size)
			}
		}})
		switch {
		case errors.As(err, new(*localError)):
			return err
		case err != nil:
			return retry.Net(err)
		case info.Size >= 0 && have != info.Size:
			return retry.Again(fail.Errorf(fail.Unavailable, "%d of %d bytes came", have, info.Size), 0)
		}
		if info.Size = have; p.total > 0 {
			info.Size = p.total
		}
		if p.sum != nil {
			if err := p.sum(f); err != nil {
				have, info.Tag = 0, ""
				return err
			}
		}
		return nil
	})
	if err != nil {
		f.Close()
		return nil, info, err
	}
	return f, info, nil
}

// localError is one of our own disk.
type localError struct{ error }

func (e *localError) Unwrap() error { return e.error }

type localWriter struct{ io.Writer }

func (l localWriter) Write(b []byte) (int, error) {
	n, err := l.Writer.Write(b)
	if err != nil {
		err = &localError{err}
	}
	return n, err
}

var copies = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

func copyTo(w io.Writer, r io.Reader) (int64, error) {
	b := copies.Get().(*[]byte)
	defer copies.Put(b)
	return io.CopyBuffer(localWriter{w}, r, *b)
}
