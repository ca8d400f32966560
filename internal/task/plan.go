package task

import (
	"fmt"
	"io"
	"strings"

	"run-task/checkout"
	"run-task/internal/logs"
)

// plan prints what would be done and where each value came from. It reads, and changes nothing.
func (t *Task) plan(out io.Writer, v *values, where map[string]string) error {
	l := logs.New(out, logs.Normal, false)
	say := func(step, format string, args ...any) { l.For(step).Infof(format, args...) }
	for _, w := range t.Warnings {
		l.Warnf("%s", w)
	}
	for i, d := range t.Caches.Dirs {
		say("cache", "check %q (%s)", d, v.origin("cache", i, "TASKCLUSTER_CACHES"))
	}
	if len(t.Caches.Dirs) > 0 {
		requirements, err := t.Caches.Requirements()
		if err != nil {
			return err
		}
		say("cache", "requirements: %s", strings.Join(requirements, ", "))
		if t.Caches.Untrusted {
			say("cache", "caches are untrusted: another uid or gid is repaired")
		}
	}
	for i, d := range t.Caches.Volumes {
		say("cache", "take the empty volume %q (%s)", d, v.origin("volume", i, "TASKCLUSTER_VOLUMES"))
	}
	for _, d := range t.Chown {
		say("perms", "give %q and all in it to uid %d, gid %d (%s)", d, t.Identity.UID, t.Identity.GID, v.where("chown"))
	}
	for _, d := range t.Provide {
		if t.Identity.Drop {
			say("perms", "make %q for the user if only root can", d)
		}
	}
	for _, n := range t.Identity.Notes {
		say("perms", "%s", n)
	}
	if t.Identity.Drop {
		say("perms", "become uid %d, gid %d, groups %v for good (%s)", t.Identity.UID, t.Identity.GID, t.Identity.Groups, v.where("user"))
	} else {
		say("perms", "stay uid %d, gid %d (%s)", t.Identity.UID, t.Identity.GID, v.where("user"))
	}
	for _, name := range []string{"no-new-privs", "pass-fds"} {
		if v.on(name) {
			say("perms", "%s (%s)", name, v.where(name))
		}
	}
	for _, r := range t.Checkouts.Repos {
		depth := fmt.Sprintf("depth %d", r.Depth)
		if r.Depth == 0 {
			depth = "full history"
		}
		more := ""
		if len(r.Sparse) > 0 {
			more = fmt.Sprintf(", only %q", r.Sparse)
		}
		if r.ReadOnly {
			more += ", read-only"
		}
		say("vcs", "check out %s of %s into %q, %s, clean %s%s (%s)", r.SHA, checkout.Address(r.URL), r.Dir, depth, r.Clean, more, where[r.Name])
		if r.Adopt {
			say("vcs", "adopt %q: what is in it and not the commit's is removed (%s)", r.Dir, v.where("adopt"))
		}
		if len(r.Hints) > 0 {
			say("vcs", "hints for %q: %s", r.Dir, strings.Join(r.Hints, ", "))
		}
	}
	for _, c := range t.Copies {
		say("copy", "copy %q to %q (%s)", c.Src, c.Dst, v.where("copy"))
	}
	if t.StatusFile != "" {
		say("status", "write %q (%s)", t.StatusFile, v.where("status-file"))
	}
	if !t.Alone {
		dir := t.Command.Dir
		switch {
		case dir == "" && len(t.Checkouts.Repos) == 1:
			dir = t.Checkouts.Repos[0].Dir
		case dir == "":
			dir = "."
		}
		say("exec", "%q in %q (%s)", t.Command.Args, dir, v.where("cwd"))
	}
	return nil
}

// origin names the source of the i-th of a list's values: Taskcluster's come after those of the setting.
func (v *values) origin(name string, i int, taskcluster string) string {
	if i < len(v.list(name)) {
		return v.where(name)
	}
	return taskcluster
}
