//go:build linux

package tests

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// ear hears what is written to a pipe.
type ear struct {
	mu    sync.Mutex
	cond  *sync.Cond
	heard []byte
	ended bool
}

// newEar gives the pipe's end that is written to. The ear closes it, with shut, when whoever is to write has it.
func newEar(t *testing.T) (e *ear, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	e = &ear{}
	e.cond = sync.NewCond(&e.mu)
	t.Cleanup(func() { r.Close(); w.Close() })
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := r.Read(buf)
			e.mu.Lock()
			e.heard = append(e.heard, buf[:n]...)
			e.ended = err != nil
			e.cond.Broadcast()
			e.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return e, w
}

// until waits for a state of what was heard.
func (e *ear) until(t *testing.T, what string, enough func(heard string) bool) string {
	t.Helper()
	late := false
	timer := time.AfterFunc(time.Minute, func() { e.mu.Lock(); late = true; e.cond.Broadcast(); e.mu.Unlock() })
	defer timer.Stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	for !enough(string(e.heard)) {
		if late || e.ended {
			t.Fatalf("%s does not come; there is %.2000q", what, e.heard)
		}
		e.cond.Wait()
	}
	return string(e.heard)
}

// now is what was heard so far.
func (e *ear) now() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return string(e.heard)
}

// all is what was heard when nobody can write any more.
func (e *ear) all() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	for !e.ended {
		e.cond.Wait()
	}
	return string(e.heard)
}

// obedient is a run-task whose command does what the test says; see probe's mode obey.
type obedient struct {
	t              *testing.T
	cmd            *exec.Cmd
	orders         io.WriteCloser
	stdout, stderr *ear // one, if they are the same pipe
}

// obey starts it with flags and variables.
func obey(t *testing.T, merged bool, env []string, flags ...string) *obedient {
	t.Helper()
	return obeyAs(t, merged, &command{env: env, args: slices.Concat([]string{"run-task"}, asUser(), flags, []string{"--", "probe", "obey"})})
}

func obeyAs(t *testing.T, merged bool, c *command) *obedient {
	t.Helper()
	if c.dir == "" {
		c.dir = tempDir(t)
		own(t, c.dir)
	}
	o := &obedient{t: t, cmd: c.cmd()}
	var w [2]*os.File
	o.stdout, w[0] = newEar(t)
	o.stderr, w[1] = o.stdout, w[0]
	if !merged {
		o.stderr, w[1] = newEar(t)
	}
	o.cmd.Stdout, o.cmd.Stderr = w[0], w[1]
	var err error
	if o.orders, err = o.cmd.StdinPipe(); err == nil {
		err = o.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.cmd.Process.Kill() })
	w[0].Close()
	w[1].Close()
	return o
}

// do gives orders, lines of probe's mode obey.
func (o *obedient) do(orders ...string) {
	o.t.Helper()
	if _, err := io.WriteString(o.orders, strings.Join(orders, "\n")+"\n"); err != nil {
		o.t.Fatalf("the command is gone: %v\n%s%s", err, o.stdout.now(), o.stderr.now())
	}
}

// toOut and toErr are orders to write a piece.
func toOut(text string) string { return "1 " + strconv.Quote(text) }
func toErr(text string) string { return "2 " + strconv.Quote(text) }

// ends ends the command, if it still runs, and gives the exit code and all that was printed.
func (o *obedient) ends() (code int, stdout, stderr string) {
	o.t.Helper()
	o.orders.Close()
	code = wait(o.t, o.cmd)
	return code, o.stdout.all(), o.stderr.all()
}

