//go:build linux

package pack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"run-task/internal/fsx"
)

// forgery is an archive that is right in all but what a test makes wrong.
type forgery struct {
	entries []Entry
	bodies  map[string]string // of files
	stream  []byte            // in place of what the entries make
	frames  func([]frame) []frame
	footer  func(*Footer)
}

func (g forgery) bytes(t *testing.T) []byte {
	t.Helper()
	var raw, records []byte
	var f Footer
	content := sha256.New()
	for _, e := range append([]Entry{{Type: Dir, Mode: 0o755}}, g.entries...) {
		body := g.bodies[e.Name]
		if e.Type == File && e.Sum == [32]byte{} {
			e.Sum = sha256.Sum256([]byte(body))
			if e.Size == 0 {
				e.Size = int64(len(body))
			}
		}
		raw, _ = e.appendHeader(raw)
		raw = appendPadded(raw, []byte(body))
		all, part := e.appendRecord(nil)
		records = append(records, all...)
		content.Write(part)
		if f.Entries++; e.Type == File {
			f.Files++
			f.Bytes += e.stored()
		}
	}
	raw = append(raw, make([]byte, 2*block)...)
	if g.stream != nil {
		raw = g.stream
	}
	encoder, err := newEncoder(Fastest)
	if err != nil {
		t.Fatal(err)
	}
	var frames []frame
	for len(raw) > 0 {
		some := raw[:min(len(raw), frameBytes)]
		raw = raw[len(some):]
		frames = append(frames, pack(encoder, kindData, some, nil))
	}
	frames = append(frames, pack(encoder, kindManifest, records, nil))
	if g.frames != nil {
		frames = g.frames(frames)
	}
	var file []byte
	var rows []row
	for _, x := range frames {
		file = append(file, x.packed...)
		rows = append(rows, x.row)
		if f.packed += int64(x.row.packed); x.kind == kindData {
			f.Stream += int64(x.raw)
		}
	}
	table, sum := encodeTable(rows)
	f.Content, f.table, f.frames = [32]byte(content.Sum(nil)), sum, int64(len(rows))
	if g.footer != nil {
		g.footer(&f)
	}
	return append(append(file, table...), f.encode()...)
}

// attempt opens, checks and extracts; Check and Extract agree. What is extracted lies below dir/tree.
func attempt(t *testing.T, dir string, data []byte) error {
	t.Helper()
	a, err := Open(bytes.NewReader(data), int64(len(data)), Limits{})
	if err != nil {
		return err
	}
	checked := a.Check(context.Background(), nil)
	if err := os.Mkdir(dir+"/tree", 0o755); err != nil {
		t.Fatal(err)
	}
	to, err := fsx.Open(dir + "/tree")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	err = a.Extract(context.Background(), to, Extraction{})
	if checked != nil && err == nil {
		t.Errorf("extracted what is damaged: %v", checked)
	}
	return err
}

func dirs(names ...string) (all []Entry) {
	for _, n := range names {
		all = append(all, Entry{Type: Dir, Mode: 0o755, Name: n})
	}
	return all
}

func plain(name string) Entry { return Entry{Type: File, Mode: 0o644, Name: name} }

func link(name, to string) Entry { return Entry{Type: Symlink, Mode: 0o777, Name: name, Target: to} }

func TestForgeryIsRight(t *testing.T) {
	dir := t.TempDir()
	g := forgery{entries: append(dirs("a"), plain("a/b"), link("c", "../.."), Entry{Type: Link, Name: "d", Target: "a/b"}), bodies: map[string]string{"a/b": "content"}}
	if err := attempt(t, dir, g.bytes(t)); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(dir + "/tree/d"); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
}

