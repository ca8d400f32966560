// Package wire is git's client side on the network: it asks an upload-pack for exactly one commit and hands the pack
// that comes to a callback. It writes nothing to any disk, asks nobody anything, and runs no program.
package wire

import (
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"run-task/internal/fail"
	"run-task/internal/mask"
)

// URL says where a repository is. Printing one never shows a secret.
type URL struct {
	Scheme string // https, http, ssh, git or file
	User   string // "" if the URL names none
	Host   string // lower case, an IPv6 address without brackets; "" for file
	Port   string // "" where it is the scheme's own
	Path   string // for http and https still percent-encoded; for ssh relative to the home directory unless it starts with "/"; for file absolute

	password string
	userinfo string // user and password as they stand in the text that was parsed
}

var ports = map[string]string{"https": "443", "http": "80", "ssh": "22", "git": "9418", "file": ""}

// scp is the form user@host:path; brackets hold an IPv6 address or host:port. As in git, a slash before the first colon
// makes a path of it.
var scp = regexp.MustCompile(`^(?:([^/:@\[\]]+)@)?(?:\[([^/\]]+)\]|([^/:@\[\]]+)):(.*)$`)

// What the parts of an address may consist of: so that each can be printed and parsed again, and means the same everywhere.
var (
	hostname = regexp.MustCompile(`^[A-Za-z0-9._:-]+$`)
	port     = regexp.MustCompile(`^[0-9]{0,5}$`)
	login    = regexp.MustCompile(`^[A-Za-z0-9._+-]*$`)
)

// lostAddress is a path that is more likely an address with credentials whose beginning is misspelt, as in https/user:password@host:
// it would be printed. What is meant as a path has "./" or "/" before it, and file:// where it has a colon before the "@".
var lostAddress = regexp.MustCompile(`^[^./][^@]*@|:[^@]*@`)

// ParseURL reads what users write as a repository: a URL of the schemes https, http, ssh, git and file, the form
// user@host:path, or a local path, which is made absolute. All else is a usage error: other schemes (git's ext:: runs
// programs), control characters, parts that begin with "-", which a program at either end could take for an option, and all
// that looks as if a password stood where none is expected, such as an "@" behind the host. No error repeats any of s: who
// knows which part of a misspelt address is a password?
func ParseURL(s string) (URL, error) {
	u, err := parseURL(s)
	if err == nil {
		err = u.check()
	}
	if err != nil {
		return URL{}, err
	}
	if u.Port == ports[u.Scheme] {
		u.Port = ""
	}
	u.Host = strings.ToLower(u.Host)
	return u, nil
}

func parseURL(s string) (URL, error) {
	switch m := scp.FindStringSubmatch(s); {
	case s == "" || strings.HasPrefix(s, "-"):
		return URL{}, usage("the repository is not a URL or path: it is empty, or looks like an option such as --upload-pack")
	case strings.Contains(s, "://"):
		return parseSchemeURL(s)
	case strings.HasPrefix(s, "/") || m == nil:
		if lostAddress.MatchString(s) {
			return URL{}, usage("the repository is neither a URL nor clearly a local path: it has an %q", "@").
				WithHint("give https://, http://, ssh://, git:// or file://, user@host:path, or a local path that begins with ./ or /")
		}
		path, err := filepath.Abs(s)
		if err != nil {
			return URL{}, usage("the repository's path cannot be made absolute")
		}
		return URL{Scheme: "file", Path: path}, nil
	case strings.Contains(m[4], "@"): // as in user:password@host:path
		return URL{}, usage("the repository is not of the form user@host:path: there is an %q in its path", "@")
	case strings.HasPrefix(m[4], ":"):
		return URL{}, usage("git's remote helpers are not supported")
	case m[1] == "" && isScheme(m[3]):
		return URL{}, usage("the repository's URL lacks the slashes after its scheme")
	default:
		u := URL{Scheme: "ssh", User: m[1], Host: m[2] + m[3], Path: m[4]}
		if h, p, err := net.SplitHostPort(m[2]); err == nil {
			u.Host, u.Port = h, p
		}
		return u, nil
	}
}

func isScheme(s string) bool { _, ok := ports[strings.ToLower(s)]; return ok }

