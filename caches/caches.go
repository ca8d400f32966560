// Package caches admits the directories that a CI worker keeps between tasks, keeps others as archives in a store, and copies trees into place.
//
// A cache directory carries a requirement file that says what a task must be like to use it; the files are those of Mozilla's Python run-task (bug
// 1391789), because both may meet the same volume. They guard against accidents, not attacks: a task owns its cache and can
// rewrite them. What a cache can never do is make root read or change anything outside it.
//
// An archive is restored as a whole or not at all, from bytes that are proven before they are believed, and replaced in its store in one step. docs/archives.md describes its format.
package caches

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
	"run-task/perms"
)

// Options names the cache directories and volumes of a task and what this task requires of a cache.
type Options struct {
	Dirs      []string // caches, absolute or relative to the working directory; Check cleans paths lexically
	Volumes   []string
	Require   []string // extra KEY=VALUE lines
	Untrusted bool     // uid/gid mismatches may be repaired by chown
	UID, GID  int      // the task's user
	Root      bool     // we are root
	TaskID    string   // for the audit log; "" is UNKNOWN
}

// Check admits the caches and then the volumes of a task, in their order, and as root gives each to the task's user: first
// the ownership, last the requirement file, so that a kill at any instant leaves what the next Check does again.
//
// A cache that is empty (but for an empty lost+found of root's and what a killed Check left) is set up; one whose
// requirements this task meets is used as it is; one whose owner alone differs is re-owned if Untrusted and Root. Any other
// is refused with fail.PurgeCache and left as it was but for a line in its .cachelog, and so is one in which a link, a FIFO
// or a file with a second name stands in for .cacherequires or .cachelog. A .cacherequires of no bytes is refused too,
// although the Python script would take it: nobody writes one, so it is what a crash left.
//
// A volume must be empty. A directory that is named twice, however it is spelt, is checked once. What is missing, is no
// directory or is a link fails with fail.Usage, and so does, for root, one behind a link that others could have made
// (perms.OpenDir). Checks of one cache wait for each other; fail.Busy after five minutes, or where something else changes the
// cache's own directory all the time.
func Check(ctx context.Context, log *logs.Log, o Options) error {
	ours, err := o.Requirements()
	if err != nil {
		return err
	}
	seen := map[inode]bool{}
	for _, name := range o.Dirs {
		err := once(ctx, log, "cache", name, seen, func(d *fsx.Dir) error {
			a := admission{Options: o, log: log, dir: d, name: name, ours: ours}
			return a.admit(ctx)
		})
		if err != nil {
			return err
		}
	}
	for _, name := range o.Volumes {
		if err := once(ctx, log, "volume", name, seen, func(d *fsx.Dir) error { return o.volume(log, name, d) }); err != nil {
			return err
		}
	}
	return nil
}

type inode struct{ dev, ino uint64 }

// once opens a directory and looks at it, unless it was met before.
func once(ctx context.Context, log *logs.Log, what, name string, seen map[inode]bool, look func(*fsx.Dir) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	d, err := open(what, name)
	if err != nil {
		return err
	}
	defer d.Close()
	st, err := d.Stat()
	if err != nil {
		return err
	}
	id := inode{st.Dev, st.Ino}
	if seen[id] {
		log.Verbosef("%s %q was named before", what, name)
		return nil
	}
	seen[id] = true
	return look(d)
}

func (o Options) volume(log *logs.Log, name string, d *fsx.Dir) error {
	entries, err := contents(d)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fail.Errorf(fail.Usage, "volume %q is not empty", name).
			WithDetails(sample("it holds", entries)).
			WithHint("let no step of the image's build write there, or make it a cache: --cache %q", name)
	}
	if !o.Root {
		return nil
	}
	if err := perms.OwnDir(d, o.UID, o.GID); err != nil {
		return fmt.Errorf("volume %q: %w", name, err)
	}
	log.Infof("volume %q given to %d:%d", name, o.UID, o.GID)
	return nil
}

// open opens a cache or volume. The path is the administrator's, but a task can have planted links on it, and in more places
// than the other caches: perms knows which root may follow.
func open(what, name string) (*fsx.Dir, error) {
	d, err := perms.OpenDir(name)
	if err != nil {
		return nil, fmt.Errorf("%s %w", what, err)
	}
	return d, nil
}

// contents lists a directory, sorted, without the empty lost+found that every new ext file system has.
func contents(d *fsx.Dir) ([]string, error) {
	names, err := d.Names()
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == "lost+found" && emptyOfRoot(d, n) })
	slices.Sort(names)
	return names, nil
}

// emptyOfRoot tells whether a name is a directory of root's with nothing in it, or nothing that we could read.
func emptyOfRoot(d *fsx.Dir, name string) bool {
	st, err := d.Lstat(name)
	if err != nil || !st.IsDir() || st.UID != 0 {
		return false
	}
	sub, err := d.OpenDir(name)
	if err != nil {
		return errors.Is(err, fs.ErrPermission)
	}
	defer sub.Close()
	names, err := sub.Names()
	return err == nil && len(names) == 0
}

func strictlyInside(p, outer string) bool {
	return len(p) > len(outer) && strings.HasPrefix(p, strings.TrimSuffix(outer, "/")+"/")
}

// sample shows foreign names or lines quoted, a limited number of them and each of limited length.
func sample(what string, all []string) string {
	const most, longest = 20, 200
	var shown []string
	for _, s := range all[:min(len(all), most)] {
		if len(s) > longest {
			s = s[:longest] + "..."
		}
		shown = append(shown, fmt.Sprintf("%q", s))
	}
	if len(all) > most {
		shown = append(shown, fmt.Sprintf("and %d more", len(all)-most))
	}
	return what + ": " + strings.Join(shown, " ")
}
