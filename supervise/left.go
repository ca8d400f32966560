//go:build unix

package supervise

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/logs"
)

// process is what proc_pid_stat(5) says of one.
type process struct {
	pid, ppid      int
	group, session int
	name           string
	dead           bool          // a zombie of which no thread lives either
	started        time.Duration // since boot
}

// signalLeft signals all that the command left behind: as PID 1 that is everybody else, otherwise our descendants, and without /proc the command's group.
func (r *run) signalLeft(sig syscall.Signal) {
	if isInit() {
		unix.Kill(-1, sig)
		return
	}
	left := descendants(r.before)
	for _, p := range left {
		unix.Kill(p.pid, sig)
	}
	if len(left) == 0 {
		unix.Kill(-r.pid, sig)
	}
}

// descendants are the processes that would not be there without us, but for dead ones; as PID 1 all others. Those of before and theirs are left out: a shell
// that becomes run-task can hand down children of its own, who read our output perhaps.
func descendants(before map[int]time.Duration) []process {
	all := processes()
	if isInit() {
		return slices.DeleteFunc(all, func(p process) bool { return p.pid == 1 || p.dead })
	}
	ours := map[int]bool{os.Getpid(): true}
	for more := true; more; {
		more = false
		for _, p := range all {
			if started, was := before[p.pid]; ours[p.ppid] && !ours[p.pid] && !(was && started == p.started) {
				ours[p.pid], more = true, true
			}
		}
	}
	return slices.DeleteFunc(all, func(p process) bool { return p.pid == os.Getpid() || p.dead || !ours[p.pid] })
}

// inherited are the children that we had before the command: when each was started, by its number.
func inherited() map[int]time.Duration {
	if isInit() {
		return nil
	}
	all := map[int]time.Duration{}
	for _, p := range descendants(nil) {
		all[p.pid] = p.started
	}
	return all
}

// orphaned tells whether nobody could continue our process group if it were stopped: no parent of one of its processes is in another group of the session.
func orphaned() bool {
	if isInit() {
		return true
	}
	all := processes()
	find := func(pid int) process {
		if i, ok := slices.BinarySearchFunc(all, pid, func(p process, pid int) int { return p.pid - pid }); ok {
			return all[i]
		}
		return process{}
	}
	self := find(os.Getpid())
	return !slices.ContainsFunc(all, func(p process) bool {
		parent := find(p.ppid)
		return p.group == self.group && parent.session == self.session && parent.group != self.group
	})
}

// processes are those that /proc shows, by their numbers; none where there is no /proc, or another PID namespace's.
func processes() (all []process) {
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return nil
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if p, ok := stat(pid); ok {
				all = append(all, p)
			}
		}
	}
	slices.SortFunc(all, func(a, b process) int { return a.pid - b.pid })
	return all
}

func stat(pid int) (process, bool) {
	b, err := readSome(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	// pid (name) state ppid ...: a name can hold anything, parentheses too.
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return process{}, false
	}
	fields := strings.Fields(string(b[end+1:]))
	if len(fields) < 20 {
		return process{}, false
	}
	number := func(i int) int { n, _ := strconv.Atoi(fields[i]); return n }
	return process{pid: pid, ppid: number(1), group: number(2), session: number(3), name: string(b[open+1 : end]), dead: strings.Contains("ZX", fields[0]) && (fields[17] == "0" || fields[17] == "1"), started: time.Duration(number(19)) * time.Second / 100}, true
}

// readSome reads the beginning of a file of /proc: a process can make its arguments as long as it likes.
func readSome(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 64<<10))
}

// describe describes the processes that run now, a line each: "pid 12, 3s: sleep 1000". Secrets are masked before anything is cut.
func (r *run) describe() (lines []string) {
	const most, width = 20, 200
	left := descendants(r.before)
	now := uptime()
	for i, p := range left {
		if i == most {
			return append(lines, fmt.Sprintf("and %d more", len(left)-most))
		}
		args, _ := readSome(fmt.Sprintf("/proc/%d/cmdline", p.pid))
		text := strings.ReplaceAll(strings.TrimRight(string(args), "\x00"), "\x00", " ")
		if text == "" {
			text = "[" + p.name + "]"
		}
		if text = logs.OneLine(r.log.Masked(text)); len(text) > width {
			text = strings.ToValidUTF8(text[:width], "") + "…"
		}
		lines = append(lines, fmt.Sprintf("pid %d, %s: %s", p.pid, short(max(now-p.started, 0).Round(time.Second)), text))
	}
	return lines
}
