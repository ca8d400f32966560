package store

import (
	"net/url"
	"path"
	"regexp"
	"strings"

	"run-task/internal/fail"
)

const hint = "give dir:/path, s3://bucket/prefix?endpoint=https://host or https://host/path"

var (
	bucketName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$`)
	schemeName = regexp.MustCompile(`^[a-z0-9+]{1,12}$`)
)

// parse is a directory's path, or a URL. Errors repeat nothing of a location but its scheme: all else may be a secret.
func parse(location string) (string, *url.URL, error) {
	if strings.ContainsFunc(location, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
		return "", nil, wrong(location, "has control characters")
	}
	name, local := strings.CutPrefix(location, "dir:")
	if local || strings.HasPrefix(location, "/") {
		if !path.IsAbs(name) {
			return "", nil, wrong(location, "is no absolute path")
		}
		return path.Clean(name), nil, nil
	}
	scheme, _, ok := strings.Cut(location, "://")
	if !ok || scheme != "s3" && scheme != "https" && scheme != "http" {
		return "", nil, wrong(location, "is of no kind that is known")
	}
	u, err := url.Parse(location)
	switch {
	case err != nil:
		return "", nil, wrong(location, "cannot be parsed")
	case u.Hostname() == "":
		return "", nil, wrong(location, "has no host or bucket")
	case u.Fragment != "":
		return "", nil, wrong(location, "has a fragment (#...)")
	case scheme == "s3" && !bucketName.MatchString(u.Host):
		return "", nil, wrong(location, "has no valid name of a bucket")
	}
	if scheme == "s3" {
		_, err = bucketOf(u)
	}
	return "", u, err
}

func wrong(location, what string) error {
	return fail.Errorf(fail.Usage, "the store's location %q %s", Address(location), what).WithHint("%s", hint)
}

// Address is a location for messages: without userinfo and query, which may have secrets, and of one that is none only the scheme.
func Address(location string) string {
	if strings.HasPrefix(location, "/") || strings.HasPrefix(location, "dir:") {
		return location
	}
	scheme, _, _ := strings.Cut(location, "://")
	u, err := url.Parse(location)
	switch {
	case err == nil && u.Host != "" && (scheme == "s3" || scheme == "https" || scheme == "http"):
		return scheme + "://" + u.Host + u.EscapedPath()
	case scheme != location && schemeName.MatchString(scheme):
		return scheme + "://..."
	}
	return "..."
}
