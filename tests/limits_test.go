//go:build linux

package tests

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/tests/gitserver"
)

// overrun is a command that gets into a limit.
type overrun struct {
	name   string
	flags  string // in them D is a time, short at first; B is an hour but for that
	script string // for a shell, in an empty directory
	says   string // on stdout; had it no time to say that, on a busy machine, it is tried with a longer D

	limit   string   // its flag, with D
	notices []string // "[exec] " lines after those that name the limit
	lists   []string // parts of lines about what was running
	stderr  string   // something else that is there
	code    int      // of the command, for the status file
	signal  string
}

// patiently calls try with longer and longer times until it is content. Whoever looks at the outcome afterwards says what is wrong.
func patiently(try func(d time.Duration) bool) {
	for d := 150 * time.Millisecond; !try(d) && d < 2*time.Second; d *= 4 {
	}
}

const (
	quit, term = "QUIT is sent", "TERM is sent"
	byTerm     = "the command was killed by SIGTERM"
	byKill     = "the command was killed by SIGKILL"
	secretArg  = "hunter22-and-more"

	// hangs is a script that tells the reader of the FIFO "up" that it runs, and does not end.
	hangs = `echo up >up; sleep 1000; :`
	// answers are what a shell does that is asked to end.
	answers = `trap 'echo got QUIT' QUIT; trap 'echo got TERM; exit 5' TERM; echo ready; while :; do sleep 1000 & wait; done`
)

