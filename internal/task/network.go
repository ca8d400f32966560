package task

import (
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"run-task/checkout"
	"run-task/internal/fail"
)

// network reads how servers are spoken to. home is the task's user's.
func network(v *values, env []string, home string) (checkout.Net, error) {
	n := checkout.Net{Home: home, SSHAuthSock: lookup(env, "SSH_AUTH_SOCK"), Proxy: proxy(env)}
	c := &n.Credentials
	for _, spec := range v.list("git-auth") {
		login, _, err := readLogin(spec, env)
		if err != nil {
			return n, err
		}
		c.Logins = append(c.Logins, login)
	}
	c.Logins = append(c.Logins, loginsOfCI(env)...)
	if c.Netrc = lookup(env, "NETRC"); c.Netrc == "" && home != "" {
		c.Netrc = filepath.Join(home, ".netrc")
	}
	for _, key := range v.list("ssh-key") {
		k := checkout.SSHKey{Name: key}
		if name, ok := strings.CutPrefix(key, "env:"); ok {
			value, err := secret("--ssh-key", name, env)
			if err != nil {
				return n, err
			}
			k = checkout.SSHKey{Name: name, PEM: []byte(value)}
		}
		c.SSHKeys = append(c.SSHKeys, k)
	}
	for _, file := range v.list("known-hosts") {
		if file == "well-known" {
			c.WellKnown = true
		} else {
			c.KnownHosts = append(c.KnownHosts, file)
		}
	}
	c.CA, c.ClientCert, c.ClientKey = v.text("ca"), v.text("client-cert"), v.text("client-key")
	if (c.ClientCert == "") != (c.ClientKey == "") {
		return n, fail.Errorf(fail.Usage, "--client-cert and --client-key go together").WithHint("give both; they may name the same file")
	}
	return n, limits(&n, v.list("git-limit"))
}

// readLogin reads KEY=VALUE,... of --git-auth, and the names of the variables that it takes values from. No error repeats a value: who knows
// which may be a password in a wrong place?
func readLogin(spec string, env []string) (l checkout.Login, variables []string, err error) {
	said := map[string]string{}
	for field := range strings.SplitSeq(spec, ",") {
		k, value, ok := strings.Cut(field, "=")
		if !slices.Contains([]string{"host", "user", "user-env", "password-env", "token-env", "http"}, k) || !ok || value == "" || said[k] != "" {
			return l, nil, fail.Errorf(fail.Usage, "--git-auth: it is no list of key=value with known keys, each said once").
				WithHint("host=HOST[:PORT], user=NAME or user-env=VARIABLE, password-env=VARIABLE or token-env=VARIABLE, http=true; a password itself is never said here")
		}
		said[k] = value
	}
	if l.Host = said["host"]; !isHost(l.Host) {
		return l, nil, fail.Errorf(fail.Usage, "--git-auth: its host is missing or no host").WithHint("host=git.example.org, or with a port: host=git.example.org:8443")
	}
	wrong := func(why string) error { return fail.Errorf(fail.Usage, "--git-auth for %q: %s", l.Host, why) }
	switch {
	case said["user"] != "" && said["user-env"] != "":
		return l, nil, wrong("user and user-env exclude each other")
	case (said["password-env"] == "") == (said["token-env"] == ""):
		return l, nil, wrong("it needs one of password-env and token-env")
	case said["password-env"] != "" && said["user"]+said["user-env"] == "":
		return l, nil, wrong("a password needs a user; a token goes with any: token-env")
	case said["http"] != "" && said["http"] != "true" && said["http"] != "false":
		return l, nil, wrong("http is neither true nor false")
	}
	l.User, l.HTTP = said["user"], said["http"] == "true"
	for _, key := range []string{"user-env", "password-env", "token-env"} {
		name := said[key]
		if name == "" {
			continue
		}
		value, err := secret("--git-auth for "+strconv.Quote(l.Host), name, env)
		if err != nil {
			return l, nil, err
		}
		variables = append(variables, name)
		if key == "user-env" {
			l.User = value
		} else {
			l.Password = value
		}
	}
	return l, variables, nil
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)

