package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"run-task/checkout"
	"run-task/internal/fail"
	"run-task/internal/logs"
)

// store is a subcommand of "run-task store". Its answer goes to stdout.
func (j *job) store(ctx context.Context, log *logs.Log) error {
	s := j.Store
	switch s.Verb {
	case "list":
		pins, err := checkout.Pins(s.Dir)
		return j.answer(err, list(pins), func(w io.Writer) { table(w, pins) })
	case "pin":
		r, err := j.Checkouts.Pin(ctx, log, s.Repo)
		return j.answer(err, map[string]any{"url": r.URL, "sha": r.SHA, "commit": r.Commit, "tree": r.Tree, "source": r.Source, "bytes": r.Bytes, "objects": r.Objects},
			func(w io.Writer) { fmt.Fprintln(w, r.SHA) })
	case "unpin":
		n, err := checkout.Unpin(s.Dir, s.Repo.URL, s.Repo.SHA, s.Trust, s.Holder)
		return j.answer(err, map[string]int{"removed": n}, func(w io.Writer) { fmt.Fprintf(w, "%d pins removed\n", n) })
	case "gc":
		s.GC.Now = time.Now()
		f, err := checkout.CollectGarbage(ctx, s.Dir, s.GC)
		return j.answer(err, map[string]any{"busy": list(f.Busy), "pins": f.Pins, "packs": f.Packs, "bytes": f.Bytes, "condemned": f.Condemned, "left": f.Left}, func(w io.Writer) {
			for _, dir := range f.Busy {
				fmt.Fprintf(w, "%q is busy: skipped\n", dir)
			}
			fmt.Fprintf(w, "%d pins and %d packs (%s) removed, %d packs without a pin go later, %s left\n", f.Pins, f.Packs, logs.Bytes(f.Bytes), f.Condemned, logs.Bytes(f.Left))
		})
	case "verify":
		return j.verify(ctx, log)
	}
	path, err := checkout.StorePath(s.Dir, s.Repo.URL, s.Trust)
	return j.answer(err, path, func(w io.Writer) { fmt.Fprintln(w, path) })
}

func (j *job) verify(ctx context.Context, log *logs.Log) error {
	broken, err := checkout.VerifyStore(ctx, log, j.Store.Dir)
	var all []map[string]string
	for _, b := range broken {
		all = append(all, map[string]string{"url": b.URL, "sha": b.SHA, "holder": b.Holder, "error": b.Err.Error()})
	}
	err = j.answer(err, list(all), func(w io.Writer) {
		for _, b := range broken {
			fmt.Fprintf(w, "%s of %s, pinned for %q: %s\n", b.SHA, b.URL, b.Holder, logs.OneLine(b.Err.Error()))
		}
	})
	if err == nil && len(broken) > 0 {
		err = fail.Errorf(fail.PurgeCache, "%d pins are not complete", len(broken)).WithHint("the next task that wants one fetches it anew; if it comes back, the disk is broken")
	}
	return err
}

// answer prints a result, unless there is none.
func (j *job) answer(err error, data any, text func(io.Writer)) error {
	if err != nil {
		return err
	}
	out := &errWriter{w: j.Store.Out}
	if j.Store.JSON {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		e.Encode(data)
	} else {
		text(out)
	}
	return out.err
}

// list makes JSON's [] of no elements.
func list[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}

func table(w io.Writer, pins []checkout.Pinned) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "SHA\tDEPTH\tSIZE\tEXPIRES\tHOLDER\tTRUST\tURL")
	for _, p := range pins {
		depth := fmt.Sprint(p.Depth)
		if p.Depth == 0 {
			depth = "all"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%q\t%q\t%s\n", p.SHA, depth, logs.Bytes(p.Bytes), p.Expires.UTC().Format(time.RFC3339), p.Holder, p.Trust, logs.OneLine(p.URL))
	}
	t.Flush()
}

// errWriter keeps the first error.
type errWriter struct {
	w   io.Writer
	err error
}

func (e *errWriter) Write(b []byte) (int, error) {
	n, err := e.w.Write(b)
	if err != nil && e.err == nil {
		e.err = fail.Errorf(fail.IO, "standard output: %w", err)
	}
	return n, err
}
