package mask

import (
	"net/url"
	"strings"
)

// Forms are the ways in which a server or a library may repeat a secret that it was shown in a URL or a header; none of an empty one.
func Forms(secret string) []string {
	if secret == "" {
		return nil
	}
	return []string{secret, url.QueryEscape(secret), url.PathEscape(secret), url.User(secret).String(), strings.TrimPrefix(url.UserPassword("", secret).String(), ":")}
}
