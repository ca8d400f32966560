//go:build linux

package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
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
	onLinux["relay"] = benchmark{relays, 5}
	helpers[generateWord] = generate
	helpers[relayWord] = relayed
}

// A block of lines is what the generator repeats.
const (
	blockLines = 1 << 14
	maskLength = 40
	sharedURL  = "https://registry.internal/v2/" // many of the lines have one
)

// block is like what builds print: lines of some 60 bytes, a few empty ones, some long. One of the lines has the first of secrets' values.
func block() []byte {
	r := rand.New(rand.NewChaCha8([32]byte{1}))
	var b bytes.Buffer
	for i := range blockLines {
		switch r.IntN(8) {
		case 0:
			fmt.Fprintf(&b, "2026-01-02 03:04:%02d INFO worker[%d] fetched %sblobs/%08x in %d ms\n", r.IntN(60), r.IntN(64), sharedURL, r.Uint32(), r.IntN(1000))
		case 1:
			fmt.Fprintf(&b, "--- PASS: TestCheckout/depth_%d/file_%d (%d.%02ds)\n", r.IntN(4), r.IntN(10_000), r.IntN(4), r.IntN(100))
		case 2:
			fmt.Fprintf(&b, "  CC      drivers/net/ethernet/vendor/module_%04x/main_%d.o\n", r.IntN(1<<16), r.IntN(40))
		case 3:
			fmt.Fprintf(&b, "ok  \texample.test/project/internal/package%d\t%d.%03ds\n", r.IntN(500), r.IntN(10), r.IntN(1000))
		case 4:
			b.WriteString(strings.Repeat(" ", r.IntN(9)) + "warning: unused variable: `x`\n")
		case 5:
			fmt.Fprintf(&b, "src/module/%d/component.ts(%d,%d): error TS2345: Argument of type %s is not assignable\n", r.IntN(100), r.IntN(900), r.IntN(80), strings.Repeat("T", r.IntN(40)))
		case 6:
			fmt.Fprintf(&b, "Step %d/20 : RUN make -j%d && sha256sum out | grep %016x\n", r.IntN(20), r.IntN(16), r.Uint64())
		case 7:
			b.WriteString(strings.Repeat(".", r.IntN(80)) + "\n")
		}
		if i == blockLines/2 {
			fmt.Fprintf(&b, "the key is %s, keep it\n", secrets(1, "")[0])
		}
	}
	return b.Bytes()
}

// linesOf is how many lines some blocks have: one more each, with the secret.
func linesOf(blocks int) int { return blocks * (blockLines + 1) }

// secrets are random values, always the same ones, that begin with prefix but for the first.
func secrets(n int, prefix string) []string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	r := rand.New(rand.NewChaCha8([32]byte{2}))
	var out []string
	for i := range n {
		v := make([]byte, maskLength)
		for j := range v {
			v[j] = letters[r.IntN(len(letters))]
		}
		if i > 0 {
			copy(v, prefix)
		}
		out = append(out, string(v))
	}
	return out
}

func secretFile(dir string, n int, prefix string) (string, error) {
	name := filepath.Join(dir, fmt.Sprintf("secrets%d-%d", n, len(prefix)))
	return name, os.WriteFile(name, []byte(strings.Join(secrets(n, prefix), "\n")+"\n"), 0o600)
}

const generateWord = "-generate"

// generate BLOCKS writes lines in writes of 64 KB.
func generate(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	b := block()
	for range n {
		for rest := b; len(rest) > 0; {
			n, err := unix.Write(1, rest[:min(len(rest), 64<<10)])
			if err != nil && err != unix.EINTR {
				return err
			}
			rest = rest[max(n, 0):]
		}
	}
	return nil
}

// flow is a way for the lines from the command to a reader.
type flow struct {
	wrapper
	filter  bool // it reads a pipe, and does not start the command
	blocks  int
	stamped bool
	masked  bool
	limit   int // of bytes, more or less

	rate, cpu, rss []float64 // lines a second; seconds of its own a million lines; MB
}

