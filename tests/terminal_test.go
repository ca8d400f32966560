//go:build linux

package tests

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// screen is a pseudo-terminal (pty(7)) with a session on it: what is typed and what is shown.
type screen struct {
	*testing.T
	master *os.File
	fd     int // its own
	cmd    *exec.Cmd

	mu    sync.Mutex
	cond  *sync.Cond
	shown string
	seen  int // of what is shown: until looks at what comes after it
	ended bool
}

// watch starts a command as the leader of a session whose terminal is new. It does not echo what is typed.
func watch(t *testing.T, c *command) *screen {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) // os.File.Fd would make it blocking, and closing wait for the reader
	if err != nil {
		t.Fatal(err)
	}
	master := os.NewFile(uintptr(fd), "terminal")
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	settings, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err == nil {
		settings.Lflag &^= unix.ECHO
		settings.Oflag &^= unix.OPOST
		err = unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, settings)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{T: t, master: master, fd: fd, cmd: c.cmd()}
	s.cond = sync.NewCond(&s.mu)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.SysProcAttr.Setsid, s.cmd.SysProcAttr.Setctty = true, true
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cmd.Process.Kill() })
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			s.mu.Lock()
			s.shown += string(b[:n])
			s.ended = err != nil // EIO: nobody has the other side
			s.cond.Broadcast()
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *screen) keys(text string) {
	s.Helper()
	if _, err := s.master.WriteString(text); err != nil {
		s.Fatalf("%v; there is %.2000q", err, s.shown)
	}
}

// until waits for something to be shown that has not been waited for.
func (s *screen) until(what string) {
	s.Helper()
	if !s.shows(what, long) {
		s.Fatalf("%q does not come; there is %.4000q", what, s.shown)
	}
}

func (s *screen) shows(what string, within time.Duration) bool {
	late := false
	timer := time.AfterFunc(within, func() { s.mu.Lock(); late = true; s.cond.Broadcast(); s.mu.Unlock() })
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if i := strings.Index(s.shown[s.seen:], what); i >= 0 {
			s.seen += i + len(what)
			return true
		}
		if late || s.ended {
			return false
		}
		s.cond.Wait()
	}
}

// ends waits for the end of the session's leader.
func (s *screen) ends(code int) {
	s.Helper()
	if got := wait(s.T, s.cmd); got != code {
		s.Errorf("exit %d, want %d; there is %.2000q", got, code, s.shown)
	}
}

// shellWith is a shell that runs words, run-task and its command in most cases, as "$@" in a script.
func shellWith(script string, words ...string) *command {
	return &command{args: slices.Concat([]string{"/bin/sh", "-c", script, "sh"}, words)}
}

// interactive is a shell with job control that shows a prompt and nothing else of its own but what becomes of jobs.
func interactive(t *testing.T) *screen {
	t.Helper()
	s := watch(t, &command{args: []string{"/bin/bash", "--norc", "--noprofile", "--noediting", "-i"}, env: []string{"PS1=prompt ", "HISTFILE=", "RT=" + strings.Join(staying(), " ")}})
	s.until("prompt ")
	return s
}

// The command has the terminal while it runs, and whoever started run-task has it afterwards, however the command ends.
func TestTerminalIsHandedOverAndBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, flags, command, keys, shows string
		code                              int
	}{
		{"exits", "", `echo ready; read word; echo "got $word"; exit 3`, "hello\n", "got hello", 3},
		{"relayed", "--timestamps", `echo ready; read word; echo "got $word"; exit 3`, "hello\n", "got hello", 3},
		{"reads the terminal itself", "", `echo ready; read word </dev/tty; echo "got $word"; exit 3`, "hello\n", "got hello", 3},
		{"killed", "", `echo ready; kill -9 $$`, "", "", 137},
		{"interrupted", "", `echo ready; exec sleep 1000`, "\x03", "", 130},
		{"quits", "", `ulimit -c 0; echo ready; exec sleep 1000`, "\x1c", "", 131},
		{"limited", "--command-timeout 50ms", `echo ready; exec sleep 1000`, "", "", 124},
		{"leaves somebody behind", "--grace 50ms", `(trap "" TERM HUP; exec sleep 1000) & echo ready; exit 3`, "", "", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := watch(t, shellWith(`"$@"; echo "code $?"; read word; echo "still $word"`,
				staying(append(strings.Fields(c.flags), "--", "/bin/sh", "-c", c.command)...)...))
			s.until("ready")
			s.keys(c.keys)
			s.until(c.shows)
			s.until(fmt.Sprintln("code", c.code))
			s.keys("here\n")
			s.until("still here\n")
			s.ends(0)
		})
	}
	t.Run("cannot be started", func(t *testing.T) {
		t.Parallel()
		s := watch(t, shellWith(`"$@"; echo "code $?"; read word; echo "still $word"`, staying("--", "/nonexistent")...))
		s.until("code 127\n")
		s.keys("here\n")
		s.until("still here\n")
	})
}

