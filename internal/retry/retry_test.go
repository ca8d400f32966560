package retry

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

// clock is a policy whose pauses take no time and whose dice always show their highest or lowest side.
type clock struct {
	now    time.Time
	pauses []time.Duration
}

func (c *clock) policy(highest bool) Policy {
	return Policy{
		Now: func() time.Time { return c.now },
		Sleep: func(_ context.Context, d time.Duration) error {
			c.now, c.pauses = c.now.Add(d), append(c.pauses, d)
			return nil
		},
		Rand: func(n int64) int64 {
			if highest {
				return n - 1
			}
			return 0
		},
	}
}

func quiet() *logs.Log { return logs.New(io.Discard, logs.Normal, false) }

func TestPausesGrowWithinTheirBounds(t *testing.T) {
	for highest, want := range map[bool]string{false: "[1s 1s 1s 1s]", true: "[2s 4s 8s 16s]"} {
		c := &clock{now: time.Unix(1e9, 0)}
		n := 0
		err := Do(t.Context(), quiet(), c.policy(highest), func(context.Context) error {
			n++
			return Net(syscall.ECONNRESET)
		})
		for i := range c.pauses {
			c.pauses[i] = c.pauses[i].Round(time.Second)
		}
		if got := fmt.Sprint(c.pauses); got != want || n != 5 || fail.Of(err) != fail.Unavailable {
			t.Errorf("highest %v: %d tries, pauses %s, %v; want %s", highest, n, got, err, want)
		}
	}
	if p := (Policy{}).withDefaults(); p.pause(60, 0) > p.Max {
		t.Error("a late try must not pause longer than Max")
	}
}

func TestOnlyMarkedErrorsAreTriedAgain(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	final := errors.New("final")
	errs := []error{Again(final, 0), fmt.Errorf("wrapped: %w", Again(final, 0)), final, nil}
	n := 0
	err := Do(t.Context(), quiet(), c.policy(false), func(context.Context) error { n++; return errs[n-1] })
	if err != final || n != 3 {
		t.Errorf("%d tries, %v", n, err)
	}
}

func TestRetryAfterAndBudget(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	busy := func(context.Context) error { return Status(429, http.Header{"Retry-After": {"120"}}, c.now) }
	err := Do(t.Context(), quiet(), c.policy(false), busy)
	if want := []time.Duration{2 * time.Minute, 2 * time.Minute}; !slices.Equal(c.pauses, want) || fail.Of(err) != fail.Busy {
		t.Errorf("pauses %v, %v: a third pause would be over the budget of 5 minutes", c.pauses, err)
	}

	p := c.policy(false)
	p.Start, c.pauses = c.now.Add(-4*time.Minute), nil
	if err := Do(t.Context(), quiet(), p, busy); len(c.pauses) != 0 || !strings.Contains(err.Error(), "tried once") {
		t.Errorf("budget shared with an earlier call: pauses %v, %v", c.pauses, err)
	}
}

func TestContextEndsTheWait(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	err := Do(ctx, quiet(), Policy{Min: time.Hour, Max: time.Hour, Budget: 9 * time.Hour}, func(context.Context) error {
		context.AfterFunc(ctx, func() {})
		go cancel(fail.ErrInterrupted)
		return Again(io.EOF, 0)
	})
	if fail.Of(err) != fail.Interrupted {
		t.Errorf("got %v", err)
	}
}

func TestItSaysWhatItWaitsFor(t *testing.T) {
	var b bytes.Buffer
	c := &clock{now: time.Unix(1e9, 0)}
	n := 0
	Do(t.Context(), logs.New(&b, logs.Normal, false).For("vcs"), c.policy(false), func(context.Context) error {
		if n++; n == 1 {
			return Status(503, nil, c.now)
		}
		return nil
	})
	if want := "[vcs] the server answered 503 Service Unavailable: trying again in 1s (2 of 5)\n"; b.String() != want {
		t.Errorf("got %q", b.String())
	}
}

