package mask

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// decided is the slow and obvious way: what must have come out when just text was read, and how many bytes must be held.
func decided(values []string, text string, end bool) (string, int) {
	covered := make([]bool, len(text))
	stop := len(text) // what is not covered is undecided from here on
	for _, v := range values {
		for i := range len(text) {
			if strings.HasPrefix(text[i:], v) {
				for j := range len(v) {
					covered[i+j] = true
				}
			}
			if !end && strings.HasPrefix(v, text[i:]) && len(v) > len(text)-i {
				stop = min(stop, i)
			}
		}
	}
	var b strings.Builder
	for i := range len(text) {
		switch {
		case !covered[i] && i >= stop:
			return b.String(), len(text) - i
		case !covered[i]:
			b.WriteByte(text[i])
		case i == 0 || !covered[i-1]:
			b.WriteString("[MASKED]")
		}
	}
	return b.String(), 0
}

func words(length int) (all []string) {
	for n := range 1 << length {
		w := make([]byte, length)
		for i := range w {
			w[i] = 'a' + byte(n>>i&1)
		}
		all = append(all, string(w))
	}
	return all
}

// splits checks s with each text of a and b up to a length, and each way of splitting it.
func splits(t *testing.T, s *Set, values []string, length int) {
	type want struct {
		out, flushed string
		held         int
	}
	wants := map[string]want{}
	for n := range length + 1 {
		for _, text := range words(n) {
			var w want
			w.out, w.held = decided(values, text, false)
			w.flushed, _ = decided(values, text, true)
			wants[text] = w
		}
	}
	pieces := make([][]string, length+1)
	for n := 1; n <= length; n++ {
		pieces[n] = append(slices.Clone(pieces[n-1]), words(n)...)
	}
	var pass []byte
	var walk func(st *Stream, text, out string)
	walk = func(st *Stream, text, out string) {
		w := wants[text]
		if out != w.out || st.Held() != w.held {
			t.Fatalf("%q hide in %q: %q and %d bytes are held, want %q and %d", values, text, out, st.Held(), w.out, w.held)
		}
		for _, p := range pieces[length-len(text)] {
			next := *st
			next.spans = slices.Clone(st.spans)
			pass = next.Append(append(pass[:0], out...), []byte(p))
			walk(&next, text+p, string(pass))
		}
		if flushed := st.Flush([]byte(out)); string(flushed) != w.flushed || st.Held() != 0 {
			t.Fatalf("%q hide in %q: %q in the end, want %q", values, text, flushed, w.flushed)
		}
	}
	walk(s.Stream(), "", "")
}

func TestEverySplit(t *testing.T) {
	t.Parallel()
	short := slices.Concat(words(1), words(2), words(3))
	for i, a := range short {
		for j, b := range short[i:] {
			for _, c := range short[i+j:] {
				length := 4
				if c == b { // a pair
					length = 5
				}
				values := []string{a, b, c}
				splits(t, newSet(1, values), values, length)
			}
		}
	}
	for _, values := range [][]string{
		{"abab"}, {"aaaa"}, {"abaab"}, {"aabaa"}, {"ababab", "bb"}, {"aaab", "aa"}, {"abbbba", "bb"}, {"aaaaab", "aba", "baa"}, {"ababbab", "bab", "abb"},
	} {
		splits(t, newSet(1, values), values, 7)
	}
}

// With values that are long enough for the filter, of one stride and another.
func TestEverySplitFiltered(t *testing.T) {
	t.Parallel()
	for _, values := range [][]string{
		{"abab"}, {"aaaa", "abab"}, {"abaab"}, {"aabaa", "baaba"}, {"aaaaab", "aaab", "baaa"},
	} {
		splits(t, New(values...), values, 8)
	}
}

// pieces gives text to st in pieces as long as next says, and checks after each what came out.
func pieces(t testing.TB, st *Stream, values []string, text string, next func() int) {
	t.Helper()
	longest := 0
	for _, v := range values {
		longest = max(longest, len(v))
	}
	want, _ := decided(values, text, true)
	var out []byte
	piece := make([]byte, 0, len(text))
	for rest := text; rest != ""; {
		n := min(len(rest), next())
		piece = append(piece[:0], rest[:n]...)
		rest = rest[n:]
		out = st.Append(out, piece)
		clear(piece) // it must not have been kept
		if !strings.HasPrefix(want, string(out)) || st.Held() >= max(longest, 1) {
			t.Fatalf("%q hide in %q: %q came out before %q, %d bytes are held, want %q", values, text, out, rest, st.Held(), want)
		}
	}
	if out = st.Flush(out); string(out) != want || st.Held() != 0 {
		t.Fatalf("%q hide in %q: %q, want %q", values, text, out, want)
	}
}