// A key's signal is the command's alone, once; and a new size of the window.
func TestTerminalSignalsArriveOnce(t *testing.T) {
	t.Parallel()
	script := `trap 'i=$((i+1)); echo "int $i"' INT; trap 'q=$((q+1)); echo "quit $q"' QUIT; trap 'w=$((w+1)); echo "winch $w $(stty size)"' WINCH
		echo ready; until read go; do :; done; echo "in all $i $q $w"`
	for name, words := range map[string][]string{"run-task": staying("--"), "PID 1": nil, "relayed": staying("--timestamps", "--"), "nobody": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &command{args: slices.Concat(words, []string{"/bin/sh", "-c", script})}
			if name == "PID 1" {
				needRoot(t)
				c = &command{pid1: true, args: staying("--", "/bin/sh", "-c", script)}
			}
			s := watch(t, c)
			s.until("ready")
			for i := 1; i <= 2; i++ {
				s.keys("\x03")
				s.until(fmt.Sprintln("int", i))
				s.keys("\x1c")
				s.until(fmt.Sprintln("quit", i))
				if err := unix.IoctlSetWinsize(s.fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(30 + i), Col: 99}); err != nil {
					t.Fatal(err)
				}
				s.until(fmt.Sprintf("winch %d %d 99\n", i, 30+i))
			}
			s.keys("go\n")
			s.until("in all 2 2 2\n")
			s.ends(0)
		})
	}
}

// A shell's job control works as with any command.
func TestTerminalJobControl(t *testing.T) {
	t.Parallel()
	const work = `-- /bin/sh -c 'trap "echo contin""ued" CONT; echo rea""dy; until read word; do :; done; echo "got $word"; exit 5'`
	for _, flags := range []string{"", "--timestamps"} {
		t.Run("stopped"+flags, func(t *testing.T) {
			t.Parallel()
			s := interactive(t)
			s.keys("$RT " + flags + " " + work + "\n")
			s.until("ready")
			for range 2 {
				s.keys("\x1a")
				s.until("Stopped")
				s.until("prompt ")
				s.keys("echo the shell rea''ds\n")
				s.until("the shell reads")
				s.until("prompt ")
				s.keys("fg\n")
				s.until("continued") // a ^Z that comes earlier may be the shell's
			}
			s.keys("hello\n")
			s.until("got hello")
			s.keys("echo code $?\n")
			s.until("code 5")
			s.keys("exit\n")
			s.ends(0)
		})
		t.Run("background"+flags, func(t *testing.T) {
			t.Parallel()
			s := interactive(t)
			s.keys("$RT " + flags + " " + work + " &\n")
			s.until("ready")
			for { // its read stops it, at some time
				s.keys("jobs; echo lis''ted\n")
				if s.shows("Stopped", 100*time.Millisecond) {
					break
				}
				s.until("listed")
			}
			s.keys("echo and no''w\n")
			s.until("and now")
			s.keys("fg\n")
			s.until("continued")
			s.keys("hello\n")
			s.until("got hello")
			s.keys("echo code $?\n")
			s.until("code 5")
			s.keys("exit\n")
			s.ends(0)
		})
	}
}

// Where nobody could continue it ^Z does not stop the command, as it would not without run-task.
func TestTerminalWithoutJobControl(t *testing.T) {
	t.Parallel()
	script := `echo ready; read word; echo "got $word"; exit 3`
	for name, c := range map[string]*command{
		"session leader": {args: staying("--", "/bin/sh", "-c", script)},
		"PID 1":          {pid1: true, args: staying("--", "/bin/sh", "-c", script)},
		"plain shell":    shellWith(`"$@"; exit $?`, staying("--", "/bin/sh", "-c", script)...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.pid1 {
				needRoot(t)
			}
			s := watch(t, c)
			s.until("ready")
			s.keys("\x1a\x1ahello\n")
			s.until("got hello")
			s.ends(3)
		})
	}
}

// The terminal is found also where none of the three descriptors leads to it.
func TestTerminalByName(t *testing.T) {
	t.Parallel()
	s := watch(t, shellWith(`"$@" </dev/null >/dev/null 2>&1; echo "code $?"`,
		staying("--", "/bin/sh", "-c", `exec 3</dev/tty >/dev/tty; echo ready; read word <&3; echo "got $word"; exit 3`)...))
	s.until("ready")
	s.keys("hello\n")
	s.until("got hello")
	s.until("code 3")
	s.ends(0)
}

// When the line is cut the command hears it, and run-task ends as it does.
func TestTerminalHangsUp(t *testing.T) {
	t.Parallel()
	for name, pid1 := range map[string]bool{"session leader": false, "PID 1": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if pid1 {
				needRoot(t)
			}
			dir := tempDir(t)
			s := watch(t, &command{pid1: pid1, dir: dir, args: staying("--", "/bin/sh", "-c", `trap "echo hung up >said; exit 7" HUP; echo ready; sleep 1000 & wait`)})
			s.until("ready")
			s.master.Close()
			s.ends(7)
			if said, err := os.ReadFile(dir + "/said"); string(said) != "hung up\n" {
				t.Errorf("%q %v", said, err)
			}
		})
	}
}
