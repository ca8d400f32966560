package wire

import (
	"fmt"
	"net"
	"strings"

	"run-task/internal/logs"
)

// shown is what a web server is shown of ours.
type shown struct {
	user, password string
	source         string // for messages
	secure         bool   // only over TLS
}

func (s shown) is() bool { return s.user != "" || s.password != "" }

// login chooses what the server of u is shown: what the URL says, else the first login for it, else what netrc says.
func (c Credentials) login(log *logs.Log, u URL) shown {
	if u.User != "" {
		return shown{u.User, u.password, "of the URL", false}
	}
	var fits *Login
	for i, l := range c.Logins {
		if l.fits(u) && (fits == nil || u.Scheme == "http" && l.HTTP && !fits.HTTP) {
			fits = &c.Logins[i]
		}
	}
	if fits != nil {
		return shown{fits.user(), fits.Password, fmt.Sprintf("of the login for %q", fits.Host), !fits.HTTP}
	}
	if c.Netrc != "" {
		if user, password, ok := netrc(log, c.Netrc, u.Host); ok {
			l := Login{User: user, Password: password}
			for _, secret := range (Credentials{Logins: []Login{l}}).secrets() {
				log.Mask(secret)
			}
			return shown{l.user(), password, fmt.Sprintf("of netrc %q", c.Netrc), true}
		}
	}
	return shown{}
}

// fits tells whether u leads to the login's server. Without a port the login is for the port of u's own scheme.
func (l Login) fits(u URL) bool {
	host, port, err := net.SplitHostPort(l.Host)
	if err != nil {
		host, port = strings.Trim(l.Host, "[]"), ""
	}
	if port == ports[u.Scheme] {
		port = ""
	}
	return host != "" && strings.EqualFold(host, u.Host) && port == u.Port
}