func parseSchemeURL(s string) (URL, error) {
	p, err := url.Parse(s)
	if err != nil {
		return URL{}, usage("the repository's URL cannot be parsed")
	}
	if !isScheme(p.Scheme) {
		return URL{}, usage("the repository's URL has a scheme that is not supported")
	}
	if p.RawQuery != "" || p.ForceQuery || p.Fragment != "" {
		return URL{}, usage("the repository's URL must have no query or fragment")
	}
	u := URL{Scheme: p.Scheme, User: p.User.Username(), Host: p.Hostname(), Port: p.Port(), Path: p.Path}
	u.password, _ = p.User.Password()
	if p.User != nil {
		_, rest, _ := strings.Cut(s, "://")
		authority, _, _ := strings.Cut(rest, "/")
		u.userinfo = authority[:strings.LastIndexByte(authority, '@')]
	}
	if p.Scheme != "file" && strings.Contains(p.EscapedPath(), "@") { // as in https://user:pass/word@host
		return URL{}, usage("there is an %q in the path of the repository's URL", "@").
			WithHint("write / as %%2F in a password, and @ as %%40 in a path")
	}
	switch p.Scheme {
	case "http", "https":
		u.Path = strings.TrimRight(p.EscapedPath(), "/")
	case "file":
		if u.Host == "localhost" {
			u.Host = ""
		}
		u.Path = filepath.Clean(u.Path)
	default:
		if strings.HasPrefix(u.Path, "/~") { // gitprotocol-pack, "SSH Transport": then without the leading slash
			u.Path = u.Path[1:]
		}
	}
	return u, nil
}

func (u URL) check() error {
	for _, part := range []string{u.User, u.Host, u.Port, u.Path, u.password} {
		if strings.HasPrefix(part, "-") {
			return usage("no part of a repository's URL may begin with %q", "-")
		}
		if strings.ContainsFunc(part, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return usage("the repository's URL has control characters")
		}
	}
	switch {
	case u.Scheme == "file" && (u.Host != "" || u.User != ""):
		return usage("a file URL has no host")
	case u.Scheme != "file" && !hostname.MatchString(u.Host) || !port.MatchString(u.Port):
		return usage("the repository's URL has no valid host")
	case u.Scheme == "ssh" && !login.MatchString(u.User):
		return usage("the repository's URL has no user name that ssh can use")
	case u.Path == "" || u.Scheme == "file" && !filepath.IsAbs(u.Path):
		return usage("the repository's URL has no path")
	}
	return nil
}

func usage(format string, args ...any) *fail.Error {
	return fail.Errorf(fail.Usage, format, args...).
		WithHint("give https://, http://, ssh://, git:// or file://, user@host:path, or a local path")
}

// String is the one spelling of the URL, without password, and without user name but for ssh, where "git@" is part of the
// address and no secret. It may be printed, and stored as a remote's address. Parsing it again gives the same URL.
func (u URL) String() string {
	host := u.Host
	if u.Port != "" {
		host = net.JoinHostPort(host, u.Port)
	} else if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	switch u.Scheme {
	case "https", "http":
		return u.Scheme + "://" + host + u.Path
	case "ssh":
		if u.User != "" {
			host = u.User + "@" + host
		}
		if !strings.HasPrefix(u.Path, "/") && !strings.HasPrefix(u.Path, "~") {
			if u.Port != "" {
				host = strings.Replace(host, net.JoinHostPort(u.Host, u.Port), "["+u.Host+":"+u.Port+"]", 1)
			}
			return host + ":" + u.Path
		}
	}
	path := u.Path
	if strings.HasPrefix(path, "~") {
		path = "/" + path
	}
	path = (&url.URL{Path: path}).EscapedPath()
	if u.Scheme != "file" {
		path = strings.ReplaceAll(path, "@", "%40")
	}
	return u.Scheme + "://" + host + path
}

// secrets are the user's credentials in every form in which a server or a library may repeat them. Over HTTP a lone user name is a token.
func (u URL) secrets() []string {
	if u.userinfo == "" {
		return nil
	}
	user, password, _ := strings.Cut(u.userinfo, ":")
	all := append(mask.Forms(u.password), password)
	if u.Scheme != "ssh" && tokenIsUser(u.password) {
		all = append(append(all, mask.Forms(u.User)...), user)
	}
	return append(all, basic(u.User, u.password))
}

// GoString keeps %#v from showing the password.
func (u URL) GoString() string { return u.String() }

func (u URL) address() string {
	port := u.Port
	if port == "" {
		port = ports[u.Scheme]
	}
	return net.JoinHostPort(u.Host, port)
}
