//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

func init() { more["peak"] = peak }

// peak FILE COMMAND...: runs a command, writes its peak of memory in bytes to FILE, and ends with its exit code. For a program that is started by a large one the kernel
// counts that one's peak, too (vfork): this one is small.
func peak(args []string) error {
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	bytes := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	if err := os.WriteFile(args[0], []byte(strconv.FormatInt(bytes, 10)), 0o644); err != nil {
		return err
	}
	os.Exit(cmd.ProcessState.ExitCode())
	return nil
}
