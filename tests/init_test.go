//go:build linux

package tests

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kinds runs a test with run-task as PID 1 and as a subreaper among others.
func kinds(t *testing.T, test func(t *testing.T, pid1 bool)) {
	t.Run("PID 1", func(t *testing.T) {
		t.Parallel()
		needRoot(t)
		test(t, true)
	})
	t.Run("subreaper", func(t *testing.T) {
		t.Parallel()
		test(t, false)
	})
}

// staying are a run-task's arguments that make it stay. Flags end with --, before the command.
func staying(args ...string) []string {
	me := []string{binary, "--quiet", "--init"}
	if os.Getuid() == 0 {
		me = append(me, "--user", "root")
	}
	return append(me, args...)
}

// enclosed puts a shell around the command, which is PID 1 if we can have that, so that whoever ends too much ends nothing of ours. Afterwards nobody may be left there.
func enclosed(c *command) *command {
	if os.Getuid() != 0 {
		return c
	}
	outer := *c
	outer.pid1 = true
	outer.args = slices.Concat([]string{"/bin/sh", "-c", `"$@"; code=$?; "$0" alone || exit 98; exit $code`, probe}, c.args)
	return &outer
}

// told starts run-task with a command that ends when it is told to, see tell. If it shall not be PID 1 there is another.
func told(t *testing.T, c *command) (*playing, io.Writer) {
	t.Helper()
	pid1 := c.pid1
	if !pid1 {
		c = enclosed(c)
	}
	cmd := c.cmd()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := performed(t, cmd)
	if pid1 != c.pid1 {
		inner, ok := p.child(func(c process) bool { return c.name == "run-task" })
		if !ok {
			t.Fatalf("exit %d\n%s", p.end(), &p.errs)
		}
		p.pid = inner.pid
	}
	return p, stdin
}

func tell(t *testing.T, stdin io.Writer) {
	t.Helper()
	if _, err := io.WriteString(stdin, "go\n"); err != nil {
		t.Fatal(err)
	}
}

// What makes run-task stay; without it the command takes its place.
func TestInitStays(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	plant(t, dir+"/secrets", "a secret\n")
	for _, c := range []struct {
		flags, env string
		stays      bool
	}{
		{"", "", false},
		{"--grace 1s", "", false},
		{"", "RUN_TASK_INIT=0", false},
		{"", "RUN_TASK_INIT=1", true},
		{"--init", "", true},
		{"--timeout 7d", "", true},
		{"", "RUN_TASK_TIMEOUT=7d", true},
		{"--command-timeout 1h", "", true},
		{"--no-output-timeout 1h", "", true},
		{"--timestamps", "", true},
		{"--output-limit 1M", "", true},
		{"--mask-env SECRET", "SECRET=hunter22", true},
		{"--mask-file secrets", "", true},
	} {
		t.Run(c.flags+c.env, func(t *testing.T) {
			t.Parallel()
			args := slices.Concat([]string{"run-task", "--quiet", "--user", "root"}, strings.Fields(c.flags), []string{"--", "probe", "get", "pid", "ppid"})
			code, out, errs := (&command{pid1: true, dir: dir, env: []string{c.env}, args: args}).run(t)
			if code != 0 || strings.Contains(out, "ppid=1\n") != c.stays || (out == "pid=1\nppid=0\n") == c.stays {
				t.Errorf("exit %d\n%s%s", code, out, errs)
			}
		})
	}
	// It is no reason to be root.
	if code, out, errs := (&command{pid1: true, args: []string{"run-task", "--init", "--", "probe", "say", "never"}}).run(t); code != 64 || out != "" || !strings.Contains(errs, "hint: --user NAME") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

// However many orphans there are and whatever signals arrive meanwhile, each is reaped, and none is taken for the command.
func TestInitReapsUnderLoad(t *testing.T) {
	kinds(t, func(t *testing.T, pid1 bool) {
		orphans := "10000"
		if !pid1 {
			orphans = "1000"
		}
		work := `read go; exec probe all shrug , say ready , orphans "$0" 9 , reaped , exit 77` // it waits until we know who run-task is
		p, stdin := told(t, &command{pid1: pid1, args: staying("--", "/bin/sh", "-c", work, orphans)})
		tell(t, stdin)
		p.expect("ready")
		done, flooded := make(chan struct{}), make(chan int)
		go func() {
			n := 0
			defer func() { flooded <- n }()
			for tick := time.NewTicker(time.Millisecond); ; {
				select {
				case <-done:
					return
				case <-tick.C:
					for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGUSR1, unix.SIGTERM, unix.SIGCHLD, unix.SIGWINCH, unix.SIGINT, unix.SIGURG, unix.SIGALRM, 35, 64} {
						unix.Kill(p.pid, sig)
						n++
					}
				}
			}
		}()
		p.expect("no zombies")
		close(done)
		n := <-flooded
		if code := p.end(); code != 77 || p.errs.String() != "" {
			t.Errorf("exit %d\n%s", code, &p.errs)
		}
		t.Logf("%d signals", n)
	})
}

