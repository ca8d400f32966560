package store_test

import (
	"strings"
	"testing"

	"run-task/internal/fail"
	"run-task/store"
)

func TestLocations(t *testing.T) {
	for location, shown := range map[string]string{
		"/caches":                       "/caches",
		"dir:/caches/x":                 "dir:/caches/x",
		"s3://bucket":                   "s3://bucket",
		"s3://bucket/a/b?region=eu":     "s3://bucket/a/b",
		"s3://bucket?endpoint=http://h": "s3://bucket",
		"https://host/path":             "https://host/path",
		"http://host:8080/p/{key}":      "http://host:8080/p/%7Bkey%7D",
		"https://user:s3cr3t@host/p":    "https://host/p",
		"https://host/p?sig=s3cr3t":     "https://host/p",
	} {
		if err := store.Valid(location); err != nil {
			t.Errorf("%q: %v", location, err)
		}
		if got := store.Address(location); got != shown {
			t.Errorf("%q is shown as %q, want %q", location, got, shown)
		}
	}
	for _, location := range []string{
		"", "caches", "dir:caches", "dir:", "ftp://host/s3cr3t", "https://", "https:///s3cr3t", "https://host/s3cr3t%zz", "https://host/#s3cr3t", "s3://", "s3://B",
		"s3://k:s3cr3t@bucket", "s3://bucket?endpoint=ftp://s3cr3t", "s3://bucket?endpoint=http://u:s3cr3t@h", "s3://bucket?s3cr3t", "s3://bucket/../s3cr3t", "https://host/\ns3cr3t",
	} {
		err := store.Valid(location)
		if fail.Of(err) != fail.Usage || fail.Hint(err) == "" {
			t.Errorf("%q: %v, hint %q", location, err, fail.Hint(err))
		}
		if _, e := store.Open(location, store.Options{}); fail.Of(e) != fail.Usage {
			t.Errorf("open %q: %v", location, e)
		}
		if err != nil && location != "s3://bucket?s3cr3t" && location != "s3://bucket/../s3cr3t" && strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%q: the error repeats it: %v", location, err)
		}
	}
}

func TestValidKey(t *testing.T) {
	for _, key := range []string{"a", "a/b.tar.zst", "A-Z_@+=,~.x", strings.Repeat("a", 200), strings.Repeat("a/", 255) + "aa"} {
		if err := store.ValidKey(key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
	for _, key := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", ".a", "a/.b", "a b", "a\\b", "ä", "a\x00", "a?b", "a%2F", strings.Repeat("a", 201), strings.Repeat("a/", 256) + "a"} {
		if err := store.ValidKey(key); fail.Of(err) != fail.Usage || fail.Hint(err) == "" {
			t.Errorf("%q: %v", key, err)
		}
	}
}