// What has proofs that are right, and is no tree all the same: nothing of it leaves the directory, and it is an error.
func TestHostileArchives(t *testing.T) {
	for name, g := range map[string]forgery{
		"parent":                    {entries: []Entry{plain("../out")}},
		"parent in between":         {entries: append(dirs("a"), plain("a/../../out"))},
		"absolute":                  {entries: []Entry{plain("/tmp/run-task-out")}},
		"dot":                       {entries: []Entry{plain("./out")}},
		"no name":                   {entries: []Entry{plain("a//b")}},
		"slash at the end":          {entries: []Entry{plain("a/")}},
		"NUL":                       {entries: []Entry{plain("a\x00b")}},
		"long component":            {entries: []Entry{plain(strings.Repeat("x", 256))}},
		"below a link":              {entries: []Entry{link("a", ".."), plain("a/out")}},
		"below a link of that name": {entries: append(append(dirs("a"), link("a", "..")), plain("a/out"))},
		"below a file":              {entries: []Entry{plain("a"), plain("a/out")}},
		"below nothing":             {entries: []Entry{plain("a/out")}},
		"back in a directory":       {entries: append(dirs("a", "b"), plain("a/out"))},
		"twice":                     {entries: []Entry{plain("a"), plain("a")}},
		"a file in place of a link": {entries: []Entry{link("a", "../out"), plain("a")}},
		"out of order":              {entries: []Entry{plain("b"), plain("a")}},
		"a second root":             {entries: []Entry{{Type: Dir, Mode: 0o755}}},
		"device":                    {entries: []Entry{{Type: 'c', Name: "a"}}},
		"FIFO":                      {entries: []Entry{{Type: 'p', Name: "a"}}},
		"mode":                      {entries: []Entry{{Type: File, Mode: 0o10644, Name: "a"}}},
		"link to nothing":           {entries: []Entry{{Type: Link, Name: "a", Target: "b"}}},
		"link outside":              {entries: []Entry{{Type: Link, Name: "a", Target: "../out"}}},
		"link through a link":       {entries: []Entry{link("a", ".."), {Type: Link, Name: "b", Target: "a/victim"}}},
		"link without a target":     {entries: []Entry{link("a", "")}},
		"security attribute":        {entries: []Entry{{Type: File, Name: "a", Xattrs: []Xattr{{Name: "security.capability", Value: "x"}}}}},
		"attributes twice":          {entries: []Entry{{Type: File, Name: "a", Xattrs: []Xattr{{Name: "user.a", Value: "x"}, {Name: "user.a", Value: "y"}}}}},
		"attributes of a link":      {entries: []Entry{{Type: Symlink, Name: "a", Target: "b", Xattrs: []Xattr{{Name: "user.a", Value: "x"}}}}},
		"parts that overlap":        {entries: []Entry{{Type: File, Name: "a", Size: 20, Data: []Part{{Offset: 0, Size: 5}, {Offset: 3, Size: 5}}}}, bodies: map[string]string{"a": "0123456789"}},
		"parts beyond the end":      {entries: []Entry{{Type: File, Name: "a", Size: 9, Data: []Part{{Offset: 0, Size: 10}}}}, bodies: map[string]string{"a": "0123456789"}},
		"negative part":             {entries: []Entry{{Type: File, Name: "a", Size: 20, Data: []Part{{Offset: -5, Size: 10}}}}, bodies: map[string]string{"a": "0123456789"}},
		"larger than told":          {entries: []Entry{{Type: File, Name: "a", Size: 5}}, bodies: map[string]string{"a": strings.Repeat("x", 1000)}},
		"smaller than told":         {entries: []Entry{{Type: File, Name: "a", Size: 5000}}, bodies: map[string]string{"a": "x"}},
		"no end":                    {stream: headers(Entry{Type: Dir, Mode: 0o755})},
		"more after the end":        {stream: append(headers(Entry{Type: Dir, Mode: 0o755}), make([]byte, 3*block)...)},
		"another stream":            {entries: []Entry{plain("a")}, stream: append(headers(Entry{Type: Dir, Mode: 0o755}, plain("b")), make([]byte, 2*block)...)},
		"another mode in it":        {stream: append(headers(Entry{Type: Dir, Mode: 0o4755}), make([]byte, 2*block)...)},
		"no manifest":               {frames: func(f []frame) []frame { return f[:1] }},
		"no data":                   {frames: func(f []frame) []frame { return f[1:] }},
		"manifest twice":            {frames: func(f []frame) []frame { return append(f, f[1]) }},
		"a bomb in a frame":         {frames: func(f []frame) []frame { f[0].raw = 10; return f }},
		"a huge frame":              {frames: func(f []frame) []frame { f[0].raw = 1 << 31; return f }},
		"an empty frame":            {frames: func(f []frame) []frame { f[0].raw = 0; return f }},
		"a frame of another kind":   {frames: func(f []frame) []frame { f[0].kind = 2; return f }},
		"data as a manifest":        {frames: func(f []frame) []frame { f[0].kind = kindManifest; return f }},
		"no zstd":                   {frames: func(f []frame) []frame { copy(f[0].packed, "none"); f[0].sum = sha256.Sum256(f[0].packed); return f }},
		"no records":                {frames: func(f []frame) []frame { return []frame{f[0], manifestOf(t, bytes.Repeat([]byte{0xff}, 100))} }},
		"half a record":             {frames: func(f []frame) []frame { return []frame{f[0], manifestOf(t, []byte{5, 'd'})} }},
		"more entries told":         {footer: func(f *Footer) { f.Entries++ }},
		"more files told":           {footer: func(f *Footer) { f.Files++ }},
		"more bytes told":           {entries: []Entry{plain("a")}, bodies: map[string]string{"a": "x"}, footer: func(f *Footer) { f.Bytes++ }},
		"more stream told":          {footer: func(f *Footer) { f.Stream++ }},
		"negative entries":          {footer: func(f *Footer) { f.Entries = -1 }},
		"more frames told":          {footer: func(f *Footer) { f.frames = 1 << 40 }},
		"another content told":      {footer: func(f *Footer) { f.Content[0]++ }},
		"frames elsewhere":          {footer: func(f *Footer) { f.packed-- }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(dir+"/victim", []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := attempt(t, dir, g.bytes(t)); !errors.Is(err, ErrDamaged) {
				t.Errorf("%v", err)
			}
			names, _ := filepath.Glob(dir + "/*")
			if st, err := os.Stat(dir + "/victim"); err != nil || st.Size() != 4 || len(names) > 2 {
				t.Errorf("outside: %q, %v", names, err)
			}
			if _, err := os.Lstat("/tmp/run-task-out"); err == nil {
				t.Error("written outside")
			}
		})
	}
}

