package task

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"run-task/checkout"
	"run-task/internal/logs"
	"run-task/store"
)

// plan prints what would be done and where each value came from. It reads, and changes nothing.
func (t *Task) plan(out io.Writer, v *values, where map[string]string) error {
	l := logs.New(out, logs.Normal, false)
	l.Mask(t.Masks...)
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
	for _, d := range slices.Concat(t.Provide, t.Stores) {
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
		more, commit := "", r.SHA
		if commit == "" {
			commit = fmt.Sprintf("what %q is then (--resolve)", r.Resolve)
		}
		if len(r.Sparse) > 0 {
			more = fmt.Sprintf(", only %q", r.Sparse)
		}
		if r.ReadOnly {
			more += ", read-only"
		}
		if r.Submodules != "none" {
			more += ", submodules " + r.Submodules
		}
		if r.Alternates {
			more += ", objects borrowed from the git store"
		}
		say("vcs", "check out %s of %s into %q, %s, clean %s%s (%s)", commit, checkout.Address(r.URL), r.Dir, depth, r.Clean, more, where[r.Name])
		if r.Adopt {
			say("vcs", "adopt %q: what is in it and not the commit's is removed (%s)", r.Dir, v.where("adopt"))
		}
		if len(r.Hints) > 0 {
			say("vcs", "hints for %q: %s", r.Dir, strings.Join(r.Hints, ", "))
		}
	}
	t.planStore(say, v)
	planNetwork(say, t.Checkouts, v)
	if t.ExportFile != "" {
		say("export", "write %q for later tasks (%s)", t.ExportFile, v.where("export-env"))
	}
	t.planArchives(say, v)
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
		t.planStay(say, v)
	}
	return nil
}

// planArchives says what is restored and saved, and under which keys as far as that can be told now: before the checkout.
func (t *Task) planArchives(say func(step, format string, args ...any), v *values) {
	a := t.Archives
	a.Dir = t.Command.Dir
	if repos := t.Checkouts.Repos; a.Dir == "" && len(repos) == 1 {
		a.Dir = repos[0].Dir
	}
	a.Tree = func(path string) (string, error) { return checkout.TreeHash(a.Dir, path) }
	for i, x := range a.Resolve(context.Background()) {
		s := a.Specs[i]
		policy := s.Policy
		if a.Policy != "" {
			policy = a.Policy
		}
		key := fmt.Sprintf("%q", x.Key)
		if x.Key == "" {
			key = fmt.Sprintf("%q, which cannot be told yet", s.Key)
		}
		if t.Package != nil {
			then := "if it is there, no command is run; if not, the command makes it, and it is put there"
			if t.Package.Check {
				then = "only ask whether it is there"
			}
			say("cache", "package %s at %q, in %s (--key, --path, --store): %s", key, x.Path, x.Store, then)
			continue
		}
		say("cache", "archive of %q: %s, key %s, fallbacks %q, in %s (%s)", x.Path, policy, key, s.Fallbacks, x.Store, v.where("cache-archive"))
	}
	for i, l := range t.Archives.Store.Logins {
		where := "the CI's token"
		if i < len(v.list("store-auth")) {
			where = v.where("store-auth")
		}
		if len(a.Specs) > 0 {
			say("cache", "a login for %s (%s)", l.Host, where)
		}
	}
}

// planStay says how we stay with the command, or that we do not.
func (t *Task) planStay(say func(step, format string, args ...any), v *values) {
	for _, s := range settings {
		if s.group != groupInit && s.group != groupOutput {
			continue
		}
		switch {
		case s.kind == toggle && v.on(s.name):
			say("exec", "%s (%s)", s.name, v.where(s.name))
		case s.kind != toggle:
			for _, value := range v.list(s.name) {
				say("exec", "%s %s (%s)", s.name, value, v.where(s.name))
			}
		}
	}
	if t.Init {
		say("exec", "stay as its init")
	} else {
		say("exec", "become it: nothing of run-task is left")
	}
}

// planStore says where commits are kept and looked for.
func (t *Task) planStore(say func(step, format string, args ...any), v *values) {
	o := t.Checkouts
	if r := t.Resolve; r != nil {
		say("vcs", "resolve %q of %s, and check out nothing (%s)", r.Resolve, checkout.Address(r.URL), v.where("resolve"))
	}
	if s := o.Store; s != nil {
		holder := v.where("pin-holder")
		if v.from["pin-holder"] == unset && s.Holder != noPipeline {
			holder = "the CI's pipeline"
		}
		say("vcs", "keep commits in the git store %q (%s), under the label %q (%s)", s.Dir, v.where("git-store"), s.Trust, v.where("trust"))
		say("vcs", "pin them for %q (%s) and %s (%s)", s.Holder, holder, s.TTL, v.where("pin-ttl"))
	}
	for _, seed := range o.Seeds {
		say("vcs", "look in %q first (%s)", store.Address(seed), v.where("git-seed"))
	}
	if o.Publish != "" {
		say("vcs", "publish the commit in %q (%s)", store.Address(o.Publish), v.where("git-publish"))
	}
	if o.AlwaysContact {
		say("vcs", "ask the server for leave each time (%s)", v.where("always-contact-remote"))
	}
	if o.Wait > 0 {
		say("vcs", "wait %s for a commit to appear (%s)", o.Wait, v.where("wait-for-commit"))
	}
	for _, path := range o.Trees {
		say("vcs", "tell the hash of %q (%s)", path, v.where("export-tree"))
	}
}

// planNetwork says what servers may be shown: names of variables and files, never what is in them.
func planNetwork(say func(step, format string, args ...any), o checkout.Options, v *values) {
	if len(o.Repos) == 0 && v.text("resolve") == "" {
		return
	}
	c := o.Net.Credentials
	for i, l := range c.Logins {
		where := "the CI's token"
		if i < len(v.list("git-auth")) {
			where = v.where("git-auth")
		}
		tls := ""
		if l.HTTP {
			tls = ", also without TLS"
		}
		say("vcs", "a login for %s%s (%s)", l.Host, tls, where)
	}
	for _, k := range c.SSHKeys {
		say("vcs", "the SSH key %q (%s)", k.Name, v.where("ssh-key"))
	}
	for _, name := range []string{"known-hosts", "ca", "client-cert", "client-key", "git-limit"} {
		for _, value := range v.list(name) {
			say("vcs", "%s %s (%s)", name, value, v.where(name))
		}
	}
}

// origin names the source of the i-th of a list's values: Taskcluster's come after those of the setting.
func (v *values) origin(name string, i int, taskcluster string) string {
	if i < len(v.list(name)) {
		return v.where(name)
	}
	return taskcluster
}
