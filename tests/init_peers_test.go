//go:build linux

package tests

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inits are run-task and what others use in its place.
var inits = []string{"run-task --quiet --user root --init --", "tini -g --", "dumb-init --", "catatonit --"}

// other is what another init does in run-task's place, and why. A test fails if it does not, so that this stays true.
type other struct{ does, why string }

// A scenario is about the world and not about us: the same command as PID 1's child, under each init.
type scenario struct {
	name   string
	before []string // words for "probe enter"
	via    []string // what the init is started by
	env    []string
	args   []string         // of the command
	play   func(p *playing) // what happens to it while it runs
	want   string           // its stdout, and how the init ends
	but    map[string]other
}

func TestInitScenarios(t *testing.T) {
	needRoot(t)
	for _, s := range scenarios() {
		for _, line := range inits {
			init := strings.Fields(line)
			t.Run(s.name+"/"+init[0], func(t *testing.T) {
				t.Parallel()
				path := initPath(t, init[0])
				want, but := s.want, s.but[init[0]]
				if but.why != "" {
					want = but.does
				}
				c := &command{pid1: true, enter: s.before, env: s.env, dir: tempDir(t), args: slices.Concat(s.via, []string{path}, init[1:], s.args)}
				p := perform(t, c)
				p.init = init[0]
				if s.play != nil {
					s.play(p)
				}
				code := p.end()
				if got := p.seen.String() + fmt.Sprintf("exit %d", code); got != want {
					t.Errorf("got\n%s\nwant\n%s\nstderr:\n%s", got, want, &p.errs)
				}
				if but.why != "" && but.does == s.want {
					t.Errorf("no difference, but the table says %q", but.why)
				}
			})
		}
	}
}

func initPath(t *testing.T, name string) string {
	t.Helper()
	if name == "run-task" {
		return binary
	}
	path, err := exec.LookPath(name)
	if err != nil {
		skip(t, t.Name(), "needs "+name)
	}
	return path
}

// playing is a command that runs, with a pipe for its stdout that is read by lines.
type playing struct {
	*testing.T
	init  string // its name
	cmd   *exec.Cmd
	pid   int // of the init
	lines chan string
	out   *os.File
	errs  bounded
	seen  strings.Builder // the lines that were read
	quiet bool            // no more of them are of interest
}

// bounded keeps the beginning of what is written: what goes wrong in a loop must not fill our memory.
type bounded struct{ strings.Builder }

func (b *bounded) Write(p []byte) (int, error) {
	b.Builder.Write(p[:max(0, min(len(p), 1<<16-b.Len()))])
	return len(p), nil
}

func perform(t *testing.T, c *command) *playing {
	t.Helper()
	return performed(t, c.cmd())
}

func performed(t *testing.T, cmd *exec.Cmd) *playing {
	t.Helper()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true // whoever has a terminal keeps it
	p := &playing{T: t, cmd: cmd, lines: make(chan string, 1<<16)}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = r
	cmd.Stdout, cmd.Stderr = w, &p.errs
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	p.pid = cmd.Process.Pid
	go func() {
		defer close(p.lines)
		in := bufio.NewReader(r)
		for {
			line, err := in.ReadString('\n')
			if line != "" {
				p.lines <- line
			}
			if err != nil {
				return
			}
		}
	}()
	return p
}

const long = time.Minute // what is not there by then will not come

// next is the next line of stdout; not ok is its end.
func (p *playing) next() (line string, ok bool) {
	p.Helper()
	select {
	case line, ok = <-p.lines:
		if !p.quiet {
			p.seen.WriteString(line)
		}
		return strings.TrimSuffix(line, "\n"), ok
	case <-time.After(long):
		p.cmd.Process.Kill()
		wait(p.T, p.cmd)
		p.Fatalf("nothing is printed after\n%s%s", &p.seen, &p.errs)
		return "", false
	}
}

// expect reads until all these lines were there, in any order.
func (p *playing) expect(lines ...string) {
	p.Helper()
	missing := slices.Clone(lines)
	for len(missing) > 0 {
		line, ok := p.next()
		if !ok {
			p.Fatalf("stdout ends without %q (exit %d)\n%s%s", missing, wait(p.T, p.cmd), &p.seen, &p.errs)
		}
		if i := slices.Index(missing, line); i >= 0 {
			missing = slices.Delete(missing, i, i+1)
		}
	}
}

func (p *playing) signal(n int) {
	p.Helper()
	if err := unix.Kill(p.pid, syscall.Signal(n)); err != nil {
		p.Fatalf("signal %d: %v\n%s%s", n, err, &p.seen, &p.errs)
	}
}