func TestNet(t *testing.T) {
	for _, c := range []struct {
		err    error
		reason fail.Reason
		again  bool
	}{
		{io.ErrUnexpectedEOF, fail.Unavailable, true},
		{io.EOF, fail.Unavailable, true},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, fail.Unavailable, true},
		{&net.OpError{Op: "dial", Err: syscall.ETIMEDOUT}, fail.Unavailable, true},
		{&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, fail.Unavailable, true},
		{&net.DNSError{Err: "i/o timeout", IsTimeout: true}, fail.Unavailable, true},
		{&url.Error{Op: "Get", URL: "http://h/", Err: syscall.ECONNREFUSED}, fail.Unavailable, true},
		{&net.DNSError{Err: "server misbehaving", IsTemporary: true}, fail.Unavailable, true},
		{&net.DNSError{Err: "no such host", IsNotFound: true}, fail.Unavailable, false},
		{&url.Error{Op: "Get", URL: "https://h/", Err: &tls.CertificateVerificationError{Err: errors.New("unknown authority")}}, fail.Denied, false},
	} {
		err := Net(c.err)
		if fail.Of(err) != c.reason || Marked(err) != c.again || strings.Contains(err.Error(), "http") {
			t.Errorf("Net(%v) = %v (%v), marked %v", c.err, err, fail.Of(err), Marked(err))
		}
	}
	if Net(nil) != nil {
		t.Error("no error is no error")
	}
}

func TestStatus(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, code := range []int{200, 301, 400, 401, 403, 404, 501, 505} {
		if err := Status(code, nil, now); err != nil {
			t.Errorf("%d: %v", code, err)
		}
	}
	for _, code := range []int{408, 425, 429, 500, 502, 503, 504} {
		if err := Status(code, nil, now); !Marked(err) {
			t.Errorf("%d: %v", code, err)
		}
	}
	for v, want := range map[string]time.Duration{
		"7": 7 * time.Second, "Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:00:00 GMT": 0, "-1": 0, "soon": 0, "": 0, "99999999999": 0,
	} {
		if got := After(http.Header{"Retry-After": {v}}, now); got != want {
			t.Errorf("Retry-After %q: %v, want %v", v, got, want)
		}
	}
}

// A server that asks for more than there is left is not waited for, and it is said how long that would have been.
func TestRetryAfterBeyondTheBudget(t *testing.T) {
	for _, code := range []int{429, 503} {
		c := &clock{now: time.Unix(1e9, 0)}
		err := Do(t.Context(), quiet(), c.policy(false), func(context.Context) error { return Status(code, http.Header{"Retry-After": {"3600"}}, c.now) })
		want := map[int]fail.Reason{429: fail.Busy, 503: fail.Unavailable}[code]
		if len(c.pauses) != 0 || fail.Of(err) != want || !strings.Contains(err.Error(), "wants 1h0m0s") {
			t.Errorf("%d: pauses %v, %v", code, c.pauses, err)
		}
	}
}

func TestPausesAreToldOf(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	p := c.policy(true)
	var told []time.Duration
	p.Paused = func(d time.Duration) { told = append(told, d) }
	Do(t.Context(), quiet(), p, func(context.Context) error { return Net(io.EOF) })
	if len(told) != 4 || !slices.Equal(told, c.pauses) {
		t.Errorf("told of %v, were %v", told, c.pauses)
	}
}

func TestPauseEndsInTime(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	p, end := c.policy(true), c.now.Add(10*time.Second)
	for try := 1; ; try++ {
		took, ok, err := p.Pause(t.Context(), try, end)
		if err != nil || ok && took != c.pauses[len(c.pauses)-1] || try > 10 {
			t.Fatalf("%s, %v, %v", took, ok, err)
		}
		if !ok {
			break
		}
	}
	if len(c.pauses) != 3 || !c.now.Equal(end) { // 2 s, 4 s, and what was left
		t.Errorf("pauses %v", c.pauses)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fail.ErrInterrupted)
	if _, ok, err := (Policy{Min: time.Hour, Max: time.Hour}).Pause(ctx, 1, time.Now().Add(time.Hour)); ok || fail.Of(err) != fail.Interrupted {
		t.Errorf("cancelled: %v, %v", ok, err)
	}
}
