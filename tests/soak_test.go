//go:build linux

package tests

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// As PID 1 run-task lives for as long as a task does, and nothing may add up: here a few seconds, and for SOAK=DURATION in scripts/soak.
func TestSoak(t *testing.T) {
	needRoot(t)
	length, size := 5*time.Second, 200<<20
	if s := os.Getenv("SOAK"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
		size = 2 << 30
	}
	t.Run("storm", func(t *testing.T) { soakStorm(t, length) })
	t.Run("bytes", func(t *testing.T) { soakBytes(t, size) })
}

// soakStorm is a command whose processes print at full speed, fork and leave orphans behind, while signals come one after the other.
func soakStorm(t *testing.T, length time.Duration) {
	dir := tempDir(t)
	var secrets []string
	for range 20 {
		secrets = append(secrets, rand.Text())
	}
	file := filepath.Join(dir, "secrets")
	if err := os.WriteFile(file, []byte(strings.Join(secrets, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newSoak(t, dir, length, "--init", "--timestamps", "--mask-file", file, "--", "probe", "soak", length.String(), file)
	calm := make(chan struct{})
	var storm sync.WaitGroup
	sent := 0
	orphans, made, said := map[string]bool{}, 0, map[string]string{}
	s.other = func(key, value string) bool {
		switch key {
		case "ready":
			storm.Go(func() { sent = soakSend(s.cmd.Process.Pid, calm) })
		case "orphan":
			if orphans[value] {
				return false
			}
			orphans[value] = true
		case "orphans":
			n, err := strconv.Atoi(value[strings.LastIndexByte(value, ' ')+1:])
			if made += n; err != nil || n == 0 {
				return false
			}
		case "zombies", "signals":
			said[key] = value
		default:
			return false
		}
		return true
	}
	next := time.Now()
	s.due = func() bool {
		now := time.Now()
		due := now.After(next)
		if due {
			next = now.Add(length / 50)
		}
		return due
	}
	s.read(37, func() {
		close(calm)
		storm.Wait()
	})
	s.flat(4)
	if said["zombies"] != "0 " {
		t.Errorf("zombies: %q", said["zombies"])
	}
	if made == 0 || made != len(orphans) {
		t.Errorf("%d orphans were made, %d printed their line", made, len(orphans))
	}
	for _, n := range soakSignals() {
		if !strings.Contains(" "+said["signals"], fmt.Sprintf(" %d=", n)) && n != 34 {
			t.Errorf("signal %d never came, of %d signals that were sent: %s", n, sent, said["signals"])
		}
	}
	t.Logf("%d orphans; %d signals were sent, the command got %s", made, sent, said["signals"])
}

// soakSignals are sent to run-task. The command ignores 34.
func soakSignals() []syscall.Signal {
	out := []syscall.Signal{unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGWINCH, unix.SIGIO, unix.SIGPWR}
	for n := syscall.Signal(34); n <= 64; n++ {
		out = append(out, n)
	}
	return out
}

func soakSend(pid int, calm <-chan struct{}) (sent int) {
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for {
		for _, sig := range soakSignals() {
			select {
			case <-calm:
				return sent
			case <-pace.C:
			}
			if unix.Kill(pid, sig) == nil { // EAGAIN: too many wait
				sent++
			}
		}
	}
}

// soakBytes is a command that only prints.
func soakBytes(t *testing.T, size int) {
	s := newSoak(t, tempDir(t), 0, "--timestamps", "--", "probe", "soak-print", strconv.Itoa(size))
	s.due = func() bool { return s.bytes > len(s.samples)*(size/50) }
	s.read(0, func() {})
	s.flat(1)
	if s.bytes < size {
		t.Errorf("%d bytes came", s.bytes)
	}
}

// soaking is a run-task whose output is read.
type soaking struct {
	t       *testing.T
	cmd     *exec.Cmd
	out     io.Reader
	errs    bytes.Buffer
	most    time.Duration
	other   func(key, value string) bool // checks a line that is no writer's
	due     func() bool                  // tells when to look at the process
	samples []soakSample

	lines, bytes, wrong int
	next, ends          map[string]int // of each writer: the next line, and how many there are
	want                []byte
}

// soakSample is what must not grow.
type soakSample struct{ rss, fds, threads int }

// newSoak starts run-task; it is ended a while after length.
func newSoak(t *testing.T, dir string, length time.Duration, args ...string) *soaking {
	t.Helper()
	c := &command{pid1: true, dir: dir, args: slices.Concat([]string{"run-task"}, asUser(), args)}
	s := &soaking{t: t, cmd: c.cmd(), most: length + 5*time.Minute, next: map[string]int{}, ends: map[string]int{}}
	s.cmd.Stderr = &s.errs
	var err error
	if s.out, err = s.cmd.StdoutPipe(); err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// read checks all that is printed, byte by byte, and then the exit code. ended is called before the process is gone.
func (s *soaking) read(code int, ended func()) {
	s.t.Helper()
	timer := time.AfterFunc(s.most, func() { s.cmd.Process.Kill() })
	began := time.Now()
	in := bufio.NewReaderSize(s.out, 1<<20)
	var err error
	for err == nil {
		var line []byte
		if line, err = in.ReadSlice('\n'); err == nil {
			s.line(line)
		} else if err != io.EOF || len(line) > 0 {
			s.t.Errorf("%v after %q", err, line)
		}
	}
	seconds := time.Since(began).Seconds()
	if !timer.Stop() {
		s.t.Error("it hung")
	}
	ended()
	if got := wait(s.t, s.cmd); got != code {
		s.t.Errorf("exit %d, not the command's %d\n%s", got, code, s.errs.String())
	}
	for w, n := range s.next {
		if s.ends[w] != n {
			s.t.Errorf("writer %s: %d lines came, of %d", w, n, s.ends[w])
		}
	}
	if s.wrong > 0 {
		s.t.Errorf("%d of %d lines were wrong", s.wrong, s.lines)
	}
	s.t.Logf("%d lines, %d MB, in %.1f s: %.2f million lines/s; stderr: %q", s.lines, s.bytes/1e6, seconds, float64(s.lines)/1e6/seconds, s.errs.String())
}

// line checks one that came.
func (s *soaking) line(line []byte) {
	s.bytes += len(line)
	if s.lines++; s.lines%256 == 0 && s.due() {
		s.sample()
	}
	const form = "[task 0000-00-00T00:00:00.000Z] "
	ok := len(line) > len(form)
	for i := 0; ok && i < len(form); i++ {
		digit := line[i] >= '0' && line[i] <= '9'
		ok = form[i] == '0' && digit || form[i] == line[i]
	}
	if ok {
		ok = s.text(line[len(form):])
	}
	if !ok {
		if s.wrong++; s.wrong < 10 {
			s.t.Errorf("line %d: %q", s.lines, line)
		}
	}
}

func (s *soaking) text(text []byte) bool {
	if text[0] == 'w' && len(text) > 2 {
		w := string(text[1:2])
		s.want = soakLine(s.want[:0], w, s.next[w])
		s.next[w]++
		if bytes.Equal(text, s.want) {
			return true
		}
		var n int
		if _, err := fmt.Sscan(string(text[2:]), &n); err == nil { // one that is lost makes one of the others wrong, not all
			s.next[w] = n + 1
		}
		return false
	}
	key, value, _ := strings.Cut(strings.TrimSuffix(string(text), "\n"), " ")
	if key != "end" {
		return s.other != nil && s.other(key, value)
	}
	w, count, _ := strings.Cut(value, " ")
	n, err := strconv.Atoi(count)
	s.ends[w] = n
	return err == nil
}

var soakFiller = strings.Repeat("abcdefghij", 10)

// soakLine is line n of a writer, as the probe makes it, with its secret masked.
func soakLine(dst []byte, writer string, n int) []byte {
	dst = append(append(append(dst, 'w'), writer...), ' ')
	dst = append(strconv.AppendInt(dst, int64(n), 10), ' ')
	dst = append(dst, soakFiller[:n%len(soakFiller)]...)
	if n%7 == 0 {
		dst = append(dst, " key=[MASKED] kept"...)
	}
	return append(dst, '\n')
}

// sample looks at the process from outside.
func (s *soaking) sample() {
	dir := fmt.Sprintf("/proc/%d/", s.cmd.Process.Pid)
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		return // it has just ended
	}
	fds, _ := os.ReadDir(dir + "fd")
	now := soakSample{fds: len(fds)}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		var to *int
		switch key {
		case "VmRSS":
			to = &now.rss
		case "Threads":
			to = &now.threads
		default:
			continue
		}
		fmt.Sscan(value, to)
	}
	if now.rss > 0 { // a zombie has none
		s.samples = append(s.samples, now)
	}
}

// flat fails if the process has more in the second half than after a warm-up, or if not all of the writers are there.
func (s *soaking) flat(writers int) {
	s.t.Helper()
	if len(s.next) != writers {
		s.t.Errorf("%d writers, not %d: %v", len(s.next), writers, s.next)
	}
	n := len(s.samples)
	if n < 2 {
		s.t.Fatalf("the process was seen %d times", n)
	}
	most := func(part []soakSample) (m soakSample) {
		for _, p := range part {
			m = soakSample{max(m.rss, p.rss), max(m.fds, p.fds), max(m.threads, p.threads)}
		}
		return m
	}
	warm, end := most(s.samples[n/10:n/2]), most(s.samples[n/2:])
	s.t.Logf("%d samples, the most of the first half and of the second: RSS %d and %d kB, %d and %d descriptors, %d and %d threads", n, warm.rss, end.rss, warm.fds, end.fds, warm.threads, end.threads)
	if max(warm.rss, end.rss) > 64<<10 {
		s.t.Errorf("RSS: %d and then %d kB", warm.rss, end.rss)
	}
	if end.fds > warm.fds+4 {
		s.t.Errorf("descriptors: %d and then %d", warm.fds, end.fds)
	}
	if end.threads > warm.threads+8 {
		s.t.Errorf("threads: %d and then %d", warm.threads, end.threads)
	}
}
