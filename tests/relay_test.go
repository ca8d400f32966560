//go:build linux

package tests

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// relaying are flags with which the command's output passes through run-task, or not.
var relaying = map[string][]string{
	"as it is":            {"--init"},
	"--timestamps":        {"--timestamps"},
	"--mask-env":          {"--mask-env", "VALUE"},
	"--output-limit":      {"--output-limit", "1G"},
	"--no-output-timeout": {"--no-output-timeout", "10m"},
}

// relayedTask is a run-task with these flags and a command.
func relayedTask(flags []string, words ...string) *command {
	return &command{env: []string{"VALUE=no such thing"}, args: slices.Concat([]string{"run-task"}, asUser(), flags, []string{"--"}, words)}
}

// A command whose reader leaves ends as it would alone.
func TestReaderLeaves(t *testing.T) {
	t.Parallel()
	alone := &command{args: []string{"/bin/sh", "-c", "yes"}}
	for name, flags := range relaying {
		for _, way := range []string{"yes", "yes >&2", "yes | cat"} {
			c := relayedTask(flags, "/bin/sh", "-c", way)
			t.Run(name+" "+way, func(t *testing.T) {
				t.Parallel()
				for _, c := range []*command{alone, c} {
					r, w, err := os.Pipe()
					if err != nil {
						t.Fatal(err)
					}
					defer r.Close()
					cmd, stderr := c.cmd(), &strings.Builder{}
					cmd.Stdout, cmd.Stderr = w, stderr
					if c != alone && way == "yes >&2" && name != "--timestamps" && name != "--output-limit" {
						cmd.Stdout, cmd.Stderr = nil, w
					}
					if err := cmd.Start(); err != nil {
						t.Fatal(err)
					}
					w.Close()
					if _, err := io.ReadFull(r, make([]byte, 100_000)); err != nil {
						t.Fatal(err)
					}
					r.Close()
					if code := wait(t, cmd); code != 141 || strings.Contains(stderr.String(), "run-task") {
						t.Errorf("%q: exit %d\n%s", c.args, code, stderr)
					}
				}
			})
		}
	}
}

// Where nothing can be written the command ends, and run-task says once why.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for name, flags := range relaying {
		if name == "as it is" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer full.Close()
			for _, both := range []bool{false, true} {
				for word, want := range map[string]int{"yes": 141, "echo": 0} {
					cmd := relayedTask(flags, word).cmd()
					var stderr strings.Builder
					cmd.Stdout, cmd.Stderr = full, &stderr
					if both {
						cmd.Stderr = full
					}
					if err := cmd.Start(); err != nil {
						t.Fatal(err)
					}
					if code := wait(t, cmd); code != want || !both && strings.Count(stderr.String(), "no space left on device") != 1 || strings.Count(stderr.String(), "\n") > 2 {
						t.Errorf("%s: exit %d\n%s", word, code, stderr.String())
					}
				}
			}
		})
	}
}

// numbered is what probe's mode flood prints.
func numbered(size int) []byte {
	b := make([]byte, 0, size+64)
	for i := 0; len(b) < size; i++ {
		b = append(fmt.Appendf(b, "%016x ", i), "==============================================\n"...)
	}
	return b[:size]
}

// full waits until a pipe takes no more.
func full(t *testing.T, pipe int) {
	t.Helper()
	size, err := unix.FcntlInt(uintptr(pipe), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		n, err := unix.IoctlGetInt(pipe, unix.TIOCINQ)
		if err != nil {
			t.Fatal(err)
		}
		if n == size {
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("%d bytes are in a pipe of %d", n, size)
		}
	}
}

// A slow reader slows the command down: it waits when the pipes are full, and then nothing is missing. Also where our stdout is non-blocking, as some parents leave it.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	for name, flags := range relaying {
		for _, nonblocking := range []bool{false, true} {
			if name == "as it is" && nonblocking { // the command's business
				continue
			}
			t.Run(fmt.Sprintf("%s, non-blocking %t", name, nonblocking), func(t *testing.T) {
				t.Parallel()
				var fds [2]int
				if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
					t.Fatal(err)
				}
				if err := unix.SetNonblock(fds[1], nonblocking); err != nil {
					t.Fatal(err)
				}
				r, w := os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
				defer r.Close()
				file := filepath.Join(tempDir(t), "count")
				plant(t, file, strings.Repeat("\x00", 16))
				own(t, file)
				cmd := relayedTask(flags, "probe", "flood", fmt.Sprint(size), file).cmd()
				var stderr strings.Builder
				cmd.Stdout, cmd.Stderr = w, &stderr
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				if is, err := unix.FcntlInt(uintptr(fds[1]), unix.F_GETFL, 0); err != nil || is&unix.O_NONBLOCK != 0 != nonblocking {
					t.Fatalf("flags %#x, %v", is, err)
				}
				w.Close()
				if name != "--timestamps" { // whose lines fill no page
					full(t, fds[0])
				}
				count := func() (pid, n int64) {
					b, err := os.ReadFile(file)
					if err != nil {
						t.Fatal(err)
					}
					for i := range 8 {
						pid, n = pid|int64(b[i])<<(8*i), n|int64(b[8+i])<<(8*i)
					}
					return pid, n
				}
				pid, _ := count()
				for began := time.Now(); pid == 0; pid, _ = count() {
					time.Sleep(time.Millisecond)
					if time.Since(began) > time.Minute {
						t.Fatal("the command does not start")
					}
				}
				theirs, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", pid), os.O_RDONLY|unix.O_NONBLOCK, 0)
				if err != nil {
					t.Fatal(err)
				}
				full(t, int(theirs.Fd()))
				theirs.Close()
				if _, n := count(); n > 2<<20 {
					t.Errorf("%d bytes were taken that nobody reads", n)
				}
				got, err := io.ReadAll(r)
				if err != nil {
					t.Fatal(err)
				}
				if code := wait(t, cmd); code != 0 || stderr.String() != "" {
					t.Errorf("exit %d\n%s", code, stderr.String())
				}
				if text := string(got); name == "--timestamps" {
					stampedAs(t, text, string(numbered(size)), time.Unix(0, 0), time.Now())
				} else {
					alike(t, "stdout", text, string(numbered(size)))
				}
			})
		}
	}
}

