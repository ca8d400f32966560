package supervise

import (
	"testing"
	"time"
)

// What comes after the command has what is reserved for it, or what is left, and never more than the task.
func TestRest(t *testing.T) {
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	for name, c := range map[string]struct {
		limits    Limits
		otherwise time.Duration
		want      time.Duration // to the minute
		ok        bool
	}{
		"no limit":              {Limits{}, 10 * time.Minute, 10 * time.Minute, true},
		"reserved":              {Limits{Reserved: 3 * time.Minute}, 10 * time.Minute, 3 * time.Minute, true},
		"much is left":          {Limits{Task: time.Hour, Began: ago(0)}, 10 * time.Minute, 10 * time.Minute, true},
		"little is left":        {Limits{Task: time.Hour, Began: ago(55 * time.Minute)}, 10 * time.Minute, 5 * time.Minute, true},
		"all that is left":      {Limits{Task: time.Hour, Began: ago(20 * time.Minute)}, 0, 40 * time.Minute, true},
		"less than is reserved": {Limits{Task: time.Hour, Reserved: 9 * time.Minute, Began: ago(58 * time.Minute)}, 0, 2 * time.Minute, true},
		"nothing is left":       {Limits{Task: time.Hour, Began: ago(2 * time.Hour)}, time.Minute, -time.Hour, false},
	} {
		if d, ok := c.limits.Rest(c.otherwise); d.Round(time.Minute) != c.want || ok != c.ok {
			t.Errorf("%s: %s, %t", name, d, ok)
		}
	}
}
