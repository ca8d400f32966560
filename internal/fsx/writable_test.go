//go:build linux

package fsx

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// permOf is the permission bits of a file, setuid and the like included; it does not follow a link.
func permOf(t *testing.T, name string) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Mode & 0o7777
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestMakeWritable(t *testing.T) {
	d, in, out := tree(t)
	must(t, os.Mkdir(in+"/dir", 0o700))
	for perm, want := range map[uint32]uint32{0: 0o700, 0o077: 0o777, 0o555: 0o755, 0o7077: 0o777, 0o6500: 0o700, 0o7700: 0o7700, 0o2755: 0o2755} {
		for name, call := range map[string]func() error{
			"MakeWritable": func() error { return d.MakeWritable("dir") },
			"OpenOwn": func() error {
				own, err := OpenOwn(in + "/dir")
				if err == nil {
					err = own.Close()
				}
				return err
			},
		} {
			must(t, unix.Chmod(in+"/dir", perm))
			if err := call(); err != nil {
				t.Errorf("%s, %o: %v", name, perm, err)
			}
			if got := permOf(t, in+"/dir"); got != want {
				t.Errorf("%s: %o became %o, not %o", name, perm, got, want)
			}
		}
	}

	// Nothing else changes, nor what a link leads to.
	must(t, os.Mkdir(out+"/dir", 0o500), os.Symlink(out+"/dir", in+"/link"), os.WriteFile(in+"/file", nil, 0o600), unix.Chmod(in+"/file", 0o4055))
	for name, want := range map[string]error{"file": unix.ENOTDIR, "link": nil, "none": fs.ErrNotExist, "link/none": unix.ENOTDIR} {
		if err := d.MakeWritable(name); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if file, dir := permOf(t, in+"/file"), permOf(t, out+"/dir"); file != 0o4055 || dir != 0o500 {
		t.Errorf("the file became %o, the directory outside %o", file, dir)
	}
	for name, want := range map[string]error{in + "/file": unix.ENOTDIR, in + "/none": fs.ErrNotExist} {
		if _, err := OpenOwn(name); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whoever has root's rights changes directories of root's, and of nobody else.
func TestMakeWritableOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	d, in, _ := tree(t)
	must(t, os.MkdirAll(in+"/theirs/full", 0o700), os.Chown(in+"/theirs/full", 1000, 1000), unix.Chmod(in+"/theirs/full", 0o555),
		os.Chown(in+"/theirs", 1000, 1000), unix.Chmod(in+"/theirs", 0o050))
	if err := d.MakeWritable("theirs"); !errors.Is(err, unix.EPERM) {
		t.Errorf("not refused: %v", err)
	}
	own, err := OpenOwn(in + "/theirs")
	must(t, err)
	own.Close()
	if got := permOf(t, in+"/theirs"); got != 0o050 {
		t.Errorf("it became %o", got)
	}
	must(t, d.RemoveAll("theirs")) // for that root needs no permission
}

// While the name becomes a file's, a link's or another user's directory's, again and again, none of them changes.
func TestMakeWritableWhileNamesChange(t *testing.T) {
	d, in, out := tree(t)
	must(t, os.Mkdir(in+"/dir", 0o700), os.WriteFile(in+"/file", nil, 0o600), unix.Chmod(in+"/file", 0o055),
		os.Mkdir(out+"/dir", 0o500), os.Symlink(out+"/dir", in+"/link"))
	dir, err := os.Open(in + "/dir") // as long as its mode allows it
	must(t, err)
	defer dir.Close()
	calls := map[string]func(){
		"MakeWritable": func() { d.MakeWritable("dir") },
		"OpenOwn": func() {
			if own, err := OpenOwn(in + "/dir"); err == nil {
				own.Close()
			}
		},
	}
	victims := map[string]uint32{"file": 0o055, "link": 0o777}
	if os.Geteuid() == 0 {
		must(t, os.Mkdir(in+"/theirs", 0o700), os.Chown(in+"/theirs", 1000, 1000), unix.Chmod(in+"/theirs", 0o005))
		victims["theirs"] = 0o005
	}
	for victim, perm := range victims {
		for name, call := range calls {
			if name == "OpenOwn" && victim == "link" { // it is there to follow them
				continue
			}
			done := exchange(t, d, "dir", victim)
			made := 0
			for rounds := 0; rounds < 2000 || made == 0 && rounds < 1_000_000; rounds++ { // who comes first is the machine's choice
				must(t, unix.Fchmod(int(dir.Fd()), 0o6055))
				call()
				if st, err := dir.Stat(); err == nil && st.Mode().Perm() == 0o755 {
					made++
				}
			}
			done()
			if got := permOf(t, in+"/"+victim); got != perm {
				t.Fatalf("%s: %s became %o", name, victim, got)
			}
			if made == 0 {
				t.Errorf("%s, %s: in no round was anything made writable: this test looks at nothing", name, victim)
			}
		}
	}
	if got := permOf(t, out+"/dir"); got != 0o500 {
		t.Errorf("what a link leads to became %o", got)
	}
}

// exchange has two names change places until the function that it gives is called. Then each is what it was.
func exchange(t *testing.T, d *Dir, a, b string) (done func()) {
	t.Helper()
	stop, result := make(chan struct{}), make(chan error)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				if n%2 == 0 {
					result <- nil
					return
				}
			default:
			}
			if err := unix.Renameat2(d.Fd(), a, d.Fd(), b, unix.RENAME_EXCHANGE); err != nil {
				<-stop
				result <- err
				return
			}
		}
	}()
	return func() {
		t.Helper()
		close(stop)
		must(t, <-result)
	}
}

// chain makes directories in each other, deeper than any path can say.
func chain(t *testing.T, d *Dir, top, name string, levels int) {
	t.Helper()
	must(t, d.Mkdir(top, 0o700))
	at, err := d.OpenDir(top)
	must(t, err)
	for range levels - 1 {
		must(t, at.Mkdir(name, 0o700))
		below, err := at.OpenDir(name)
		must(t, err, at.Close())
		at = below
	}
	must(t, at.Close())
}

// What is too deep is not removed halfway; what is not is, however long its path.
func TestRemoveAllOfDeepDirectories(t *testing.T) {
	d, _, _ := tree(t)
	chain(t, d, "deep", "x", TooDeep)
	must(t, d.RemoveAll("deep"))
	chain(t, d, "long", strings.Repeat("x", 255), TooDeep)
	must(t, d.RemoveAll("long"))
	chain(t, d, "deeper", "x", TooDeep+1)
	if err := d.RemoveAll("deeper"); !errors.Is(err, ErrTooDeep) || len(err.Error()) > 300 {
		t.Errorf("%.1000v", err)
	}
	levels := 1
	at, err := d.OpenDir("deeper")
	for ; err == nil; levels++ {
		below, e := at.OpenDir("x")
		at.Close()
		at, err = below, e
	}
	if levels-1 != TooDeep+1 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%d levels are left: %.200v", levels-1, err)
	}
}

// The names that open directories have for messages take a bounded amount of memory.
func TestNamesOfDeepDirectories(t *testing.T) {
	d, _, _ := tree(t)
	name := strings.Repeat("x", 255)
	chain(t, d, name, name, 200)
	at := d
	for range 200 {
		below, err := at.OpenDir(name)
		must(t, err)
		defer below.Close()
		if at = below; len(at.Name()) > 9<<10 {
			t.Fatalf("a name of %d bytes", len(at.Name()))
		}
	}
}
