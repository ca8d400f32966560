// Package retry says which failures of a network are passing ones and repeats what failed for such a reason: with full
// jitter between tries, the server's Retry-After honoured, and one budget for it all.
package retry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"run-task/internal/logs"
)

// Policy says how often and how long to try. The zero value is the default.
type Policy struct {
	Tries    int           // in all; default 5
	Min, Max time.Duration // bounds of the pause between two tries; default 1 s and 30 s
	Budget   time.Duration // no try begins later than this after Start; default 5 minutes
	Start    time.Time     // when the budget began to run, for several calls of Do that share one; default: when Do is called

	Sleep func(context.Context, time.Duration) error // default: a timer that the context ends
	Rand  func(n int64) int64                        // from [0, n); default math/rand
	Now   func() time.Time

	Paused func(time.Duration) // is told of each pause of Do before it begins; may be nil
}

// Do calls f until it returns nil or an error that Again did not mark, or until tries or budget are used up, and returns
// its last error. A context that ends while f runs or between two tries ends Do with the context's cause.
func Do(ctx context.Context, log *logs.Log, p Policy, f func(context.Context) error) error {
	p = p.withDefaults()
	for try := 1; ; try++ {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var again *again
		if !errors.As(err, &again) {
			return err
		}
		pause := p.pause(try, again.after)
		if try >= p.Tries {
			return fmt.Errorf("%w (%s)", err, tries(try))
		}
		if p.Now().Add(pause).After(p.Start.Add(p.Budget)) {
			if again.after > 0 {
				return fmt.Errorf("%w (%s; the server wants %s until the next, and the budget of %s ends before)", err, tries(try), again.after, p.Budget)
			}
			return fmt.Errorf("%w (%s)", err, tries(try))
		}
		log.Infof("%v: trying again in %s (%d of %d)", err, pause.Round(100*time.Millisecond), try+1, p.Tries)
		if p.Paused != nil {
			p.Paused(pause)
		}
		if err := p.Sleep(ctx, pause); err != nil {
			return context.Cause(ctx)
		}
	}
}

// Pause waits as long as Do would after so many tries, but not past end, and tells how long that was: for what is repeated by other rules than
// Do's. It reports false, at once, if nothing is left. A context that ends meanwhile ends it with the context's cause.
func (p Policy) Pause(ctx context.Context, try int, end time.Time) (took time.Duration, ok bool, err error) {
	p = p.withDefaults()
	left := end.Sub(p.Now())
	if left <= 0 {
		return 0, false, nil
	}
	took = min(left, p.pause(try, 0))
	if err := p.Sleep(ctx, took); err != nil || ctx.Err() != nil {
		return took, false, context.Cause(ctx)
	}
	return took, true, nil
}

func (p Policy) withDefaults() Policy {
	if p.Tries == 0 {
		p.Tries = 5
	}
	if p.Min == 0 {
		p.Min = time.Second
	}
	if p.Max == 0 {
		p.Max = 30 * time.Second
	}
	if p.Budget == 0 {
		p.Budget = 5 * time.Minute
	}
	if p.Sleep == nil {
		p.Sleep = sleep
	}
	if p.Rand == nil {
		p.Rand = rand.Int64N
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.Start.IsZero() {
		p.Start = p.Now()
	}
	return p
}

// pause is drawn from Min to a bound that doubles with each try, and is never shorter than what the server asked for.
// The whole range is drawn from: a thousand tasks that failed together must not come back together.
func (p Policy) pause(try int, after time.Duration) time.Duration {
	top := p.Max
	if try < 20 {
		top = min(p.Max, p.Min<<try)
	}
	pause := p.Min
	if top > p.Min {
		pause += time.Duration(p.Rand(int64(top - p.Min)))
	}
	return max(pause, after)
}

func tries(n int) string {
	if n == 1 {
		return "tried once"
	}
	return fmt.Sprintf("tried %d times", n)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