// relays measures how many lines a second pass from a command to a reader of a pipe.
func relays(binary, dir string, runs int) error {
	one, err1 := secretFile(dir, 1, "")
	ten, err2 := secretFile(dir, 10, "")
	thousand, err3 := secretFile(dir, 1000, "")
	alike, err4 := secretFile(dir, 1000, sharedURL)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	const many, few = 512, 6
	all := []*flow{{wrapper: wrapper{name: "a pipe"}, blocks: many}}
	if installed("cat") {
		all = append(all, &flow{wrapper: wrapper{"cat", []string{"cat"}}, filter: true, blocks: many})
	}
	if installed("ts") {
		all = append(all, &flow{wrapper: wrapper{"ts", []string{"ts", stampFormat}}, filter: true, blocks: few, stamped: true})
	}
	all = append(all,
		&flow{wrapper: task(binary, "--timestamps", "--timestamps"), blocks: many, stamped: true},
		&flow{wrapper: task(binary, "1 mask", "--mask-file", one), blocks: many, masked: true},
		&flow{wrapper: task(binary, "10 masks", "--mask-file", ten), blocks: many, masked: true},
		&flow{wrapper: task(binary, "1,000 masks", "--mask-file", thousand), blocks: many, masked: true},
		&flow{wrapper: task(binary, "1,000 that begin alike", "--mask-file", alike), blocks: many, masked: true},
		&flow{wrapper: task(binary, "1,000 and --timestamps", "--mask-file", thousand, "--timestamps"), blocks: many, masked: true, stamped: true},
		&flow{wrapper: task(binary, "--output-limit 10M", "--output-limit", "10M"), blocks: many, limit: 10_000_000})
	fmt.Printf("\nlines from a command to a reader: %d, %d for ts, of %.1f bytes each\n", linesOf(many), linesOf(few), float64(len(block()))/float64(linesOf(1)))
	if err := flows(fmt.Sprintf("relay (median of %d)", runs), runs, nil, all); err != nil {
		return err
	}
	if !installed("taskset") {
		return nil
	}
	for _, f := range all {
		f.rate, f.cpu, f.rss = nil, nil, nil
	}
	return flows(fmt.Sprintf("relay, command, relay and reader on one core (median of %d)", runs), runs, []string{"taskset", "-c", "0"}, all)
}

const stampFormat = "%Y-%m-%dT%H:%M:%.S"

// flows measures flows in turn and prints their medians, and some of the ratios.
func flows(title string, runs int, wrap []string, all []*flow) error {
	size := len(block())
	for run := -1; run < runs; run++ { // the first is a warm-up
		for _, f := range all {
			if err := f.measure(wrap, size, run >= 0); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
		}
	}
	fmt.Printf("\n%s\n", title)
	rates, cpus := map[string]float64{}, map[string]float64{}
	for _, f := range all {
		rate, cpu := median(f.rate), median(f.cpu)
		rates[f.name], cpus[f.name] = rate, cpu
		fmt.Printf("  %-24s %7.2f million lines/s %7.0f MB/s", f.name, rate/1e6, rate*float64(size)/float64(linesOf(1))/1e6)
		if len(f.args) > 0 {
			fmt.Printf("   its own CPU time %6.3f s a million: %6.2f million lines/s of a core   peak %5.1f MB", cpu, 1/cpu, median(f.rss))
		}
		fmt.Println()
	}
	for _, pair := range [][2]string{{"--timestamps", "ts"}, {"--timestamps", "cat"}, {"1,000 masks", "1 mask"}, {"1,000 that begin alike", "1 mask"}, {"--output-limit 10M", "cat"}} {
		us, them := pair[0], pair[1]
		if rates[them] > 0 {
			fmt.Printf("  %s against %s: %.2f times the lines, %.2f of its CPU time\n", us, them, rates[us]/rates[them], cpus[us]/cpus[them])
		}
	}
	return nil
}

