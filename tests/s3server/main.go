// Command s3server is a real S3 server for tests: versitygw on a directory. It prints its address when it is ready and ends when its stdin does. It is a
// module of its own, so that what it needs is nothing that run-task needs.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "s3server:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: s3server DIR, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	// Ours is the only line on stdout: the gateway says there what it does.
	out := os.Stdout
	var err error
	if os.Stdout, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil {
		return err
	}
	data, side := filepath.Join(os.Args[1], "data"), filepath.Join(os.Args[1], "meta")
	for _, dir := range []string{data, side} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// Files beside the objects, and not their extended attributes, which tmpfs has only since Linux 6.6.
	store, err := meta.NewSideCar(side)
	if err != nil {
		return err
	}
	back, err := posix.New(data, store, posix.PosixOpts{SideCarDir: side, Concurrency: 64, CopyObjectThreshold: 5 << 30})
	if err != nil {
		return err
	}
	address, err := free()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	ended := make(chan error, 1)
	go func() {
		ended <- embedgw.RunVersityGW(ctx, back, &embedgw.Config{
			RootUserAccess: os.Getenv("AWS_ACCESS_KEY_ID"), RootUserSecret: os.Getenv("AWS_SECRET_ACCESS_KEY"),
			Ports: []string{address}, Quiet: true, KeepAlive: true, MaxConnections: 1000, MaxRequests: 1000, MultipartMaxParts: 10000,
		})
	}()
	if err := answers(ctx, address, ended); err != nil {
		return err
	}
	fmt.Fprintln(out, "http://"+address)
	select {
	case err := <-ended:
		return err
	case <-ctx.Done(): // its own end waits ten seconds for connections
		return nil
	}
}

// free is an address that nobody listens at.
func free() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// answers waits until the server takes connections.
func answers(ctx context.Context, address string, ended <-chan error) error {
	for {
		c, err := net.Dial("tcp", address)
		if err == nil {
			return c.Close()
		}
		select {
		case err := <-ended:
			return fmt.Errorf("it ended before it was ready: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}
