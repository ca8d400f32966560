// Package mask hides secrets in text and in streams of bytes.
//
// Each byte that is part of any occurrence of any value is covered, also where occurrences overlap. Each maximal run of
// covered bytes becomes one "[MASKED]", so occurrences that touch become one too; all else stays as it is.
package mask

import (
	"fmt"
	"io"
	"slices"
)

// Min is the shortest value in bytes that is taken: shorter ones would mask ordinary words.
const Min = 4

const masked = "[MASKED]"

// Set is a set of values to hide. It never changes, and may be used by many at the same time. A nil Set hides nothing.
type Set struct {
	*automaton         // pointers, as fmt follows none in what has a Set
	filter     *filter // nil if a value is too short for it
}

// New makes a Set of values, all together below 4 GiB. Those shorter than Min and repeated ones are left out; it is nil if nothing remains.
func New(values ...string) *Set { return newSet(Min, values) }

func newSet(shortest int, values []string) *Set {
	values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return len(v) < shortest })
	slices.Sort(values)
	values = slices.Compact(values)
	if len(values) == 0 {
		return nil
	}
	return &Set{build(values), newFilter(values)}
}

// String is text with its secrets hidden.
func (s *Set) String(text string) string {
	if s == nil {
		return text
	}
	t := s.Stream()
	return string(t.Flush(t.Append(make([]byte, 0, len(text)), []byte(text))))
}

// Format keeps the values out of whatever prints a Set by mistake.
func (s *Set) Format(f fmt.State, _ rune) { io.WriteString(f, masked) }
