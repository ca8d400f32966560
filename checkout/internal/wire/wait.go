package wire

import (
	"context"
	"errors"
	"io"
	"time"

	"run-task/internal/fail"
)

const sayEvery = 10 * time.Second // between two lines about what is waited for

// wait goes through the ways, and again while the commit may still appear: some servers make refs after they have told of them.
func (f *fetcher) wait(ctx context.Context) (source string, err error) {
	policy := f.o.Retry
	now := time.Now
	if policy.Now != nil {
		now = policy.Now
	}
	start := now()
	end, said := start.Add(f.want.Wait), time.Time{}
	for round := 1; ; round++ {
		source, err = f.commit(ctx)
		if reason := fail.Of(err); err == nil || f.want.Wait == 0 || reason != fail.Gone && reason != fail.Refused {
			return source, err
		}
		f.drop()
		switch at := now(); {
		case said.IsZero():
			f.log.Infof("waiting for the commit %.8s to appear in %s, up to %s", f.want.SHA, f.u, f.want.Wait)
			said = at
		case at.Sub(said) >= sayEvery:
			f.log.Infof("waiting for the commit %.8s to appear in %s since %s", f.want.SHA, f.u, at.Sub(start).Round(time.Second))
			said = at
		}
		took, more, cause := policy.Pause(ctx, round, end)
		f.o.Stats.Waited += took
		if cause != nil {
			return "", cause
		}
		if !more {
			return "", waited(err, f.want.Wait)
		}
		f.o.Retry.Start = now() // a round's failures have a budget of their own
	}
}

// waited tells in an error's details how long it took to be sure.
func waited(err error, d time.Duration) error {
	var e *fail.Error
	if errors.As(err, &e) {
		e.WithDetails("waited  " + d.String())
	}
	return err
}

// counter counts what is read.
type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

// counted is take for a pack that comes from this machine.
func (f *fetcher) counted(ctx context.Context, p Pack) (bool, error) {
	c := &counter{Reader: p.Reader}
	p.Reader = c
	ok, err := f.take(ctx, p)
	f.o.Stats.Bytes += c.n
	return ok, err
}
