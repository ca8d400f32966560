//go:build linux

package pack

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"run-task/internal/fsx"
)

// tree makes the hardest tree that an archive keeps all of.
func tree(t *testing.T, dir string) {
	t.Helper()
	source := rand.NewChaCha8([32]byte{1})
	rnd := rand.New(source)
	write := func(name string, data []byte, mode uint32, sec, nsec int64) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, data, 0o600), unix.Chmod(name, mode),
			unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{{Sec: sec, Nsec: nsec}, {Sec: sec, Nsec: nsec}}, 0)); err != nil {
			t.Fatal(err)
		}
	}
	random := func(n int) []byte {
		b := make([]byte, n)
		source.Read(b)
		return b
	}
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	write("empty", nil, 0o644, 1, 0)
	write("a/b/c/small", []byte("small\n"), 0o600, 1700000000, 123456789)
	write("a-b", []byte("between a and a/b by bytes"), 0o4755, 1700000000, 999999999)
	write("a/setgid", []byte("x"), 0o2711, 1, 1)
	write("a.b/x", bytes.Repeat([]byte("compressible "), 1000), 0, 1<<33+5, 5)
	write("old", []byte("before 1970"), 0o644, -12345, 678)
	write("exact", random(frameBytes-block), 0o444, 10, 10)
	write("block", random(block), 0o444, 10, 10)
	write("big/one", random(3*frameBytes+17), 0o640, 10, 10)
	write("big/full frames", random(2*frameBytes-block), 0o640, 10, 10)
	write("big/zeros", make([]byte, 5*frameBytes), 0o640, 10, 10)
	write("limit", random(bigFile), 0o640, 10, 10)
	write("below", random(bigFile-1), 0o640, 10, 10)
	write("bytes \xff\xfe\n\t\"'\\ of any kind/\x01", []byte("x"), 0o644, 10, 10)
	for i := range 500 {
		write(fmt.Sprintf("many/%02d/%d", i%50, i), random(rnd.IntN(2000)), 0o644, int64(i), int64(i))
	}
	long := strings.Repeat("long-name-", 20)
	write(filepath.Join(long, long, long, "file"), []byte("deep"), 0o644, 10, 10)
	write(strings.Repeat("d/", 100)+"file", []byte("deeper"), 0o644, 10, 10)
	write(strings.Repeat("n", 255), []byte("x"), 0o644, 10, 10)
	must(os.Link(dir+"/a/b/c/small", dir+"/a/b/z"), os.Link(dir+"/a/b/c/small", dir+"/0 first"), os.Link(dir+"/big/one", dir+"/zz"), os.Link(dir+"/empty", dir+"/empty2"))
	must(os.Symlink("small", dir+"/a/b/c/link"), os.Symlink("/etc/passwd", dir+"/absolute"), os.Symlink("../../..", dir+"/a/up"), os.Symlink(strings.Repeat("x/", 1000)+"y", dir+"/long link"), os.Symlink("nowhere", dir+"/dangling"))
	must(unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/dangling", []unix.Timespec{{Sec: 5, Nsec: 6}, {Sec: 5, Nsec: 6}}, unix.AT_SYMLINK_NOFOLLOW))
	for name, size := range map[string]int64{"hole": 1 << 30, "holes": 10 << 20, "ends": 100 << 10} {
		f, err := os.Create(filepath.Join(dir, "sparse "+name))
		must(err, f.Truncate(size))
		if name == "holes" {
			for i := range int64(5) {
				_, err := f.WriteAt(random(5000), i*2<<20+4096)
				must(err)
			}
		}
		if name == "ends" {
			_, err := f.WriteAt([]byte("end"), size-3)
			must(err)
		}
		must(f.Close())
	}
	must(os.MkdirAll(dir+"/dirs/empty", 0o755), os.Mkdir(dir+"/dirs/closed", 0o755), os.Mkdir(dir+"/dirs/sticky", 0o755), unix.Chmod(dir+"/dirs/sticky", 0o3777), unix.Chmod(dir+"/dirs/closed", 0o500), unix.Chmod(dir+"/dirs", 0o555),
		unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/dirs", []unix.Timespec{{Sec: 77, Nsec: 88}, {Sec: 77, Nsec: 88}}, 0))
}

// listing is all that an archive keeps of a tree, read by other code than ours.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	names := map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		fmt.Fprintf(&b, "%q %o %d.%09d", name, st.Mode, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			fmt.Fprintf(&b, " -> %q %v", target, err)
		case unix.S_IFREG:
			if first, ok := names[st.Ino]; ok {
				fmt.Fprintf(&b, " = %q", first)
			} else {
				names[st.Ino] = name
			}
			sum := "hole"
			if st.Blocks > 0 || st.Size == 0 {
				data, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				sum = fmt.Sprintf("%x", sha256.Sum256(data))
			}
			fmt.Fprintf(&b, " %d %s sparse:%v", st.Size, sum, st.Blocks*512 < st.Size-1<<16)
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func open(t *testing.T, dir string) *fsx.Dir {
	t.Helper()
	d, err := fsx.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func written(t *testing.T, dir string, o Options) ([]byte, Footer) {
	t.Helper()
	if o.Warn == nil {
		o.Warn = func(format string, args ...any) { t.Errorf(format, args...) }
	}
	var b bytes.Buffer
	f, err := Write(t.Context(), &b, open(t, dir), o)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), f
}

func opened(t *testing.T, data []byte) *Archive {
	t.Helper()
	a, err := Open(bytes.NewReader(data), int64(len(data)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// same fails with the lines that differ.
func same(t *testing.T, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for _, l := range g {
		if !slices.Contains(w, l) {
			t.Errorf("got  %s", l)
		}
	}
	for _, l := range w {
		if !slices.Contains(g, l) {
			t.Errorf("want %s", l)
		}
	}
	if !t.Failed() {
		t.Error("the order differs")
	}
}

func TestRoundTrip(t *testing.T) {
	unix.Umask(0o022)
	src := t.TempDir()
	tree(t, src)
	want := listing(t, src)
	for _, level := range []Level{"", Best} {
		data, f := written(t, src, Options{Level: level})
		a := opened(t, data)
		if err := a.Check(t.Context(), nil); err != nil {
			t.Error(err)
		}
		dst := t.TempDir()
		if err := a.Extract(t.Context(), open(t, dst), Extraction{SetID: true}); err != nil {
			t.Fatal(err)
		}
		same(t, listing(t, dst), want)
		// What was extracted is the same again.
		again, g := written(t, dst, Options{Level: level})
		if f.Content != g.Content || !bytes.Equal(data, again) && os.Getuid() == 0 {
			t.Errorf("%q: %+v, and once more %+v", level, f, g)
		}
		os.Chmod(dst+"/dirs", 0o700)
	}
	os.Chmod(src+"/dirs", 0o700)
}

// GNU tar and zstd read what we write, without a word.
func TestForeignTools(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	tree(t, src)
	data, _ := written(t, src, Options{})
	archive := t.TempDir() + "/a.tar.zst"
	if err := os.WriteFile(archive, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"zstd", "-qt", archive}, {"tar", "--zstd", "--warning=no-timestamp", "-xpf", archive, "-C", dst}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
	}
	same(t, seconds(listing(t, dst)), seconds(listing(t, src)))
	os.Chmod(dst+"/dirs", 0o700)
	os.Chmod(src+"/dirs", 0o700)
}

var parts9 = regexp.MustCompile(`\.[0-9]{9}\b`)

// seconds leaves out the parts of seconds, which tar does not see.
func seconds(listing string) string { return parts9.ReplaceAllString(listing, "") }

// However slowly the files are written, no more of the stream is decoded than a few frames.
func TestPiecesAreBounded(t *testing.T) {
	src := t.TempDir()
	if err := os.WriteFile(src+"/zeros", make([]byte, 80*frameBytes), 0o644); err != nil {
		t.Fatal(err)
	}
	data, _ := written(t, src, Options{})
	s := opened(t, data).stream(t.Context())
	defer s.close()
	var held []*piece
	for range cap(s.free) {
		if _, err := s.take(frameBytes); err != nil {
			t.Fatal(err)
		}
		s.rest = nil
		held = append(held, s.hold())
	}
	if n := len(s.free) + len(s.order); n != 0 || len(held) > 3*workers()+4 {
		t.Errorf("while %d pieces are in use there are %d more", len(held), n)
	}
	s.release(held[0]) // one is enough to go on with
	if _, err := s.take(1); err != nil {
		t.Error(err)
	}
}