var overruns = []overrun{
	// Of several the one is named that passed.
	{name: "timeout", flags: "--timeout D --command-timeout 1h --no-output-timeout 1h --grace 1h", limit: "--timeout D",
		script: `echo ready; exec sleep 1000`, says: "ready\n", notices: []string{term, byTerm}, lists: []string{"sleep 1000"}, code: 143, signal: "SIGTERM"},
	{name: "command-timeout", flags: "--timeout 1h --command-timeout D --no-output-timeout 1h --grace 1h", limit: "--command-timeout D",
		script: `echo ready; exec sleep 1000`, says: "ready\n", notices: []string{term, byTerm}, lists: []string{"sleep 1000"}, code: 143, signal: "SIGTERM"},
	{name: "no-output-timeout", flags: "--timeout 1h --command-timeout 1h --no-output-timeout D --grace 1h", limit: "--no-output-timeout D",
		script: `echo ready; exec sleep 1000`, says: "ready\n", notices: []string{term, byTerm}, lists: []string{"sleep 1000"}, code: 143, signal: "SIGTERM"},
	{name: "save-budget", flags: "--timeout 1h --save-budget B", limit: "--timeout 1h",
		script: `echo ready; exec sleep 1000`, says: "ready\n", notices: []string{term, byTerm}, lists: []string{"sleep 1000"}, code: 143, signal: "SIGTERM"},

	// However it takes the TERM, the code is 124.
	{name: "exits 5", flags: "--command-timeout D --grace 1h", limit: "--command-timeout D", script: answers, says: "ready\ngot TERM\n", notices: []string{term}, code: 5},
	{name: "exits 0", flags: "--timeout D --grace 1h", limit: "--timeout D",
		script: `trap "exit 0" TERM; echo ready; sleep 1000 & wait`, says: "ready\n", notices: []string{term}, code: 0},
	{name: "ignores TERM", flags: "--command-timeout D --grace 50ms", limit: "--command-timeout D", script: `trap "" TERM; echo ready; exec sleep 1000`, says: "ready\n",
		notices: []string{term, "the command still runs 50ms after TERM: KILL is sent", byKill}, lists: []string{"sleep 1000"}, code: 137, signal: "SIGKILL"},
	{name: "stopped", flags: "--command-timeout D --grace 1h", limit: "--command-timeout D",
		script: `trap "echo got TERM; exit 5" TERM; echo ready; kill -STOP $$; sleep 1000`, says: "ready\ngot TERM\n", notices: []string{term}, code: 5},
	{name: "cleans up", flags: "--command-timeout D --timeout 2562047h --save-budget 1h --no-output-timeout 65535d --grace 2562047h", limit: "--command-timeout D",
		script: `trap "echo got TERM; sleep 0.2; echo done; exit 5" TERM; echo ready; sleep 1000 & wait`, says: "ready\ngot TERM\ndone\n", notices: []string{term}, code: 5},

	// QUIT, and only if asked for, and before TERM.
	{name: "quit first", flags: "--quit-first --no-output-timeout D --grace D", limit: "--no-output-timeout D",
		script: answers, says: "ready\ngot QUIT\ngot TERM\n", notices: []string{quit, term}, code: 5},
	{name: "ignores QUIT and TERM", flags: "--quit-first --command-timeout D --grace 50ms", limit: "--command-timeout D", script: `trap "" QUIT TERM; echo ready; exec sleep 1000`, says: "ready\n",
		notices: []string{quit, term, "the command still runs 50ms after TERM: KILL is sent", byKill}, code: 137, signal: "SIGKILL"},
	{name: "a Go program", flags: "--quit-first --timeout D --grace 1h", limit: "--timeout D", // which QUIT ends: there is no TERM
		script: `mkfifo in; exec 3<>in; printf '%s\n' '1 "ready\n"' >&3; exec probe obey <&3`, says: "ready\n", notices: []string{quit}, stderr: "SIGQUIT: quit\n", code: 2},

	// Not the command alone.
	{name: "a tree", flags: "--mask-env TOKEN --command-timeout D --grace 1h", limit: "--command-timeout D",
		script: `mkfifo up; exec 3<>up; sh -c "$HANGS" one --token=$TOKEN & setsid sh -c "$HANGS" two & (setsid sh -c "$HANGS" three &); for i in 1 2 3; do read x <&3; done; echo ready; wait`,
		says:   "ready\n", notices: []string{term, byTerm}, lists: []string{"/bin/sh -c ulimit -c 0; mkfifo up", hangs + " one --token=[MASKED]\n", hangs + " two\n", hangs + " three\n"}, code: 143, signal: "SIGTERM"},
	{name: "a secret where a long line is cut", flags: "--mask-env TOKEN --command-timeout D --grace 1h", limit: "--command-timeout D",
		script: `mkfifo in; exec 3<>in; printf '%s\n' '1 "ready\n"' >&3; exec probe obey $(printf %175s | tr " " x)$TOKEN <&3`, says: "ready\n", notices: []string{term, byTerm},
		lists: []string{"probe obey xxx", "xxx[MASKED]\n"}, code: 143, signal: "SIGTERM"},
	{name: "its child hangs", flags: "--command-timeout D --grace 50ms", limit: "--command-timeout D",
		script: `mkfifo up; exec 3<>up; setsid sh -c 'trap "" TERM; echo up >up; exec sleep 1000' & read x <&3; echo ready; wait`, says: "ready\n",
		notices: []string{term, byTerm, "what the command left behind still runs 50ms after TERM: KILL is sent"}, lists: []string{"sleep 1000\n"}, code: 143, signal: "SIGTERM"},
	{name: "its first thread has ended", flags: "--command-timeout D --grace 50ms", limit: "--command-timeout D", script: `exec probe headless ready`, says: "ready\n", // /proc calls it a zombie
		notices: []string{term, "the command still runs 50ms after TERM: KILL is sent", byKill}, lists: []string{"[probe]\n"}, code: 137, signal: "SIGKILL"},
	{name: "its child's first thread has ended", flags: "--command-timeout D --grace 50ms", limit: "--command-timeout D", script: `setsid probe headless ready & wait`, says: "ready\n",
		notices: []string{term, byTerm, "what the command left behind still runs 50ms after TERM: KILL is sent"}, lists: []string{"[probe]\n"}, code: 143, signal: "SIGTERM"},
}

var runningLine = regexp.MustCompile(`(?m)^  pid \d+, \d+s: `)

