package mask

import (
	"bytes"
	"strings"
)

// automaton is that of Aho and Corasick. Its states are the beginnings of values, numbered breadth first: so those that extend a state by
// one byte have numbers in a row, and the next state's come right after them.
type automaton struct {
	states []state // the last one only ends the one before
	labels []byte  // the last byte of each state
	root   [256]uint32
	text   string // all values
}

type state struct {
	first   uint32 // the first of those that extend it
	fail    uint32 // the longest other state that it ends with
	depth   uint32 // its length
	longest uint32 // length of the longest value that it ends with, 0 if there is none
	end     uint32 // its bytes are text[end-depth:end]
}

// build makes the automaton of values: sorted, none twice, none empty.
func build(values []string) *automaton {
	type group struct{ from, to uint32 } // the values that begin with a state
	size, previous := 2, ""
	starts := make([]uint32, 0, len(values))
	var text strings.Builder
	for _, v := range values {
		starts = append(starts, uint32(text.Len()))
		text.WriteString(v)
		size += len(v) - common(previous, v)
		previous = v
	}
	a := &automaton{states: make([]state, 1, size), labels: make([]byte, 1, size-1), text: text.String()}
	groups := append(make([]group, 0, size-1), group{0, uint32(len(values))})
	for s := 0; s < len(a.states); s++ {
		a.states[s].first = uint32(len(a.states))
		depth, at := a.states[s].depth, groups[s]
		if uint32(len(values[at.from])) == depth {
			at.from++
		}
		for at.from < at.to {
			v := values[at.from]
			label, from := v[depth], at.from
			for at.from < at.to && values[at.from][depth] == label {
				at.from++
			}
			child := state{depth: depth + 1, end: starts[from] + depth + 1}
			if s == 0 {
				a.root[label] = uint32(len(a.states))
			} else {
				child.fail = a.step(a.states[s].fail, label)
			}
			child.longest = a.states[child.fail].longest
			if uint32(len(v)) == child.depth {
				child.longest = child.depth
			}
			a.states = append(a.states, child)
			a.labels = append(a.labels, label)
			groups = append(groups, group{from, at.from})
		}
	}
	a.states = append(a.states, state{first: uint32(len(a.states))})
	return a
}

func common(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// step is the longest state that s and then c end with. Each failure makes the state shorter, and each byte longer by one at most: so
// there are no more failures than bytes.
func (a *automaton) step(s uint32, c byte) uint32 {
	for s != 0 {
		at := &a.states[s]
		first, next := at.first, a.states[s+1].first
		switch {
		case first == next:
		case a.labels[first] == c:
			return first
		case next-first > 1:
			if i := bytes.IndexByte(a.labels[first+1:next], c); i >= 0 {
				return first + 1 + uint32(i)
			}
		}
		s = at.fail
	}
	return a.root[c]
}

// tail is the last n bytes of a state.
func (a *automaton) tail(s uint32, n int) string {
	end := int(a.states[s].end)
	return a.text[end-n : end]
}
