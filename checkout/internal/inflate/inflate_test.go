package inflate

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
)

func deflate(t testing.TB, data []byte, level int) []byte {
	var b bytes.Buffer
	w, err := zlib.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(data)
	w.Close()
	return b.Bytes()
}

// samples are data of many shapes: nothing, text, runs, noise of few and of many symbols, with repetitions near and far.
func samples(t testing.TB) [][]byte {
	text, err := os.ReadFile("inflate.go")
	if err != nil {
		t.Fatal(err)
	}
	all := [][]byte{nil, []byte("x"), text, bytes.Repeat([]byte("a"), 100_000), bytes.Repeat(text, 10)}
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		b := make([]byte, r.IntN(50_000))
		symbols := r.IntN(255) + 1
		for i := range b {
			b[i] = byte(r.IntN(symbols))
			if i > 40_000 && r.IntN(40) == 0 {
				copy(b[i:], b[i-32_768:i-32_768+r.IntN(300)])
			} else if r.IntN(3) == 0 && i > 100 {
				b[i] = b[i-r.IntN(90)-1]
			}
		}
		all = append(all, b)
	}
	return all
}

func TestWholeStreams(t *testing.T) {
	d := new(Decoder)
	for i, want := range samples(t) {
		for _, level := range []int{-2, 0, 1, 6, 9} {
			z := deflate(t, want, level)
			for _, after := range []int{0, 40} {
				for _, slack := range []int{0, 3, Slack} {
					src := append(z[:len(z):len(z)], make([]byte, after)...)
					dst := make([]byte, len(want), len(want)+slack)
					n, err := d.Whole(dst, src)
					if err != nil || n != len(z) || !bytes.Equal(dst, want) {
						t.Fatalf("sample %d level %d +%d: %d of %d bytes, %v", i, level, after, n, len(z), err)
					}
					if len(want) == 0 {
						continue
					}
					if n, err := d.Whole(dst[:len(dst)-1], src); err != ErrFull {
						t.Fatalf("sample %d level %d: one byte less: %d, %v", i, level, n, err)
					}
					if n, err := d.Whole(append(dst, 0), src); err != ErrCorrupt {
						t.Fatalf("sample %d level %d: one byte more: %d, %v", i, level, n, err)
					}
				}
			}
		}
	}
}

// pieces decodes src in pieces of step bytes, unused bytes being passed again, through a window.
func pieces(d *Decoder, window, src []byte, step int) (data []byte, used int, err error) {
	d.ResetWindow(window)
	for have := 0; ; {
		n, err := d.Decode(src[used:have])
		used += n
		data = append(data, d.Take()...)
		switch {
		case err == ErrFull:
			d.Slide()
		case err == ErrShort && have < len(src):
			have = min(have+step, len(src))
		default:
			return data, used, err
		}
	}
}

func TestInPieces(t *testing.T) {
	d := new(Decoder)
	for i, want := range samples(t)[:12] {
		for _, level := range []int{-2, 0, 1, 9} {
			z := deflate(t, want, level)
			src := append(z[:len(z):len(z)], 1, 2, 3, 4, 5, 6, 7, 8, 9)
			for _, step := range []int{1, 7, 1000} {
				got, n, err := pieces(d, make([]byte, Window+1024), src, step)
				if err != nil || n != len(z) || !bytes.Equal(got, want) {
					t.Fatalf("sample %d level %d step %d: %d of %d bytes, %d of %d used, %v", i, level, step, len(got), len(want), n, len(z), err)
				}
			}
		}
	}
}

func TestEveryTruncationIsShort(t *testing.T) {
	d := new(Decoder)
	for i, want := range samples(t)[:12] {
		for _, level := range []int{-2, 0, 6} {
			z := deflate(t, want[:min(len(want), 3000)], level)
			dst := make([]byte, min(len(want), 3000), 4000)
			for n := range len(z) {
				if _, err := d.Whole(dst, z[:n]); err != ErrShort {
					t.Fatalf("sample %d level %d: %d of %d bytes: %v", i, level, n, len(z), err)
				}
			}
		}
	}
}