// A limit that passes is named, what was running is listed, the command is ended, and with it all that it started. Afterwards nobody is left.
func TestLimits(t *testing.T) {
	t.Parallel()
	for _, o := range overruns {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			kinds(t, func(t *testing.T, pid1 bool) {
				dir := tempDir(t)
				var code int
				var stdout, stderr string
				patiently(func(d time.Duration) bool {
					os.Remove(dir + "/up")
					os.Remove(dir + "/in")
					flags := strings.NewReplacer("D", d.String(), "B", (time.Hour - d).String()).Replace(o.flags)
					c := &command{pid1: pid1, dir: dir, env: []string{"TOKEN=" + secretArg, "HANGS=" + hangs}, args: loud(append(strings.Fields(flags), "--", "/bin/sh", "-c", "ulimit -c 0; "+o.script)...)}
					if !pid1 {
						c = enclosed(c)
					}
					code, stdout, stderr = c.run(t)
					stderr = strings.ReplaceAll(stderr, o.limit[:len(o.limit)-1]+d.String(), o.limit)
					return stdout == o.says
				})
				if code != 124 || stdout != o.says {
					t.Errorf("exit %d, %q\n%s", code, stdout, stderr)
				}
				log, list, _ := strings.Cut(stderr, "run-task: error: exec: "+o.limit+" is over\n")
				var notices []string
				for line := range strings.Lines(log) {
					if notice, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "[exec] "); ok {
						notices = append(notices, strings.TrimPrefix(notice, o.limit+" is over: "))
					}
				}
				if !slices.Equal(notices, o.notices) || !strings.Contains(log, "[exec] "+o.limit+" is over: ") || !strings.Contains(log, o.stderr) {
					t.Errorf("notices %q, want %q, in\n%s", notices, o.notices, stderr)
				}
				for line := range strings.Lines(list) {
					if !runningLine.MatchString(line) {
						t.Errorf("%q is no process", line)
					}
				}
				for _, l := range append(o.lists, "  pid ") {
					if !strings.Contains(list, l) {
						t.Errorf("%q is not among\n%s", l, list)
					}
				}
				if strings.Contains(stdout+stderr, secretArg[:8]) {
					t.Errorf("not masked:\n%s", stderr)
				}
				s := readEnding(t, dir+"/status.json")
				if s.Phase != "failed" || s.Code != 124 || s.Reason != "timed-out" || s.Step != "exec" || !strings.HasPrefix(s.Error, "exec: --"+s.Command.Reason+" ") {
					t.Errorf("status: %+v", s)
				}
				if name, _, _ := strings.Cut(o.limit[2:], " "); s.Command.Code != o.code || s.Command.Signal != o.signal || s.Command.Reason != name || s.Command.Seconds <= 0 {
					t.Errorf("the command's status: %+v", s.Command)
				}
			})
		})
	}
}

// loud are a run-task's arguments that make it stay, say what it does and write status.json.
func loud(args ...string) []string {
	me := []string{binary, "--init", "--status-file", "status.json"}
	if os.Getuid() == 0 {
		me = append(me, "--user", "root")
	}
	return append(me, args...)
}

// While a command has its grace, TERM or INT from outside means that nobody wants to wait.
func TestLimitAndSignal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, flags, says string
		sig               int
	}{
		{"TERM", "", "got TERM", int(unix.SIGTERM)},
		{"INT", "", "got TERM", int(unix.SIGINT)},
		{"TERM after QUIT", "--quit-first", "got QUIT", int(unix.SIGTERM)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			kinds(t, func(t *testing.T, pid1 bool) {
				dir := tempDir(t)
				script := strings.ReplaceAll(answers, "; exit 5", "")
				if c.flags != "" {
					script = strings.ReplaceAll(script, "got QUIT", "got QUIT; kill -STOP $$") // so it cannot say that TERM came, too
				}
				flags := append(strings.Fields(c.flags), "--command-timeout", "1s", "--grace", "1h", "--", "/bin/sh", "-c", script)
				p, _ := told(t, &command{pid1: pid1, dir: dir, args: loud(flags...)})
				p.expect("ready", c.says)
				p.signal(c.sig)
				if code := p.end(); code != 124 || p.seen.String() != "ready\n"+c.says+"\n" || !strings.Contains(p.errs.String(), "run-task: error: exec: --command-timeout 1s is over\n  pid ") {
					t.Errorf("exit %d, %q\n%s", code, &p.seen, &p.errs)
				}
				if s := readEnding(t, dir+"/status.json"); s.Code != 124 || s.Command.Signal != "SIGKILL" || s.Command.Reason != "command-timeout" {
					t.Errorf("status: %+v", s)
				}
			})
		})
	}
}