func TestTwoPieces(t *testing.T) {
	t.Parallel()
	four := slices.Concat(words(4), words(5)[:8], words(6)[20:30])
	for i, a := range four {
		for _, b := range four[i:] {
			values := []string{a, b}
			st := New(values...).Stream()
			text := a + b[1:] + a[2:] + "b" + b + a
			for cut := range len(text) {
				sizes := []int{cut, len(text)}
				if cut == 0 {
					sizes = sizes[1:]
				}
				pieces(t, st, values, text, func() int { n := sizes[0]; sizes = sizes[1:]; return n })
			}
		}
	}
}

func TestSelfOverlap(t *testing.T) {
	t.Parallel()
	values := []string{"secret-secret-token-secret-secret"}
	text := "see secret-secret-token-secret-secret-token-secret-secret-token-secret-secret, secret-secret-secret-token-secret-secret"
	const want = "see [MASKED], secret-[MASKED]"
	st := New(values...).Stream()
	for i := range len(text) + 1 {
		for j := i; j < len(text)+1; j++ {
			out := st.Append(nil, []byte(text[:i]))
			out = st.Append(out, []byte(text[i:j]))
			out = st.Flush(st.Append(out, []byte(text[j:])))
			if string(out) != want {
				t.Fatalf("cut at %d and %d: %q", i, j, out)
			}
		}
	}
}

// Values and texts that share much, of every stride, in pieces of one, two, three and so on bytes, and of random ones.
func TestRandom(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	word := func(letters, least, most int) string {
		w := make([]byte, least+r.IntN(most-least+1))
		for i := range w {
			w[i] = 'a' + byte(r.IntN(letters))
		}
		return string(w)
	}
	for range 250 {
		letters, least := 2+r.IntN(3), 1+r.IntN(14)
		values := make([]string, 1+r.IntN(8))
		for i := range values {
			values[i] = word(letters, least, least+10)
			if before := values[r.IntN(i+1)]; r.IntN(3) == 0 && len(before) > least { // a part of another
				values[i] = before[r.IntN(len(before)-least+1):]
			}
		}
		var b strings.Builder
		for range 12 {
			v := values[r.IntN(len(values))]
			from := r.IntN(len(v))
			if r.IntN(3) == 0 {
				from = 0
			}
			b.WriteString(v[from : from+r.IntN(len(v)-from)+1])
			if r.IntN(4) == 0 {
				b.WriteString(word(letters+1, 0, 9))
			}
		}
		s := newSet(1, values)
		if shortest := slices.MinFunc(values, func(a, b string) int { return len(a) - len(b) }); (s.filter != nil) != (len(shortest) >= gram) {
			t.Fatalf("%q: a filter: %t", values, s.filter != nil)
		}
		st := s.Stream()
		for n := 1; n < 8; n++ {
			pieces(t, st, values, b.String(), func() int { return n })
		}
		pieces(t, st, values, b.String(), func() int { return 1 + r.IntN(20) })
		pieces(t, st, values, b.String(), b.Len)
		if s.filter != nil { // it may take anything for a beginning
			for i := range s.filter.bits {
				s.filter.bits[i] |= r.Uint64()
			}
			pieces(t, st, values, b.String(), b.Len)
			pieces(t, st, values, b.String(), func() int { return 1 + r.IntN(40) })
		}
	}
}

func TestString(t *testing.T) {
	for _, test := range []struct {
		values     []string
		text, want string
	}{
		{nil, "all of it", "all of it"},
		{[]string{"", "abc"}, "abc is too short", "abc is too short"},
		{[]string{"abcd"}, "", ""},
		{[]string{"abcd"}, "abc", "abc"},
		{[]string{"abcd"}, "abcd", "[MASKED]"},
		{[]string{"abcd", "abc", "abcd"}, "abcdabcd abcd", "[MASKED] [MASKED]"},
		{[]string{"abcd", "cdef"}, "abcdef", "[MASKED]"},
		{[]string{"abcd", "efgh"}, "abcdefgh", "[MASKED]"},
		{[]string{"abcdefgh", "cdef"}, "abcdefg", "ab[MASKED]g"},
		{[]string{"line one\nline two", "line one", "line two"}, "line one\r\nline two\n", "[MASKED]\r\n[MASKED]\n"},
		{[]string{"\x00\xff\x80\xfe"}, "\xff\x00\xff\x80\xfe\x00", "\xff[MASKED]\x00"},
		{[]string{"MASK"}, "MASK [MASKED]", "[MASKED] [[MASKED]ED]"},
	} {
		if got := New(test.values...).String(test.text); got != test.want {
			t.Errorf("%q hide in %q: %q, want %q", test.values, test.text, got, test.want)
		}
	}
}

