package store_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"run-task/internal/fail"
	"run-task/store"
)

func TestNear(t *testing.T) {
	for host, want := range map[string]bool{
		"169.254.169.254": true, "169.254.170.2": true, "169.254.170.23": true, "fd00:ec2::254": true, "fd00:ec2::23": true, "127.0.0.1": true, "::1": true, "localhost": true,
		"sts.amazonaws.com": false, "sts.eu-west-1.amazonaws.com": false, "10.0.0.1": false, "fd00::1": false, "169.254.169.254.example.org": false, "": false,
	} {
		if got := store.Near(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

// roleServer has a role's credentials, as ECS and EKS have them; the store takes its address from the process's environment.
func roleServer(t *testing.T, first func(w http.ResponseWriter, r *http.Request, n int) bool) *server {
	t.Helper()
	s := serve(t, func(w http.ResponseWriter, r *http.Request, n int) bool {
		if first == nil || !first(w, r, n) {
			fmt.Fprintf(w, `{"AccessKeyId":%q,"SecretAccessKey":%q,"Expiration":"2099-01-01T00:00:00Z"}`, s3Key, s3Secret)
		}
		return true
	})
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", s.URL+"/role")
	t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "s3cr3t")
	return s
}

// A proxy is never asked for what only this machine has.
func TestRolesAreAskedWithoutAProxy(t *testing.T) {
	s := roleServer(t, nil)
	o := store.Options{Env: os.Getenv, Policy: quick(), Temp: t.TempDir(), Proxy: func(r *http.Request) (*url.URL, error) {
		if r.URL.Path == "/role" {
			t.Errorf("the proxy is asked for %s", r.URL)
		}
		return nil, nil
	}}
	if _, err := put(t, open(t, location(t, bucket(t)), o), "k", "x", store.PutOptions{}); err != nil {
		t.Error(err)
	}
	if got := s.seen(func(r *http.Request) string { return r.URL.Path + " " + r.Header.Get("Authorization") }); got != "GET /role s3cr3t" {
		t.Errorf("%s", got)
	}
}

func TestRolesAreNotRedirected(t *testing.T) {
	other := serve(t, nil)
	roleServer(t, func(w http.ResponseWriter, r *http.Request, _ int) bool {
		http.Redirect(w, r, other.URL, http.StatusFound)
		return true
	})
	o := store.Options{Env: os.Getenv, Policy: quick(), Temp: t.TempDir()}
	if _, err := put(t, open(t, location(t, bucket(t)), o), "k", "x", store.PutOptions{}); err == nil {
		t.Error("no error")
	}
	if len(other.requests) > 0 {
		t.Errorf("asked elsewhere: %s", other.seen(func(r *http.Request) string { return r.Header.Get("Authorization") }))
	}
}

// What somebody put in the place of a file is not waited for.
func TestCredentialsThatAreNoFiles(t *testing.T) {
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".aws"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fifo(t), filepath.Join(home, ".aws", "credentials")); err != nil {
		t.Fatal(err)
	}
	open(t, "s3://bucket", store.Options{Home: home})
	for _, file := range []string{fifo(t), long(t)} {
		open(t, "s3://bucket", store.Options{Env: env(map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file})})
	}
	for _, name := range []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"} {
		o := store.Options{Env: env(map[string]string{name: fifo(t), "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/"})}
		if _, err := store.Open("s3://bucket", o); fail.Of(err) != fail.Usage || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