// A signal from outside is no limit, also where there are some: what it does is the command's business.
func TestSignalIsNoLimit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script, signal, reason string
		code                   int
	}{
		"killed": {`echo ready; exec sleep 1000`, "SIGTERM", "signal", 143},
		"exits":  {`trap "exit 7" TERM; echo ready; sleep 1000 & wait`, "", "exited", 7},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kinds(t, func(t *testing.T, pid1 bool) {
				dir := tempDir(t)
				p, _ := told(t, &command{pid1: pid1, dir: dir, args: loud("--timeout", "1h", "--command-timeout", "1h", "--no-output-timeout", "1h", "--quit-first", "--", "/bin/sh", "-c", c.script)})
				p.expect("ready")
				p.signal(int(unix.SIGTERM))
				if code := p.end(); code != c.code || strings.Contains(p.errs.String(), "is over") || strings.Contains(p.errs.String(), "error: ") {
					t.Errorf("exit %d\n%s", code, &p.errs)
				}
				if s := readEnding(t, dir+"/status.json"); s.Phase != "ended" || s.Code != c.code || s.Command.Code != c.code || s.Command.Signal != c.signal || s.Command.Reason != c.reason {
					t.Errorf("status: %+v", s)
				}
			})
		})
	}
}

// When the command has ended no limit passes any more, however long what it left behind takes.
func TestLimitAfterTheCommand(t *testing.T) {
	t.Parallel()
	kinds(t, func(t *testing.T, pid1 bool) {
		dir := tempDir(t)
		var code int
		var stderr string
		patiently(func(d time.Duration) bool {
			os.Remove(dir + "/up")
			c := &command{pid1: pid1, dir: dir, args: loud("--timeout", d.String(), "--command-timeout", d.String(), "--no-output-timeout", d.String(), "--grace", (d + d/2).String(), "--",
				"/bin/sh", "-c", `mkfifo up; exec 3<>up; (trap "" TERM; echo up >up; exec sleep 1000) & read x <&3; exit 3`)}
			if !pid1 {
				c = enclosed(c)
			}
			code, _, stderr = c.run(t)
			return code == 3
		})
		if code != 3 || strings.Contains(stderr, "is over") || !strings.Contains(stderr, "KILL is sent") {
			t.Errorf("exit %d\n%s", code, stderr)
		}
		if s := readEnding(t, dir+"/status.json"); s.Phase != "ended" || s.Code != 3 || s.Command.Reason != "exited" {
			t.Errorf("status: %+v", s)
		}
	})
}

// Any byte counts as output, to either stream, without a line's end, and also while it is held back because a secret may begin there.
func TestNoOutputTimeoutIsReset(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		write func(string) string
		flags []string
	}{
		"stdout":     {toOut, nil},
		"stderr":     {toErr, nil},
		"timestamps": {toErr, []string{"--timestamps"}},
		"held back":  {toOut, []string{"--mask-env", "DOTS"}},
		"left out":   {toOut, []string{"--output-limit", "1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := obey(t, false, []string{"DOTS=" + strings.Repeat(".", 4096)}, append(c.flags, "--status-file", "status.json", "--no-output-timeout", "800ms")...)
			for began := time.Now(); time.Since(began) < 1200*time.Millisecond; time.Sleep(40 * time.Millisecond) { // that time passes is all that matters here
				o.do(c.write("."))
			}
			code := wait(t, o.cmd)
			if stderr := o.stderr.all(); code != 124 || !strings.Contains(stderr, "run-task: error: exec: --no-output-timeout 800ms is over\n  pid ") {
				t.Errorf("exit %d\n%s", code, stderr)
			}
			if s := readEnding(t, o.cmd.Dir+"/status.json"); s.Command.Seconds < 1.2 || s.Command.Reason != "no-output-timeout" {
				t.Errorf("status: %+v", s)
			}
		})
	}
}

