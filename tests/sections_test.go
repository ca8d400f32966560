//go:build linux

package tests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	sectionStart = regexp.MustCompile(`^section_start:(\d{10}):([a-z_0-9]+)(\[collapsed=true\])?\r\x1b\[0K([a-z]+)\n$`)
	sectionEnd   = regexp.MustCompile(`^section_end:(\d{10}):([a-z_0-9]+)\r\x1b\[0K\n$`)
)

// sectionsOf reads a log as its viewers do, and gives the names of its sections in order and the lines of each; what stands outside is in "". A section that is not closed, is in another
// or has another's name fails the test.
func sectionsOf(t *testing.T, kind, log string) (names []string, text map[string]string) {
	t.Helper()
	text = map[string]string{}
	open := ""
	begin := func(name string) {
		if open != "" || slices.Contains(names, name) && kind == "gitlab" {
			t.Errorf("section %q begins in %q, after %q", name, open, names)
		}
		open = name
		names = append(names, name)
	}
	end := func(name string) {
		if open != name {
			t.Errorf("section %q ends in %q", name, open)
		}
		open = ""
	}
	var ids []string
	id := ""
	for line := range strings.Lines(log) {
		starts, ends := sectionStart.FindStringSubmatch(line), sectionEnd.FindStringSubmatch(line)
		switch {
		case kind == "gitlab" && starts != nil:
			id = starts[2]
			if slices.Contains(ids, id) || !strings.HasPrefix(id, "run_task_"+starts[4]) || starts[3] == "" != (starts[4] == "command") {
				t.Errorf("%q after %q", line, ids)
			}
			ids = append(ids, id)
			begin(starts[4])
		case kind == "gitlab" && ends != nil:
			if ends[2] != id {
				t.Errorf("%q ends %q", line, id)
			}
			end(open)
		case kind == "github" && strings.HasPrefix(line, "::group::"):
			begin(strings.TrimSuffix(strings.TrimPrefix(line, "::group::"), "\n"))
		case kind == "github" && line == "::endgroup::\n":
			end(open)
		case strings.Contains(line, "section_") || strings.Contains(line, "group::") || strings.Contains(line, "\x1b"):
			t.Errorf("not a section: %q", line)
		default:
			text[open] += line
		}
	}
	if open != "" {
		t.Errorf("%q is not closed", open)
	}
	return names, text
}