// end reads the rest and waits.
func (p *playing) end() int {
	p.Helper()
	for ok := true; ok; {
		_, ok = p.next()
	}
	p.out.Close()
	return wait(p.T, p.cmd)
}

// process is what /proc says of one.
type process struct {
	pid, ppid int
	name      string
	state     string
}

func processes(t *testing.T) (all []process) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		stat, _ := os.ReadFile(name)
		before, after, ok := strings.Cut(string(stat), ") ")
		pid, comm, _ := strings.Cut(before, " (")
		if fields := strings.Fields(after); ok && len(fields) > 2 {
			p := process{name: comm, state: fields[0]}
			p.pid, _ = strconv.Atoi(pid)
			p.ppid, _ = strconv.Atoi(fields[1])
			all = append(all, p)
		}
	}
	return all
}

// child waits for a child of p's process that is as wanted; not ok is the end of that one.
func (p *playing) child(wanted func(process) bool) (c process, ok bool) {
	p.Helper()
	var all []process
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(time.Millisecond) {
		// What /proc calls a zombie may be about to live on: a program that calls execve in another thread than its first one.
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil); err != nil || info.Signo != 0 {
			return process{}, false
		}
		all = processes(p.T)
		for _, c := range all {
			if c.ppid == p.pid && wanted(c) {
				return c, true
			}
		}
	}
	p.Fatalf("%d has no such child: %+v", p.pid, all)
	return process{}, false
}

// shell is a command that a shell runs; it leaves no core files.
func shell(script string, args ...string) []string {
	return append([]string{"/bin/sh", "-c", "ulimit -c 0; " + script, "sh"}, args...)
}