// A command that cannot print because nobody reads is not silent.
func TestNoOutputTimeoutAndReader(t *testing.T) {
	t.Parallel()
	const size = 2 << 20
	for name, flags := range map[string][]string{"as it is": nil, "--mask-env": {"--mask-env", "VALUE"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			cmd := relayedTask(append([]string{"--no-output-timeout", "800ms"}, flags...), "probe", "flood", fmt.Sprint(size)).cmd()
			var stderr strings.Builder
			cmd.Stdout, cmd.Stderr = w, &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			full(t, int(r.Fd()))
			time.Sleep(1200 * time.Millisecond) // longer than the limit
			got, err := io.ReadAll(r)
			if code := wait(t, cmd); err != nil || code != 0 || len(got) != size || stderr.String() != "" {
				t.Errorf("exit %d, %d bytes, %v\n%s", code, len(got), err, stderr.String())
			}
		})
	}
}

// --timeout also ends what run-task does before the command, which is then never started. What it began is no checkout.
func TestTimeoutDuringSetup(t *testing.T) {
	t.Parallel()
	root := tempDir(t)
	shas := gitserver.Repo(t, root, "repo.git")
	silent, _ := hanging(t)
	tests := map[string]func(t *testing.T){}
	add := func(name, step string, dir string, args ...string) {
		tests[name] = func(t *testing.T) {
			own(t, dir)
			c := &command{dir: dir}
			var code int
			var stdout, stderr string
			patiently(func(d time.Duration) bool {
				c.args = slices.Clone(args)
				for i, arg := range c.args {
					c.args[i] = strings.ReplaceAll(arg, "D", d.String())
				}
				code, stdout, stderr = c.run(t)
				stderr = strings.ReplaceAll(stderr, d.String(), "D")
				return strings.Contains(stderr, "run-task: error: "+step+": ")
			})
			left := &shaky{T: t, dir: dir}
			left.said(name, code, 124, "--timeout D is over", stderr)
			left.empty("src")
			if stdout != "" || !strings.Contains(stderr, "run-task: error: "+step+": ") {
				t.Errorf("%q\n%s", stdout, stderr)
			}
			s := readEnding(t, dir+"/status.json")
			if s.Phase != "failed" || s.Reason != "timed-out" || s.Code != 124 || s.Step != step || s.Command != nil || !strings.Contains(s.Error, "--timeout ") || len(s.Checkouts) != 0 {
				t.Errorf("status: %+v", s)
			}
		}
	}
	task := func(args ...string) []string {
		return slices.Concat([]string{"run-task"}, asUser(), []string{"--status-file", "status.json", "--timeout", "D"}, args, []string{"--", "probe", "say", "never"})
	}
	from := func(url, sha string, more ...string) []string {
		return task(append([]string{"--checkout", "src", "--repo", url, "--sha", sha}, more...)...)
	}
	add("a silent server", "vcs", tempDir(t), from(silent, anySHA)...)
	add("a silent server, checkout alone", "vcs", tempDir(t), slices.Concat([]string{"run-task", "checkout"}, asUser(), []string{"--status-file", "status.json", "--timeout", "D", "src,repo=" + silent + ",sha=" + anySHA})...)
	p := newPitted(t, "git", root+"/repo.git")
	whole := gitserver.NewTarpit(t, p.addr, gitserver.Pit{After: 1 << 40})
	wants(tempDir(t), p.url(whole.Addr), shas.Tip, nil).run(t)
	for name, pause := range map[string]time.Duration{"silent": 0, "dripping": 50 * time.Millisecond} {
		pit := gitserver.NewTarpit(t, p.addr, gitserver.Pit{After: whole.Passed() / 2, Pause: pause})
		add("in the pack, "+name, "vcs", tempDir(t), from(p.url(pit.Addr), shas.Tip)...)
	}
	add("waiting for a commit", "vcs", tempDir(t), from("git://"+p.addr+"/repo.git", shas.Gone, "--wait-for-commit", "1h")...)
	locked := tempDir(t)
	mkdirAll(t, locked+"/cache")
	lock, err := os.Open(locked + "/cache")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	add("waiting for a lock", "cache", locked, task("--cache", "cache")...)
	together(t, len(tests), tests)
}

