package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"run-task/caches"
	"run-task/checkout"
	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
	"run-task/internal/self"
	"run-task/perms"
	"run-task/report"
	"run-task/supervise"
)

// aside are the steps of a subcommand that is no part of the main job, nil for any other.
func (j *job) aside() []step {
	switch {
	case j.Install != "":
		return []step{{"install", j.install}}
	case j.Store != nil:
		return []step{{"perms", j.own}, {"perms", j.become}, {"store", j.store}}
	case j.CacheJob != nil:
		return []step{{"perms", j.own}, {"perms", j.become}, {"cache", j.cache}}
	}
	return nil
}

// one runs one step, and notes how long it took.
func (j *job) one(name string, run func() error) error {
	began := time.Now()
	err := run()
	j.report.Step(name, time.Since(began))
	return err
}

// end is what comes after the last step, or after the one that failed: what the command left in caches is saved, if it was started.
func (j *job) end(ctx context.Context, name string, err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
		j.fail(ctx, name, err)
	}
	if j.ended != (supervise.Status{}) && j.Archives.Saves() {
		if unsaved := j.one("cache", j.save); unsaved != nil && err == nil && j.ended.Code == 0 {
			name, err = "cache", fmt.Errorf("cache: %w", unsaved)
		}
		if err != nil {
			j.tell(name, err) // with what became of the archives
		}
	}
	if err != nil {
		return err
	}
	return j.finish()
}

// begin is what all that is said and done depends on.
func (j *job) begin() {
	j.log = logs.New(os.Stderr, logs.Normal, false)
	if j.Task == nil {
		return
	}
	j.log = logs.New(os.Stderr, j.Level, logs.IsTerminal(os.Stderr))
	j.log.Mask(j.Masks...)
	j.log.Sections(j.Sections)
	if j.Stay.Output.Timestamps {
		j.log.Timestamps()
	}
	j.report.Mask = j.log.Masked
	j.signals.Limit(j.Stay.Limits)
}

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
	if err := perms.Provide(log, j.Provide, j.Identity); err != nil {
		return err
	}
	for _, dir := range j.Stores { // one that cannot be made, as on a read-only volume, is as good as one that cannot be reached
		if err := perms.Provide(log, []string{dir}, j.Identity); fail.Of(err) == fail.Usage {
			return err
		} else if err != nil {
			log.Warnf("%v", err)
		}
	}
	return nil
}

func (j *job) become(_ context.Context, log *logs.Log) error {
	for _, n := range j.Identity.Notes {
		log.Infof("%s", n)
	}
	j.dropped = true // also if it fails: it is not tried twice
	return perms.Become(log, j.Identity)
}

func (j *job) checkOut(ctx context.Context, log *logs.Log) (err error) {
	if j.Resolve != nil {
		var r checkout.Result
		if r, err = j.Checkouts.Pin(ctx, log, *j.Resolve); err == nil {
			j.done = []checkout.Result{r}
		}
	} else {
		j.done, err = checkout.All(ctx, log, j.Checkouts)
	}
	for _, r := range j.done {
		j.report.Checkout(report.Checkout{Name: r.Name, Dir: r.Dir, SHA: r.SHA, Commit: r.Commit, Tree: r.Tree, Source: r.Source, Seconds: r.Seconds,
			Objects: r.Objects, Bytes: r.Bytes, Retries: r.Retries, Phases: report.Phases(r.Phases)})
	}
	return err
}

func (j *job) copy(ctx context.Context, log *logs.Log) error { return caches.Copy(ctx, log, j.Copies) }

// export tells later tasks what the command is told.
func (j *job) export(context.Context, *logs.Log) error {
	if j.ExportFile == "" {
		return nil
	}
	content, err := j.Export(j.done)
	if err != nil {
		return err
	}
	dir, err := fsx.Open(filepath.Dir(j.ExportFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fail.Errorf(fail.Usage, "file %q: its directory does not exist", j.ExportFile).WithHint("name a file in an existing directory, or in a checkout")
	}
	if err == nil {
		defer dir.Close()
		err = dir.WriteFile(filepath.Base(j.ExportFile), content, 0o644)
	}
	if err != nil {
		return fmt.Errorf("file %q: %w", j.ExportFile, err)
	}
	return nil
}

func (j *job) exec(_ context.Context, log *logs.Log) (err error) {
	if j.Alone || j.fetched {
		if j.Resolving() {
			if _, err := fmt.Println(j.done[0].SHA); err != nil {
				return fmt.Errorf("standard output: %w", err)
			}
		}
		return j.report.Done()
	}
	if err := j.report.Command(); err != nil {
		return err
	}
	c := j.Command
	c.Dir, c.Env = j.Dir(j.done), j.Environ(j.done)
	if !j.Init {
		log.EndSection()
		return supervise.Exec(c, j.signals)
	}
	log.CommandSection()
	j.ended, err = supervise.Run(log, c, j.Stay, j.signals)
	log.EndSection()
	j.report.Ended(j.ended)
	return err
}

// restore fills the archives' directories. From here on the command's directory is known.
func (j *job) restore(ctx context.Context, log *logs.Log) (err error) {
	if len(j.Archives.Specs) == 0 {
		return nil
	}
	if j.Package != nil {
		return j.fetch(ctx, log)
	}
	a := j.archives(log)
	j.caches, err = caches.Restore(ctx, log, a)
	j.reportArchives()
	return err
}

// archives are the task's, with what was only known after the checkout.
func (j *job) archives(log *logs.Log) caches.Archives {
	a := j.Archives
	a.Dir, a.Store.Log = j.Dir(j.done), log
	dir := ""
	switch {
	case len(j.done) == 1:
		dir = j.done[0].Dir
	case j.CacheJob != nil: // an earlier run-task may have checked it out
		dir = cmp.Or(a.Dir, ".")
	}
	if dir != "" {
		a.Tree = func(path string) (string, error) { return checkout.TreeHash(dir, path) }
	}
	return a
}

// save puts the archives' directories into their stores. The command's exit status is the task's, whatever becomes of that.
func (j *job) save() error {
	log := j.log.For("cache")
	ctx, done := j.signals.After()
	defer done()
	d, ok := j.Stay.Limits.Rest(j.Archives.Budget)
	if !ok {
		log.Warnf("nothing is saved: --timeout left no time for that")
		log.Infof("hint: keep some of it with --save-budget")
		return nil
	}
	ctx, cancel := caches.SaveContext(ctx, d)
	defer cancel()
	err := caches.Save(ctx, log, j.archives(log), j.caches, caches.Ending{Failed: j.ended.Code != 0, TimedOut: j.ended.Limit != "", Cancelled: j.ended.Cancelled})
	j.reportArchives()
	return err
}

func (j *job) reportArchives() { j.report.Archives(archiveReports(j.caches)) }

func archiveReports(archives []*caches.Archive) (all []report.Archive) {
	for _, x := range archives {
		all = append(all, report.Archive{Path: x.Path, Key: x.Key, From: x.From, Restored: x.Restored, Saved: x.Saved, Files: x.Files, Bytes: x.Bytes, Packed: x.Packed, Seconds: x.Seconds})
	}
	return all
}

// finish says in the status file how the command ended. That it cannot is no reason to change how the task ended.
func (j *job) finish() error {
	j.log.EndSection()
	if err := j.report.Finished(); err != nil {
		j.log.Warnf("%v", err)
	}
	return nil
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
