// Helper is the static program that the tests of supervise start: what main does around it, and nothing else.
package main

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/supervise"
)

func main() {
	ctx, signals := supervise.Notify(context.Background())
	go func() {
		<-signals.Again()
		os.Exit(int(fail.Of(context.Cause(ctx))))
	}()
	err := run(ctx, signals, os.Args[1], os.Args[2:])
	fail.Print(os.Stderr, err)
	os.Exit(int(fail.Of(err)))
}

func run(ctx context.Context, signals *supervise.Signals, mode string, args []string) error {
	command := supervise.Command{Args: args, Dir: os.Getenv("HELPER_DIR"), Env: os.Environ()}
	switch mode {
	case "setup": // until a signal comes
		fmt.Println("ready")
		<-ctx.Done()
		return context.Cause(ctx)
	case "stuck": // and does not end then
		fmt.Println("ready")
		<-ctx.Done()
		fmt.Println("cancelled")
		select {}
	case "window": // TERM at any instant from here on
		fmt.Println("ready")
	case "late": // a signal that arrives before the command, which nobody looked at
		if err := unix.Kill(os.Getpid(), unix.SIGINT); err != nil {
			return err
		}
	case "noexec":
		if err := unix.Mount("tmpfs", command.Dir, "tmpfs", unix.MS_NOEXEC, ""); err != nil {
			return err
		}
		if err := os.WriteFile(command.Dir+"/x", []byte("#!/bin/sh\n"), 0o755); err != nil {
			return err
		}
	}
	return supervise.Exec(command, signals)
}
