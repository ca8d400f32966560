//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	more["obey"], more["flood"], more["backwards"] = obey, flood, backwards
}

// obey does what the lines of stdin say, until they end:
//
//	1 "TEXT", 2 "TEXT"   one write of a Go string to stdout or stderr
//	drain                wait until whoever reads them has all that was written
//	touch "FILE"         make a file
//	ignore N             signal N is ignored from now on
//	exit N, kill N       end by exit code or signal
//
// Its arguments are for whoever looks at processes.
func obey([]string) error {
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		word, arg, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		text, _ := strconv.Unquote(arg)
		n, _ := strconv.Atoi(arg)
		switch word {
		case "1":
			_, err = os.Stdout.WriteString(text)
		case "2":
			_, err = os.Stderr.WriteString(text)
		case "drain":
			err = drain()
		case "touch":
			err = os.WriteFile(text, nil, 0o666)
		case "ignore":
			signal.Ignore(syscall.Signal(n))
		case "exit":
			os.Exit(n)
		case "kill":
			err = modes("kill", []string{arg})
		default:
			err = fmt.Errorf("obey: no word %q", word)
		}
		if err != nil {
			return err
		}
	}
}

// drain waits until the pipes at stdout and stderr are empty. No event tells a writer so.
func drain() error {
	for _, fd := range []int{1, 2} {
		for pause := 10 * time.Microsecond; ; pause = min(2*pause, time.Millisecond) {
			n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			time.Sleep(pause)
		}
	}
	return nil
}

// flood BYTES [FILE]: so many bytes (-1: no end) on stdout, in lines of 64 that begin with their number. FILE has our pid and then how many bytes were written, 8 bytes each.
func flood(args []string) error {
	total, err := strconv.ParseInt(args[0], 10, 64)
	if err != nil {
		return err
	}
	wrote, size := func(int64) {}, 64<<10
	if len(args) > 1 {
		count, err := counter(args[1])
		if err != nil {
			return err
		}
		wrote, size = count, os.Getpagesize() // so a pipe that takes no more is full to the last byte
	}
	b := []byte(strings.Repeat(strings.Repeat("0", 16)+" "+strings.Repeat("=", 46)+"\n", size/64))
	line := int64(0)
	for done := int64(0); total < 0 || done < total; {
		for i := 0; i < len(b); i += 64 {
			n := line
			for at := i + 15; n > 0; at-- {
				b[at] = "0123456789abcdef"[n&15]
				n >>= 4
			}
			line++
		}
		part := b
		if total >= 0 {
			part = b[:min(int64(len(b)), total-done)]
		}
		n, err := os.Stdout.Write(part)
		if err != nil {
			return err
		}
		done += int64(n)
		wrote(done)
	}
	return nil
}

// counter is a file that shows a number as soon as it is set.
func counter(name string) (func(int64), error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	put := func(b []byte, n int64) {
		for i := range b {
			b[i] = byte(n >> (8 * i))
		}
	}
	put(m[:8], int64(os.Getpid()))
	return func(n int64) { put(m[8:], n) }, nil
}

// backwards NAME...: the values of variables, each reversed: what masks them does not know it.
func backwards(args []string) error {
	return each(args, func(name string) error {
		value := []byte(os.Getenv(name))
		slices.Reverse(value)
		_, err := fmt.Printf("%s\n", value)
		return err
	})
}