// Each step that prints something, and the command if run-task stays, is a section, closed however the task ends.
func TestSections(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	src := []string{"--checkout", "src", "--repo", r.Path, "--sha", r.SHA["tip"]}
	hello := []string{"--", "/bin/sh", "-c", "echo hello; echo there >&2"}
	tests := map[string]func(t *testing.T){}
	for _, c := range []struct {
		name     string
		code     int
		sections string            // their names; "*" are any
		in       map[string]string // section: a pattern for what stands in it
		args     []string
	}{
		{"nothing to say", 0, "", map[string]string{"": "hello\nthere\n"}, hello},
		{"exec", 0, "vcs", map[string]string{"vcs": `\[vcs\] .*\n`, "": "hello\nthere\n"}, slices.Concat(src, hello)},
		{"quiet", 0, "", map[string]string{"": "hello\nthere\n"}, slices.Concat([]string{"--quiet"}, src, hello)},
		{"init", 0, "vcs command", map[string]string{"vcs": `\[vcs\] .*\n`, "command": "hello\nthere\n"}, slices.Concat([]string{"--init"}, src, hello)},
		{"verbose", 0, "*", map[string]string{"vcs": `(\[vcs\] .*\n)+`, "command": "hello\nthere\n", "": ""},
			slices.Concat([]string{"--init", "--verbose", "--status-file", "status", "--export-env", "env", "--copy", "src=copied"}, src, hello)},
		{"init, quiet", 0, "command", map[string]string{"command": "hello\nthere\n"}, slices.Concat([]string{"--init", "--quiet"}, src, hello)},
		{"relayed", 0, "vcs command", map[string]string{"vcs": `\[vcs\] .*\n`, "command": "hello\nthere\n"}, slices.Concat([]string{"--mask-env", "VALUE"}, src, hello)},
		{"timestamps", 0, "vcs command", map[string]string{"vcs": `\[vcs STAMP\] .*\n`, "command": `\[task STAMP\] hello\n\[task STAMP\] there\n`}, slices.Concat([]string{"--timestamps"}, src, hello)},
		{"no end of line", 0, "command", map[string]string{"command": `\[task STAMP\] half\n`}, []string{"--timestamps", "--", "printf", "half"}},
		{"vcs fails", 64, "vcs", map[string]string{"vcs": `(\[vcs\] .*\n)+`, "": `run-task: error: vcs: (.*\n)+`}, []string{"--verbose", "--checkout", "one," + strings.Join([]string{"repo=" + r.Path, "sha=" + r.SHA["tip"]}, ","),
			"--checkout", "two,repo=/nowhere,sha=" + r.SHA["tip"], "--", "probe"}},
		{"vcs fails silently", 64, "", map[string]string{"": `run-task: error: vcs: (.*\n)+`}, []string{"--checkout", "two,repo=/nowhere,sha=" + r.SHA["tip"], "--", "probe"}},
		{"no program", 127, "vcs", map[string]string{"": `run-task: error: exec: (.*\n)+`}, slices.Concat(src, []string{"--", "no-such-program"})},
		{"init, no program", 127, "vcs command", map[string]string{"": `run-task: error: exec: (.*\n)+`}, slices.Concat([]string{"--init"}, src, []string{"--", "no-such-program"})},
		{"fails", 3, "vcs command", nil, slices.Concat([]string{"--init"}, src, []string{"--", "probe", "exit", "3"})},
		{"killed", 137, "command", nil, []string{"--timestamps", "--", "probe", "kill", "9"}},
		{"limit", 124, "vcs command", map[string]string{"command": `\[exec\] --command-timeout 300ms is over: TERM is sent\n(\[exec\] .*\n)*`, "": `run-task: error: exec: --command-timeout 300ms is over\n  pid (.*\n)+`},
			slices.Concat([]string{"--command-timeout", "300ms"}, src, []string{"--", "sleep", "1000"})},
		{"limit in the middle of a line", 124, "command", map[string]string{"command": `\[task STAMP\] half\n\[exec STAMP\] --no-output-timeout 1s is over: TERM is sent\n(\[exec STAMP\] .*\n)*`, "": `run-task: error: exec: (.*\n)+`},
			[]string{"--timestamps", "--no-output-timeout", "1s", "--", "/bin/sh", "-c", "printf half; exec sleep 1000"}},
	} {
		for _, kind := range []string{"gitlab", "github"} {
			tests[c.name+" "+kind] = func(t *testing.T) {
				o := obeyAs(t, true, relayedTask(append([]string{"--sections", kind}, c.args[:slices.Index(c.args, "--")]...), c.args[slices.Index(c.args, "--")+1:]...))
				code, log, _ := o.ends()
				names, text := sectionsOf(t, kind, log)
				if code != c.code || strings.Join(names, " ") != c.sections && c.sections != "*" {
					t.Errorf("exit %d, want %d; sections %q, want %q\n%s", code, c.code, names, c.sections, log)
				}
				for name, pattern := range c.in {
					if !regexp.MustCompile("^" + strings.ReplaceAll(pattern, "STAMP", stampPattern) + "$").MatchString(text[name]) {
						t.Errorf("in %q: %q, want %q\n%s", name, text[name], pattern, log)
					}
				}
			}
		}
	}
	together(t, 8, tests)
}