func scenarios() []scenario {
	noExec := map[string]other{"dumb-init": {"exit 2", "has one code for all of its failures"}, "catatonit": {"exit 1", "has one code for all of its failures"}}
	resets := func(does string) map[string]other {
		return map[string]other{"dumb-init": {does, "gives the command the default actions"}}
	}
	all := []scenario{
		{name: "arguments", args: []string{"printf", "<%s>\n", "", "a  b", "--", "*", "$HOME"}, want: "<>\n<a  b>\n<-->\n<*>\n<$HOME>\nexit 0"},
		{name: "environment", env: []string{"TRACEPARENT=00-0af7-b7ad-01", "LINES=1\n2"}, args: shell(`echo "$TRACEPARENT $LINES"`), want: "00-0af7-b7ad-01 1\n2\nexit 0"},
		{name: "no terminal", args: shell(`(: </dev/tty) 2>&- || echo none`), want: "none\nexit 0"},
		{name: "own group", args: shell(`read pid comm state ppid pgrp rest </proc/$$/stat; [ $pgrp = $pid ] && echo leader; echo parent $ppid`), want: "leader\nparent 1\nexit 0"},
		{name: "PATH", args: []string{"tool"}, via: []string{"/bin/sh", "-c", `mkdir -p dir/tool one two; echo "exit 1" >one/tool; printf '#!/bin/sh\necho $0\nexit 42\n' >two/tool; chmod +x two/tool; PATH=/nonexistent:dir:one:two exec "$@"`, "sh"},
			want: "two/tool\nexit 42"},
		{name: "no such program", args: []string{"no-such-program"}, want: "exit 127", but: noExec},
		{name: "no such path", args: []string{"/no/such/program"}, want: "exit 127", but: noExec},
		{name: "not executable", args: []string{"/etc/passwd"}, want: "exit 126", but: noExec},
		{name: "a directory", args: []string{"/etc"}, want: "exit 126", but: noExec},

		// Signals that were ignored when the init started stay so, as with nohup; all else is as a program may expect it.
		{name: "defaults", args: []string{"grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"}, want: "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nexit 0",
			but: map[string]other{"catatonit": {"SigBlk:\t0000000000380000\nSigIgn:\t0000000000000000\nexit 0", "leaves TSTP, TTIN and TTOU blocked"}}},
		{name: "HUP ignored", before: []string{"ignore", "1"}, args: []string{"grep", "^SigIgn", "/proc/self/status"}, want: "SigIgn:\t0000000000000001\nexit 0", but: resets("SigIgn:\t0000000000000000\nexit 0")},
		{name: "INT ignored", before: []string{"ignore", "2"}, args: []string{"grep", "^SigIgn", "/proc/self/status"}, want: "SigIgn:\t0000000000000002\nexit 0", but: resets("SigIgn:\t0000000000000000\nexit 0")},
		{name: "nohup", before: []string{"ignore", "1"}, args: shell(`echo ready; exec sleep 1000`), want: "ready\nexit 143", but: resets("ready\nexit 129"), play: func(p *playing) {
			p.expect("ready")
			p.signal(1)
			p.signal(15)
		}},
		{name: "blocked", via: []string{probe, "blocked", "10", "12", "15", "17", "36", "--"}, args: []string{"grep", "^SigBlk", "/proc/self/status"}, want: "SigBlk:\t0000000000000000\nexit 0",
			but: map[string]other{"run-task": {"SigBlk:\t0000000800000a00\nexit 0", "hands down what was blocked, but for what the Go runtime unblocks"}, "tini": {"SigBlk:\t0000000800014a00\nexit 0", "hands down what was blocked"}, "catatonit": {"SigBlk:\t0000000800394a00\nexit 0", "hands down what was blocked"}}},

		// Orphans.
		{name: "an orphan", args: []string{probe, "all", "orphans", "1", "9", ",", "reaped", ",", "exit", "5"}, want: "no zombies\nexit 5"},
		{name: "orphans", args: []string{probe, "all", "orphans", "300", "9", ",", "reaped", ",", "exit", "5"}, want: "no zombies\nexit 5"},
		{name: "an inherited child", via: []string{"/bin/sh", "-c", `mkfifo go; { read x; exit 9; } <go & exec "$@"`, "sh"}, args: []string{probe, "all", "append", "go", "now", ",", "gone", "2", ",", "exit", "3"}, want: "gone\nexit 3"},
		{name: "a daemon holds stdout", args: shell(`setsid sleep 1000 & exit 3`), want: "exit 3"},
		{name: "a daemon holds stdout of a killed one", args: shell(`setsid sleep 1000 & kill -KILL $$`), want: "exit 137"},
		{name: "stopped", args: shell(`kill -STOP $$; echo continued`), want: "continued\nexit 0", play: func(p *playing) {
			p.child(func(c process) bool { return c.state == "T" })
			p.signal(int(unix.SIGCONT))
		}},
		{name: "TSTP and CONT", args: shell(`echo ready; exec sleep 1000`), want: "ready\nstopped\nexit 143", but: map[string]other{"catatonit": {"ready\nexit 143", "leaves TSTP blocked"}}, play: func(p *playing) {
			p.expect("ready")
			p.signal(int(unix.SIGTSTP))
			if p.init != "catatonit" {
				p.child(func(c process) bool { return c.state == "T" })
				p.seen.WriteString("stopped\n")
			}
			p.signal(int(unix.SIGCONT))
			p.signal(int(unix.SIGTERM))
		}},
		{name: "stdout closed by its reader", args: shell(`echo ready; while :; do echo more; done`), want: "ready\nexit 141", play: func(p *playing) {
			p.expect("ready")
			p.quiet = true
			p.out.Close()
		}},
	}
	for _, code := range []string{"0", "1", "2", "72", "127", "128", "143", "255"} {
		all = append(all, scenario{name: "exit " + code, args: []string{probe, "exit", code}, want: "exit " + code})
	}
	for i := range 4 {
		all = append(all, scenario{name: fmt.Sprint("orphans end with it ", i), args: []string{probe, "all", "gated", "40", "9", ",", "exit", "3"}, want: "exit 3"})
	}
	// What a thread does wrong is its own business; all else reaches the command through the init.
	for _, n := range []int{4, 5, 7, 8, 9, 11, 31} {
		all = append(all, scenario{name: fmt.Sprint("killed by ", n), args: shell(`kill -$1 $$`, fmt.Sprint(n)), want: fmt.Sprintf("exit %d", 128+n)})
	}
	for _, n := range []int{1, 2, 3, 6, 10, 12, 13, 14, 15, 16, 24, 25, 26, 27, 29, 30, 34, 35, 50, 64} {
		var but map[string]other
		if n == 6 {
			deaf := other{"ready\nexit 143", "means ABRT for itself"}
			but = map[string]other{"tini": deaf, "catatonit": deaf}
		}
		all = append(all, scenario{name: fmt.Sprint("sent ", n), but: but, args: shell(`echo ready; exec sleep 1000`), want: fmt.Sprintf("ready\nexit %d", 128+n), play: func(p *playing) {
			p.expect("ready")
			p.signal(n)
			if but[p.init].why != "" {
				p.signal(15)
			}
		}})
	}
	for n := range 8 {
		var closed []string
		for fd := range 3 {
			if n&(1<<fd) != 0 {
				closed = append(closed, fmt.Sprint(fd))
			}
		}
		var but map[string]other
		if n&1 != 0 {
			but = map[string]other{"tini": {"exit 1", "wants to hand over the terminal at descriptor 0"}}
		}
		all = append(all, scenario{name: "closed " + strings.Join(closed, " "), via: slices.Concat([]string{probe, "closed"}, closed, []string{"--"}), args: shell(`echo ran >ran; exec sleep 1000`), want: "exit 143", but: but, play: func(p *playing) {
			c, ok := p.child(func(c process) bool { return c.name == "sleep" })
			if !ok {
				return
			}
			wrong := "?"
			for end := time.Now().Add(long); wrong != "" && time.Now().Before(end); time.Sleep(time.Millisecond) { // until it has loaded its libraries
				wrong = ""
				for _, fd := range []string{"0", "1", "2"} {
					its, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", c.pid, fd))
					ours, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", p.pid, fd))
					if slices.Contains(closed, fd) && its != "" && its != "/dev/null" || !slices.Contains(closed, fd) && its != ours {
						wrong += fmt.Sprintf("%s is %q\n", fd, its)
					}
				}
				if more, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", c.pid)); len(more) > 3 {
					wrong += fmt.Sprintln(more)
				}
			}
			if wrong != "" {
				p.Errorf("descriptors: %s", wrong)
			}
			if _, err := os.Stat(p.cmd.Dir + "/ran"); err != nil {
				p.Error(err)
			}
			p.signal(15)
		}})
	}
	return all
}