// Whoever became run-task may have left it a zombie, which it must not take for the command either.
func TestInitInheritsZombie(t *testing.T) {
	kinds(t, func(t *testing.T, pid1 bool) {
		args := slices.Concat([]string{probe, "littered", "--"}, staying(), []string{"--", "probe", "all", "reaped", ",", "exit", "3"})
		c := &command{pid1: pid1, args: args}
		if !pid1 {
			c = enclosed(c)
		}
		if code, out, errs := c.run(t); code != 3 || out != "no zombies\n" {
			t.Errorf("exit %d\n%s%s", code, out, errs)
		}
	})
}

// What the command leaves behind can clean up, and does not stay, wherever it hides. All of these hold stdout.
func TestInitLeftovers(t *testing.T) {
	const bye = `trap "echo bye >bye; exit" TERM; `
	for _, c := range []struct {
		name, script string
		bye          bool // it writes a file when TERM comes
	}{
		{"cleans up", bye + `echo ready; sleep 1000 & wait`, true},
		{"ignores TERM", `trap "" TERM; echo ready; sleep 1000`, false},
		{"forks when TERM comes", `trap '(trap "" TERM; exec sleep 1000) & exit' TERM; echo ready; sleep 1000 & wait`, false},
		{"many", `for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do (trap "" TERM HUP INT; exec sleep 1000) & done; echo ready; wait`, false},
		{"its first thread has ended", `exec ` + probe + ` headless ready`, false}, // /proc calls it a zombie
		{"stopped", bye + `kill -STOP $$; sleep 1000`, true},
	} {
		grace := "200ms"
		if c.bye {
			grace = "1h" // 2 s, which nobody needs
		}
		for how, start := range map[string]string{
			"child":           `sh -c "$0" & `,
			"daemon":          `(setsid sh -c "$0" &); `,
			"daemon, relayed": `(setsid sh -c "$0" &); `,
		} {
			flags := []string{"--grace", grace, "--"}
			if how == "daemon, relayed" {
				flags = append([]string{"--no-output-timeout", "1h"}, flags...)
			}
			t.Run(c.name+"/"+how, func(t *testing.T) {
				t.Parallel()
				kinds(t, func(t *testing.T, pid1 bool) {
					dir := tempDir(t)
					p, stdin := told(t, &command{pid1: pid1, dir: dir, args: staying(append(flags, "/bin/sh", "-c", start+`read go; exit 3`, c.script)...)})
					if c.name == "stopped" {
						stopped(t, p.pid)
					} else {
						p.expect("ready")
					}
					tell(t, stdin)
					if code := p.end(); code != 3 {
						t.Errorf("exit %d\n%s", code, &p.errs)
					}
					if _, err := os.Stat(dir + "/bye"); (err == nil) != c.bye {
						t.Errorf("the file: %v", err)
					}
				})
			})
		}
	}
}

// below are the processes that descend from one.
func below(t *testing.T, pid int) (found []process) {
	t.Helper()
	all := processes(t)
	of := []int{pid}
	for len(of) > 0 {
		for _, p := range all {
			if p.ppid == of[0] {
				found, of = append(found, p), append(of, p.pid)
			}
		}
		of = of[1:]
	}
	return found
}

// stopped waits until one that descends from the process has stopped.
func stopped(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if slices.ContainsFunc(below(t, pid), func(p process) bool { return p.state == "T" }) {
			return
		}
	}
	t.Fatalf("nothing stops: %+v", below(t, pid))
}

// Only descendants are ended, and nobody else hears of it: neither a sibling in our own process group nor our parent.
func TestInitLeavesOthersAlone(t *testing.T) {
	script := `/bin/sh -c "$LISTENER" sibling & sibling=$!; "$@"; echo exit $?; kill -64 $sibling; read go; kill -64 $sibling; wait $sibling; echo end $?`
	args := append([]string{"/bin/sh", "-c", script, "sh"}, staying("--grace", "50ms", "--", "/bin/sh", "-c", `(setsid sh -c 'trap "" TERM; echo ready; exec sleep 1000' &); read go; kill -TERM $$`)...)
	// That shell is PID 1 if we can have that: whoever ends too much ends nothing of ours.
	p, stdin := told(t, &command{pid1: os.Getuid() == 0, env: []string{"LISTENER=" + listener}, args: args})
	p.expect("ready", "sibling ready")
	tell(t, stdin)
	p.expect("exit 143", "sibling 64")
	tell(t, stdin)
	if code := p.end(); code != 0 || !strings.HasSuffix(p.seen.String(), "ready\nexit 143\nsibling 64\nend 0\n") || strings.Count(p.seen.String(), "\n") != 5 {
		t.Errorf("exit %d\n%s%s", code, &p.seen, &p.errs)
	}
}