// --timeout counts from run-task's start. Here the setup takes longer than the two limits differ, so that otherwise --command-timeout would pass first.
func TestTimeoutCountsFromStart(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	mkdirAll(t, dir+"/cache")
	lock, err := os.Open(dir + "/cache")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	cmd := (&command{dir: dir, args: loud("--cache", "cache", "--timeout", "600ms", "--command-timeout", "500ms", "--", "sleep", "1000")}).cmd()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		fmt.Fprintln(&said, lines.Text())
		if strings.Contains(lines.Text(), "waiting for another") {
			time.Sleep(200 * time.Millisecond) // a setup that takes its time
			lock.Close()
		}
	}
	if code := wait(t, cmd); code != 124 || !strings.Contains(said.String(), ": --timeout 600ms is over\n") {
		t.Errorf("exit %d\n%s", code, &said)
	}
}

// What is no time, or cannot be, is a usage error, with a hint, before anything is done.
func TestLimitUsage(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	own(t, dir)
	bad := func(want, env string, flags ...string) {
		t.Helper()
		c := &command{dir: dir, args: slices.Concat([]string{"run-task"}, asUser(), flags, []string{"--", "probe", "say", "never"})}
		if env != "" {
			c.env = []string{env}
		}
		code, stdout, stderr := c.run(t)
		if code != 64 || stdout != "" || !strings.Contains(stderr, "run-task: error: "+want) || strings.Count(stderr, "run-task: hint: ") != 1 {
			t.Errorf("%q %s: exit %d, want 64 and %q\n%s%s", flags, env, code, want, stdout, stderr)
		}
	}
	values := []string{"0", "0s", "-1s", "5", "1w", "1y", "s", "1 s", "1e3s", "d", "0d", "-1d", "1.5d", "70000d", "3000000h", "100000000000000000000s", "NaN", "Inf", "1h30", "1h-30m"}
	for i, flag := range []string{"--timeout", "--command-timeout", "--no-output-timeout", "--grace", "--save-budget"} {
		for j, v := range values {
			if flag == "--grace" || j%5 == i { // they are read alike
				bad(fmt.Sprintf("%s %q is not a time\nrun-task: hint: give a number and a unit: ", flag, v), "", flag, v)
			}
		}
		bad(flag+" is empty", "", flag+"=")
		bad(flag+` "soon" is not a time`, "RUN_TASK_"+strings.ToUpper(strings.ReplaceAll(flag[2:], "-", "_"))+"=soon")
	}
	bad("--save-budget is a part of --timeout, which is not given", "", "--save-budget", "1s")
	bad("--save-budget is a part of --timeout, which is not given", "", "--save-budget", "1s", "--command-timeout", "1h")
	bad("--save-budget 1m leaves nothing of --timeout 1m for the command", "", "--save-budget", "1m", "--timeout", "1m")
	bad("--save-budget 61s leaves nothing of --timeout 1m for the command", "", "--save-budget", "61s", "--timeout", "1m")
	bad("--save-budget 1h leaves nothing of --timeout 1m for the command", "RUN_TASK_SAVE_BUDGET=1h", "--timeout", "1m")
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// Times that are as long as they can be are long.
func TestLongLimits(t *testing.T) {
	t.Parallel()
	for _, flags := range []string{
		"--timeout 2562047h47m --command-timeout 2562047h47m --no-output-timeout 2562047h47m --grace 2562047h47m --save-budget 2562047h",
		"--timeout 65535d --command-timeout 65535d --no-output-timeout 65535d --grace 65535d --save-budget 65534d --quit-first",
	} {
		dir := tempDir(t)
		c := &command{dir: dir, args: loud(append(strings.Fields(flags), "--", "/bin/sh", "-c", "sleep 0.2; exit 3")...)}
		if code, _, stderr := c.run(t); code != 3 || strings.Contains(stderr, "is over") {
			t.Errorf("%s: exit %d\n%s", flags, code, stderr)
		}
	}
}