// A signal, during the setup or while the command runs, leaves no section open.
func TestSectionsAfterSignals(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"gitlab", "github"} {
		cmd, said := started(t, "--sections", kind, "--verbose", "--", "probe")
		cmd.Process.Signal(unix.SIGTERM)
		code := wait(t, cmd)
		if names, text := sectionsOf(t, kind, said.String()); code != 143 || !strings.Contains(text[""], "run-task: error: ") || slices.Contains(names, "command") {
			t.Errorf("exit %d\n%s", code, said)
		}

		o := obey(t, true, nil, "--sections", kind, "--timestamps")
		o.do(toOut("half"))
		o.stdout.until(t, "the command", func(heard string) bool { return strings.HasSuffix(heard, "] half") })
		o.cmd.Process.Signal(unix.SIGTERM)
		code = wait(t, o.cmd)
		log := o.stdout.all()
		if names, text := sectionsOf(t, kind, log); code != 143 || !slices.Equal(names, []string{"command"}) || text[""] != "" || !strings.Contains(text["command"], "] half\n") {
			t.Errorf("exit %d, %q\n%s", code, names, log)
		}
	}
}

// Sections are on stderr, by the byte. There are none by default, and of no other kind.
func TestKindsOfSections(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"", "none", "gitlab", "github", "GitLab", "travis", " gitlab"} {
		for _, variable := range []bool{false, true} {
			c := relayedTask([]string{"--sections", kind, "--init"}, "probe", "say", "hello")
			if variable || kind == "" {
				c = relayedTask([]string{"--init"}, "probe", "say", "hello")
				c.env = []string{"RUN_TASK_SECTIONS=" + kind}
			}
			before := time.Now().Unix()
			code, stdout, stderr := c.run(t)
			want := ""
			switch kind {
			case "gitlab":
				var began, ended int64
				fmt.Sscanf(stderr, "section_start:%d:run_task_command\r\x1b[0Kcommand\nsection_end:%d:run_task_command", &began, &ended)
				if began < before || ended < began || ended > time.Now().Unix() {
					t.Errorf("times %d to %d", began, ended)
				}
				want = fmt.Sprintf("section_start:%d:run_task_command\r\x1b[0Kcommand\nsection_end:%d:run_task_command\r\x1b[0K\n", began, ended)
			case "github":
				want = "::group::command\n::endgroup::\n"
			case "none", "":
			default:
				if code != 64 || stdout != "" || strings.Count(stderr, "run-task: error: ") != 1 || strings.Count(stderr, "run-task: hint: ") != 1 {
					t.Errorf("%q: exit %d, %q\n%s", kind, code, stdout, stderr)
				}
				continue
			}
			if code != 0 || stdout != "hello\n" || stderr != want {
				t.Errorf("%q: exit %d, stdout %q, stderr %q, want %q", kind, code, stdout, stderr, want)
			}
		}
	}
}

var (
	limitLine = regexp.MustCompile(`(?m)^\[output(?: ` + stampPattern + `)?\] the limit of .* is reached: .*\n`)
	leftLine  = regexp.MustCompile(`(?m)^\[output(?: ` + stampPattern + `)?\] (\d+(?:\.\d)? k?M?B) left out\n`)
)

// sizeFor is a size as lines of run-task's own have it.
func sizeFor(n int) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 999_950:
		return fmt.Sprintf("%.1f kB", float64(n)/1000)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