// listener prints "NAME ready", then "NAME N" for each signal that arrives until the last one, 64, which no other of those that wait can follow. The next 64 ends it.
const listener = `setsid sleep 1000 &
until read pid name more </proc/$!/stat || exit 1; [ "$name" = "(sleep)" ]; do :; done
n=0
while [ $((n += 1)) -lt 64 ]; do
	case $n in 4 | 5 | 7 | 8 | 9 | 11 | 19 | 31 | 32 | 33) ;; *) trap "echo $0 $n" $n ;; esac
done
last() {
	[ "$heard" ] && { kill $! 2>/dev/null; exit 0; }
	heard=1
	trap "" 15 17 18
	echo $0 64
}
trap last 64
echo $0 ready
while :; do wait; done`

// Every signal reaches the command once, and once a child in its process group, in the order in which they were sent.
func TestInitForwardsSignals(t *testing.T) {
	needRoot(t)
	var sent []int
	for n := 1; n <= 64; n++ {
		switch syscall.Signal(n) {
		case unix.SIGILL, unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSYS, unix.SIGKILL, unix.SIGSTOP, 32, 33:
		default:
			sent = append(sent, n)
		}
	}
	for _, c := range []struct {
		init     string
		deaf     []int // these do not reach the command
		stops    []int // these would stop it
		children bool  // its child hears the same
	}{
		{inits[0], []int{17, 23}, nil, true},
		{inits[1], []int{6, 17, 21, 22}, nil, true},      // it means ABRT for itself, and ignores TTIN and TTOU
		{inits[2], []int{17}, []int{20, 21, 22}, true},   // in a session of its own the command would not heed these three, so it sends STOP
		{inits[3], []int{6, 17, 20, 21, 22}, nil, false}, // it leaves the same three blocked
	} {
		init := strings.Fields(c.init)
		t.Run(init[0], func(t *testing.T) {
			t.Parallel()
			args := slices.Concat([]string{initPath(t, init[0])}, init[1:], []string{probe, "beside", "/bin/sh", "-c", listener, "child", "--", "/bin/sh", "-c", listener, "command"})
			p := perform(t, &command{pid1: true, args: args})
			p.expect("command ready", "child ready")
			want := map[string][]string{"command": {"ready"}, "child": {"ready"}}
			for _, n := range sent {
				if slices.Contains(c.stops, n) {
					continue
				}
				p.signal(n)
				if slices.Contains(c.deaf, n) {
					continue
				}
				var lines []string
				for who := range want {
					if who == "command" || c.children {
						want[who] = append(want[who], fmt.Sprint(n))
						lines = append(lines, fmt.Sprint(who, " ", n))
					}
				}
				p.expect(lines...)
			}
			p.signal(64)
			if code := p.end(); code != 0 {
				t.Errorf("exit %d\n%s", code, &p.errs)
			}
			got := map[string][]string{}
			for line := range strings.Lines(p.seen.String()) {
				who, n, _ := strings.Cut(strings.TrimSpace(line), " ")
				got[who] = append(got[who], n)
			}
			for who := range want {
				if !slices.Equal(got[who], want[who]) {
					t.Errorf("%s heard\n%s\nwant\n%s", who, got[who], want[who])
				}
			}
		})
	}
}
