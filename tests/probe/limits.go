//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	more["burn"], more["occupy"] = burn, occupy
}

// burn USER SYSTEM: uses so many seconds of CPU time in user mode, and then in the kernel.
func burn(args []string) error {
	user, err := time.ParseDuration(args[0] + "s")
	if err != nil {
		return err
	}
	system, err := time.ParseDuration(args[1] + "s")
	if err != nil {
		return err
	}
	f, err := os.Open("/dev/zero")
	if err != nil {
		return err
	}
	defer f.Close()
	var u unix.Rusage
	for b := make([]byte, 1<<20); err == nil && time.Duration(u.Utime.Nano()) < user; err = unix.Getrusage(unix.RUSAGE_SELF, &u) {
		for i := range b {
			b[i] ^= byte(i)
		}
	}
	for b := make([]byte, 1<<20); err == nil && time.Duration(u.Stime.Nano()) < system; err = unix.Getrusage(unix.RUSAGE_SELF, &u) {
		if _, err := f.Read(b); err != nil {
			return err
		}
	}
	return err
}

// occupy BYTES: has so many bytes of memory, and says so.
func occupy(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	for i := 0; i < n; i += os.Getpagesize() {
		b[i] = 1
	}
	fmt.Println(n)
	return nil
}
