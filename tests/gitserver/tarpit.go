package gitserver

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Pit is what happens to connections to a Tarpit.
type Pit struct {
	After int64         // after so many bytes of answers
	Pause time.Duration // between two bytes from then on; 0 for no byte ever
	Reset bool          // the connection is reset instead
	First int           // only to so many connections; 0 for all
}

// Tarpit is a TCP server that forwards to another one, until that has answered so many bytes on a connection: from then on clients get nothing on
// it, or a byte now and then, and it stays open. Or it is reset.
type Tarpit struct {
	Addr   string
	Caught chan struct{} // gets a value for each connection that has come so far

	pit    Pit
	passed atomic.Int64
	met    atomic.Int64
	mu     sync.Mutex
	conns  []net.Conn
	done   chan struct{}
	wg     sync.WaitGroup
}

// NewTarpit makes a Tarpit before the server at an address, "" for one that says nothing at all. It is gone when the test ends.
func NewTarpit(t testing.TB, to string, pit Pit) *Tarpit {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Tarpit{Addr: l.Addr().String(), Caught: make(chan struct{}, 100), pit: pit, done: make(chan struct{})}
	p.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			p.keep(client)
			p.wg.Go(func() { p.serve(client, to) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		close(p.done)
		p.mu.Lock()
		for _, c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

func (p *Tarpit) keep(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, c)
	select {
	case <-p.done: // nobody else will close it
		c.Close()
	default:
	}
}

// Passed is how many bytes of answers there were, at least all that clients have seen.
func (p *Tarpit) Passed() int64 { return p.passed.Load() }

// counted counts what is written before anybody can have read it.
type counted struct {
	io.Writer
	n *atomic.Int64
}

func (c counted) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return c.Writer.Write(b)
}

func (p *Tarpit) serve(client net.Conn, to string) {
	defer client.Close()
	if to == "" {
		p.Caught <- struct{}{}
		io.Copy(io.Discard, client)
		return
	}
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	p.keep(server)
	p.wg.Go(func() {
		io.Copy(server, client)
		server.(*net.TCPConn).CloseWrite()
	})
	if p.pit.First > 0 && int(p.met.Add(1)) > p.pit.First {
		io.Copy(client, server)
		return
	}
	if _, err := io.CopyN(counted{client, &p.passed}, server, p.pit.After); err != nil {
		return
	}
	p.Caught <- struct{}{}
	switch {
	case p.pit.Reset:
		client.(*net.TCPConn).SetLinger(0)
		return
	case p.pit.Pause == 0:
		<-p.done
		return
	}
	tick := time.NewTicker(p.pit.Pause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-p.done:
			return
		}
		if _, err := io.CopyN(client, server, 1); err != nil {
			return
		}
	}
}