const stampPattern = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`

var taskPrefix = regexp.MustCompile(`^\[task (` + stampPattern + `)\] $`)

// unstamp takes the prefixes away, one before each line, and gives their times.
func unstamp(text string) (plain string, stamps []time.Time, err error) {
	const width = len("[task 2026-01-02T03:04:05.678Z] ")
	var b strings.Builder
	for at := 0; at < len(text); {
		m := taskPrefix.FindStringSubmatch(text[at:min(at+width, len(text))])
		if m == nil {
			return "", nil, fmt.Errorf("no prefix at %d, after %q: %.100q", at, text[max(at-100, 0):at], text[at:])
		}
		stamp, err := time.Parse(time.RFC3339Nano, m[1])
		if err != nil {
			return "", nil, err
		}
		stamps = append(stamps, stamp)
		at += width
		end := at
		for end < len(text) && text[end] != '\n' && text[end] != '\r' {
			end++
		}
		if strings.HasPrefix(text[end:], "\r\n") {
			end++
		}
		end = min(end+1, len(text))
		b.WriteString(text[at:end])
		at = end
	}
	return b.String(), stamps, nil
}

// stampedAs tells whether text is what the command printed, want, with a stamp for each line; they lie between two times and do not go backwards.
func stampedAs(t *testing.T, text, want string, before, after time.Time) {
	t.Helper()
	plain, stamps, err := unstamp(text)
	lines := strings.Count(want, "\n") + strings.Count(want, "\r") - strings.Count(want, "\r\n")
	if strings.TrimRight(want, "\r\n") == want && want != "" {
		lines++
	}
	if err != nil || plain != want || len(stamps) != lines {
		t.Errorf("%v; %d bytes %.3000q, want %d bytes %.3000q; %d stamps, want %d", err, len(plain), plain, len(want), want, len(stamps), lines)
	}
	last := before.Truncate(time.Millisecond)
	for _, s := range append(stamps, after) {
		if s.Before(last) {
			t.Errorf("%s comes after %s", s, last)
		}
		last = s
	}
}

// pieces are what stamps could get wrong: each is written after the one before it was read.
var pieces = []string{
	"plain\n", "two\nlines\n", "in ", "pieces", "\n", "\n", "\n\n\n", "\r\n", "dos\r\n", "dos, later\r", "\n", "\r", "\r", "\r\r\n", "\n\r", "\n",
	"10 %\r", "20 %\r30 %\r", "done\n", "\r40 %", "\r50 %", "\r", "\x00", "\x00\n\x00", "\n", "not UTF-8 \xff\xfe \xc3\n", "\xc3", "\xa9 in two\n", "\xf0\x9f", "\x98\x80\n",
	"\x1b[31mred", "\x1b[0m\n", "\x1b[2K\r\x1b[1A", "\u2028\u0085\v\f\n", "[task 2026-01-02T03:04:05.678Z] forged\n", "[vcs] forged\n", "no end",
}

func TestTimestamps(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"stdout", "stderr", "both"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			var every []byte
			for i := range 256 {
				every = append(every, byte(i))
			}
			all := append([]string{string(every)}, pieces...)
			for i := range 256 {
				all = append(all, string(every[i:i+1]))
			}
			before := time.Now()
			o := obey(t, false, nil, "--timestamps")
			for i, p := range all {
				order := toOut(p)
				if way == "stderr" || way == "both" && i%3 == 0 {
					order = toErr(p)
				}
				o.do(order, "drain")
			}
			code, stdout, stderr := o.ends()
			stampedAs(t, stdout, strings.Join(all, ""), before, time.Now())
			if code != 0 || stderr != "" {
				t.Errorf("exit %d, stderr %q", code, stderr)
			}
		})
	}
	t.Run("long lines", func(t *testing.T) {
		t.Parallel()
		before := time.Now()
		long := strings.Repeat("0123456789", 1<<20)
		o := obey(t, false, nil, "--timestamps")
		o.do(toOut(long), toErr(long+"\r"), toOut(long+"\nend"))
		_, stdout, _ := o.ends()
		stampedAs(t, stdout, long+long+"\r"+long+"\nend", before, time.Now())
	})
}

// A line's time is that of its first byte.
func TestTimesOfFirstBytes(t *testing.T) {
	t.Parallel()
	o := obey(t, false, nil, "--timestamps")
	var read []time.Time
	for i := range 10 {
		before := time.Now()
		name := fmt.Sprint("read ", i)
		o.do(toOut("first byte"), "drain", "touch "+strconv.Quote(name))
		exists(t, filepath.Join(o.cmd.Dir, name))
		read = append(read, before, time.Now())
		o.do(toOut(", the others\n"), "drain")
	}
	_, stdout, _ := o.ends()
	stampedAs(t, stdout, strings.Repeat("first byte, the others\n", 10), read[0], time.Now())
	_, stamps, _ := unstamp(stdout)
	for i, s := range stamps {
		if s.Before(read[2*i].Truncate(time.Millisecond)) || s.After(read[2*i+1]) {
			t.Errorf("line %d was read between %s and %s, and says %s", i, read[2*i], read[2*i+1], s)
		}
	}
}

// exists waits until a file does.
func exists(t *testing.T, path string) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("%s does not come", path)
		}
	}
}

// The beginning of a line is shown while its end does not come: somebody may be asked for it.
func TestPromptsAreShown(t *testing.T) {
	t.Parallel()
	before := time.Now()
	o := obey(t, false, nil, "--timestamps")
	want := ""
	for i, say := range []func(string) string{toOut, toErr} {
		for _, prompt := range []string{"Password: ", "\x1b[1m\xf0\x9f", "first line\nUser: ", "working\rContinue? "} {
			o.do(say(prompt))
			want += prompt
			o.stdout.until(t, fmt.Sprintf("%d: %q", i, prompt), func(heard string) bool { plain, _, err := unstamp(heard); return err == nil && plain == want })
			o.do(say("answered, "), say("twice"))
			want += "answered, twice"
			o.stdout.until(t, "the rest", func(heard string) bool { return strings.HasSuffix(heard, want[max(0, len(want)-20):]) })
			o.do(say("\r\n"))
			want += "\r\n"
		}
	}
	_, stdout, _ := o.ends()
	stampedAs(t, stdout, want, before, time.Now())
}

// Lines of run-task's own have the time, too, and begin a line, also in the middle of one of the command's.
func TestOwnLinesHaveTheTime(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	o := obey(t, true, nil, "--verbose", "--checkout", "src", "--repo", r.Path, "--sha", r.SHA["tip"], "--timestamps", "--sections", "none", "--no-output-timeout", "1s")
	o.do("ignore 15", toOut("whole\n"), toOut("half"))
	o.stdout.until(t, "the command's half line", func(heard string) bool { return strings.HasSuffix(heard, "] half") })
	o.stdout.until(t, "the limit", func(heard string) bool {
		return strings.Contains(heard, "--no-output-timeout 1s is over: TERM is sent\n")
	})
	o.do(toOut("the other half\n"))
	o.stdout.until(t, "the other half", func(heard string) bool { return strings.HasSuffix(heard, "] the other half\n") })
	code, _, _ := o.ends()
	own := regexp.MustCompile(`^\[(vcs|perms|exec|cache|task) (` + stampPattern + `)\] `)
	seen, last := map[string]int{}, ""
	lines, errors, _ := strings.Cut(o.stdout.all(), "run-task: error: ")
	for line := range strings.Lines(lines) {
		m := own.FindStringSubmatch(line)
		if m == nil || m[2] < last {
			t.Fatalf("after %s: %q in\n%s", last, line, o.stdout.all())
		}
		seen[m[1]]++
		last = m[2]
	}
	if code != 124 || seen["vcs"] < 2 || seen["exec"] != 1 || seen["task"] != 3 || !strings.HasPrefix(errors, "exec: --no-output-timeout 1s is over\n  pid ") {
		t.Errorf("exit %d, %v\n%s", code, seen, o.stdout.all())
	}
}

// randomPieces are pieces of all that matters to what relays them.
func randomPieces(rnd *rand.Rand, n int) (all []string) {
	atoms := []string{"a", "word ", "\n", "\r", "\r\n", "\n\n", "\x00", "\xff", "é", "\U0001F600", "\x1b[32m", "[task ", "secr", "secret", "tsec", strings.Repeat("long", 5000)}
	for range n {
		var b strings.Builder
		for range rnd.IntN(5) + 1 {
			b.WriteString(atoms[rnd.IntN(len(atoms))])
		}
		piece := b.String()
		if cut := rnd.IntN(len(piece)); cut > 0 && rnd.IntN(2) == 0 { // also in the middle of a character
			piece = piece[:cut]
		}
		all = append(all, piece)
	}
	return all
}

// However the command writes, not a byte is lost, changed or moved: of 16 that run at once, in all ways.
func TestRandomOutput(t *testing.T) {
	t.Parallel()
	for i := range 16 {
		seed := rand.Uint64()
		flags := [][]string{{"--init"}, {"--timestamps"}, {"--mask-env", "VALUE"}, {"--no-output-timeout", "10m"}, {"--timestamps", "--mask-env", "VALUE", "--timeout", "10m"},
			{"--output-limit", "100M"}, {"--output-limit", "100M", "--timestamps"}, {"--command-timeout", "10m"}}[i%8]
		stamps, merged := slices.Contains(flags, "--timestamps"), slices.Contains(flags, "--timestamps") || slices.Contains(flags, "--output-limit")
		t.Run(fmt.Sprintf("%d %s", i, strings.Join(flags, " ")), func(t *testing.T) {
			t.Parallel()
			before := time.Now()
			o := obey(t, i >= 8, []string{"VALUE=no such thing"}, flags...)
			rnd := rand.New(rand.NewPCG(seed, 0))
			var orders []string
			var both, stdout, stderr strings.Builder
			for _, p := range randomPieces(rnd, 200) {
				both.WriteString(p)
				if rnd.IntN(2) == 0 {
					orders = append(orders, toOut(p))
					stdout.WriteString(p)
				} else {
					orders = append(orders, toErr(p))
					stderr.WriteString(p)
				}
				if rnd.IntN(3) == 0 {
					orders = append(orders, "drain")
				}
			}
			o.do(append(orders, "exit 3")...)
			code, gotOut, gotErr := o.ends()
			if code != 3 {
				t.Errorf("exit %d", code)
			}
			switch {
			case stamps:
				stampedAs(t, gotOut, both.String(), before, time.Now())
			case merged || i >= 8:
				alike(t, "stdout", gotOut, both.String())
			default:
				alike(t, "stdout", gotOut, stdout.String())
				alike(t, "stderr", gotErr, stderr.String())
			}
			if merged && i < 8 {
				alike(t, "stderr", gotErr, "")
			}
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
		})
	}
}

// alike compares texts that may be long.
func alike(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	at := 0
	for at < len(got) && at < len(want) && got[at] == want[at] {
		at++
	}
	t.Errorf("%s: %d bytes, want %d; they differ at %d: %.200q, want %.200q", what, len(got), len(want), at, got[at:], want[at:])
}
