// Command bench measures run-task against the tools that a user would take instead. Both sides run interleaved; medians and
// ratios are printed. It asserts nothing: docs/benchmarks.md holds what it said.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

type benchmark struct {
	run  func(binary, dir string, runs int) error
	runs int
}

// What files that are for Linux alone add: benchmarks, and what this program is started as by itself.
var (
	onLinux = map[string]benchmark{}
	helpers = map[string]func(args []string) error{}
)

func main() {
	log.SetFlags(0)
	if len(os.Args) > 2 && os.Args[1] == measureWord {
		measure(os.Args[2:])
		return
	}
	if len(os.Args) > 1 && helpers[os.Args[1]] != nil {
		if err := helpers[os.Args[1]](os.Args[2:]); err != nil {
			log.Fatalf("bench %s: %v", os.Args[1], err)
		}
		return
	}
	runs := flag.Int("n", 0, "runs of each side (default: 101 for start and init, 21 for nothing, 5 for blob and relay, 3 for latency, 7 for the others)")
	flag.Parse()
	all := map[string]benchmark{"archives": {archives, 7}, "start": {start, 101}, "checkout": {checkouts, 7}, "onecore": {oneCore, 7}, "history": {histories, 7}, "next": {next, 7},
		"nothing": {nothing, 21}, "refs": {manyRefs, 7}, "small": {small, 7}, "blob": {blob, 5}, "store": {stores, 7}}
	names := flag.Args()
	if len(names) == 0 {
		names = []string{"start", "checkout", "onecore", "history", "next", "nothing", "refs", "small", "blob", "store", "archives"}
		names = append(names, slices.Sorted(maps.Keys(onLinux))...)
	}
	maps.Copy(all, onLinux)
	dir, err := os.MkdirTemp("", "run-task-bench")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "run-task")
	build := exec.Command("go", "build", "-trimpath", "-tags", "urfave_cli_no_docs", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		log.Fatalf("bench: build: %v", err)
	}
	fmt.Printf("%s, %s, %d CPUs\n", runtime.Version(), kernel(), runtime.NumCPU())
	for _, n := range names {
		b, ok := all[n]
		if !ok {
			log.Fatalf("bench: no benchmark is called %q", n)
		}
		if err := b.run(binary, dir, cmp.Or(*runs, b.runs)); err != nil {
			log.Fatalf("bench: %s: %v", n, err)
		}
	}
}

func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	return "Linux " + string(b[:len(b)-1])
}

// side is one of the things compared: prepare makes what a run needs and is not measured, steps are.
type side struct {
	name    string
	prepare func(run int) (steps [][]string, err error)
	wall    []float64 // seconds
	rss     []float64 // MB, the largest process
}

func command(args ...string) func(int) ([][]string, error) {
	return func(int) ([][]string, error) { return [][]string{args}, nil }
}

// compare runs the sides in turn and prints their medians, and the ratio of the last to each of the others.
func compare(title string, runs int, sides ...*side) error {
	for run := -1; run < runs; run++ { // the first is a warm-up
		for _, s := range sides {
			steps, err := s.prepare(run)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			wall, rss := 0.0, 0.0
			for _, args := range steps {
				w, r, err := measured(args)
				if err != nil {
					return fmt.Errorf("%s: %q: %w", s.name, args, err)
				}
				wall, rss = wall+w, max(rss, r)
			}
			if run >= 0 {
				s.wall, s.rss = append(s.wall, wall), append(s.rss, rss)
			}
		}
	}
	us := sides[len(sides)-1]
	fmt.Printf("\n%s (median of %d)\n", title, runs)
	for _, s := range sides {
		fmt.Printf("  %-28s %9.2f ms %7.1f MB", s.name, median(s.wall)*1000, median(s.rss))
		if s != us {
			fmt.Printf("   run-task's wall %.2f, memory %.2f of it", median(us.wall)/median(s.wall), median(us.rss)/median(s.rss))
		}
		fmt.Println()
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// A command's peak memory counts that of the process that started it, until its execve. So commands are started by a fresh process of ours, which is
// small; what uses less than that one shows as that one's.
const measureWord = "-measure"

func measured(args []string) (wall, rss float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, 0, err
	}
	c := exec.Command(self, append([]string{measureWord}, args...)...)
	c.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return 0, 0, fmt.Errorf("%w\n%s", err, errs.String())
	}
	_, err = fmt.Sscan(out.String(), &wall, &rss)
	return wall, rss, err
}

// measure runs a command and prints the seconds and megabytes that it took.
func measure(args []string) {
	c := exec.Command(args[0], args[1:]...)
	c.Stderr = os.Stderr
	began := time.Now()
	if err := c.Run(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(time.Since(began).Seconds(), float64(c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)/1024)
}

// start measures what run-task costs every task: from fork to the end of a command that does nothing.
func start(binary, dir string, runs int) error {
	truth, err := exec.LookPath("true")
	if err != nil {
		return err
	}
	sides := []*side{{name: "true", prepare: command(truth)}}
	for _, peer := range [][]string{{"tini", "-s", "--", truth}, {"gosu", "root", truth}} {
		if path, err := exec.LookPath(peer[0]); err == nil {
			sides = append(sides, &side{name: peer[0], prepare: command(append([]string{path}, peer[1:]...)...)})
		} else {
			fmt.Printf("%s is not installed: left out\n", peer[0])
		}
	}
	us := []string{binary, "--", truth}
	if os.Getuid() == 0 {
		us = []string{binary, "--quiet", "--user", "root", "--", truth}
	}
	if err := compare("start-up: run-task -- true", runs, append(sides, &side{name: "run-task", prepare: command(us...)})...); err != nil {
		return err
	}
	if os.Getuid() != 0 {
		return nil
	}
	var drop []*side
	if path, err := exec.LookPath("gosu"); err == nil {
		drop = append(drop, &side{name: "gosu 65534:65534", prepare: command(path, "65534:65534", truth)})
	}
	return compare("start-up with the drop", runs, append(drop, &side{name: "run-task --user", prepare: command(binary, "--quiet", "--user", "65534:65534", "--", truth)})...)
}
