//go:build linux

package tests

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"

	"run-task/tests/s3test"
)

// s3 is a real S3 server for all tests, started when the first one wants it.
var s3 struct {
	*s3test.Server
	err     error
	once    sync.Once
	buckets atomic.Int64
}

// slowLink is a proxy in front of the S3 server whose clients send no more than rate bytes a second in all, and which cuts a connection when cut more have come; 0 is without limit.
type slowLink struct {
	net.Listener
	rate, cut atomic.Int64
	sent      atomic.Int64
}

func newLink(t *testing.T, to string) *slowLink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &slowLink{Listener: l}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c, to)
		}
	}()
	return s
}

func (s *slowLink) serve(c net.Conn, to string) {
	defer c.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		io.Copy(c, server)
		c.Close()
	}()
	b := make([]byte, 16<<10)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if cut := s.cut.Load(); cut > 0 && s.cut.Add(int64(-n)) <= 0 {
			s.cut.Store(0)
			return
		}
		if rate := s.rate.Load(); rate > 0 {
			time.Sleep(time.Duration(n) * time.Second / time.Duration(rate)) // it is the link's own slowness
		}
		if _, err := server.Write(b[:n]); err != nil {
			return
		}
		s.sent.Add(int64(n))
	}
}

// newBucketTrunk is a trunk whose store is a bucket of its own behind a link.
func newBucketTrunk(t *testing.T) (*trunk, *slowLink, string) {
	t.Helper()
	s3.once.Do(func() { s3.Server, s3.err = s3test.Start("s3server") })
	if s3.err != nil {
		t.Fatal(s3.err)
	}
	name := fmt.Sprintf("bucket-%d", s3.buckets.Add(1))
	if err := s3.Bucket(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	link := newLink(t, s3.Host)
	k := newTrunk(t)
	k.store = fmt.Sprintf("s3://%s/caches?endpoint=http://%s", name, link.Addr())
	k.env = []string{"AWS_ACCESS_KEY_ID=" + s3test.Key, "AWS_SECRET_ACCESS_KEY=" + s3test.Secret, "TMPDIR=" + k.dir}
	return k, link, name
}

// incompressible puts that many bytes of no order into the tree.
func (k *trunk) incompressible(size int) {
	k.Helper()
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(size)}).Read(b)
	plant(k.T, k.dir+"/tree/large", string(b))
	own(k.T, k.dir+"/tree")
}

// begun waits until that much of an upload went through the link.
func (s *slowLink) begun(n int64) {
	for start := s.sent.Load(); s.sent.Load() < start+n; {
		time.Sleep(time.Millisecond) // until: the condition, not the time, is what is waited for
	}
}

// Three saves are complete. A fourth is cancelled while its upload crawls: TERM, and KILL soon after. The next task restores exactly the three files.
func TestCacheCancelledUpload(t *testing.T) {
	t.Parallel()
	k, link, bucket := newBucketTrunk(t)
	want := ""
	for _, name := range []string{"one", "two", "three"} {
		plant(t, k.dir+"/tree/"+name, name)
		own(t, k.dir)
		k.must("save", k.flag("")...)
		want += name + "\n"
	}
	k.incompressible(40 << 20)
	link.rate.Store(1 << 20)
	cmd := (&command{dir: k.dir, env: k.env, args: append(append([]string{"run-task"}, asUser()...), append(k.flag(",policy=push"), "--", "probe", "exit", "0")...)}).cmd()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	link.begun(2 << 20)
	cmd.Process.Signal(unix.SIGTERM)
	timer := time.AfterFunc(time.Second, func() { cmd.Process.Kill() })
	code := wait(t, cmd)
	timer.Stop()
	if code != 0 && code != 137 { // the command's own, or killed
		t.Errorf("exit %d", code)
	}
	check := func() {
		t.Helper()
		link.rate.Store(0)
		remove(k.dir + "/tree")
		k.must("restore", k.flag("")...)
		names, err := os.ReadDir(k.dir + "/tree")
		if err != nil || len(names) != 3 {
			t.Fatalf("%v, %v", names, err)
		}
		for _, n := range names {
			if b, err := os.ReadFile(k.dir + "/tree/" + n.Name()); err != nil || string(b) != n.Name() || !strings.Contains(want, n.Name()+"\n") {
				t.Errorf("%s is %q, %v", n.Name(), b, err)
			}
		}
	}
	check()
	// The same at any instant, with no warning.
	for range 8 {
		k.incompressible(40 << 20)
		link.rate.Store(8 << 20)
		cmd := (&command{dir: k.dir, env: k.env, args: append(append([]string{"run-task", "cache", "save"}, asUser()...), k.flag("")...)}).cmd()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		link.begun(rand.Int64N(30 << 20))
		cmd.Process.Kill()
		wait(t, cmd)
		check()
	}
	k.must("gc", "--cache-store", k.store, "--grace", "1ns")
	c, err := s3.Client()
	if err != nil {
		t.Fatal(err)
	}
	for o := range c.ListIncompleteUploads(t.Context(), bucket, "", true) {
		t.Errorf("litter: %+v", o)
	}
	n := 0
	for o := range c.Client.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		n++
		if o.Key != "caches/key.tar.zst" {
			t.Errorf("litter: %+v", o)
		}
	}
	if n != 1 {
		t.Errorf("%d objects", n)
	}
	k.must("verify", "--cache-store", k.store)
}

// Connections that are cut at any byte cost tries, and nothing else.
func TestCacheCutUpload(t *testing.T) {
	t.Parallel()
	k, link, _ := newBucketTrunk(t)
	for i := range 4 {
		remove(k.dir + "/tree")
		k.incompressible(20<<20 + i)
		link.cut.Store(1 + rand.Int64N(20<<20))
		out := k.must("save", k.flag("")...)
		if !strings.Contains(out, "saved: ") {
			t.Errorf("%s", out)
		}
		before := contentOf(t, k.dir+"/tree")
		remove(k.dir + "/tree")
		k.must("restore", k.flag("")...)
		if after := contentOf(t, k.dir+"/tree"); after != before {
			t.Errorf("before\n%s\nafter\n%s", before, after)
		}
	}
}