// A reader that never reads again does not keep a task from its end when its time is over.
func TestStalledReader(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T){}
	for name, flags := range relaying {
		for _, merged := range []bool{false, true} {
			tests[fmt.Sprint(name, ", merged ", merged)] = func(t *testing.T) {
				r, w, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				cmd := relayedTask(append([]string{"--command-timeout", "300ms", "--grace", "100ms"}, flags...), "yes").cmd()
				var stderr strings.Builder
				cmd.Stdout, cmd.Stderr = w, &stderr
				if merged {
					cmd.Stderr = w
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				w.Close()
				if code := wait(t, cmd); code != 124 || !merged && !strings.Contains(stderr.String(), "run-task: error: exec: --command-timeout 300ms is over\n  pid ") {
					t.Errorf("exit %d\n%s", code, stderr.String())
				}
			}
		}
	}
	together(t, len(tests), tests)
}

// A file with O_NONBLOCK, as some parents leave it, is written to as any other, and so are two names of one.
func TestFilesAsStdout(t *testing.T) {
	t.Parallel()
	for name, flags := range relaying {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(tempDir(t), "log")
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NONBLOCK, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			cmd := relayedTask(flags, "probe", "obey").cmd()
			want, orders := "", []string{}
			for i := range 200 {
				line := fmt.Sprintln("line", i)
				orders = append(orders, []string{toOut(line), toErr(line)}[i%2])
				want += line
			}
			cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(strings.Join(orders, "\n")+"\n"), f, f
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			code := wait(t, cmd)
			got, err := os.ReadFile(path)
			if err != nil || code != 0 {
				t.Fatalf("exit %d, %v", code, err)
			}
			if text := string(got); name == "--timestamps" {
				stampedAs(t, text, want, time.Unix(0, 0), time.Now())
			} else {
				alike(t, "the file", text, want)
			}
		})
	}
}

// However much the command prints, run-task stays small.
func TestMuchOutput(t *testing.T) {
	t.Parallel()
	const lines, line, prefix = 3_125_000, 64, len("[task 2026-01-02T03:04:05.678Z] ")
	for name, flags := range map[string][]string{"masks": {"--mask-env", "VALUE"}, "all": {"--mask-env", "VALUE", "--timestamps", "--output-limit", "1G"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := relayedTask(flags, "probe", "all", "flood", fmt.Sprint(lines*line), ",", "obey").cmd()
			orders, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			width := line
			if name == "all" {
				width += prefix
			}
			const block = 12_500
			got, want := make([]byte, block*width), numbered(block*line)
			for first := 0; first < lines; first += block {
				if _, err := io.ReadFull(stdout, got); err != nil {
					t.Fatal(err)
				}
				for i := range block {
					number := want[i*line:][:16]
					for n, at := first+i, 15; at >= 0; n, at = n>>4, at-1 {
						number[at] = "0123456789abcdef"[n&15]
					}
					if g := got[i*width:][:width]; !bytes.HasSuffix(g, want[i*line:][:line]) {
						t.Fatalf("line %d is %q", first+i, g)
					}
				}
			}
			if peak := peakOf(t, cmd.Process.Pid); peak >= 32<<10 {
				t.Errorf("run-task took %d kB", peak)
			}
			orders.Close()
			if rest, err := io.ReadAll(stdout); len(rest) > 0 || err != nil {
				t.Errorf("%.1000q, %v", rest, err)
			}
			if code := wait(t, cmd); code != 0 {
				t.Errorf("exit %d", code)
			}
		})
	}
}

// peakOf is the most memory that a process had, in kB.
func peakOf(t *testing.T, pid int) (kB int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, value, _ := strings.Cut(string(status), "VmHWM:")
	if _, scan := fmt.Sscan(value, &kB); err != nil || scan != nil {
		t.Fatalf("%v, %v", err, scan)
	}
	return kB
}