func TestEveryFlippedBitIsSeen(t *testing.T) {
	d := new(Decoder)
	for _, level := range []int{-2, 0, 6} {
		want := samples(t)[2][:1500]
		z := deflate(t, want, level)
		dst := make([]byte, len(want), len(want)+Slack)
		for bit := range 8 * len(z) {
			z[bit/8] ^= 1 << (bit % 8)
			// The header's level is not looked at, nor are the bits that align a stored block: only wrong data is wrong.
			if n, err := d.Whole(dst, z); err == nil && (n != len(z) || !bytes.Equal(dst, want)) {
				t.Errorf("level %d: bit %d: not seen", level, bit)
			} else if ref, _, rerr := library(z, len(want)); (err == nil) != (rerr == nil && len(ref) == len(want)) {
				t.Errorf("level %d: bit %d: %v, the library says %v", level, bit, err, rerr)
			}
			z[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// library is compress/zlib's opinion: the data up to one byte more than size, and how long the stream is.
func library(src []byte, size int) (data []byte, used int, err error) {
	r := bytes.NewReader(src)
	z, err := zlib.NewReader(r)
	if err != nil {
		return nil, 0, err
	}
	data, err = io.ReadAll(io.LimitReader(z, int64(size)+1))
	return data, len(src) - r.Len(), err
}

func FuzzDifferential(f *testing.F) {
	for i, s := range samples(f)[:20] {
		f.Add(deflate(f, s[:min(len(s), 2000)], i%11-2), uint16(min(len(s), 2000)), uint8(i))
	}
	d := new(Decoder)
	f.Fuzz(func(t *testing.T, src []byte, size uint16, step uint8) {
		want, used, werr := library(src, int(size))
		ok := werr == nil && len(want) == int(size)
		for _, slack := range []int{0, Slack} {
			dst := make([]byte, size, int(size)+slack)
			n, err := d.Whole(dst, src)
			if (err == nil) != ok {
				t.Fatalf("slack %d: %v, the library says %d bytes, %v", slack, err, len(want), werr)
			}
			if ok && (n != used || !bytes.Equal(dst, want)) {
				t.Fatalf("slack %d: %d bytes used, the library %d", slack, n, used)
			}
		}
		want, used, werr = library(src, 1<<20)
		if len(want) > 1<<20 {
			return
		}
		got, n, err := pieces(d, make([]byte, Window+1024), src, int(step)+1)
		if (err == nil) != (werr == nil) || err == nil && (n != used || !bytes.Equal(got, want)) {
			t.Fatalf("in pieces of %d: %d bytes, %v, the library says %d bytes, %v", int(step)+1, len(got), err, len(want), werr)
		}
	})
}

func TestPresetDictionaryIsRefused(t *testing.T) {
	z := deflate(t, []byte("data"), 6)
	z[0], z[1] = 0x78, 0x20
	if _, err := new(Decoder).Whole(make([]byte, 4), z); err != ErrCorrupt {
		t.Error(err)
	}
}

func TestErrorsAreFinal(t *testing.T) {
	d := new(Decoder)
	z := deflate(t, []byte("data"), 6)
	z[len(z)-1]++
	if _, err := d.Whole(make([]byte, 4), z); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	if _, err := d.Decode(z); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
}

// BenchmarkWhole compares with the library: objects as small as most of git's, and larger ones.
func BenchmarkWhole(b *testing.B) {
	text, err := os.ReadFile("inflate.go")
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{200, 2000, len(text)} {
		data := text[:size]
		z := deflate(b, data, 6)
		src := append(z[:len(z):len(z)], make([]byte, 64)...)
		dst := make([]byte, size, size+Slack)
		b.Run(fmt.Sprintf("own/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			d := new(Decoder)
			for b.Loop() {
				if _, err := d.Whole(dst, src); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("library/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			in := bytes.NewReader(z)
			r, err := zlib.NewReader(in)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				in.Reset(z)
				r.(zlib.Resetter).Reset(in, nil)
				if _, err := io.ReadFull(r, dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// bitWriter writes a stream by hand.
type bitWriter struct {
	b []byte
	n int
}

// put writes n bits, the lowest first; code writes a Huffman code, the highest first.
func (w *bitWriter) put(v, n int) {
	for i := range n {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.n/8] |= byte(v>>i&1) << (w.n % 8)
		w.n++
	}
}

func (w *bitWriter) code(v, n int) {
	for i := range n {
		w.put(v>>(n-1-i), 1)
	}
}

func TestInvalidStreams(t *testing.T) {
	d := new(Decoder)
	for name, write := range map[string]func(w *bitWriter){
		"a block of type 3": func(w *bitWriter) { w.put(7, 3) },
		"a distance before the beginning": func(w *bitWriter) {
			w.put(3, 3)
			w.code(0x30+'a', 8)
			w.code(1, 7) // length 3
			w.code(1, 5) // distance 2
			w.code(0, 7)
		},
		"a distance that does not exist": func(w *bitWriter) {
			w.put(3, 3)
			w.code(0x30+'a', 8)
			w.code(1, 7)
			w.code(30, 5)
			w.code(0, 7)
		},
		"a length that does not exist": func(w *bitWriter) {
			w.put(3, 3)
			w.code(0x30+'a', 8)
			w.code(0xc6, 8) // 286
			w.code(0, 5)
			w.code(0, 7)
		},
		"too many literals":        func(w *bitWriter) { dynamicHead(w, 30, 0) },
		"too many distances":       func(w *bitWriter) { dynamicHead(w, 0, 30) },
		"a repetition of nothing":  func(w *bitWriter) { dynamicHead(w, 0, 0); w.code(1, 1); w.put(0, 2) },
		"repetitions without end":  func(w *bitWriter) { dynamicHead(w, 0, 0); w.code(0, 1); repeat(w, 100) },
		"a wrong length of stored": func(w *bitWriter) { w.put(1, 8); w.put(3, 16); w.put(3, 16); w.put(0, 24) },
	} {
		w := &bitWriter{}
		w.put(0x78, 8)
		w.put(0x01, 8)
		write(w)
		for _, after := range []int{0, 8, 100} {
			src := append(w.b[:len(w.b):len(w.b)], make([]byte, after)...)
			if data, _, err := library(src, 1000); err == nil {
				t.Fatalf("%s: the library reads %d bytes", name, len(data))
			}
			for _, slack := range []int{0, Slack} {
				_, err := d.Whole(make([]byte, 50, 50+slack), src)
				if err != ErrCorrupt && (after > 0 || err != ErrShort) {
					t.Errorf("%s, %d bytes after it, slack %d: %v", name, after, slack, err)
				}
			}
		}
	}
}

// dynamicHead begins a dynamic block whose code of lengths has two symbols of one bit: 1 and 16, 16 being "repeat" and the larger.
func dynamicHead(w *bitWriter, lits, dists int) {
	w.put(5, 3)
	w.put(lits, 5)
	w.put(dists, 5)
	w.put(14, 4) // 18 lengths of codes
	for _, s := range preOrder[:18] {
		w.put(map[bool]int{true: 1}[s == 1 || s == 16], 3)
	}
}

func repeat(w *bitWriter, n int) {
	for range n {
		w.code(1, 1)
		w.put(3, 2)
	}
}