// limited tells whether got is what --output-limit shows of text, whose lines have so many bytes at most: its beginning, a line that says so, how much is left out, and its end from a line's start.
func limited(t *testing.T, got, text string, limit, line int) {
	t.Helper()
	if len(text) <= limit {
		alike(t, "below the limit", got, text)
		return
	}
	at := limitLine.FindStringIndex(got)
	if at == nil {
		t.Fatalf("nothing says that the limit is reached: %d bytes, %.300q", len(got), got)
	}
	tail := min(limit/4, 1<<20)
	head, rest := got[:at[0]], got[at[1]:]
	if !strings.HasPrefix(text, head) { // a line end of ours comes after what has none
		head = strings.TrimSuffix(head, "\n")
	}
	if !strings.HasPrefix(text, head) || len(head) > limit || len(head) <= limit-line || line < limit && head != "" && !strings.HasSuffix(head, "\n") {
		t.Errorf("%d bytes are shown at first, of %d: %.100q...%.100q", len(head), limit, head, head[max(0, len(head)-100):])
	}
	if m := leftLine.FindStringSubmatchIndex(rest); m != nil && m[0] == 0 {
		left := rest[m[2]:m[3]]
		if rest = rest[m[1]:]; left != sizeFor(len(text)-len(head)-len(rest)) {
			t.Errorf("%s are left out: of %d bytes %d and %d are shown", left, len(text), len(head), len(rest))
		}
	} else if len(head)+len(rest) != len(text) {
		t.Errorf("of %d bytes %d and %d are shown, and nothing says so: %.200q", len(text), len(head), len(rest), rest)
	}
	before := strings.TrimSuffix(text, rest)
	if !strings.HasSuffix(text, rest) || len(rest) > tail || len(rest) < min(tail-line, len(text)-len(head)) || rest == "" || line < tail && !strings.HasSuffix(before, "\n") {
		t.Errorf("%d bytes are shown at the end, of %d: %.100q...%.100q", len(rest), tail, rest, rest[max(0, len(rest)-100):])
	}
	if strings.Contains(head+rest, "[output") {
		t.Errorf("a line of run-task's own is twice in %q and %q", head, rest)
	}
}

func TestOutputLimit(t *testing.T) {
	t.Parallel()
	lines := func(n int) string { return string(numbered(n * 64)) }
	random := make([]byte, 100_000)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	for _, c := range []struct {
		name, text  string
		limit, line int
	}{
		{"nothing", "", 6400, 64},
		{"below", lines(99), 6400, 64},
		{"exactly", lines(100), 6400, 64},
		{"exactly, in the middle of a line", lines(101)[:6410], 6410, 64},
		{"one byte more", lines(100) + "x", 6400, 64},
		{"one line more", lines(101), 6400, 64},
		{"as much as the tail more", lines(125), 6400, 64},
		{"a line more than that", lines(126), 6400, 64},
		{"much more", lines(10_000), 6400, 64},
		{"limit in the middle of a line", lines(1000), 6420, 64},
		{"no end", lines(1000) + "no end", 6420, 64},
		{"one line", strings.Repeat("0123456789", 100_000), 6400, 1 << 30},
		{"one line at the end", lines(1000) + strings.Repeat("0123456789", 1000), 6400, 1 << 30},
		{"bytes", string(random), 10_000, 1 << 30},
		{"a tail of 1 MiB", lines(200_000), 6_400_000, 64},
		{"small", "hello\nworld\n", 4, 6},
	} {
		for _, drained := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, ", in pieces ", drained), func(t *testing.T) {
				t.Parallel()
				o := obey(t, drained, nil, "--output-limit", fmt.Sprint(c.limit))
				rest, piece := c.text, max(1000, len(c.text)/50)/64*64 // whole lines, where they have 64 bytes
				for i := 0; rest != ""; i++ {
					n := min(piece, len(rest))
					o.do([]string{toOut(rest[:n]), toErr(rest[:n])}[i%2])
					if rest = rest[n:]; drained {
						o.do("drain")
					}
				}
				o.do("exit 3")
				code, stdout, stderr := o.ends()
				limited(t, stdout, c.text, c.limit, c.line)
				if code != 3 || !drained && stderr != "" {
					t.Errorf("exit %d, stderr %q", code, stderr)
				}
			})
		}
	}
}

