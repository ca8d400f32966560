// Package s3test builds and starts a real S3 server for tests: tests/s3server, which is a module of its own.
package s3test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// The keys that the server takes.
const (
	Key    = "test-access-key"
	Secret = "test-secret-key-0123456789"
)

// Server is one that runs.
type Server struct {
	URL  string // http://127.0.0.1:PORT
	Host string // of URL

	dir  string
	in   io.Closer
	wait func() error
}

// Start builds the server in the directory of its module and starts it on an empty one of its own.
func Start(module string) (_ *Server, err error) {
	s := &Server{}
	if s.dir, err = os.MkdirTemp("", "s3server"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(s.dir)
		}
	}()
	program := filepath.Join(s.dir, "s3server")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir, build.Env = module, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", module, err, out)
	}
	server := exec.Command(program, filepath.Join(s.dir, "files"))
	server.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+Key, "AWS_SECRET_ACCESS_KEY="+Secret)
	said, err := os.Create(filepath.Join(s.dir, "said")) // it tells of each request that it refuses
	if err != nil {
		return nil, err
	}
	defer said.Close()
	server.Stderr = said
	in, err := server.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := server.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := server.Start(); err != nil {
		return nil, err
	}
	s.in, s.wait = in, server.Wait
	line, err := bufio.NewReader(out).ReadString('\n')
	s.URL = strings.TrimSpace(line)
	s.Host = strings.TrimPrefix(s.URL, "http://")
	return s, err
}

// Stop ends the server and removes all that it had. A nil one is fine.
func (s *Server) Stop() error {
	if s == nil {
		return nil
	}
	return errors.Join(s.in.Close(), s.wait(), os.RemoveAll(s.dir))
}

// Client is a bare one, for what a store does not do.
func (s *Server) Client() (*minio.Core, error) {
	return minio.NewCore(s.Host, &minio.Options{Creds: credentials.NewStaticV4(Key, Secret, "")})
}

// Bucket makes a bucket.
func (s *Server) Bucket(ctx context.Context, name string) error {
	c, err := s.Client()
	if err != nil {
		return err
	}
	return c.MakeBucket(ctx, name, minio.MakeBucketOptions{})
}
