//go:build linux

package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/supervise"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("REPORT_TEST_FILE"); path != "" {
		if err := childOfTermination(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func read(t *testing.T, path string) (s Status) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	if bytes.Count(b, []byte("\n")) != 1 || b[len(b)-1] != '\n' {
		t.Errorf("not one line: %q", b)
	}
	return s
}

func TestReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status.json")
	os.WriteFile(path, []byte(strings.Repeat("old ", 100)), 0o600)
	r := Report{Mask: func(s string) string { return strings.ReplaceAll(s, "hunter2", "[MASKED]") }}
	if err := r.Open(path); err != nil {
		t.Fatal(err)
	}
	want := Status{Version: 1, Phase: "setup"}
	check := func() {
		t.Helper()
		if got := read(t, path); !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
	check()
	r.Step("vcs", 1234567*time.Microsecond)
	r.Checkout(Checkout{"A", "/src/hunter2", "1", "2", "3", "pin", 0.5, 6, 7, 8, Phases{0.12349, math.Inf(1), 0.3, 0.4}})
	if err := r.Command(); err != nil {
		t.Fatal(err)
	}
	want.Phase, want.Steps = "command", []Step{{"vcs", 1.235}}
	want.Checkouts = []Checkout{{"A", "/src/[MASKED]", "1", "2", "3", "pin", 0.5, 6, 7, 8, Phases{0.123, 0, 0.3, 0.4}}}
	check()
	err := fmt.Errorf("exec: %w", fail.Errorf(fail.CannotExec, "bad\n\x1b[2J\xff hunter2").WithHint("not hunter2"))
	if err := r.Failed("exec", err); err != nil {
		t.Fatal(err)
	}
	want.Phase, want.Reason, want.Code, want.Step = "failed", "cannot-exec", 126, "exec"
	want.Error, want.Hint = `exec: bad\n\x1b[2J\xff [MASKED]`, "not [MASKED]"
	check()
}

func TestCommand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status.json")
	for _, c := range []struct {
		ended supervise.Status
		want  Command
	}{
		{supervise.Status{Code: 3, Seconds: 1.23456, MaxRSS: 4096, User: 0.1, System: 0.0004}, Command{Code: 3, Reason: "exited", Seconds: 1.235, MaxRSS: 4096, User: 0.1}},
		{supervise.Status{Code: 137, Signal: unix.SIGKILL}, Command{Code: 137, Signal: "SIGKILL", Reason: "signal"}},
		{supervise.Status{Code: 128 + 40, Signal: 40}, Command{Code: 168, Signal: "signal 40", Reason: "signal"}},
		{supervise.Status{Code: 143, Signal: unix.SIGTERM, Limit: "timeout"}, Command{Code: 143, Signal: "SIGTERM", Reason: "timeout"}},
	} {
		var r Report
		if err := r.Open(path); err != nil {
			t.Fatal(err)
		}
		r.Ended(c.ended)
		if err := r.Finished(); err != nil {
			t.Fatal(err)
		}
		if got := read(t, path); got.Phase != Ended || got.Code != c.want.Code || got.Command == nil || *got.Command != c.want {
			t.Errorf("%+v: got %+v, command %+v", c.ended, got, got.Command)
		}
	}
	var r Report
	if err := r.Open(path); err != nil {
		t.Fatal(err)
	}
	r.Ended(supervise.Status{}) // it was not started
	if err := r.Finished(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got.Phase != Setup || got.Command != nil {
		t.Errorf("nothing was started: %+v", got)
	}
}

func TestWithoutFileAndMask(t *testing.T) {
	var r Report
	if err := errors.Join(r.Command(), r.Done(), r.Failed("x", errors.New("x"))); err != nil {
		t.Error(err)
	}
	if got := r.mask("https://joe:pw@host/"); got != "https://[MASKED]@host/" {
		t.Errorf("not masked: %s", got)
	}
}