func headers(all ...Entry) (b []byte) {
	for _, e := range all {
		b, _ = e.appendHeader(b)
	}
	return b
}

func manifestOf(t *testing.T, records []byte) frame {
	encoder, err := newEncoder(Fastest)
	if err != nil {
		t.Fatal(err)
	}
	return pack(encoder, kindManifest, records, nil)
}

func TestLimits(t *testing.T) {
	small := forgery{entries: []Entry{plain("a"), plain("b")}}.bytes(t)
	for name, l := range map[string]Limits{"entries": {Entries: 2}, "bytes": {Bytes: 2047}} {
		if _, err := Open(bytes.NewReader(small), int64(len(small)), l); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(bytes.NewReader(small), int64(len(small)), Limits{Entries: 3, Bytes: 1 << 20}); err != nil {
		t.Error(err)
	}
	// A gigabyte of zeros, over and over the same frame: its table tells the truth.
	bomb := forgery{stream: make([]byte, frameBytes), frames: func(f []frame) []frame {
		var all []frame
		for range 1 << 12 {
			all = append(all, f[0])
		}
		return append(all, f[1])
	}}.bytes(t)
	if _, err := Open(bytes.NewReader(bomb), int64(len(bomb)), Limits{}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "would become") {
		t.Errorf("%d bytes: %v", len(bomb), err)
	}
}

// Each byte of an archive matters, and each is missed: whatever changes, it is an error, and nothing but the truth is extracted until then.
func TestDamage(t *testing.T) {
	src := t.TempDir()
	want := map[string]string{}
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 3 {
		b := make([]byte, rnd.IntN(50))
		for k := range b {
			b[k] = byte(rnd.IntN(10))
		}
		want[fmt.Sprint(i)] = string(b)
		if err := os.WriteFile(filepath.Join(src, fmt.Sprint(i)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, _ := written(t, src, Options{})
	try := func(what string, data []byte) {
		t.Helper()
		dir := t.TempDir()
		if err := attempt(t, dir, data); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
		names, _ := filepath.Glob(dir + "/tree/*")
		for _, n := range names {
			if b, err := os.ReadFile(n); err != nil || len(b) > 0 && string(b) != want[filepath.Base(n)] {
				t.Errorf("%s: %s is %q, %v", what, n, b, err)
			}
		}
		os.RemoveAll(dir)
	}
	for i := range data {
		for _, flip := range []byte{1 << (i % 8), 0xff}[:1+i%2] {
			changed := bytes.Clone(data)
			changed[i] ^= flip
			try(fmt.Sprintf("byte %d of %d ^ %x", i, len(data), flip), changed)
		}
		try(fmt.Sprintf("cut off at %d of %d", i, len(data)), data[:i])
	}
	try("a byte more", append(bytes.Clone(data), 0))
	try("twice", append(bytes.Clone(data), data...))
	try("a byte before", append([]byte{0}, data...))
	try("zeros", make([]byte, len(data)))
}

func FuzzOpen(f *testing.F) {
	src := f.TempDir()
	if err := os.WriteFile(src+"/file", []byte("content"), 0o644); err != nil {
		f.Fatal(err)
	}
	d, err := fsx.Open(src)
	if err != nil {
		f.Fatal(err)
	}
	defer d.Close()
	var b bytes.Buffer
	if _, err := Write(context.Background(), &b, d, Options{}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, err := Open(bytes.NewReader(data), int64(len(data)), Limits{}); err == nil {
			if err := a.Check(t.Context(), nil); err == nil && !bytes.Equal(data, b.Bytes()) {
				t.Logf("another archive that is right: %d bytes", len(data))
			}
		}
	})
}

// A record is what its bytes say, and only these bytes say it.
func FuzzRecord(f *testing.F) {
	for _, e := range []Entry{{Type: Dir}, {Type: File, Name: "a/b", Size: 10, Data: []Part{{Offset: 1, Size: 2}, {Offset: 5, Size: 5}}, Nsec: 5, Xattrs: []Xattr{{Name: "user.x", Value: "y"}}}, {Type: Symlink, Name: "l", Target: "../x"}, {Type: Link, Name: "z", Target: "a/b", Sec: -1}} {
		b, _ := e.appendRecord(nil)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, content, rest, err := readRecord(data)
		if err != nil {
			return
		}
		again, part := e.appendRecord(nil)
		if len(again) == len(data)-len(rest) && (!bytes.Equal(again, data[:len(again)]) || !bytes.Equal(part, content)) {
			t.Errorf("%x became %x", data, again)
		}
		if _, body := e.appendHeader(nil); body < 0 || body%block != 0 {
			t.Errorf("%+v takes %d bytes", e, body)
		}
	})
}
