//go:build linux

package supervise

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// helper is the static program in testdata, in a directory that every user may enter.
var helper string

func TestMain(m *testing.M) {
	// Whoever started us may ignore signals (nohup does), which children would inherit: with a handler they get the defaults.
	for _, sig := range []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	dir, err := os.MkdirTemp("", "supervise")
	if err != nil {
		panic(err)
	}
	helper = filepath.Join(dir, "helper")
	build := exec.Command("go", "build", "-o", helper, "./testdata/helper")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build helper: %v\n%s", err, out))
	}
	os.Chmod(dir, 0o755)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// output runs a program and gives what it wrote to stdout and stderr, and its exit status as a shell has it.
func output(t *testing.T, cmd *exec.Cmd) (string, int) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), status(cmd.ProcessState)
}

func status(p *os.ProcessState) int {
	if w := p.Sys().(syscall.WaitStatus); w.Signaled() {
		return 128 + int(w.Signal())
	}
	return p.ExitCode()
}

func sh(script string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), "HELPER="+helper)
	return cmd
}

func TestSameProcess(t *testing.T) {
	cmd := exec.Command(helper, "exec", "sh", "-c", `echo $$; exit 7`)
	out, code := output(t, cmd)
	if want := fmt.Sprintln(cmd.Process.Pid); out != want || code != 7 {
		t.Errorf("pid %q and status %d, want %q and 7", out, code, want)
	}
}

// sigLine is the set of signals on a line of /proc/self/status, which cat shows of itself.
func sigLine(t *testing.T, out, name string) uint64 {
	t.Helper()
	var set uint64
	_, rest, _ := strings.Cut(out, name+":\t")
	if _, err := fmt.Sscanf(rest, "%x", &set); err != nil {
		t.Fatalf("no %s in %q", name, out)
	}
	return set
}

func bit(sig syscall.Signal) uint64 { return 1 << (sig - 1) }

func TestIgnoredSignalsStayIgnored(t *testing.T) {
	out, _ := output(t, sh(`trap "" HUP INT TSTP TTIN TTOU TERM; exec "$HELPER" exec cat /proc/self/status`))
	want := bit(unix.SIGHUP) | bit(unix.SIGINT) | bit(unix.SIGTSTP) | bit(unix.SIGTTIN) | bit(unix.SIGTTOU)
	if got := sigLine(t, out, "SigIgn"); got != want {
		t.Errorf("ignored %x, want %x: the documentation of Exec says which", got, want)
	}
	out, _ = output(t, exec.Command(helper, "exec", "cat", "/proc/self/status"))
	if got := sigLine(t, out, "SigIgn"); got != 0 {
		t.Errorf("ignored %x, want none", got)
	}
}

func TestSignalMaskIsKept(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	want := ^uint64(0)
	for _, sig := range []syscall.Signal{
		unix.SIGKILL, unix.SIGSTOP, // nobody can block these; the others are named in the documentation of Exec
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGABRT, unix.SIGILL, unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE,
		unix.SIGSEGV, unix.SIGSYS, unix.SIGSTKFLT, unix.SIGCHLD, unix.SIGPROF, unix.SIGURG, 32, 33, 34,
	} {
		want &^= bit(sig)
	}
	var old unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &unix.Sigset_t{Val: [16]uint64{^uint64(0)}}, &old); err != nil {
		t.Fatal(err)
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	out, _ := output(t, exec.Command(helper, "exec", "cat", "/proc/self/status"))
	if got := sigLine(t, out, "SigBlk"); got != want {
		t.Errorf("blocked %x, want %x", got, want)
	}
}

func TestFileLimitIsKept(t *testing.T) {
	out, code := output(t, sh(`ulimit -Sn 100; exec "$HELPER" exec sh -c 'ulimit -Sn; [ "$(ulimit -Hn)" != 100 ]'`))
	if out != "100\n" || code != 0 {
		t.Errorf("soft limit %q (status %d), want 100 below a higher hard limit", out, code)
	}
}

func TestClosedStdio(t *testing.T) {
	count := `n=0
		for i in 0 1 2; do [ /proc/$$/fd/$i -ef /dev/null ] && n=$((n+1)); done
		for i in 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$i ] && n=$((n+10)); done
		exit $n`
	if _, code := output(t, sh(`exec "$HELPER" exec sh -c '`+count+`' <&- >&- 2>&-`)); code != 3 {
		t.Errorf("status %d, want 3: /dev/null on 0 to 2 and nothing above", code)
	}
}

