package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

// minutes is a connection on which a minute goes by in each Read.
type minutes struct {
	now    time.Time
	packet func(n int) string // what comes in the nth minute, "" for the end
	n      int
	rest   string
}

func (m *minutes) Read(b []byte) (int, error) {
	if m.rest == "" {
		m.n++
		m.now = m.now.Add(time.Minute)
		m.rest = m.packet(m.n)
	}
	if m.rest == "" || m.n > 10_000 {
		return 0, io.EOF
	}
	n := copy(b, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}

func watchMinutes(packet func(n int) string) (*minutes, *pktReader) {
	m := &minutes{now: time.Unix(1e9, 0), packet: packet}
	w := watch(m, Limits{}.withDefaults(), func() {})
	w.now = func() time.Time { return m.now }
	return m, newPktReader(w)
}

func always(s string) func(int) string { return func(int) string { return s } }

func TestTextMustComeInTime(t *testing.T) {
	for name, read := range map[string]func(*pktReader) error{
		"advertisement": func(p *pktReader) error { _, err := readAdvert(p); return err },
		"refs":          func(p *pktReader) error { _, err := readRefs(p); return err },
		"v2 header":     func(p *pktReader) error { _, err := readV2Header(p); return err },
		"v0 header":     func(p *pktReader) error { _, err := readV0Header(p, true); return err },
	} {
		line := lines(one + " refs/heads/a")
		if strings.HasSuffix(name, "header") {
			line = lines("shallow " + one)
		}
		m, p := watchMinutes(always(line))
		if err := read(p); !errors.Is(err, errSlow) || m.n != 5 {
			t.Errorf("%s, a line a minute: %v after %d minutes", name, err, m.n)
		}
		m, p = watchMinutes(func(n int) string {
			if n == 4 {
				return "0000"
			}
			return line
		})
		p.begin()
		if err := read(p); errors.Is(err, errSlow) {
			t.Errorf("%s of four minutes: %v", name, err)
		}
		p.begin() // the next answer has its own time
		m.packet, m.n = always(line), 0
		if err := read(p); !errors.Is(err, errSlow) || m.n != 5 {
			t.Errorf("%s, the second: %v after %d minutes", name, err, m.n)
		}
	}
}

func TestPackMustComeInTime(t *testing.T) {
	const keepalive, progress = "0005\x01", "000b\x02hello\n"
	packed := fmt.Sprintf("%04x\x01%s", 30_005, strings.Repeat("x", 30_000))
	first := func(n int, first string, then func(int) string) func(int) string {
		return func(m int) string {
			if m <= n {
				return first
			}
			return then(m)
		}
	}
	for name, c := range map[string]struct {
		packet  func(int) string
		words   string
		minutes int
	}{
		"keep-alives for ever":           {always(keepalive), "no pack after 30m", 30},
		"progress for ever":              {always(progress), "no pack after 30m", 30},
		"silence, but for a dripped one": {func(n int) string { return (fmt.Sprintf("%04x\x02", 1000) + strings.Repeat("x", 995))[n-1 : n] }, "silent for 5m", 5},
		"late, then the pack":            {first(29, keepalive, first(31, packed+packed, always(""))), "EOF", 32},
		"keep-alives after its start":    {first(1, "0006\x01P", always(keepalive)), "1000 B/s", 2},
		"progress after its start":       {first(1, "0006\x01P", always(progress+progress)), "1000 B/s", 2},
		"much progress after its start":  {first(1, "0006\x01P", always(strings.Repeat(progress, 50_000))), "1000 B/s", 2},
		"half of the least rate":         {first(100, packed+packed, always(packed)), "1000 B/s", 101},
		"the least rate":                 {first(1000, packed+packed, always("")), "EOF", 1001},
		"a long packet, dripped":         {first(1, packed+"fff0\x01x", always("x")), "1000 B/s", 2},
	} {
		m, p := watchMinutes(c.packet)
		n, err := io.Copy(io.Discard, p.pack(logs.New(io.Discard, logs.Normal, false)))
		if err == nil || !strings.Contains(err.Error(), c.words) || m.n != c.minutes {
			t.Errorf("%s: %v after %d minutes and %d bytes; want %s after %d", name, err, m.n, n, c.words, c.minutes)
		}
	}
}

// Time that we spend elsewhere is not the server's.
func TestOnlyWaitingCounts(t *testing.T) {
	m, p := watchMinutes(func(int) string { m := fmt.Sprintf("%04x\x01", 60_005); return m + strings.Repeat("x", 60_000) })
	pack := p.pack(logs.New(io.Discard, logs.Normal, false))
	for range 100 {
		if _, err := io.CopyN(io.Discard, pack, 60_000); err != nil {
			t.Fatal(err)
		}
		m.now = m.now.Add(time.Hour)
	}
}

// gitServer accepts connections, reads a client's first bytes and hands the connection over; all end with the test.
func gitServer(t *testing.T, handle func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				conn.Read(make([]byte, 65536))
				handle(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// wait reads until the other side closes.
func wait(conn net.Conn) { io.Copy(io.Discard, conn) }

const advertHead = "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\r\n"

// A server that gives a byte now and then, each of them in good time.
func TestDrippedAdvertisement(t *testing.T) {
	for scheme, head := range map[string]string{"git": "", "http": advertHead} {
		addr := gitServer(t, func(conn net.Conn) {
			io.WriteString(conn, head)
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for b := range []byte(strings.Repeat(lines(one+" refs/heads/a"), 200)) {
				<-tick.C
				if _, err := conn.Write([]byte(lines(one + " refs/heads/a"))[b%61 : b%61+1]); err != nil {
					return
				}
			}
		})
		cl := newClient(t, scheme+"://"+addr+"/r.git", one)
		cl.o.Limits, cl.o.Retry.Tries = Limits{Answer: 50 * time.Millisecond}, 1
		if _, err := cl.fetch(); fail.Of(err) != fail.Unavailable || !errors.Is(err, errSlow) {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

// What was waited for the head of an answer, and for redirects to it, counts for the whole of it.
func TestHeadsOfAnswersCount(t *testing.T) {
	cl, _ := webClient(t, func(next http.Handler, w http.ResponseWriter, r *http.Request) { next.ServeHTTP(w, r) })
	at, _ := url.Parse(cl.u.String() + "/info/refs?service=git-upload-pack")
	for _, before := range []bool{true, false} {
		h := &web{client: &http.Client{}, base: at, u: cl.u, limits: Limits{Answer: time.Hour}}
		if before {
			h.waited = time.Hour
		}
		res, err := h.do(t.Context(), http.MethodGet, at, nil)
		if before {
			if !errors.Is(err, errSlow) {
				t.Errorf("%v", err)
			}
			continue
		}
		if err != nil || h.waited == 0 {
			t.Fatal(err, h.waited)
		}
		h.waited = time.Hour
		p, err := h.answer(res, "application/x-git-upload-pack-advertisement")
		if err == nil {
			_, err = readAdvert(p)
		}
		if !errors.Is(err, errSlow) {
			t.Errorf("the body: %v", err)
		}
		h.cancel()
	}
}

func TestTotal(t *testing.T) {
	if l := (Limits{}).withDefaults(); l.Total != 6*time.Hour {
		t.Errorf("default %s", l.Total)
	}
	root, c := fixture(t)
	silent := gitServer(t, wait)
	busy, _ := webClient(t, func(_ http.Handler, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	served, _ := webClient(t, func(next http.Handler, w http.ResponseWriter, r *http.Request) { next.ServeHTTP(w, r) })
	for _, url := range []string{"http://" + silent + "/r", "https://" + silent + "/r", "git://" + silent + "/r", "ssh://" + silent + "/r", busy.u.String(), served.u.String(), root + "/r.git"} {
		cl := newClient(t, url, c.Tip)
		cl.o.Limits = Limits{Answer: time.Hour, TLS: time.Hour, Total: 50 * time.Millisecond}
		cl.o.Retry.Sleep = func(ctx context.Context, _ time.Duration) error { <-ctx.Done(); return ctx.Err() }
		_, err := Fetch(t.Context(), logs.New(&cl.log, logs.Normal, false), cl.u, cl.o, cl.want, func(ctx context.Context, _ Pack) (bool, error) {
			<-ctx.Done()
			return false, ctx.Err()
		})
		if fail.Of(err) != fail.Unavailable || !strings.Contains(err.Error(), cl.u.String()+": not done after 50ms") || fail.Hint(err) == "" {
			t.Errorf("%s: %v (%v)", url, err, fail.Of(err))
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fail.ErrInterrupted)
	if _, err := Fetch(ctx, logs.New(io.Discard, logs.Normal, false), served.u, served.o, served.want, served.take); fail.Of(err) != fail.Interrupted {
		t.Errorf("the caller's own end: %v", err)
	}
}

// endless is an answer without an end; it counts what was read, and ends all the same where no memory should be left.
type endless struct {
	line string
	n    int
}

func (e *endless) Read(b []byte) (int, error) {
	if e.n > 4*maxText {
		return 0, io.EOF
	}
	for i := range b {
		b[i] = e.line[(e.n+i)%len(e.line)]
	}
	e.n += len(b)
	return len(b), nil
}

func TestTextIsLimited(t *testing.T) {
	for name, c := range map[string]struct {
		head, line string
		read       func(*pktReader) error
	}{
		"advertised refs": {"", lines(one + " refs/heads/" + strings.Repeat("x", 200)), func(p *pktReader) error { _, err := readAdvert(p); return err }},
		"refs":            {"", lines(one + " refs/heads/" + strings.Repeat("x", 200)), func(p *pktReader) error { _, err := readRefs(p); return err }},
		"shallow lines":   {"", lines("shallow " + one), func(p *pktReader) error { _, err := readV0Header(p, true); return err }},
		"a section":       {lines("something"), lines("x"), func(p *pktReader) error { _, err := readV2Header(p); return err }},
		"empty lines":     {"", "0004", func(p *pktReader) error { _, err := readV2Header(p); return err }},
		"delimiters":      {"", "0001", func(p *pktReader) error { _, err := readV2Header(p); return err }},
	} {
		e := &endless{line: c.line}
		err := c.read(newPktReader(io.MultiReader(strings.NewReader(c.head), e)))
		if fail.Of(err) != fail.Unavailable || fail.Hint(err) == "" || !strings.Contains(err.Error(), "more than 33.6 MB of refs") || e.n > maxText+2*maxPkt {
			t.Errorf("%s: %v (%v) after %d bytes", name, err, fail.Of(err), e.n)
		}
	}
	var b strings.Builder
	for i := range maxCapabilities + 1 {
		b.WriteString(lines(fmt.Sprint(i)))
	}
	if _, err := readAdvert(reader(lines("version 2") + b.String() + "0000")); err == nil || !strings.Contains(err.Error(), "capabilities") {
		t.Errorf("%v", err)
	}
}

// The same again would be as much again.
func TestTooMuchTextIsNotTriedAgain(t *testing.T) {
	for scheme, head := range map[string]string{"git": "", "http": advertHead} {
		var tries atomic.Int32
		addr := gitServer(t, func(conn net.Conn) {
			tries.Add(1)
			io.WriteString(conn, head)
			io.Copy(conn, &endless{line: lines(one + " refs/heads/a")})
		})
		cl := newClient(t, scheme+"://"+addr+"/r.git", one)
		if _, err := cl.fetch(); fail.Of(err) != fail.Unavailable || !strings.Contains(err.Error(), "of refs") || tries.Load() != 1 {
			t.Errorf("%s: %v after %d tries", scheme, err, tries.Load())
		}
	}
}

// However long and wild the words of a server, one short line of them is shown.
func TestServersWordsAreCut(t *testing.T) {
	wild := "a\x1b[2J\r\nb\u202e\xff" + strings.Repeat("word ", 10_000)
	for name, answer := range map[string]string{
		"git ERR":        lines("ERR " + wild),
		"git ERR denied": lines("ERR denied " + wild),
		"git object":     lines("version 2", "object-format="+wild, "0000"),
		"ssh disconnect": "SSH-2.0-x\r\n" + disconnect(wild),
		"http ERR":       advertHead + lines("ERR "+wild),
		"http type":      "HTTP/1.1 200 OK\r\nContent-Type: a" + strings.Repeat("b", 10_000) + "/c\r\n\r\n",
		"http header":    "HTTP/1.1 200 OK\r\n" + strings.ReplaceAll(wild, "\r\n", "") + "\r\n\r\n",
		"http scheme":    "HTTP/1.1 302 Found\r\nLocation: ftp://" + strings.Repeat("b", 10_000) + "/c\r\n\r\n",
		"http path":      "HTTP/1.1 302 Found\r\nLocation: /" + strings.Repeat("b", 10_000) + "\r\n\r\n",
	} {
		scheme, _, _ := strings.Cut(name, " ")
		var n atomic.Int32
		addr := gitServer(t, func(conn net.Conn) {
			if n.Add(1) > 1 && name == "http path" {
				io.WriteString(conn, advertHead+lines("version 2", "0000"))
				return
			}
			io.WriteString(conn, answer)
			if scheme != "http" {
				wait(conn)
			}
		})
		cl := newClient(t, scheme+"://"+addr+"/r.git", one)
		cl.o.Limits, cl.o.Retry.Tries = Limits{TLS: time.Second}, 1
		_, err := cl.fetch()
		var b bytes.Buffer
		fail.Print(&b, err)
		if name == "ssh disconnect" && !strings.Contains(err.Error(), "word word") {
			t.Errorf("the server's words are not shown: %v", err)
		}
		if first, _, _ := strings.Cut(b.String(), "\n"); err == nil || len(err.Error()) > 1000 || len(first) > 3000 || strings.ContainsAny(b.String(), "\x1b\r\u202e") || !utf8.Valid(b.Bytes()) || cl.log.Len() > 3000 {
			t.Errorf("%s: %d bytes: %.2000s", name, len(fmt.Sprint(err)), &b)
		}
	}
	p := newPktReader(strings.NewReader(fmt.Sprintf("%04x\x03%s", 5+60_000, strings.Repeat("x", 60_000))))
	if _, err := io.ReadAll(p.pack(nil)); err == nil || len(err.Error()) > 600 {
		t.Errorf("band 3: %d bytes", len(fmt.Sprint(err)))
	}
}

// disconnect is how an SSH server says goodbye (RFC 4253, sections 6 and 11.1).
func disconnect(text string) string {
	payload := []byte{1, 0, 0, 0, 2}
	payload = append(binary.BigEndian.AppendUint32(payload, uint32(len(text))), text...)
	payload = append(payload, 0, 0, 0, 0)
	padding := 12 - (len(payload)+5+4)%8
	head := append(binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding)), byte(padding))
	return string(head) + string(payload) + strings.Repeat("\x00", padding)
}

// A side that does not read cannot hold us when we say goodbye.
func TestGoodbyeIsLimited(t *testing.T) {
	here, there := net.Pipe()
	t.Cleanup(func() { there.Close() })
	closed := false
	s := &stream{w: here, closer: func() { closed = true; here.Close() }, limits: Limits{TLS: 10 * time.Millisecond}, idle: true}
	if s.close(); !closed {
		t.Error("not closed")
	}
}

func TestSilentAgent(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, limit := range map[string]time.Duration{"time limit": 10 * time.Millisecond, "end": time.Hour} {
		ctx, cancel := context.WithCancel(t.Context())
		if name == "end" {
			cancel()
		}
		var log bytes.Buffer
		m, end, _ := sshAuth(ctx, logs.New(&log, logs.Normal, false), URL{}, Options{SSHAuthSock: sock, Limits: Limits{Connect: limit, TLS: limit}})
		end()
		cancel()
		if len(m) != 0 || !strings.Contains(log.String(), "agent cannot be used") {
			t.Errorf("%s: %d methods, log %q", name, len(m), &log)
		}
	}
}
