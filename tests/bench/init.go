//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	onLinux["init"] = benchmark{initMode, 101}
	helpers[pid1Word] = pid1
}

// wrapper is what runs a command and stays: its words come before the command's.
type wrapper struct {
	name string
	args []string
}

// inits are the peers that are installed, and run-task as the last one.
func inits(binary string) []wrapper {
	var out []wrapper
	for _, w := range []wrapper{{"tini", []string{"tini", "-s", "--"}}, {"dumb-init", []string{"dumb-init", "--"}}, {"catatonit", []string{"catatonit", "--"}}} {
		if installed(w.args[0]) {
			out = append(out, w)
		}
	}
	return append(out, task(binary, "run-task --init", "--init"))
}

// installed says so if it is not.
func installed(name string) bool {
	_, err := exec.LookPath(name)
	if err != nil {
		fmt.Printf("%s is not installed: left out\n", name)
	}
	return err == nil
}

// task is run-task with flags, as quiet as its peers.
func task(binary, name string, flags ...string) wrapper {
	args := []string{binary, "--quiet"}
	if os.Getuid() == 0 {
		args = append(args, "--user", "root")
	}
	return wrapper{name, append(append(args, flags...), "--")}
}

func (w wrapper) run(args ...string) []string { return append(append([]string{}, w.args...), args...) }

// initMode measures what staying with the command costs: to start up, and for as long as the command runs.
func initMode(binary, dir string, runs int) error {
	truth, err := exec.LookPath("true")
	if err != nil {
		return err
	}
	peers := inits(binary)
	var sides []*side
	for _, w := range slices.Insert(slices.Clone(peers), len(peers)-1, task(binary, "run-task, becoming it")) {
		sides = append(sides, &side{name: w.name, prepare: command(w.run(truth)...)})
	}
	if err := compare("start-up: run-task --init -- true", runs, sides...); err != nil {
		return err
	}
	if os.Getuid() != 0 {
		fmt.Println("\nidle: making PID namespaces needs root: left out")
		return nil
	}
	return idle(binary, dir, peers)
}

// idleTime is longer than the minute after which the Go runtime looks around at the latest.
const idleTime = 65 * time.Second

// idle measures processes that have nothing to do but to be PID 1 while their command sleeps, all at the same time.
func idle(binary, dir string, peers []wrapper) error {
	work, err := os.MkdirTemp(places(dir)[0].dir, "run-task-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	_, sha, all, err := theSource(dir, "idle, after a checkout")
	if err != nil {
		return err
	}
	defer closeAll(all)
	secrets, err := secretFile(dir, 1000, "")
	if err != nil {
		return err
	}
	peers = append(peers,
		task(binary, "with --timestamps", "--timestamps"),
		task(binary, "with 1,000 masks", "--mask-file", secrets),
		task(binary, "with --timeout 1h", "--timeout", "1h"),
		task(binary, "after a checkout", "--init", "--checkout", filepath.Join(work, "src"), "--repo", live(all).URL+"/go.git", "--sha", sha))
	var running []*sleeper
	defer func() {
		for _, s := range running {
			s.Process.Kill() // the kernel ends the namespace with its PID 1
			s.Wait()
		}
	}()
	for i, w := range peers {
		// A program that runs several times would share its memory with itself.
		own := filepath.Join(dir, fmt.Sprintf("idle%d", i))
		if err := copyFile(own, w.args[0]); err != nil {
			return err
		}
		w.args = append([]string{own}, w.args[1:]...)
		s, err := sleep(w)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		running = append(running, s)
	}
	time.Sleep(3 * time.Second) // of settling
	var before []int
	for _, s := range running {
		n, err := s.switches()
		if err != nil {
			return err
		}
		before = append(before, n)
	}
	time.Sleep(idleTime)
	fmt.Printf("\nPID 1 of a namespace, idle: memory, and wake-ups of all threads in %v\n", idleTime)
	for i, s := range running {
		n, err := s.switches()
		if err != nil {
			return err
		}
		m, err := s.memory()
		if err != nil {
			return err
		}
		threads, err := s.threads()
		if err != nil {
			return err
		}
		fmt.Printf("  %-18s VmRSS %6.2f MB   Pss %6.2f MB   private %6.2f MB (dirty %5.2f)   %2d threads   %3d wake-ups\n", peers[i].name,
			m["VmRSS"], m["Pss"], m["Private_Clean"]+m["Private_Dirty"], m["Private_Dirty"], len(threads), n-before[i])
	}
	return nil
}

func copyFile(to, from string) error {
	from, err := exec.LookPath(from)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// sleeper is a wrapper, as PID 1, whose command sleeps.
type sleeper struct{ *exec.Cmd }

func sleep(w wrapper) (*sleeper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := exec.Command(self, append([]string{pid1Word}, w.run("sh", "-c", "echo; exec sleep 1000")...)...)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil { // the command runs
		c.Process.Kill()
		return nil, errors.Join(err, c.Wait())
	}
	return &sleeper{c}, nil
}

const pid1Word = "-pid1"

// pid1 becomes a command that sees the processes of the PID namespace that it is the first one of.
func pid1(args []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	return become(args)
}

func become(args []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return os.NewSyscallError("execve", unix.Exec(path, args, os.Environ()))
}

func (s *sleeper) proc(name string) string { return fmt.Sprintf("/proc/%d/%s", s.Process.Pid, name) }

// memory is in MB.
func (s *sleeper) memory() (map[string]float64, error) {
	out, err := numbers(s.proc("smaps_rollup"))
	if err != nil {
		return nil, err
	}
	status, err := numbers(s.proc("status"))
	if err != nil {
		return nil, err
	}
	out["VmRSS"] = status["VmRSS"]
	for k := range out {
		out[k] /= 1024
	}
	return out, nil
}

func (s *sleeper) threads() ([]string, error) { return filepath.Glob(s.proc("task/*/status")) }

// switches counts how often any thread stopped to run: once for each time that it was woken up.
func (s *sleeper) switches() (int, error) {
	threads, err := s.threads()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, t := range threads {
		m, err := numbers(t)
		if err != nil {
			return 0, err
		}
		n += int(m["voluntary_ctxt_switches"] + m["nonvoluntary_ctxt_switches"])
	}
	return n, nil
}

// numbers are the fields of a file in /proc whose values begin with one.
func numbers(file string) (map[string]float64, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]float64{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if words := strings.Fields(value); len(words) > 0 {
			if v, err := strconv.ParseFloat(words[0], 64); err == nil {
				out[key] = v
			}
		}
	}
	return out, lines.Err()
}