// A kill between the two system calls of a Write leaves a whole object, also when the new one is shorter: here the second call fails.
func TestKilledInWrite(t *testing.T) {
	fd, err := unix.MemfdCreate("status", unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := &File{f: os.NewFile(uintptr(fd), "status"), mask: func(s string) string { return s }}
	defer f.Close()
	if err := f.Write(Status{Error: strings.Repeat("x", 1000)}); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(Status{Phase: Done}); !errors.Is(err, unix.EPERM) {
		t.Errorf("shrinking a sealed file: %v", err)
	}
	b := make([]byte, 8192)
	n, _ := f.f.ReadAt(b, 0)
	var s Status
	if err := json.Unmarshal(b[:n], &s); err != nil || n < 1000 || s.Phase != Done {
		t.Errorf("%v: %q", err, b[:n])
	}
}

func TestOpenRefuses(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := func(name string) string { return filepath.Join(dir, name) }
	err = errors.Join(
		os.WriteFile(p("two"), []byte("kept"), 0o644), os.Link(p("two"), p("names")), os.Symlink("two", p("link")), os.Symlink("nowhere", p("dangling")),
		unix.Mkfifo(p("fifo"), 0o644), os.Mkdir(p("dir"), 0o755), os.Symlink("dir", p("dirlink")),
	)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"names":     "it has 2 names (hard links)",
		"link":      "it or a directory on the way is a symbolic link or no directory",
		"dangling":  "it or a directory on the way is a symbolic link or no directory",
		"two/x":     "it or a directory on the way is a symbolic link or no directory",
		"fifo":      "it is no regular file",
		"dir":       "it is a directory",
		"none/file": "its directory does not exist",
		"dirlink/x": "it or a directory on the way is a symbolic link or no directory", // as root
	} {
		if name == "dirlink/x" && os.Getuid() != 0 {
			continue
		}
		f, err := OpenFile(p(name), nil)
		if err == nil {
			f.Close()
		}
		if want := fmt.Sprintf("status file %q: %s", p(name), want); err == nil || err.Error() != want || fail.Of(err) != fail.Usage || fail.Hint(err) == "" {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	if _, err := OpenFile("/dev/null", nil); err == nil || !strings.Contains(err.Error(), "it is a device") {
		t.Errorf("a device: %v", err)
	}
	if b, _ := os.ReadFile(p("two")); string(b) != "kept" {
		t.Errorf("the file behind links is now %q", b)
	}
	for _, name := range []string{"nowhere", "dir/x"} {
		if _, err := os.Lstat(p(name)); err == nil {
			t.Errorf("%s was made through a link", name)
		}
	}
}

func TestRelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	f, err := OpenFile("status.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if st, err := os.Stat("status.json"); err != nil || st.Mode() != 0o644 {
		t.Errorf("%v, %v", st, err)
	}
}

// childOfTermination is a container's process: root's file is mounted over path in a directory where nothing can be made,
// and root is gone when it is written.
func childOfTermination(path string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount(path+".host", path, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	var r Report
	if err := r.Open(path); err != nil {
		return err
	}
	if err := errors.Join(syscall.Setresgid(65534, 65534, 65534), syscall.Setresuid(65534, 65534, 65534)); err != nil {
		return err
	}
	if _, err := os.OpenFile(path, os.O_WRONLY, 0); !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("root is not gone: %v", err)
	}
	return r.Failed("vcs", fail.Errorf(fail.Gone, "gone"))
}

func TestTerminationLog(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "termination-log")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.WriteFile(path+".host", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "REPORT_TEST_FILE="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := read(t, path+".host"); got.Phase != "failed" || got.Code != 66 {
		t.Errorf("got %+v", got)
	}
}

func TestWhyComesFirst(t *testing.T) {
	s := Status{Phase: Failed, Step: "vcs", Error: strings.Repeat("ä\"", 3000), Hint: strings.Repeat("€", 3000)}
	for range 500 {
		s.Steps = append(s.Steps, Step{"vcs", math.Inf(1)})
		s.Checkouts = append(s.Checkouts, Checkout{Dir: "/some/directory", Seconds: math.NaN()})
	}
	var got Status
	b := encode(s, strings.ToUpper)
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if len(b) > MaxSize || !got.Truncated || len(got.Error) < 1100 || len(got.Error) > 1200 || len(got.Hint) < 350 || got.Step != "VCS" || len(got.Steps) == 0 {
		t.Errorf("%d bytes: %+v", len(b), got)
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("a", "b", "c", 1)
	f.Add("\xff\u2028\"\\", strings.Repeat("\"", 5000), strings.Repeat("\xff", 5000), 100)
	f.Fuzz(func(t *testing.T, a, b, c string, n int) {
		s := Status{Phase: Failed, Reason: "internal", Step: c, Error: a, Hint: b}
		for i := range min(max(n, 0), 200) {
			s.Steps = append(s.Steps, Step{a, float64(i)})
			s.Checkouts = append(s.Checkouts, Checkout{Name: a, Dir: b, Tree: c})
		}
		out := encode(s, func(s string) string { return s })
		if len(out) > MaxSize || !json.Valid(out) || !utf8.Valid(out) || bytes.Count(out, []byte("\n")) != 1 {
			t.Errorf("%d bytes: %q", len(out), out)
		}
	})
}

// The documentation has every field with its condition, every phase and every reason, and examples that are right.
func TestDocumentation(t *testing.T) {
	b, err := os.ReadFile("../docs/status-file.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	var documented, reasons []string
	fieldTable, _, _ := strings.Cut(doc, "| reason | code |")
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z._\\[\\]]+)` \\| (always)?").FindAllStringSubmatch(fieldTable, -1) {
		documented = append(documented, m[1]+" "+m[2])
	}
	if want := fields(reflect.TypeFor[Status](), ""); !slices.Equal(documented, want) {
		t.Errorf("documented fields\n%q, want\n%q", documented, want)
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| ([0-9]+) \\|").FindAllStringSubmatch(doc, -1) {
		reasons = append(reasons, m[1]+" "+m[2])
	}
	var table []string
	for _, row := range fail.Table() {
		table = append(table, fmt.Sprint(row.Word, " ", int(row.Reason)))
	}
	if !slices.Equal(reasons, table) {
		t.Errorf("documented reasons\n%q, want\n%q", reasons, table)
	}
	for _, phase := range []string{Setup, Handed, Ended, Done, Failed} {
		if !strings.Contains(doc, "`"+phase+"`: ") {
			t.Errorf("phase %s is not documented", phase)
		}
	}
	examples := 0
	for line := range strings.Lines(doc) {
		if example, ok := strings.CutPrefix(line, "    {"); ok {
			var s Status
			d := json.NewDecoder(strings.NewReader("{" + example))
			d.DisallowUnknownFields()
			if err := d.Decode(&s); err != nil || string(marshal(s)) != "{"+example {
				t.Errorf("example %s: %v; run-task would write\n%s", example, err, marshal(s))
			}
			examples++
		}
	}
	if examples < 2 || !strings.Contains(doc, fmt.Sprint(MaxSize, " bytes")) {
		t.Error("examples or the size are missing")
	}
}

// fields lists the JSON names, in order, with "always" where a field is never left out.
func fields(typ reflect.Type, prefix string) (list []string) {
	for i := range typ.NumField() {
		name, options, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		when := "always"
		if options == "omitempty" {
			when = ""
		}
		list = append(list, prefix+name+" "+when)
		switch e := typ.Field(i).Type; e.Kind() {
		case reflect.Slice:
			list = append(list, fields(e.Elem(), prefix+name+"[].")...)
		case reflect.Pointer:
			list = append(list, fields(e.Elem(), prefix+name+".")...)
		}
	}
	return list
}