func TestDir(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	// Not a shell: it would set PWD right itself.
	if err := os.Symlink("/usr/bin/printenv", filepath.Join(dir, "here")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(helper, "exec", "./here", "PWD")
	cmd.Env = append(os.Environ(), "HELPER_DIR="+dir, "PWD=/elsewhere")
	if out, _ := output(t, cmd); out != dir+"\n" {
		t.Errorf("PWD is %q, want %s", out, dir)
	}
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, mode := range map[string]os.FileMode{"a/tool": 0o644, "b/tool": 0o755, "here": 0o755, "a/sub/x": 0o755} {
		os.MkdirAll(filepath.Dir(name), 0o755)
		if err := os.WriteFile(name, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ name, path, want string }{
		{"tool", "/nowhere:a:b", "b/tool"},          // the first that can be executed
		{"tool", dir + "/a:" + dir, "126"},          // found, not executable
		{"sub", "a", "126"},                         // a directory
		{"here", "/nowhere:", "./here"},             // POSIX: an empty element is the current directory
		{"here", "", "./here"},                      // and so is an empty list
		{"here", "/nowhere", "127"},                 // but nothing else is
		{"a/tool", "b", "a/tool"},                   // a slash: as it is; execve will refuse
		{"./nothing", "b", "127"}, {"", dir, "127"}, //
		{"here/x", "b", "127"},                          // ENOTDIR
		{"tool", "here:" + dir + "/b", dir + "/b/tool"}, // a file in the list is skipped
	} {
		got, err := lookPath(c.name, c.path)
		if err != nil {
			got = fmt.Sprint(int(reasonOf(err)))
		}
		if got != c.want {
			t.Errorf("lookPath(%q, %q) = %q (%v), want %q", c.name, c.path, got, err, c.want)
		}
	}
}

func TestDefaultPath(t *testing.T) {
	cmd := exec.Command(helper, "exec", "true")
	cmd.Env = []string{"X=1"}
	if out, code := output(t, cmd); code != 0 {
		t.Errorf("without PATH: status %d, %s", code, out)
	}
}

// elf makes the header of a 64-bit little-endian program with a PT_INTERP.
func elf(machine uint16, interp string) []byte {
	b := make([]byte, 64+56)
	copy(b, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(b[16:], 2) // ET_EXEC
	le.PutUint16(b[18:], machine)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	le.PutUint32(b[64:], 3)
	le.PutUint64(b[64+8:], uint64(len(b)))
	le.PutUint64(b[64+32:], uint64(len(interp)+1))
	return append(b, interp+"\x00"...)
}

func native() uint16 {
	if runtime.GOARCH == "arm64" {
		return 183
	}
	return 62
}

func TestExecErrors(t *testing.T) {
	dir, err := os.MkdirTemp("", "supervise")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	file := func(name string, mode os.FileMode, data string) {
		if err := errors.Join(os.WriteFile(filepath.Join(dir, name), []byte(data), mode), os.Chmod(filepath.Join(dir, name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	file("plain", 0o644, "#!/bin/sh\n")
	file("private", 0o700, "#!/bin/sh\n")
	file("noshebang", 0o755, "echo\n")
	file("empty", 0o755, "")
	file("bom", 0o755, "\xef\xbb\xbf#!/bin/sh\n")
	file("blank", 0o755, "#! \n")
	file("crlf", 0o755, "#!/bin/sh\r\nexit 0\r\n")
	file("bash", 0o755, "#! /no/bash -e\n")
	file("loader", 0o755, string(elf(native(), "/no/ld.so")))
	file("python", 0o755, "#!"+dir+"/loader\n")
	file("interp", 0o755, "#!"+dir+"/plain\n")
	file("foreign", 0o755, string(elf(22, "")))
	file("strange", 0o755, string(elf(4711, "")))
	file("broken", 0o755, "\x7fELF")
	file("busy", 0o755, "#!/bin/sh\n")
	os.Symlink("nowhere", filepath.Join(dir, "dangling"))
	unix.Mkfifo(filepath.Join(dir, "fifo"), 0o755)
	os.Mkdir(filepath.Join(dir, "locked"), 0o700)
	host := hostMachine()
	busy, err := os.OpenFile(filepath.Join(dir, "busy"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()

	for _, c := range []struct {
		args   string
		env    string
		nobody bool // run as uid 65534
		code   int
		want   string // the error; "|" and the hint; DIR is the directory
	}{
		{args: "DIR/none", code: 127, want: `"DIR/none": no such file`},
		{args: "DIR/plain/x", code: 127, want: `"DIR/plain/x": no such file`},
		{args: "DIR/dangling", code: 127, want: `"DIR/dangling": it is a link to "nowhere", which does not exist`},
		{args: "no-such", env: "PATH=DIR", code: 127, want: `"no-such" was not found in PATH` + "\n  PATH=DIR"},
		{args: "no-such", env: "PATH=DIR/locked:DIR", nobody: true, code: 127,
			want: `"no-such" was not found in PATH` + "\n  PATH=DIR/locked:DIR\n  cannot be searched: DIR/locked"},
		{args: "make_test ", code: 127, want: `"make_test " was not found in PATH` + "\n  PATH=DIR|this is one word for the system: separate the arguments, or run a shell: -- sh -c '...'", env: "PATH=DIR"},
		{args: "plain", env: "PATH=DIR", code: 126, want: `"DIR/plain": permission denied: mode 0644|make it executable: chmod +x DIR/plain`},
		{args: "DIR/plain", code: 126, want: `"DIR/plain": permission denied: mode 0644|make it executable: chmod +x DIR/plain`},
		{args: "DIR/private", nobody: true, code: 126, want: fmt.Sprintf(`"DIR/private": permission denied: mode 0700, owned by %d:%d, and this is uid 65534 gid 65534`, os.Getuid(), os.Getgid())},
		{args: "DIR/locked/x", nobody: true, code: 126, want: `"DIR/locked/x": permission denied`},
		{args: "DIR", code: 126, want: `"DIR": permission denied: it is a directory|name a program`},
		{args: "DIR/fifo", code: 126, want: `"DIR/fifo": permission denied: it is no regular file|name a program`},
		{args: "DIR/noshebang", code: 126, want: `"DIR/noshebang": exec format error: it has no #! line|put #!/bin/sh on its first line, or run it through a shell: -- sh DIR/noshebang`},
		{args: "DIR/empty", code: 126, want: `"DIR/empty": exec format error: it is empty`},
		{args: "DIR/bom", code: 126, want: `"DIR/bom": exec format error: a byte order mark stands before its #! line|save it as UTF-8 without a byte order mark`},
		{args: "DIR/blank", code: 126, want: `"DIR/blank": exec format error: its #! line names no interpreter, or is too long`},
		{args: "DIR/crlf", code: 126, want: `"DIR/crlf": no such file or directory: its #! line ends in CRLF, so its interpreter is "/bin/sh\r"|convert it to LF line ends (.gitattributes: "*.sh text eol=lf")`},
		{args: "DIR/bash", code: 126, want: `"DIR/bash": no such file or directory: its interpreter "/no/bash" does not exist in this image|install it, or change the #! line`},
		{args: "DIR/loader", code: 126, want: `"DIR/loader": no such file or directory: its loader "/no/ld.so" is missing: a dynamically linked program in an image without that libc|use a static build of it, or an image with the libc it was built for`},
		{args: "DIR/python", code: 126, want: `"DIR/python": no such file or directory: its interpreter "DIR/loader": its loader "/no/ld.so" is missing: a dynamically linked program in an image without that libc|use a static build of it, or an image with the libc it was built for`},
		{args: "DIR/interp", code: 126, want: `"DIR/interp": permission denied: its interpreter "DIR/plain": mode 0644|make it executable: chmod +x DIR/plain`},
		{args: "DIR/foreign", code: 126, want: `"DIR/foreign": exec format error: it is for s390x, this is ` + host + "|use a build or an image for " + host},
		{args: "DIR/strange", code: 126, want: `"DIR/strange": exec format error: it is for ELF machine 4711, this is ` + host + "|use a build or an image for " + host},
		{args: "DIR/broken", code: 126, want: `"DIR/broken": exec format error: it is a damaged or unusable ELF file for ` + host},
		{args: "DIR/busy", code: 126, want: `"DIR/busy": text file busy: somebody has it open for writing|close the file before running it`},
		{args: "true", env: "HELPER_DIR=DIR/none", code: 64, want: `start the command in "DIR/none": no such file or directory|name an existing directory; relative ones start where run-task was started`},
		{args: "true", env: "HELPER_DIR=DIR/plain", code: 64, want: `start the command in "DIR/plain": not a directory|name an existing directory; relative ones start where run-task was started`},
		{args: "true", env: "HELPER_DIR=DIR/locked", nobody: true, code: 74, want: `start the command in "DIR/locked": permission denied`},
	} {
		if c.nobody && os.Getuid() != 0 {
			t.Logf("not root, not run: %s as another user", c.args)
			continue
		}
		in := func(s string) string { return strings.ReplaceAll(s, "DIR", dir) }
		cmd := exec.Command(helper, "exec", in(c.args))
		cmd.Env = append(os.Environ(), strings.ReplaceAll(c.env, "=DIR", "="+dir))
		if strings.Contains(c.env, ":DIR") {
			cmd.Env = append(os.Environ(), in(c.env))
		}
		if c.nobody {
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		text, hint, hinted := strings.Cut(in(c.want), "|")
		want := "run-task: error: " + text + "\n"
		if hinted {
			want += "run-task: hint: " + hint + "\n"
		}
		if got, code := output(t, cmd); got != want || code != c.code {
			t.Errorf("%s (%s): status %d, want %d\ngot  %s\nwant %s", c.args, c.env, code, c.code, got, want)
		}
	}
}

func TestTooBig(t *testing.T) {
	// Not through os/exec, which would fail itself: the sizes and the name are what matters, never the value.
	err := Exec(Command{Args: []string{"/bin/true", "x"}, Env: []string{"A=1", "SECRET=" + strings.Repeat("hunter2", 20000)}}, nil)
	want := `"/bin/true": argument list too long: arguments 12 bytes, environment 140012 bytes, the largest is variable "SECRET" with 140008`
	if err == nil || err.Error() != want || reasonOf(err) != 126 {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestNoexecMount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir := t.TempDir()
	cmd := exec.Command(helper, "noexec", dir+"/x")
	cmd.Env = append(os.Environ(), "HELPER_DIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, code := output(t, cmd)
	want := fmt.Sprintf("run-task: error: %q: permission denied: its file system is mounted noexec\n", dir+"/x")
	if !strings.HasPrefix(out, want) || code != 126 {
		t.Errorf("status %d\ngot  %s\nwant %s", code, out, want)
	}
}
