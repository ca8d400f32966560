package store_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// s3 is a real S3 server that runs until all tests are done: built and started when the first test wants it.
var s3 struct {
	dir  string // of its objects and its own files
	stop func()
	url  string
	err  error
	once sync.Once
}

const s3Key, s3Secret = "test-access-key", "test-secret-key-0123456789"

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "s3server")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s3.dir, s3.stop = dir, func() {}
	code := m.Run()
	s3.stop()
	os.RemoveAll(dir)
	os.Exit(code)
}

func s3Server(t *testing.T) string {
	t.Helper()
	s3.once.Do(func() { s3.url, s3.err = startS3() })
	if s3.err != nil {
		t.Fatal(s3.err)
	}
	return s3.url
}

func startS3() (string, error) {
	program := filepath.Join(s3.dir, "s3server")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir, build.Env = "../tests/s3server", append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build tests/s3server: %w\n%s", err, out)
	}
	server := exec.Command(program, filepath.Join(s3.dir, "files"))
	server.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+s3Key, "AWS_SECRET_ACCESS_KEY="+s3Secret)
	said, err := os.Create(filepath.Join(s3.dir, "said")) // it tells of each request that it refuses
	if err != nil {
		return "", err
	}
	defer said.Close()
	server.Stderr = said
	in, err := server.StdinPipe()
	if err != nil {
		return "", err
	}
	out, err := server.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := server.Start(); err != nil {
		return "", err
	}
	s3.stop = func() { in.Close(); server.Wait() }
	line, err := bufio.NewReader(out).ReadString('\n')
	return strings.TrimSpace(line), err
}
