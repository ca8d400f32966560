// Command run-task makes a container ready for one CI task and then becomes the task's command.
//
// This file is the story; what it calls says how.
package main

import (
	"context"
	"os"

	"run-task/caches"
	"run-task/checkout"
	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/internal/task"
	"run-task/report"
	"run-task/supervise"
)

func main() {
	ctx, signals := supervise.Notify(context.Background())
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, signals) }()
	select {
	case code := <-ended:
		os.Exit(code)
	case <-signals.Again(): // whoever sent two does not want to wait for our cleaning up
		os.Exit(int(fail.Of(context.Cause(ctx))))
	}
}

// run gives the exit code, and returns only if there is no command to become, or we stayed with it.
func run(ctx context.Context, signals *supervise.Signals) int {
	t, err := task.Parse(os.Args, os.Environ(), os.Stdout)
	j := job{Task: t, signals: signals}
	j.begin()
	switch {
	case t == nil: // the answer was help, a plan, a version or a name; or we do not know what to do
	case err != nil:
		j.refuse(err)
	default:
		err = j.do(ctx)
	}
	if err != nil {
		fail.Print(j.log, err)
		return int(fail.Of(err))
	}
	return j.ended.Code
}

// job is a task and how far it got.
type job struct {
	*task.Task
	log     *logs.Log
	signals *supervise.Signals
	report  report.Report
	dropped bool
	done    []checkout.Result
	caches  []*caches.Archive
	fetched bool // a package: there is nothing to run
	ended   supervise.Status
}

// A step's name is the prefix of its lines and of its errors.
type step struct {
	name string
	run  func(context.Context, *logs.Log) error
}

func (j *job) steps() []step {
	if aside := j.aside(); aside != nil {
		return aside
	}
	return []step{
		// Still who the container started us as. Root is needed here and only here.
		{"status", j.openEarly}, {"cache", j.check}, {"perms", j.own}, {"perms", j.become},

		// The task's user, for good. Repositories are other people's bytes: they are never opened as root.
		{"status", j.openLate}, {"vcs", j.checkOut}, {"export", j.export}, {"cache", j.restore}, {"copy", j.copy}, {"exec", j.exec},
	}
}

func (j *job) do(ctx context.Context) error {
	for _, w := range j.Warnings {
		j.log.Warnf("%s", w)
	}
	for _, s := range j.steps() {
		err := context.Cause(ctx)
		if err == nil {
			err = j.one(s.name, func() error { return s.run(ctx, j.log.For(s.name)) })
		}
		if err != nil {
			return j.end(ctx, s.name, err)
		}
	}
	return j.end(ctx, "", nil)
}
