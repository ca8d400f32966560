package task

import (
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"run-task/caches"
	"run-task/internal/fail"
	"run-task/internal/retry"
	"run-task/internal/self"
	"run-task/store"
)

// archives reads what is said about cache archives.
func (t *Task) archives(v *values, env []string) (err error) {
	a := &t.Archives
	a.Default, a.Strict = v.text("cache-store"), v.on("cache-strict")
	if a.Default != "" {
		if err := store.Valid(a.Default); err != nil {
			return err
		}
	}
	if a.Policy, err = policy(v); err != nil {
		return err
	}
	if a.Budget, err = duration(v, "cache-budget", caches.DefaultBudget); err != nil {
		return err
	}
	for _, text := range v.list("cache-archive") {
		s, err := caches.ParseArchive(text)
		if err == nil {
			err = archive(a, &s)
		}
		if err != nil {
			return fail.Errorf(fail.Usage, "--cache-archive: %w", err)
		}
		a.Specs = append(a.Specs, s)
	}
	a.Store, a.Keep = t.Checkouts.Stores, t.Caches
	a.Env = func(name string) string { return lookup(env, name) }
	a.Self = func() (string, error) {
		hash, err := self.Hash()
		return hash[:min(len(hash), 20)], err
	}
	return nil
}

func policy(v *values) (caches.Policy, error) {
	if text := v.text("cache-policy"); text != "" {
		return caches.ParsePolicy(text)
	}
	return "", nil
}

func archive(a *caches.Archives, s *caches.ArchiveSpec) error {
	if s.Store != "" {
		if err := store.Valid(s.Store); err != nil {
			return err
		}
	} else if a.Default == "" {
		return fail.Errorf(fail.Usage, "%q names no store", s.Path).WithHint("add store=LOCATION to it, or --cache-store LOCATION")
	}
	for _, other := range a.Specs {
		if filepath.Clean(other.Path) == filepath.Clean(s.Path) {
			return fail.Errorf(fail.Usage, "two archives are of %q", s.Path).WithHint("one tree has one archive; its other keys are fallbacks")
		}
	}
	return nil
}

// storeAccess is how stores are reached and what they are shown. home is the task's user's.
func storeAccess(v *values, env []string, home string) (o store.Options, err error) {
	o = store.Options{Env: func(name string) string { return lookup(env, name) }, Home: home, CA: v.text("ca"), Proxy: proxy(env),
		Policy: retry.Policy{Tries: 4, Max: 10 * time.Second, Budget: 2 * time.Minute}} // a task waits for it
	for _, spec := range v.list("store-auth") {
		l, _, err := readStoreLogin(spec, env)
		if err != nil {
			return o, err
		}
		o.Logins = append(o.Logins, l)
	}
	if host, token := lookup(env, "CI_SERVER_HOST"), lookup(env, "CI_JOB_TOKEN"); host != "" && token != "" {
		if port := lookup(env, "CI_SERVER_PORT"); port != "" {
			host = net.JoinHostPort(host, port)
		}
		o.Logins = append(o.Logins, store.Login{Host: host, Header: "JOB-TOKEN", Secret: token, HTTP: lookup(env, "CI_SERVER_PROTOCOL") == "http"})
	}
	return o, nil
}

// storeDir is the directory of a location that is one, for root to make.
func storeDir(location string) []string {
	if dir, ok := strings.CutPrefix(location, "dir:"); ok || strings.HasPrefix(location, "/") {
		return []string{dir}
	}
	return nil
}

// readStoreLogin reads KEY=VALUE,... of --store-auth, and the names of the variables that it takes values from. No error repeats a value.
func readStoreLogin(spec string, env []string) (l store.Login, variables []string, err error) {
	said := map[string]string{}
	for field := range strings.SplitSeq(spec, ",") {
		k, value, ok := strings.Cut(field, "=")
		if !slices.Contains([]string{"host", "header", "user", "token-env", "password-env", "http"}, k) || !ok || value == "" || said[k] != "" {
			return l, nil, fail.Errorf(fail.Usage, "--store-auth: it is no list of key=value with known keys, each said once").
				WithHint("host=HOST[:PORT] with header=NAME,token-env=VARIABLE or user=NAME,password-env=VARIABLE; http=true; a secret itself is never said here")
		}
		said[k] = value
	}
	wrong := func(why string) error { return fail.Errorf(fail.Usage, "--store-auth for %q: %s", l.Host, why) }
	if !isHost(said["host"]) {
		return l, nil, fail.Errorf(fail.Usage, "--store-auth: its host is missing or no host").WithHint("host=gitlab.example.org, or with a port")
	}
	l = store.Login{Host: said["host"], Header: said["header"], User: said["user"], HTTP: said["http"] == "true"}
	name := said["token-env"] + said["password-env"]
	switch {
	case (said["token-env"] == "") == (said["password-env"] == ""):
		return l, nil, wrong("it needs one of token-env and password-env")
	case (l.Header == "") == (l.User == ""):
		return l, nil, wrong("it needs one of header, as JOB-TOKEN, and user")
	case !headerName(l.Header):
		return l, nil, wrong("its header is no header's name")
	case said["http"] != "" && said["http"] != "true" && said["http"] != "false":
		return l, nil, wrong("http is neither true nor false")
	}
	l.Secret, err = secret("--store-auth for "+strconv.Quote(l.Host), name, env)
	return l, []string{name}, err
}

func headerName(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z')
	})
}

// archivePlaces refuses directories that cannot be an archive's.
func (t *Task) archivePlaces() error {
	dir := t.Command.Dir
	if repos := t.Checkouts.Repos; dir == "" && len(repos) == 1 {
		dir = repos[0].Dir
	}
	for _, s := range t.Archives.Specs {
		if err := caches.ValidatePath(t.Caches, dir, s.Path); err != nil {
			return err
		}
	}
	return nil
}
