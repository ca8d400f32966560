package wire

import (
	"encoding/base64"

	"run-task/internal/mask"
)

// basic is a user and password as HTTP carries them.
func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// secrets are the passwords, and what takes their place, in every form in which a server or a library may repeat them.
func (c Credentials) secrets() (all []string) {
	for _, l := range c.Logins {
		if tokenIsUser(l.Password) {
			all = append(all, mask.Forms(l.User)...)
		}
		if l.User+l.Password != "" {
			all = append(append(all, mask.Forms(l.Password)...), basic(l.user(), l.Password))
		}
	}
	return all
}

// tokenIsUser tells from what stands in the password's place that the user's name is a token; x-oauth-basic is GitHub's word for no password.
func tokenIsUser(password string) bool { return password == "" || password == "x-oauth-basic" }

// anyUser goes with tokens: GitHub's and GitLab's alike take any name that is not empty, and this is the one that GitLab documents.
const anyUser = "oauth2"

func (l Login) user() string {
	if l.User == "" {
		return anyUser
	}
	return l.User
}
