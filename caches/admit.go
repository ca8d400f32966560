package caches

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
	"run-task/perms"
)

// admission is one cache on its way in.
type admission struct {
	Options
	log  *logs.Log
	dir  *fsx.Dir
	name string   // as the user wrote it
	ours []string // requirement lines, sorted
}

func (a *admission) admit(ctx context.Context) error {
	unlock, err := a.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	names, err := contents(a.dir)
	if err != nil {
		return fmt.Errorf("cache %q: %w", a.name, err)
	}
	// Before anything is changed for a cache that record would refuse.
	if st, err := a.dir.Lstat(logName); err == nil {
		if err := a.plain(logName, st); err != nil {
			return fmt.Errorf("cache %q: %w", a.name, err)
		}
	}
	if slices.Contains(names, requiresName) {
		return a.compare(ctx, names)
	}
	if foreign := a.foreign(names); len(foreign) > 0 {
		return a.unmarked(foreign)
	}
	return a.create(names)
}

var lockBudget = 5 * time.Minute // not a constant so that a test need not wait as long

// lock keeps a second run-task out while a cache is set up: in containers both have process id 1 and would write the same
// temporary file.
func (a *admission) lock(ctx context.Context) (unlock func(), err error) {
	f, err := a.dir.OpenFile(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("cache %q: %w", a.name, err)
	}
	busy := fail.Errorf(fail.Busy, "another task has been checking cache %q for %v", a.name, lockBudget).
		WithHint("run again later, or see what holds a lock on the directory")
	waits, cancel := context.WithTimeoutCause(ctx, lockBudget, busy)
	defer cancel()
	err = fsx.Lock(waits, f, func() { a.log.Infof("cache %q: waiting for another task that checks it", a.name) })
	if err != nil && context.Cause(waits) != nil {
		f.Close()
		return nil, err
	}
	if err != nil { // NFS before Linux 2.6.12, some FUSE file systems
		a.log.Verbosef("cache %q cannot be locked: %v", a.name, err)
	}
	return func() { f.Close() }, nil
}

// foreign leaves out what a killed Check may have left.
func (a *admission) foreign(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool {
		if n == logName {
			return true // record looks at it
		}
		st, err := a.dir.Lstat(n)
		return isTemporary(n) && err == nil && st.IsRegular()
	})
}

// isTemporary knows the names under which fsx.Dir.WriteFile writes the requirement file.
func isTemporary(name string) bool { return strings.HasPrefix(name, requiresName+".tmp") }

// create sets up an empty cache. The requirement file comes last: it vouches for all the rest.
func (a *admission) create(names []string) error {
	if a.Root {
		if err := perms.OwnDir(a.dir, a.UID, a.GID); err != nil {
			return fmt.Errorf("cache %q: %w", a.name, err)
		}
	}
	if err := a.record("created; requirements: " + strings.Join(a.ours, ", ")); err != nil {
		return err
	}
	if err := a.require(names, a.ours); err != nil {
		return err
	}
	a.log.Infof("cache %q is empty; it now requires %s", a.name, strings.Join(a.ours, " "))
	return nil
}

// require writes the requirement file, and removes what a killed run left of one.
func (a *admission) require(names, lines []string) error {
	for _, n := range names {
		if isTemporary(n) {
			a.dir.Unlink(n)
		}
	}
	err := a.dir.WriteFile(requiresName, []byte(strings.Join(lines, "\n")), 0o444)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EISDIR):
		return a.purge("cache %q: %w", a.name, err)
	case errors.Is(err, fs.ErrPermission) && a.Root:
		return fail.Errorf(fail.OS, "cache %q: root may not write there: %w", a.name, err).
			WithHint("give the container the capability CAP_DAC_OVERRIDE")
	case errors.Is(err, fs.ErrPermission):
		return fail.Errorf(fail.IO, "cache %q cannot be written by uid %d: %w", a.name, a.UID, err).
			WithHint("make it writable for uid %d, or start run-task as root with --user, so that it can", a.UID)
	}
	return fmt.Errorf("cache %q: %w", a.name, err)
}