func TestNil(t *testing.T) {
	if s := New("", "a", "abc"); s != nil {
		t.Errorf("values that are too short make %v", s)
	}
	st := New().Stream()
	out := st.Append([]byte("a"), []byte("bcd"))
	if out = st.Flush(out); string(out) != "abcd" || st.Held() != 0 {
		t.Errorf("%q, %d bytes are held", out, st.Held())
	}
}

func TestPrinted(t *testing.T) {
	s := New("abcd")
	for _, form := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(form, s); got != "[MASKED]" {
			t.Errorf("%s prints %q", form, got)
		}
		if got := fmt.Sprintf(form, s.Stream()); strings.Contains(got, "abcd") || strings.Contains(got, "61626364") {
			t.Errorf("%s prints the values of a stream: %q", form, got)
		}
	}
}

// Much is held, for long, with many covered spans in it.
func TestLongValues(t *testing.T) {
	t.Parallel()
	const n = 20_000
	long := strings.Repeat("a", n) + "b"
	dotted := strings.Repeat("aaaa.", n/5)
	for name, values := range map[string][]string{
		"failures": {long},
		"covered":  {long, "aaaa"},
		"spans":    {dotted + "b", "aaaa"},
		"chain":    {long, "baaab", strings.Repeat("a", n/2) + "c"},
	} {
		text := long[:n] + "a" + long + dotted + dotted + "b"
		s := New(values...)
		want := s.String(text)
		st := s.Stream()
		var out []byte
		for i := range len(text) {
			out = st.Append(out, []byte(text[i:i+1]))
		}
		if out = st.Flush(out); string(out) != want {
			t.Errorf("%s: in single bytes there come %d bytes, at once %d", name, len(out), len(want))
		}
	}
}

func secrets(n int) []string {
	r := rand.New(rand.NewPCG(3, 4))
	values := make([]string, n)
	for i := range values {
		v := make([]byte, 40)
		for j := range v {
			v[j] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[r.IntN(64)]
		}
		values[i] = string(v)
	}
	return values
}

func TestMemory(t *testing.T) {
	s := New(secrets(1000)...)
	size := int(unsafe.Sizeof(*s)+unsafe.Sizeof(*s.filter)) + cap(s.states)*int(unsafe.Sizeof(state{})) + cap(s.labels) + len(s.text) + int(unsafe.Sizeof(automaton{}))
	if size > 1<<20 || len(s.states) != cap(s.states) || len(s.labels) != cap(s.labels) {
		t.Errorf("1000 values take %d bytes", size)
	}
}

// What a stream remembers is bounded by what it holds, however long it lasts and however much it is given at once.
func TestBounded(t *testing.T) {
	for name, values := range map[string][]string{
		"never held":  {"aaaa"},
		"always held": {strings.Repeat("aaaa.", 20) + "b", "aaaa"},
	} {
		st := New(values...).Stream()
		text := []byte(strings.Repeat("aaaa.", 10_000))
		var dst []byte
		for range 3 {
			dst = st.Append(dst[:0], text)
			for i := 0; i < len(text); i += 5 {
				dst = st.Append(dst[:0], text[i:i+5])
			}
			if len(st.spans) > 100 || cap(st.spans) > 100 {
				t.Errorf("%s: %d spans, room for %d", name, len(st.spans), cap(st.spans))
			}
		}
	}
}

// Once its buffers have grown a stream needs no memory, whatever it reads.
func TestNoAllocations(t *testing.T) {
	values := secrets(10)
	st := New(values...).Stream()
	text := []byte(strings.Repeat("some text "+values[3]+values[4]+values[5][:20], 10))
	dst := make([]byte, 0, len(text))
	if n := testing.AllocsPerRun(10, func() {
		for i := 0; i < len(text); i += 7 {
			dst = st.Append(dst[:0], text[i:min(len(text), i+7)])
		}
		dst = st.Flush(dst[:0])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
