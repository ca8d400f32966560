package store

import (
	"cmp"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"run-task/internal/logs"
	"run-task/internal/retry"
)

// Options say how stores are reached. The zero value works where nobody asks for credentials.
type Options struct {
	Env    func(name string) string // the variables that S3's credentials are taken from; nil for none
	Home   string                   // the user's, for ~/.aws/credentials; "" for none
	Logins []Login                  // for web servers, and for S3 where nothing else is said; the first that fits is used
	CA     string                   // a file of certificate authorities in PEM, besides the system's; "" for none
	Proxy  func(*http.Request) (*url.URL, error)
	Temp   string        // a directory, where downloads are put, without a name; default os.TempDir
	Policy retry.Policy  // of repeated tries; a download that gets on begins anew with both tries and budget
	Stall  time.Duration // a transfer in which nothing moves for so long is broken off and tried again; default 30 s. Servers have ten times that to work on what they got
	Log    *logs.Log     // is told of secrets to mask, and of repeated tries; nil for none
}

// Login is what one server is shown. It is never sent to another one.
type Login struct {
	Host   string // host, or host:port; without a port it is the scheme's own
	Header string // that the secret stands in: "JOB-TOKEN", "PRIVATE-TOKEN", "DEPLOY-TOKEN"; "" is basic authentication
	User   string // of basic authentication; S3's access key
	Secret string
	HTTP   bool // also without TLS; S3 never sends the secret itself, and needs this not
}

// Valid tells with fail.Usage what is wrong with a location. These are right:
//
//	/path, dir:/path                a directory
//	s3://bucket/prefix              a bucket, with ?endpoint=URL, region=, path-style=true or false, iam=true (this machine's role)
//	https://host/path, http://...   a web server: the key is appended to the path, or put where {key} stands; a query is kept
func Valid(location string) error {
	_, _, err := parse(location)
	return err
}

// Open gives the store at a location. It does no network I/O, and a directory is not made before the first Put. fail.Usage: the location is wrong, or the file
// of certificates.
func Open(location string, o Options) (Store, error) {
	path, u, err := parse(location)
	if err != nil {
		return nil, err
	}
	o = o.withDefaults()
	switch {
	case path != "":
		return &dir{root: path}, nil
	case u.Scheme == "s3":
		return openS3(u, o)
	}
	return openHTTP(u, o)
}

func (o Options) withDefaults() Options {
	if o.Env == nil {
		o.Env = func(string) string { return "" }
	}
	if o.Log == nil {
		o.Log = logs.New(io.Discard, logs.Quiet, false)
	}
	o.Temp = cmp.Or(o.Temp, os.TempDir())
	o.Stall = cmp.Or(o.Stall, 30*time.Second)
	return o
}