// A process that is none of ours can hold the pipe that we read; what is in it is shown, and then we end.
func TestInitOutsiderHoldsOutput(t *testing.T) {
	p, stdin := told(t, &command{args: staying("--no-output-timeout", "1h", "--", "/bin/sh", "-c", `echo ready; read go; echo last; exit 4`)})
	p.expect("ready")
	c, _ := p.child(func(process) bool { return true })
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", c.pid), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("from outside\n"); err != nil {
		t.Fatal(err)
	}
	tell(t, stdin)
	if code := p.end(); code != 4 || p.seen.String() != "ready\nfrom outside\nlast\n" {
		t.Errorf("exit %d\n%s%s", code, &p.seen, &p.errs)
	}
}

// One that is not ours to kill, because it has become root, does not keep us for ever.
func TestInitCannotKill(t *testing.T) {
	t.Parallel()
	needRoot(t)
	var st unix.Statfs_t
	if err := unix.Statfs(scratch, &st); err != nil || st.Flags&unix.ST_NOSUID != 0 {
		skip(t, t.Name(), "needs a temporary directory that honours set-user-ID bits")
	}
	dir := tempDir(t)
	data, err := os.ReadFile(probe)
	if err == nil {
		err = os.WriteFile(dir+"/become-root", data, 0o755)
	}
	if err == nil {
		err = os.Chmod(dir+"/become-root", 0o755|os.ModeSetuid)
	}
	if err != nil {
		t.Fatal(err)
	}
	p, stdin := told(t, &command{pid1: true, dir: dir, args: []string{"run-task", "--quiet", "--init", "--user", "1000:1000", "--grace", "50ms", "--", "/bin/sh", "-c", `./become-root unkillable ready & read go; exit 3`}})
	p.expect("ready")
	tell(t, stdin)
	if code := p.end(); code != 3 {
		t.Errorf("exit %d\n%s", code, &p.errs)
	}
}

// TERM or INT while what is left may still clean up means that nobody wants to wait for it.
func TestInitSecondSignalKills(t *testing.T) {
	const script = `setsid sh -c 'trap "echo asked; sleep 1.5; echo late >late; exec sleep 1000" TERM; echo ready; sleep 1000 & wait' & read go; exit 3`
	kinds(t, func(t *testing.T, pid1 bool) {
		sig := unix.SIGTERM
		if !pid1 {
			sig = unix.SIGINT
		}
		// The grace lasts 2 s, and "late" comes before its end. On a machine that is busy so may our signal be, hence some more attempts.
		for range 5 {
			dir := tempDir(t)
			p, stdin := told(t, &command{pid1: pid1, dir: dir, args: staying("--grace", "1h", "--", "/bin/sh", "-c", script)})
			p.expect("ready")
			tell(t, stdin)
			p.expect("asked")
			p.signal(int(sig))
			if code := p.end(); code != 3 {
				t.Fatalf("exit %d\n%s", code, &p.errs)
			}
			if _, err := os.Stat(dir + "/late"); err != nil {
				return
			}
		}
		t.Error("the grace is waited for")
	})
}

// Before the command has started a signal ends the task, as it does without --init.
func TestInitSignalDuringSetup(t *testing.T) {
	for sig, want := range map[syscall.Signal]int{unix.SIGTERM: 143, unix.SIGINT: 130} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			t.Parallel()
			cmd, errs := started(t, "--init", "--", "probe", "say", "never")
			cmd.Process.Signal(sig)
			if code := wait(t, cmd); code != want || strings.Contains(errs.String(), "never") || strings.Count(errs.String(), "run-task: error: ") != 1 {
				t.Errorf("exit %d, want %d\n%s", code, want, errs)
			}
		})
	}
}

