// Package keys says what a cache archive is called: its description as users write it, and the templates that keys are made of.
package keys

import (
	"errors"
	"fmt"
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

const keysHint = `path=DIR,key=TEMPLATE and, where wanted, fallback=TEMPLATE (again and again), policy=pull|push|pull-push, when=on_success|on_failure|always, ` +
	`store=LOCATION, level=fastest|default|best, xattrs=true|false; a field with a comma outside of {{ }} is quoted as a whole: "key=a,b"`

// Parse reads KEY=VALUE,... of an archive. Commas and quotes between {{ and }} belong to the template; elsewhere it is CSV on one line (RFC 4180): a field
// with a comma or a quote is quoted as a whole, quotes in it doubled. It fails with fail.Usage, and its errors repeat nothing that may be a part of a store's
// location.
func Parse(text string) (Spec, error) {
	s := Spec{Policy: Pull, When: OnSuccess, Level: "fastest"}
	fields, err := split(text)
	if err != nil {
		return Spec{}, s.wrong(err.Error())
	}
	seen := map[string]bool{}
	for i, field := range fields {
		name, value, ok := strings.Cut(field, "=")
		set := s.setter(name)
		switch {
		case !ok || set == nil: // it may be what follows a comma in a password
			return Spec{}, s.wrong(fmt.Sprintf("its field %d is no key=value with a key that is known", i+1))
		case seen[name] && name != "fallback":
			return Spec{}, s.wrong(name + " is said twice")
		case value == "" || strings.ContainsRune(value, 0):
			return Spec{}, s.wrong(name + " is empty, or has a zero byte")
		}
		seen[name] = true
		if err := set(value); err != nil {
			return Spec{}, err
		}
	}
	if s.Path == "" || s.Key == "" {
		return Spec{}, s.wrong("it needs path and key")
	}
	return s, nil
}

// wrong is an error that says of which archive it is, once that is known.
func (s *Spec) wrong(what string) error {
	if s.Path != "" {
		what = fmt.Sprintf("%q: %s", s.Path, what)
	}
	return fail.Errorf(fail.Usage, "%s", what).WithHint("%s", keysHint)
}

// setter is what takes the value of a key; nil for one that is not known.
func (s *Spec) setter(name string) func(string) error {
	text := func(to *string) func(string) error {
		return func(v string) error { *to = v; return nil }
	}
	switch name {
	case "path":
		return text(&s.Path)
	case "store":
		return text(&s.Store)
	case "key":
		return func(v string) error { s.Key = v; return Check(v) }
	case "fallback":
		return func(v string) error { s.Fallbacks = append(s.Fallbacks, v); return checkFallback(v) }
	case "policy":
		return func(v string) (err error) { s.Policy, err = ParsePolicy(v); return err }
	case "when":
		return func(v string) error {
			s.When = When(v)
			return s.oneOf(name, v, string(OnSuccess), string(OnFailure), string(Always))
		}
	case "level":
		return func(v string) error { s.Level = v; return s.oneOf(name, v, "fastest", "default", "best") }
	case "xattrs":
		return func(v string) error { s.Xattrs = v == "true"; return s.oneOf(name, v, "true", "false") }
	}
	return nil
}

func (s *Spec) oneOf(name, value string, all ...string) error {
	if slices.Contains(all, value) {
		return nil
	}
	return s.wrong(fmt.Sprintf("%s is %q, which is none of %s", name, value, strings.Join(all, ", ")))
}

// ParsePolicy reads a policy; fail.Usage.
func ParsePolicy(text string) (Policy, error) {
	switch p := Policy(text); p {
	case Pull, Push, PullPush:
		return p, nil
	}
	return "", fail.Errorf(fail.Usage, "the policy %q is none of pull, push and pull-push", text).WithHint("most tasks pull; one that fills the store pushes, or does both")
}

var (
	errOpen  = errors.New("a quote or a {{ is not closed")
	errQuote = errors.New("a quote stands within a field, or something behind a quoted one")
	errLine  = errors.New("it is not one line")
)

// split splits at commas that are not quoted and not in a template's braces.
func split(text string) (fields []string, err error) {
	for {
		var field string
		if strings.HasPrefix(text, `"`) {
			field, text, err = quoted(text[1:])
		} else {
			field, text, err = bare(text)
		}
		if err != nil {
			return nil, err
		}
		fields = append(fields, field)
		if text == "" {
			return fields, nil
		}
		text = text[1:] // the comma
	}
}

// quoted takes a field up to its last quote, behind which there must be a comma or nothing.
func quoted(text string) (field, rest string, err error) {
	for {
		before, after, found := strings.Cut(text, `"`)
		if !found {
			return "", "", errOpen
		}
		field += before
		if text = after; !strings.HasPrefix(text, `"`) {
			break
		}
		field, text = field+`"`, text[1:]
	}
	if text != "" && text[0] != ',' {
		return "", "", errQuote
	}
	return field, text, nil
}

// bare takes a field up to a comma.
func bare(text string) (field, rest string, err error) {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == ',':
			return text[:i], text[i:], nil
		case c == '"':
			return "", "", errQuote
		case c == '\n' || c == '\r':
			return "", "", errLine
		case strings.HasPrefix(text[i:], "{{"):
			n, ok := closing(text[i+2:])
			if !ok {
				return "", "", errOpen
			}
			i += n + 3 // {{ and }}, but for the byte that the loop counts
		}
	}
	return text, "", nil
}

// closing finds the }} that ends what was begun with {{. One between quotes does not count.
func closing(text string) (at int, ok bool) {
	in := false
	for i := 0; i < len(text); i++ {
		switch {
		case in && text[i] == '\\':
			i++
		case text[i] == '"':
			in = !in
		case !in && strings.HasPrefix(text[i:], "}}"):
			return i, true
		}
	}
	return 0, false
}