// With stamps the limit counts what is shown. Lines that end with \r are lines, too.
func TestOutputLimitWithTimestamps(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]string{"lines": "\n", "progress": "\r"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := obey(t, true, nil, "--timestamps", "--output-limit", "10k")
			for i := range 1000 {
				o.do(toOut(fmt.Sprintf("%d %%%s", i, end)))
			}
			o.do(toOut("half"))
			_, stdout, _ := o.ends()
			at, left := limitLine.FindStringIndex(stdout), leftLine.FindStringIndex(stdout)
			if at == nil || left == nil {
				t.Fatalf("%q", stdout)
			}
			head, _, err := unstamp(strings.TrimSuffix(stdout[:at[0]], "\n"))
			if err != nil || !strings.HasPrefix(head, "0 %"+end+"1 %"+end) || at[0] > 10_001 || at[0] < 9_900 {
				t.Errorf("the beginning: %v, %q", err, stdout[:at[0]])
			}
			last, _, err := unstamp(stdout[left[1]:])
			if err != nil || !strings.HasSuffix(last, "998 %"+end+"999 %"+end+"half") || len(stdout)-left[1] > 2500 || len(stdout)-left[1] < 2400 {
				t.Errorf("the end: %v, %q", err, stdout[left[1]:])
			}
		})
	}
}

// The limit is the log's, not the command's: it goes on, whether anybody reads or not, and run-task does not grow.
func TestOutputLimitHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	own(t, dir)
	c := relayedTask([]string{"--output-limit", "4k"}, "probe", "all", "flood", "200000000", ",", "write", "done", "done", ",", "obey")
	c.dir = dir
	cmd := c.cmd()
	orders, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe() // which nobody reads
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	defer cmd.Process.Kill()
	exists(t, filepath.Join(dir, "done"))
	if peak := peakOf(t, cmd.Process.Pid); peak >= 32<<10 {
		t.Errorf("run-task took %d kB", peak)
	}
	orders.Close()
	if code := wait(t, cmd); code != 0 {
		t.Errorf("exit %d", code)
	}
	got := make([]byte, 64<<10)
	n, _ := r.Read(got)
	limited(t, string(got[:n]), string(numbered(200_000_000)), 4000, 64)
}

// A secret that the limit cuts, at the end of what is shown first or at the beginning of what is shown last, is not shown in part either.
func TestOutputLimitCutsNoSecret(t *testing.T) {
	t.Parallel()
	const secret = "hunter2abcdefgh"
	for _, flags := range [][]string{{"--mask-env", "TOKEN"}, {"--mask-env", "TOKEN", "--timestamps"}} {
		for shift := range len(secret) + 1 {
			t.Run(fmt.Sprint(flags[2:], shift), func(t *testing.T) {
				t.Parallel()
				o := obey(t, false, []string{"TOKEN=" + secret}, append(flags, "--output-limit", "1000")...)
				text := strings.Repeat("-", shift) + strings.Repeat(secret+".", 200)
				for _, cut := range []int{900 + shift, 1000, 1000 + shift, len(text)} { // around the limit, in two pieces each
					o.do(toOut(text[:cut]), "drain", toOut(text[cut:]+"\n"))
				}
				_, stdout, _ := o.ends()
				for i := range len(secret) - 3 {
					if part := secret[i : i+4]; strings.Contains(stdout, part) {
						t.Fatalf("%q is in %q", part, stdout)
					}
				}
				if !limitLine.MatchString(stdout) {
					t.Errorf("%q", stdout)
				}
			})
		}
	}
}

func TestWrongOutputLimits(t *testing.T) {
	t.Parallel()
	for _, size := range []string{"0", "-1", "1x", "x", "k", "1.5.5M", "10 M B", "1e3", "99999999999999999999", "0x10", "∞"} {
		code, stdout, stderr := relayedTask([]string{"--output-limit", size}, "probe", "say", "never").run(t)
		if code != 64 || stdout != "" || strings.Count(stderr, "run-task: error: ") != 1 || strings.Count(stderr, "run-task: hint: ") != 1 || strings.Count(stderr, "\n") != 2 {
			t.Errorf("%q: exit %d, stdout %q\n%s", size, code, stdout, stderr)
		}
	}
}
