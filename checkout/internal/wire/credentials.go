package wire

import "time"

// Credentials are what a server may be shown. A URL's own user and password go first.
type Credentials struct {
	Logins []Login // the first for a host is used
	Netrc  string  // a file as in netrc(5), asked for hosts without a login; "" for none

	SSHKeys    []SSHKey // used alone if there are any, before an agent's and those in the home directory otherwise
	KnownHosts []string // files in place of the home directory's and the system's
	WellKnown  bool     // the published keys of github.com, gitlab.com and bitbucket.org are known, too

	CA                    string // a file of certificate authorities in PEM, besides the system's; "" for none
	ClientCert, ClientKey string // files in PEM, for servers that want a certificate of ours
}

// Login is a user and password for one server, over HTTP or HTTPS.
type Login struct {
	Host     string // host, or host:port; without a port it is the scheme's own
	User     string // "" where the password is a token that goes with any user name
	Password string
	HTTP     bool // also without TLS
}

// SSHKey is a private key without a passphrase, in a file or as it is.
type SSHKey struct {
	Name string // for messages: the file's, or the variable's
	PEM  []byte // nil: read the file Name
}

// Stats is what fetches have done. It is not for use by several goroutines while one runs.
type Stats struct {
	Bytes   int64 // of packs
	Objects int64 // in them; the receiver counts
	Retries int
	Waited  time.Duration // between tries
}