// measure has a fresh and small process do it, and checks that what came is what should.
func (f *flow) measure(wrap []string, size int, keep bool) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	way := "wrap"
	if f.filter {
		way = "filter"
	}
	args := append(append(append([]string{}, wrap...), self, relayWord, way, strconv.Itoa(f.blocks)), f.args...)
	var out, errs strings.Builder
	c := exec.Command(args[0], args[1:]...)
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return fmt.Errorf("%w\n%s", err, errs.String())
	}
	var wall, cpu, rss float64
	var got int
	if _, err := fmt.Sscan(out.String(), &wall, &cpu, &rss, &got); err != nil {
		return fmt.Errorf("%w: %q", err, out.String())
	}
	lines := linesOf(f.blocks)
	want := f.blocks * size
	if f.masked {
		want -= f.blocks * (maskLength - len("[MASKED]"))
	}
	switch {
	case f.filter && f.stamped:
		want += lines * len("2026-01-02T03:04:05.678901 ")
	case f.stamped:
		want += lines * len("[task 2026-01-02T03:04:05.678Z] ")
	}
	if f.limit > 0 && (got > f.limit*5/4 || got < f.limit/2) || f.limit == 0 && got != want {
		return fmt.Errorf("%d bytes came, not %d", got, cmp.Or(f.limit, want))
	}
	if keep {
		f.rate, f.cpu, f.rss = append(f.rate, float64(lines)/wall), append(f.cpu, cpu/float64(lines)*1e6), append(f.rss, rss)
	}
	return nil
}

const relayWord = "-relay"

// relayed wrap|filter BLOCKS WORDS... has a generator's lines come to us through what WORDS run. It prints seconds from the first byte to the end, the
// CPU seconds of the process that WORDS became, without its children's, the MB of the larger one of both, and how many bytes came.
func relayed(args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	in, cmds, err := through(args[2:], args[0] == "filter", self, generateWord, args[1])
	if err != nil {
		return err
	}
	var began time.Time
	buf, n := make([]byte, 256<<10), 0
	for {
		got, err := unix.Read(in, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			began = time.Now()
		}
		if got == 0 {
			break
		}
		n += got
	}
	wall := time.Since(began).Seconds()
	// A process that nobody has reaped yet still tells what it used itself; afterwards that of its children is in it.
	if err := unix.Waitid(unix.P_PID, cmds[0].Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		return err
	}
	cpu, err := ownTime(cmds[0].Process.Pid)
	if err != nil {
		return err
	}
	if err := waitAll(cmds); err != nil {
		return err
	}
	fmt.Println(wall, cpu, float64(cmds[0].ProcessState.SysUsage().(*syscall.Rusage).Maxrss)/1024, n)
	return nil
}

// through starts a command with what it prints coming to us through what words run: they are the beginning of its command line or, for a filter, that of
// another process. The first process is that of words; in is to be read to its end.
func through(words []string, filter bool, args ...string) (in int, cmds []*exec.Cmd, err error) {
	in, to, err := rawPipe()
	if err != nil {
		return 0, nil, err
	}
	start := func(stdin, stdout *os.File, args ...string) error {
		c := exec.Command(args[0], args[1:]...)
		c.Stdout, c.Stderr = stdout, os.Stderr
		if stdin != nil {
			c.Stdin = stdin
		}
		cmds = append(cmds, c)
		err := c.Start()
		stdout.Close()
		return err
	}
	if !filter {
		err := start(nil, to, append(slices.Clone(words), args...)...)
		return in, cmds, err
	}
	from, mid, err := rawPipe()
	if err != nil {
		return 0, nil, err
	}
	reader := os.NewFile(uintptr(from), "pipe")
	defer reader.Close()
	err = errors.Join(start(reader, to, words...), start(nil, mid, args...))
	return in, cmds, err
}

func waitAll(cmds []*exec.Cmd) (err error) {
	for _, c := range cmds {
		if e := c.Wait(); e != nil {
			err = errors.Join(err, fmt.Errorf("%q: %w", c.Args, e))
		}
	}
	return err
}

// rawPipe is one of which our end does not go through the runtime's poller, which would be measured, too.
func rawPipe() (from int, to *os.File, err error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return 0, nil, err
	}
	return ends[0], os.NewFile(uintptr(ends[1]), "pipe"), nil
}

// ownTime is the CPU time of a process, in seconds, in ticks of a hundredth: see proc_pid_stat(5).
func ownTime(pid int) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	var ticks float64
	for _, f := range fields[11:13] {
		v, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return 0, err
		}
		ticks += v
	}
	return ticks / 100, nil
}
