package report

import (
	"bytes"
	"encoding/json"
	"math"
	"unicode/utf8"

	"run-task/internal/logs"
)

// MaxSize is the largest status in bytes: what Kubernetes reads of a termination message.
const MaxSize = 4096

// The phases of a run.
const (
	Setup  = "setup"   // run-task is at work, or was killed at it
	Handed = "command" // the command runs, or has the process: its exit status is the task's
	Ended  = "ended"   // the command has ended, run-task stayed with it, and all else is done
	Done   = "done"    // there was no command to run, and all else is done
	Failed = "failed"  // run-task ended the task: code and reason say why
)

// Status is what --status-file holds: one JSON object, one schema. docs/status-file.md documents it.
type Status struct {
	Version   int        `json:"version"` // of the schema: 1
	Phase     string     `json:"phase"`
	Reason    string     `json:"reason,omitempty"` // fail.Reason's word
	Code      int        `json:"code"`             // exit code; 0 unless failed or ended
	Step      string     `json:"step,omitempty"`   // the one that failed
	Error     string     `json:"error,omitempty"`
	Hint      string     `json:"hint,omitempty"`
	Command   *Command   `json:"command,omitempty"` // if run-task stayed until it ended
	Steps     []Step     `json:"steps,omitempty"`   // in order, the failed one included
	Checkouts []Checkout `json:"checkouts,omitempty"`
	Archives  []Archive  `json:"archives,omitempty"`
	Truncated bool       `json:"truncated,omitempty"` // something was cut or left out to stay within MaxSize
}

// Command is how the command ended.
type Command struct {
	Code    int     `json:"code"`             // its own, 128+n if signal n killed it
	Signal  string  `json:"signal,omitempty"` // what killed it, as "SIGKILL"
	Reason  string  `json:"reason"`           // "exited", "signal", or the limit that ended it: "timeout", "command-timeout", "no-output-timeout"
	Seconds float64 `json:"seconds"`
	MaxRSS  int64   `json:"max_rss,omitempty"` // bytes, of the largest of its processes; 0 if that was smaller than run-task
	User    float64 `json:"user_seconds"`      // CPU time of all of them
	System  float64 `json:"system_seconds"`
}

// Step is one thing that run-task did.
type Step struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// Checkout is a worktree at its pinned commit, or, with no Dir, a commit that was resolved, and pinned if there is a git store.
type Checkout struct {
	Name    string  `json:"name,omitempty"` // as in CHECKOUT_<NAME>_SHA
	Dir     string  `json:"dir"`
	SHA     string  `json:"sha"`    // as pinned
	Commit  string  `json:"commit"` // what HEAD names: another than SHA only where that names a tag
	Tree    string  `json:"tree"`
	Source  string  `json:"source"` // where the objects came from
	Seconds float64 `json:"seconds"`
	Objects int64   `json:"objects"` // fetched
	Bytes   int64   `json:"bytes"`   // of them, as they came
	Retries int     `json:"retries"`
	Phases  Phases  `json:"phases"`
}

// Archive is a cache archive: what was restored, and what was saved.
type Archive struct {
	Path     string  `json:"path"`
	Key      string  `json:"key,omitempty"`
	From     string  `json:"from,omitempty"`  // the key that it was restored from
	Restored string  `json:"restored"`        // "hit", "fallback", "miss", "skipped" or "failed"
	Saved    string  `json:"saved,omitempty"` // "saved", "unchanged", "skipped" or "failed"
	Files    int64   `json:"files"`
	Bytes    int64   `json:"bytes"`   // of the files' contents
	Packed   int64   `json:"packed"`  // of the archive
	Seconds  float64 `json:"seconds"` // of what was done last
}

// Phases are the parts of a checkout, in seconds.
type Phases struct {
	Wait       float64 `json:"wait"`       // for locks, between tries, and for a commit to appear
	Fetch      float64 `json:"fetch"`      // looking for the commit, getting it and proving it
	Files      float64 `json:"files"`      // writing and comparing
	Submodules float64 `json:"submodules"` // all that was done for them
}

func (p Phases) round() Phases {
	return Phases{round(p.Wait), round(p.Fetch), round(p.Files), round(p.Submodules)}
}

// encode makes one line of JSON, at most MaxSize bytes, of any text: masked, and then printable on one line as in run-task's log.
func encode(s Status, mask func(string) string) []byte {
	clean := func(text string) string { return logs.OneLine(mask(text)) }
	s.Version = 1
	s.Step, s.Error, s.Hint = clean(s.Step), clean(s.Error), clean(s.Hint)
	s.Steps, s.Checkouts = append([]Step(nil), s.Steps...), append([]Checkout(nil), s.Checkouts...)
	if c := s.Command; c != nil {
		s.Command = &Command{c.Code, c.Signal, c.Reason, round(c.Seconds), c.MaxRSS, round(c.User), round(c.System)}
	}
	for i, step := range s.Steps {
		s.Steps[i] = Step{clean(step.Name), round(step.Seconds)}
	}
	for i, c := range s.Checkouts {
		s.Checkouts[i] = Checkout{clean(c.Name), clean(c.Dir), clean(c.SHA), clean(c.Commit), clean(c.Tree), clean(c.Source), round(c.Seconds),
			c.Objects, c.Bytes, c.Retries, c.Phases.round()}
	}
	s.Archives = append([]Archive(nil), s.Archives...)
	for i, a := range s.Archives {
		s.Archives[i] = Archive{clean(a.Path), clean(a.Key), clean(a.From), a.Restored, a.Saved, a.Files, a.Bytes, a.Packed, round(a.Seconds)}
	}
	for {
		b := marshal(s)
		if len(b) <= MaxSize || !s.shrink() {
			return b
		}
		s.Truncated = true
	}
}

// round keeps milliseconds; JSON has neither infinity nor NaN.
func round(seconds float64) float64 {
	if r := math.Round(seconds*1000) / 1000; !math.IsInf(r, 0) && !math.IsNaN(r) {
		return r
	}
	return 0
}

// shrink takes away what a reader misses least: why it failed comes before where it went well.
func (s *Status) shrink() bool {
	const long, short = 1200, 400 // a quote doubles: the three together still fit
	switch {
	case len(s.Error) > long:
		s.Error = cut(s.Error, long)
	case len(s.Hint) > short:
		s.Hint = cut(s.Hint, short)
	case len(s.Archives) > 0:
		s.Archives = s.Archives[:len(s.Archives)*3/4]
	case len(s.Checkouts) > 0:
		s.Checkouts = s.Checkouts[:len(s.Checkouts)*3/4]
	case len(s.Steps) > 0:
		s.Steps = s.Steps[:len(s.Steps)*3/4]
	case len(s.Step) > short/4:
		s.Step = cut(s.Step, short/4)
	default:
		return false
	}
	return true
}

// cut keeps the beginning, n bytes with the sign that something is missing, and no part of a character.
func cut(s string, n int) string {
	const more = "…"
	n -= len(more)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + more
}

func marshal(s Status) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(s) != nil { // cannot be: strings, finite numbers
		return []byte("{}\n")
	}
	return b.Bytes()
}
