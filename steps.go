package main

import (
	"context"
	"os"

	"run-task/caches"
	"run-task/checkout"
	"run-task/internal/logs"
	"run-task/internal/self"
	"run-task/perms"
	"run-task/supervise"
)

func (j *job) openEarly(context.Context, *logs.Log) error { return j.openStatus(j.StatusEarly) }

func (j *job) openLate(context.Context, *logs.Log) error { return j.openStatus(!j.StatusEarly) }

func (j *job) openStatus(now bool) error {
	if j.StatusFile == "" || !now {
		return nil
	}
	return j.report.Open(j.StatusFile)
}

func (j *job) check(ctx context.Context, log *logs.Log) error {
	return caches.Check(ctx, log, j.Caches)
}

func (j *job) own(ctx context.Context, log *logs.Log) error {
	for _, dir := range j.Chown {
		if err := perms.Own(ctx, log, dir, j.Identity.UID, j.Identity.GID); err != nil {
			return err
		}
	}
	return perms.Provide(log, j.Provide, j.Identity)
}

func (j *job) become(_ context.Context, log *logs.Log) error {
	for _, n := range j.Identity.Notes {
		log.Infof("%s", n)
	}
	j.dropped = true // also if it fails: it is not tried twice
	return perms.Become(log, j.Identity)
}

func (j *job) checkOut(ctx context.Context, log *logs.Log) (err error) {
	j.done, err = checkout.All(ctx, log, j.Checkouts)
	for _, r := range j.done {
		j.report.Checkout(r.Name, r.Dir, r.SHA, r.Commit, r.Tree, r.Source, r.Seconds)
	}
	return err
}

func (j *job) copy(ctx context.Context, log *logs.Log) error { return caches.Copy(ctx, log, j.Copies) }

func (j *job) exec(context.Context, *logs.Log) error {
	if j.Alone {
		return j.report.Done()
	}
	if err := j.report.Command(); err != nil {
		return err
	}
	c := j.Command
	c.Dir, c.Env = j.Dir(j.done), j.Environ(j.done)
	return supervise.Exec(c, j.signals)
}

func (j *job) install(_ context.Context, log *logs.Log) error {
	path, err := self.Install(j.Install)
	if err == nil {
		log.Infof("put this binary at %q", path)
	}
	return err
}

// fail writes the status file. One that only the user may open is opened as the user, so the drop comes first if it has not been.
func (j *job) fail(ctx context.Context, step string, err error) {
	if j.StatusFile != "" && !j.StatusEarly && !j.dropped {
		unopened := j.become(ctx, j.log)
		if unopened == nil {
			unopened = j.openLate(ctx, j.log)
		}
		if unopened != nil {
			j.log.Warnf("status file: %v", unopened)
			return
		}
	}
	j.tell(step, err)
}

// refuse writes the status file of a task that was not understood. Then there is no user to become, and what only the user may open stays as it is.
func (j *job) refuse(err error) {
	if j.StatusFile == "" || !j.StatusEarly && os.Geteuid() == 0 {
		return
	}
	if err := j.report.Open(j.StatusFile); err != nil {
		j.log.Warnf("status file: %v", err)
		return
	}
	j.tell("", err)
}

func (j *job) tell(step string, err error) {
	if err := j.report.Failed(step, err); err != nil {
		j.log.Warnf("%v", err)
	}
}
