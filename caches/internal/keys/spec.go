// Package keys says what a cache archive is called: its description as users write it, and the templates that keys are made of.
package keys

import (
	"slices"
	"strings"

	"run-task/internal/fail"
)

// Policy is whether an archive is restored, saved, or both.
type Policy string

// The policies. Most tasks only pull; a few fill the store for them.
const (
	Pull     Policy = "pull"
	Push     Policy = "push"
	PullPush Policy = "pull-push"
)

// Pulls and Pushes tell the halves of a policy.
func (p Policy) Pulls() bool  { return p != Push }
func (p Policy) Pushes() bool { return p == Push || p == PullPush }

// When is after which commands an archive is saved.
type When string

// The choices for When.
const (
	OnSuccess When = "on_success"
	OnFailure When = "on_failure"
	Always    When = "always"
)

// Spec describes an archive.
type Spec struct {
	Path      string // the directory that is kept
	Key       string // a template, see Expand
	Fallbacks []string
	Policy    Policy
	When      When
	Store     string // a location, "" for the default
	Level     string // fastest, default or best
	Xattrs    bool
}

const keysHint = `path=DIR,key=TEMPLATE and, where wanted, fallback=TEMPLATE, policy=pull|push|pull-push, when=on_success|on_failure|always, store=LOCATION, level=fastest|default|best, xattrs=true; a field with a comma is quoted as a whole: "key=a,b"`

// Parse reads KEY=VALUE,... of an archive. Commas and quotes between {{ and }} belong to the template; elsewhere a field with a comma is quoted as in CSV (RFC 4180).
// It fails with fail.Usage.
func Parse(text string) (Spec, error) {
	wrong := func(format string, args ...any) (Spec, error) {
		return Spec{}, fail.Errorf(fail.Usage, format, args...).WithHint("%s", keysHint)
	}
	all, ok := split(text)
	if !ok {
		return wrong("a quote or a {{ in it is not closed")
	}
	s := Spec{Policy: Pull, When: OnSuccess, Level: "fastest"}
	seen := map[string]bool{}
	for _, field := range all {
		name, value, ok := strings.Cut(field, "=")
		if !ok || value == "" || seen[name] && name != "fallback" {
			return wrong("%q is no key=value, or one that was said before", name)
		}
		seen[name] = true
		if strings.ContainsRune(value, 0) {
			return wrong("%s has a zero byte", name)
		}
		switch name {
		case "path":
			s.Path = value
		case "key":
			s.Key = value
		case "fallback":
			s.Fallbacks = append(s.Fallbacks, value)
		case "policy":
			p, err := ParsePolicy(value)
			if err != nil {
				return Spec{}, err
			}
			s.Policy = p
		case "when":
			if s.When = When(value); s.When != OnSuccess && s.When != OnFailure && s.When != Always {
				return wrong("when is %q", value)
			}
		case "store":
			s.Store = value
		case "level":
			if s.Level = value; !slices.Contains([]string{"fastest", "default", "best"}, value) {
				return wrong("level is %q", value)
			}
		case "xattrs":
			if s.Xattrs = value == "true"; !s.Xattrs && value != "false" {
				return wrong("xattrs is %q", value)
			}
		default:
			return wrong("%q is no key that is known", name)
		}
	}
	if s.Path == "" || s.Key == "" {
		return wrong("it needs path and key")
	}
	for _, t := range append([]string{s.Key}, s.Fallbacks...) {
		if err := Check(t); err != nil {
			return Spec{}, err
		}
	}
	return s, nil
}

// ParsePolicy reads a policy; fail.Usage.
func ParsePolicy(text string) (Policy, error) {
	switch p := Policy(text); p {
	case Pull, Push, PullPush:
		return p, nil
	}
	return "", fail.Errorf(fail.Usage, "the policy %q is none of pull, push and pull-push", text).WithHint("most tasks pull; one that fills the store pushes, or does both")
}

// split splits at commas that are not quoted and not in a template's braces.
func split(text string) (all []string, ok bool) {
	for {
		var field string
		if strings.HasPrefix(text, `"`) {
			field, text, ok = quoted(text[1:])
		} else {
			field, text, ok = bare(text)
		}
		if !ok {
			return nil, false
		}
		all = append(all, field)
		if text == "" {
			return all, true
		}
		text = text[1:] // the comma
	}
}

// quoted takes a field up to its last quote, behind which there must be a comma or nothing.
func quoted(text string) (field, rest string, ok bool) {
	for {
		before, after, found := strings.Cut(text, `"`)
		if !found {
			return "", "", false
		}
		field += before
		if text = after; !strings.HasPrefix(text, `"`) {
			return field, text, text == "" || text[0] == ','
		}
		field, text = field+`"`, text[1:]
	}
}

func bare(text string) (field, rest string, ok bool) {
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == ',':
			return text[:i], text[i:], true
		case strings.HasPrefix(text[i:], "{{"):
			n, ok := braces(text[i:])
			if !ok {
				return "", "", false
			}
			i += n - 1
		}
	}
	return text, "", true
}

// braces is how long what begins with {{ is, its }} included. A }} between quotes does not count.
func braces(text string) (n int, ok bool) {
	in := false
	for i := 2; i < len(text); i++ {
		switch {
		case in && text[i] == '\\':
			i++
		case text[i] == '"':
			in = !in
		case !in && strings.HasPrefix(text[i:], "}}"):
			return i + 2, true
		}
	}
	return 0, false
}
