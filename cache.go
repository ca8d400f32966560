package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"text/tabwriter"
	"time"

	"run-task/caches"
	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/internal/task"
)

// cache is a subcommand of "run-task cache". Its answer goes to stdout.
func (j *job) cache(ctx context.Context, log *logs.Log) error {
	c, a := j.CacheJob, j.archives(log)
	switch c.Verb {
	case "restore":
		all, err := caches.Restore(ctx, log, a)
		return j.archiveAnswer(all, err)
	case "save":
		limited, cancel := caches.SaveContext(ctx, a.Budget)
		defer cancel()
		all := a.Resolve(limited)
		for _, x := range all {
			if err := x.Err(); err != nil {
				return fmt.Errorf("archive of %q: %w", x.Path, err)
			}
		}
		err := caches.Save(limited, log, a, all, caches.Ending{})
		for _, x := range all {
			if err == nil && x.Saved == caches.Failed { // there is nothing else that the task could go on with
				err = x.Err()
			}
		}
		return j.archiveAnswer(all, err)
	case "key":
		all := a.Resolve(ctx)
		for _, x := range all {
			if err := x.Err(); err != nil {
				return fmt.Errorf("archive of %q: %w", x.Path, err)
			}
		}
		return answer(c, nil, archiveList(all), func(w io.Writer) {
			for _, x := range all {
				fmt.Fprintln(w, x.Key)
			}
		})
	case "list":
		prefix := ""
		if len(c.Keys) > 0 {
			prefix = c.Keys[0]
		}
		all, err := caches.ListArchives(ctx, a.Default, a.Store, prefix)
		return answer(c, err, storedList(all), func(w io.Writer) { archiveTable(w, all) })
	case "verify":
		return j.verifyArchives(ctx, log, a)
	}
	done, err := caches.CollectArchives(ctx, a.Default, a.Store, c.GC)
	return answer(c, err, map[string]any{"removed": storedList(done.Removed), "bytes": done.Bytes, "left": done.Left, "litter": done.Litter}, func(w io.Writer) {
		for _, x := range done.Removed {
			fmt.Fprintln(w, x.Key)
		}
		fmt.Fprintf(w, "%d archives and commits (%s) and %d unfinished uploads removed, %s left\n", len(done.Removed), logs.Bytes(done.Bytes), done.Litter, logs.Bytes(done.Left))
	})
}

func (j *job) verifyArchives(ctx context.Context, log *logs.Log, a caches.Archives) error {
	all, err := caches.VerifyArchives(ctx, log, a.Default, a.Store, j.CacheJob.Keys)
	broken, missing := 0, 0
	for _, x := range all {
		if errors.Is(x.Err, fs.ErrNotExist) {
			missing++
		} else if x.Err != nil {
			broken++
		}
	}
	err = answer(j.CacheJob, err, storedList(all), func(w io.Writer) {
		for _, x := range all {
			if x.Err != nil {
				fmt.Fprintf(w, "%s: %s\n", x.Key, logs.OneLine(x.Err.Error()))
			}
		}
	})
	switch {
	case err != nil:
		return err
	case broken > 0:
		return fail.Errorf(fail.BadData, "%d of %d archives are damaged", broken, len(all)).WithHint("no task uses them; one that restores and saves under the key (policy=pull-push) replaces it")
	case missing > 0:
		return fail.Errorf(fail.Gone, "%d of %d archives are not there", missing, len(all)).WithHint("see run-task cache list")
	}
	log.Infof("%d archives are whole", len(all))
	return nil
}

// archiveAnswer tells machines what became of archives; people have read it in the log.
func (j *job) archiveAnswer(all []*caches.Archive, err error) error {
	if !j.CacheJob.JSON {
		return err
	}
	j.caches = all
	return errors.Join(err, answer(j.CacheJob, nil, list(archiveReports(all)), func(io.Writer) {}))
}

func archiveList(all []*caches.Archive) []map[string]string {
	out := []map[string]string{}
	for _, x := range all {
		out = append(out, map[string]string{"path": x.Path, "key": x.Key, "store": x.Store})
	}
	return out
}

func storedList(all []caches.Stored) []map[string]any {
	out := []map[string]any{}
	for _, x := range all {
		m := map[string]any{"key": x.Key, "size": x.Size, "modified": x.Modified.UTC().Format(time.RFC3339)}
		if !x.Used.IsZero() {
			m["used"] = x.Used.UTC().Format(time.RFC3339)
		}
		if x.Err != nil {
			m["error"] = x.Err.Error()
		}
		out = append(out, m)
	}
	return out
}

func archiveTable(w io.Writer, all []caches.Stored) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "SIZE\tMODIFIED\tUSED\tKEY")
	for _, x := range all {
		used := "-"
		if !x.Used.IsZero() {
			used = x.Used.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", logs.Bytes(x.Size), x.Modified.UTC().Format(time.RFC3339), used, x.Key)
	}
	t.Flush()
}

// answer prints a result, unless there is none.
func answer(c *task.CacheJob, err error, data any, text func(io.Writer)) error {
	if err != nil {
		return err
	}
	out := &errWriter{w: c.Out}
	if c.JSON {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		e.Encode(data)
	} else {
		text(out)
	}
	return out.err
}

// fetch is what "run-task package" does before the command, or without it. Afterwards fetched tells that there is no command to run.
func (j *job) fetch(ctx context.Context, log *logs.Log) (err error) {
	a := j.archives(log)
	if j.Package.Check {
		if j.caches, err = caches.Present(ctx, a); err != nil {
			return err
		}
		x := j.caches[0]
		if x.Restored == caches.Miss {
			return fail.Errorf(fail.Gone, "there is no package %q in %s", x.Key, x.Store).WithHint("build it: run-task package ... -- command")
		}
		return x.Err()
	}
	a.Damaged = true
	if j.caches, err = caches.Restore(ctx, log, a); err != nil {
		return err
	}
	j.reportArchives()
	switch x := j.caches[0]; x.Restored {
	case caches.Hit:
		j.fetched = true
	case caches.Failed:
		log.Infof("the command makes %q, and nothing is put into the store", x.Path)
		x.Keep()
	}
	return nil
}
