package task

import "strings"

type kind int

const (
	text kind = iota
	list      // repeatable; in a variable one value a line
	toggle
)

// setting is one thing that a user can say: a flag, a key of the file, and perhaps a variable.
type setting struct {
	name  string
	kind  kind
	value string // what the flag's value is called in help
	group string
	usage string
	// What decides identity, ownership or trust is never read from the environment, which belongs to whoever writes the job.
	noEnv bool
	// Said on the command line only: it makes no sense as a default.
	argvOnly bool
}

// Groups of flags, in the order of --help.
const (
	groupUser     = "Who the task runs as (root only; argv and file only)"
	groupCaches   = "Caches and ownership (argv and file only)"
	groupCheckout = "Checkout"
	groupRun      = "The command and what is said about it"
)

// settings is the one table that flags, file, variables, --help and the README's table come from or are compared with.
var settings = []setting{
	{name: "user", value: "NAME|UID[:GROUP|GID]", group: groupUser, noEnv: true,
		usage: `the task's user; root must be asked for by name (default: "worker" if we are root and the image has that account)`},
	{name: "group", value: "NAME|GID", group: groupUser, noEnv: true, usage: "the task's primary group (default: the user's own)"},
	{name: "require-user", kind: toggle, group: groupUser, noEnv: true, usage: "fail (71) if the task cannot run as --user, instead of a note"},
	{name: "no-new-privs", kind: toggle, group: groupUser, noEnv: true, usage: "set no_new_privs: setuid programs no longer change the uid (without it sudo becomes uid 0, though with no capability)"},
	{name: "pass-fds", kind: toggle, group: groupUser, noEnv: true, usage: "leave inherited file descriptors above 2 open for the command"},

	{name: "cache", kind: list, value: "DIR", group: groupCaches, noEnv: true, usage: "a cache directory: checked against its requirement file, given to the user (repeatable; also TASKCLUSTER_CACHES)"},
	{name: "volume", kind: list, value: "DIR", group: groupCaches, noEnv: true, usage: "a directory that must be empty and is given to the user (repeatable; also TASKCLUSTER_VOLUMES)"},
	{name: "require", kind: list, value: "KEY=VALUE", group: groupCaches, noEnv: true, usage: "one more requirement of this task's caches (repeatable)"},
	{name: "require-self", kind: toggle, group: groupCaches, noEnv: true, usage: "require run-task=<sha256 of this binary>: another build never meets old caches"},
	{name: "untrusted-caches", kind: toggle, group: groupCaches, noEnv: true, usage: "a cache of another uid or gid is chowned instead of refused (also TASKCLUSTER_UNTRUSTED_CACHES)"},
	{name: "chown", kind: list, value: "DIR", group: groupCaches, noEnv: true, usage: "give a directory and all in it to the user (repeatable)"},

	{name: "checkout", kind: list, value: "DIR[,KEY=VALUE...]", group: groupCheckout,
		usage: "put the pinned commit into DIR; keys: repo, sha, ref, depth, clean=all|keep-ignored|none, sparse=DIR;DIR, readonly=true, name; quoted as in docker's --mount (repeatable)"},
	{name: "repo", value: "URL", group: groupCheckout, usage: "the repository of the one checkout: https, http, ssh, git, file, host:path or a local path (default: the CI's, with its SHA)"},
	{name: "sha", value: "SHA", group: groupCheckout, usage: "its full commit SHA; no other commit is ever used (default: the CI's, with its repository)"},
	{name: "ref", value: "REF", group: groupCheckout, usage: "a ref that may lead to the SHA on servers that refuse to give it by itself: a hint only (default: the CI's)"},
	{name: "depth", value: "N", group: groupCheckout, usage: "commits of history; 0 is all of it, with the tags (default: 1)"},
	{name: "adopt", kind: toggle, group: groupCheckout, noEnv: true, usage: "check out into a directory that run-task did not make, and remove what is in it"},
	{name: "copy", kind: list, value: "SRC=DST", group: groupCheckout, usage: "after the checkouts, copy a tree into a missing or empty DST, as the task's user (repeatable)"},

	{name: "cwd", value: "DIR", group: groupRun, usage: "where the command starts (default: the checkout if there is exactly one, else here)"},
	{name: "status-file", value: "FILE", group: groupRun, usage: "write how far run-task got to FILE, as JSON"},
	{name: "plan", kind: toggle, group: groupRun, argvOnly: true, usage: "print what would be done and where each value came from; change nothing"},
	{name: "verbose", kind: toggle, group: groupRun, usage: "say more (default: one line for each step that did something)"},
	{name: "quiet", kind: toggle, group: groupRun, usage: "say errors only"},
}

// env is the setting's variable, "" if it has none.
func (s setting) env() string {
	if s.noEnv || s.argvOnly {
		return ""
	}
	return "RUN_TASK_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// Row is a setting as the README's table shows it.
type Row struct{ Flag, Variable, Usage string }

// Table lists the settings in the order of --help.
func Table() []Row {
	var rows []Row
	for _, s := range settings {
		rows = append(rows, Row{strings.TrimSpace("--" + s.name + " " + s.value), s.env(), s.usage})
	}
	return rows
}