// At whatever instant TERM arrives, it ends either run-task or the command, and is never lost: one is enough, also as PID 1.
func TestInitSignalAtRandomInstants(t *testing.T) {
	t.Parallel()
	needRoot(t)
	outcomes := map[int]int{}
	for i := range 60 {
		dir := tempDir(t)
		mkdirAll(t, dir+"/cache")
		lock, err := os.Open(dir + "/cache")
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		// No Go program: in its own first milliseconds it would exit 2.
		p := perform(t, &command{pid1: true, dir: dir, args: []string{"/bin/sh", "-c", `exec "$@" 2>&1`, "sh", binary, "--init", "--user", "root", "--cache", "cache", "--",
			"/bin/sh", "-c", "trap 'echo got TERM; exit 0' TERM; sleep 1000 & wait"}})
		if said, _ := p.next(); !strings.Contains(said, "waiting for another") {
			t.Fatalf("%q\n%s", said, &p.errs)
		}
		lock.Close()
		for end := time.Now().Add(time.Duration(rand.Int64N(int64(8 * time.Millisecond)))); time.Now().Before(end); {
		}
		p.signal(int(unix.SIGTERM))
		code := p.end()
		outcomes[code]++
		// What may follow is about a sleep that was not one yet: between fork and exec a shell's child loses signals that the shell has a trap for.
		if code != 143 && (code != 0 || !strings.Contains(p.seen.String(), "\ngot TERM\n")) {
			t.Errorf("run %d: exit %d\n%s%s", i, code, &p.seen, &p.errs)
		}
	}
	t.Logf("exit codes: %v", outcomes)
}

// In real containers, with a shell and little else.
func TestInitDocker(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		skip(t, t.Name(), "needs busybox-static")
	}
	files := map[string]string{"run-task": binary, "probe": probe, "busybox": busybox, "listen": "#!/bin/sh\n" + listener,
		"sleeper": "#!/bin/sh\necho ready\nexec sleep 1000\n",
		"leaver":  "#!/bin/sh\n(setsid sh -c 'trap \"\" TERM; exec sleep 1000' &)\nsetsid sleep 1000 &\necho ready\nexit 3\n",
	}
	image := e.build(t, "init", "FROM scratch\nCOPY run-task probe busybox listen sleeper leaver /bin/\nRUN [\"/bin/busybox\", \"--install\", \"/bin\"]\n", files)

	for _, c := range []struct {
		name, flags, more, command string
		code                       int
		want                       string
	}{
		{"behind another init", "--init", "--user root", "probe all orphans 50 9 , reaped , get pid , exit 42", 42, "no zombies\n"},
		{"orphans", "", "--user root", "probe all orphans 50 9 , reaped , get ppid , exit 42", 42, "no zombies\nppid=1\n"},
		{"read-only", "--read-only", "--user 1000:1000", "probe all orphans 50 9 , reaped , exit 42", 42, "no zombies\n"},
		{"no capabilities", "--read-only --cap-drop ALL --user 1000:1000", "", "leaver", 3, "ready\n"},
		{"no capabilities, root", "--cap-drop ALL", "--user root", "leaver", 3, "ready\n"},
		{"a terminal", "-t", "--user root", "leaver", 3, "ready\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := e.run(t, "%s %s run-task --quiet --init --grace 100ms %s -- %s", c.flags, image, c.more, c.command)
			if code != c.code || !strings.HasPrefix(out, c.want) {
				t.Errorf("exit %d, want %d\n%s%s", code, c.code, out, errs)
			}
		})
	}

	docker := func(t *testing.T, args ...string) {
		t.Helper()
		if out, err := exec.Command("docker", args...).CombinedOutput(); err != nil {
			t.Errorf("docker %q: %v\n%s", args, err, out)
		}
	}
	name := func(p *playing) string { return p.cmd.Args[4] } // as the engine gave it
	// The kernel drops TERM for a PID 1 that does not care, such as sleep; the command cares, unless it says otherwise.
	t.Run("stop", func(t *testing.T) {
		t.Parallel()
		p := performed(t, e.command(image+" run-task --init --user root -- sleeper"))
		p.expect("ready")
		docker(t, "stop", "--time", "60", name(p))
		if code := p.end(); code != 143 {
			t.Errorf("exit %d\n%s", code, &p.errs)
		}
	})
	t.Run("kill", func(t *testing.T) {
		t.Parallel()
		p := performed(t, e.command(image+" run-task --init --user root -- listen"))
		p.expect("/bin/listen ready")
		for sig, n := range map[string]int{"HUP": 1, "INT": 2, "USR1": 10, "TERM": 15, "WINCH": 28, "RTMIN+1": 35} {
			docker(t, "kill", "--signal", sig, name(p))
			p.expect(fmt.Sprint("/bin/listen ", n))
		}
		docker(t, "kill", "--signal", "64", name(p))
		p.expect("/bin/listen 64")
		docker(t, "kill", "--signal", "64", name(p))
		if code := p.end(); code != 0 || strings.Count(p.seen.String(), "\n") != 8 {
			t.Errorf("exit %d\n%s%s", code, &p.seen, &p.errs)
		}
	})
}