// compare holds this task against a cache that has a requirement file.
func (a *admission) compare(ctx context.Context, names []string) error {
	theirs, err := a.readRequires()
	if err != nil {
		return err
	}
	missing := minus(theirs, a.ours)
	switch {
	case len(missing) == 0:
		if err := a.record("used"); err != nil {
			return err
		}
		a.log.Infof("cache %q meets %s", a.name, strings.Join(a.ours, " "))
		return nil
	case a.Untrusted && a.Root && !slices.ContainsFunc(missing, func(l string) bool { return !isOwner(l) }):
		return a.reown(ctx, names, theirs, missing)
	}
	return a.mismatch(theirs, missing)
}

// nobody owns what a killed re-own left, as requirements that no task meets. Python's run-task, too, takes them for a mismatch
// of the owner alone.
var nobody = []string{"gid=-1", "uid=-1"}

// reown changes all of a cache to this task's user. While it works the requirement file asks for nobody: a cache that is half
// the one's and half the other's is for neither, but the next untrusted task finishes the work.
func (a *admission) reown(ctx context.Context, names, theirs, missing []string) error {
	a.log.Infof("%s, but caches are untrusted: giving it to %d:%d",
		sample(fmt.Sprintf("cache %q requires", a.name), missing), a.UID, a.GID)
	unowned := append(slices.DeleteFunc(slices.Clone(theirs), isOwner), nobody...)
	slices.Sort(unowned)
	if err := a.require(names, unowned); err != nil {
		return err
	}
	if err := perms.OwnTree(ctx, a.log, a.dir, a.UID, a.GID); err != nil {
		return fmt.Errorf("cache %q: %w", a.name, err)
	}
	if err := a.record("chown; requirements: " + strings.Join(a.ours, ", ")); err != nil {
		return err
	}
	return a.require(nil, a.ours)
}

func (a *admission) mismatch(theirs, missing []string) error {
	if err := a.record("requirements mismatch; wanted: " + strings.Join(a.ours, ", ")); err != nil {
		return err
	}
	err := a.purge("cache %q was filled by another kind of task", a.name).
		WithDetails(sample("the cache requires", theirs), sample("this task has", a.ours), sample("missing here", missing)).
		WithDetails(a.history()...)
	switch {
	case slices.Contains(missing, nobody[0]):
		err.WithHint("purge the cache and run again: giving it to another user was interrupted (root finishes it with --untrusted-caches)")
	case slices.ContainsFunc(missing, isOwner):
		err.WithHint("purge the cache and run again; then let all tasks that share it run with one --user and --group, " +
			"or name it differently for each (root re-owns it with --untrusted-caches)")
	}
	return err
}

func (a *admission) unmarked(foreign []string) error {
	if err := a.record("missing " + requiresName); err != nil {
		return err
	}
	err := a.purge("cache %q is not empty and has no %s", a.name, requiresName).WithDetails(sample("it holds", foreign)).
		WithHint("purge the cache and run again; if it comes back, something fills the directory before run-task, or a task that does not name it as a cache")
	for _, inner := range slices.Concat(a.Dirs, a.Volumes) {
		if strictlyInside(absolute(inner), absolute(a.name)) {
			err.WithHint("mount %q outside of %q: a mount point inside a cache is content", inner, a.name)
		}
	}
	return err
}

func (a *admission) purge(format string, args ...any) *fail.Error {
	return fail.Errorf(fail.PurgeCache, format, args...).
		WithHint("purge the cache and run again; if it comes back, give each kind of task a cache name of its own")
}

// readRequires reads the requirement file. Whatever keeps it from being read is fail.PurgeCache.
func (a *admission) readRequires() ([]string, error) {
	f, st, err := a.openOurs(requiresName, unix.O_RDONLY)
	if fail.Of(err) == fail.Busy {
		return nil, fmt.Errorf("cache %q: %w", a.name, err)
	}
	if err != nil {
		return nil, a.purge("cache %q: %w", a.name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRequires+1))
	if len(b) > maxRequires {
		err = fmt.Errorf("it has %d bytes, more than %d", max(st.Size, int64(len(b))), maxRequires)
	}
	var lines []string
	if err == nil {
		lines, err = parseRequires(b)
	}
	if err != nil {
		return nil, a.purge("cache %q: read %s: %w", a.name, requiresName, err)
	}
	return lines, nil
}
