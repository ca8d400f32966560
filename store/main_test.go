package store_test

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"run-task/tests/s3test"
)

// s3 is a real S3 server that runs until all tests are done: built and started when the first test wants it.
var s3 struct {
	*s3test.Server
	err  error
	once sync.Once
}

const s3Key, s3Secret = s3test.Key, s3test.Secret

func TestMain(m *testing.M) {
	code := m.Run()
	if err := s3.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

func s3Server(t *testing.T) string {
	t.Helper()
	s3.once.Do(func() { s3.Server, s3.err = s3test.Start("../tests/s3server") })
	if s3.err != nil {
		t.Fatal(s3.err)
	}
	return s3.URL
}
