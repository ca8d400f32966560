package mask

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func FuzzStream(f *testing.F) {
	f.Add("abab\nbabb", "abababab abba babab", []byte{1, 2, 3}, false)
	f.Add("aab\na", "aaaabaaab", []byte{1}, true)
	f.Add("secret-secret-token\nret-sec", "secret-secret-secret-token", []byte{7, 9}, false)
	f.Add("0123456789abcdef\n89abcdef0123", "0123456789abcdef0123456789abcde", []byte{}, false)
	f.Fuzz(func(t *testing.T, lines, text string, sizes []byte, short bool) {
		if len(lines) > 200 || len(text) > 400 {
			return
		}
		least := Min
		if short {
			least = 1
		}
		var values []string
		for v := range strings.SplitSeq(lines, "\n") {
			if len(v) >= least {
				values = append(values, v)
			}
		}
		i := 0
		pieces(t, newSet(least, values).Stream(), values, text, func() int {
			if len(sizes) == 0 {
				return len(text)
			}
			i++
			return max(1, int(sizes[i%len(sizes)]))
		})
	})
}

func logText(size int) []byte {
	r := rand.New(rand.NewPCG(5, 6))
	words := strings.Fields("compiling linking warning: error: unused variable in function src/main.c include/net/socket.h -O2 -Wall ok FAIL test_read_header " +
		"Downloading https://registry.example.com/packages/left-pad-1.3.0.tgz sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 [INFO] 12:34:56.789 done")
	var b bytes.Buffer
	for b.Len() < size {
		fmt.Fprintf(&b, "%s %s %s %d %s\n", words[r.IntN(len(words))], words[r.IntN(len(words))], words[r.IntN(len(words))], r.IntN(10000), words[r.IntN(len(words))])
	}
	return b.Bytes()[:size]
}

func benchmark(b *testing.B, values []string, text []byte, piece int) {
	st := New(values...).Stream()
	dst := make([]byte, 0, 2*len(text))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		dst = dst[:0]
		for rest := text; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
			dst = st.Append(dst, rest[:min(piece, len(rest))])
		}
		dst = st.Flush(dst)
	}
}

func BenchmarkStream(b *testing.B) {
	text := logText(1 << 20)
	for _, n := range []int{1, 10, 1000} {
		values := secrets(n)
		short := make([]string, n)
		eight := make([]string, n)
		for i, v := range values {
			short[i], eight[i] = v[:4], v[:8]
		}
		b.Run(fmt.Sprintf("%d", n), func(b *testing.B) { benchmark(b, values, text, 32<<10) })
		b.Run(fmt.Sprintf("%d/8-bytes", n), func(b *testing.B) { benchmark(b, eight, text, 32<<10) })
		b.Run(fmt.Sprintf("%d/4-bytes", n), func(b *testing.B) { benchmark(b, short, text, 32<<10) })
		b.Run(fmt.Sprintf("%d/lines", n), func(b *testing.B) { benchmark(b, values, text, 60) })
	}
	all := []byte(strings.Join(secrets(1000), " "))
	b.Run("1000/all-secrets", func(b *testing.B) { benchmark(b, secrets(1000), all, 32<<10) })
	as := bytes.Repeat([]byte("a"), 1<<20)
	for _, n := range []int{10, 1000, 100_000} {
		long := strings.Repeat("a", n) + "b"
		spans := strings.Repeat("aaaa.", n/5)
		b.Run(fmt.Sprintf("failures/%d", n), func(b *testing.B) { benchmark(b, []string{long}, as, 32<<10) })
		b.Run(fmt.Sprintf("failures/%d/bytes", n), func(b *testing.B) { benchmark(b, []string{long}, as, 1) })
		b.Run(fmt.Sprintf("covered/%d/bytes", n), func(b *testing.B) { benchmark(b, []string{long, "aaaa"}, as, 1) })
		b.Run(fmt.Sprintf("spans/%d/bytes", n), func(b *testing.B) {
			benchmark(b, []string{spans + "b", "aaaa"}, bytes.Repeat([]byte("aaaa."), 1<<17), 1)
		})
	}
}