// isHost tells whether text is a host's name or address, with or without a port.
func isHost(text string) bool {
	host, port := text, "0"
	if h, p, err := net.SplitHostPort(text); err == nil {
		host, port = h, p
	}
	_, err := strconv.ParseUint(port, 10, 16)
	return err == nil && (hostName.MatchString(host) || net.ParseIP(strings.Trim(host, "[]")) != nil)
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// secret is the value of a variable that a flag names.
func secret(flag, name string, env []string) (string, error) {
	if !variableName.MatchString(name) { // perhaps it is the secret itself
		return "", fail.Errorf(fail.Usage, "%s: what is to be a variable's name is none", flag).WithHint("say the name of the variable that has the value, never the value")
	}
	value := lookup(env, name)
	if strings.ToUpper(name) != name { // as many a token looks
		name = "that it names"
	}
	if value == "" {
		return "", fail.Errorf(fail.Usage, "%s: the variable %s is not set, or empty", flag, name).WithHint("set it for this job; a protected variable is only there on protected branches")
	}
	return value, nil
}

// named are the variables that flags take secrets from: the command does not get them.
func named(v *values, env []string) (names []string) {
	for _, spec := range v.list("git-auth") {
		_, variables, _ := readLogin(spec, env)
		names = append(names, variables...)
	}
	if strings.HasPrefix(v.text("git-publish"), "s3:") { // whoever can publish could fill the store with what others fetch in vain
		names = append(names, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD",
			"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
	}
	for _, spec := range v.list("store-auth") {
		_, variables, _ := readStoreLogin(spec, env)
		names = append(names, variables...)
	}
	for _, key := range v.list("ssh-key") {
		if name, ok := strings.CutPrefix(key, "env:"); ok {
			names = append(names, name)
		}
	}
	return names
}

// loginsOfCI are what GitLab and GitHub give each job for their own servers (docs.gitlab.com, "CI/CD job token"; docs.github.com, "Use GITHUB_TOKEN").
func loginsOfCI(env []string) (logins []checkout.Login) {
	get := func(name string) string { return lookup(env, name) }
	if host, token := get("CI_SERVER_HOST"), get("CI_JOB_TOKEN"); host != "" && token != "" {
		scheme, port := get("CI_SERVER_PROTOCOL"), get("CI_SERVER_PORT")
		if port != "" && !(scheme == "http" && port == "80") && !(scheme != "http" && port == "443") {
			host = net.JoinHostPort(host, port)
		}
		logins = append(logins, checkout.Login{Host: host, User: "gitlab-ci-token", Password: token, HTTP: scheme == "http"})
	}
	if server, err := url.Parse(get("GITHUB_SERVER_URL")); err == nil && server.Host != "" && get("GITHUB_TOKEN") != "" {
		logins = append(logins, checkout.Login{Host: server.Host, User: "x-access-token", Password: get("GITHUB_TOKEN")})
	}
	return logins
}

// limits reads NAME=VALUE of --git-limit.
func limits(n *checkout.Net, specs []string) error {
	l := &n.Limits
	times := map[string]*time.Duration{"connect": &l.Connect, "tls": &l.TLS, "answer": &l.Answer, "prepare": &l.Prepare, "stall": &l.Stall, "total": &l.Total, "budget": &n.Budget}
	sizes := map[string]*int64{"low-speed": &l.LowSpeed, "all-size": &l.AllSize}
	seen := map[string]bool{}
	for _, spec := range specs {
		name, value, _ := strings.Cut(spec, "=")
		if seen[name] {
			return fail.Errorf(fail.Usage, "--git-limit %s is said twice", name).WithHint("keep one of them")
		}
		seen[name] = true
		var err error
		var hint string
		switch {
		case times[name] != nil:
			*times[name], err = parseDuration(value)
			hint = "give a time and its unit: 30s, 10m, 2h"
		case sizes[name] != nil:
			*sizes[name], err = parseSize(value)
			hint = "give a number of bytes, or one with a unit: 10k, 500M, 2GiB"
		case name == "tries":
			if n.Tries, err = strconv.Atoi(value); err == nil && (n.Tries < 1 || n.Tries > 1000) {
				err = strconv.ErrRange
			}
			hint = "give a number from 1 to 1000"
		default:
			all := slices.Sorted(maps.Keys(times))
			all = append(append(all, slices.Sorted(maps.Keys(sizes))...), "tries")
			return fail.Errorf(fail.Usage, "--git-limit %q is no limit that is known", spec).WithHint("NAME=VALUE; names are %s", strings.Join(all, ", "))
		}
		if err != nil {
			return fail.Errorf(fail.Usage, "--git-limit %s: %q is not what it takes", name, value).WithHint("%s", hint)
		}
	}
	return nil
}
