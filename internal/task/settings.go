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
	groupArchives = "Cache archives: trees kept in a store, restored before the command and saved after it"
	groupStore    = "Git store: one commit for all tasks of a pipeline"
	groupNetwork  = "Servers: credentials and limits"
	groupInit     = "Init: stay with the command, as what signals, orphans and limits need"
	groupOutput   = "What the command prints (these stay with it, too)"
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
		usage: "put the pinned commit into DIR; keys: repo, sha, ref, depth, clean=all|keep-ignored|none, sparse=DIR;DIR, submodules=none|top|recursive, readonly=true, alternates=true, name; quoted as in docker's --mount (repeatable)"},
	{name: "repo", value: "URL", group: groupCheckout, usage: "the repository of the one checkout: https, http, ssh, git, file, host:path or a local path (default: the CI's, with its SHA)"},
	{name: "sha", value: "SHA", group: groupCheckout, usage: "its full commit SHA; no other commit is ever used (default: the CI's, with its repository)"},
	{name: "ref", value: "REF", group: groupCheckout, usage: "a ref that may lead to the SHA on servers that refuse to give it by itself: a hint only (default: the CI's)"},
	{name: "depth", value: "N", group: groupCheckout, usage: "commits of history; 0 is all of it, with the tags (default: 1)"},
	{name: "submodules", value: "MODE", group: groupCheckout, usage: "none, top or recursive: check out the commit's submodules, too, at the commits that it names (default: none)"},
	{name: "resolve", value: "REF", group: groupCheckout, argvOnly: true,
		usage: "for the one task that decides: take the commit that a branch, tag or full ref name has now, and print its SHA if there is no command; needs no --checkout"},
	{name: "export-env", value: "FILE", group: groupCheckout, usage: "write what the checkouts tell the command to FILE, as NAME=value lines, with RUN_TASK_REPO and RUN_TASK_SHA for later tasks"},
	{name: "export-tree", kind: list, value: "PATH", group: groupCheckout, usage: "also tell git's hash of what is at PATH in the commit, as CHECKOUT_TREE_<PATH> (repeatable)"},
	{name: "wait-for-commit", value: "DURATION", group: groupCheckout, usage: "how long to wait for a commit that the server does not have yet (default: not at all)"},
	{name: "adopt", kind: toggle, group: groupCheckout, noEnv: true, usage: "check out into a directory that run-task did not make, and remove what is in it"},
	{name: "copy", kind: list, value: "SRC=DST", group: groupCheckout, usage: "after the checkouts, copy a tree into a missing or empty DST, as the task's user (repeatable)"},

	{name: "cache-archive", kind: list, value: "KEY=VALUE,...", group: groupArchives, noEnv: true,
		usage: `restore a tree before the command, and save it after it: path=DIR (relative to the command's directory), key=TEMPLATE with {{files "GLOB"}}, {{tree "PATH"}}, {{env NAME}}, {{arch}}, {{os}}, {{run-task}}; fallback=TEMPLATE (one that ends with - or * is the newest that begins so), policy=pull|push|pull-push (default: pull), when=on_success|on_failure|always, store=LOCATION, level=fastest|default|best, xattrs=true; a field with a comma is quoted as a whole (repeatable)`},
	{name: "cache-store", value: "LOCATION", group: groupArchives, noEnv: true, usage: "where archives are that name no store: dir:/path, s3://bucket/prefix?endpoint=https://host&region=NAME&path-style=true, https://host/path (GET, HEAD and PUT, as GitLab's generic packages)"},
	{name: "cache-policy", value: "POLICY", group: groupArchives, usage: "pull, push or pull-push for all archives of this task, in place of their own: how a scheduled task fills the store that all others only read"},
	{name: "cache-strict", kind: toggle, group: groupArchives, usage: "an archive that cannot be restored or saved fails the task (default: a warning; one that is missing never does)"},
	{name: "cache-budget", value: "DURATION", group: groupArchives, usage: "how long all restoring may take, and all saving (default: 10m)"},
	{name: "store-auth", kind: list, value: "KEY=VALUE,...", group: groupArchives, noEnv: true,
		usage: "a login for a web server that is a store: host=HOST[:PORT] with header=NAME,token-env=VARIABLE or user=NAME,password-env=VARIABLE; http=true to send it without TLS, too; the command does not get the variable (repeatable; also CI_JOB_TOKEN for GitLab's own server; s3:// takes AWS_ACCESS_KEY_ID and the like)"},

	{name: "git-store", value: "DIR", group: groupStore, noEnv: true, usage: "keep commits in DIR, on a volume that the tasks of a host share: each is fetched once, and served without a connection while it is pinned"},
	{name: "trust", value: "LABEL", group: groupStore, noEnv: true, usage: "what was fetched under one label is never served under another"},
	{name: "pin-holder", value: "NAME", group: groupStore, usage: "for whom commits are pinned (default: the CI's pipeline)"},
	{name: "pin-ttl", value: "DURATION", group: groupStore, usage: "how long pins hold (default: 168h)"},
	{name: "always-contact-remote", kind: toggle, group: groupStore, usage: "ask the server whether we may read the repository, also where the commit is here"},
	{name: "git-seed", kind: list, value: "DIR|LOCATION", group: groupStore, noEnv: true, usage: "look for commits in this mirror or other store before a server is asked, or at a location (dir:, s3:// or https://, as of --cache-store) that --git-publish fills; it is verified as a server is (repeatable)"},
	{name: "git-publish", value: "LOCATION", group: groupStore, noEnv: true, usage: "put the commit at a location from which every machine can take it with --git-seed, if it is not there yet; the command does not get the keys of an s3:// location"},

	{name: "git-auth", kind: list, value: "KEY=VALUE,...", group: groupNetwork,
		usage: "a login for one server: host=HOST[:PORT], user=NAME or user-env=VARIABLE, password-env=VARIABLE or token-env=VARIABLE, http=true to send it without TLS, too; the command does not get the variables (repeatable; also netrc, CI_JOB_TOKEN, GITHUB_TOKEN)"},
	{name: "ssh-key", kind: list, value: "FILE|env:NAME", group: groupNetwork, usage: "a private key without a passphrase, used in place of the agent's and the home directory's; the command does not get the variable (repeatable)"},
	{name: "known-hosts", kind: list, value: "FILE|well-known", group: groupNetwork, noEnv: true,
		usage: "SSH servers' keys, in place of the home directory's and the system's; well-known adds those of github.com, gitlab.com and bitbucket.org (repeatable)"},
	{name: "ca", value: "FILE", group: groupNetwork, noEnv: true, usage: "more certificate authorities for HTTPS, in PEM"},
	{name: "client-cert", value: "FILE", group: groupNetwork, noEnv: true, usage: "our certificate for HTTPS servers that want one, in PEM"},
	{name: "client-key", value: "FILE", group: groupNetwork, noEnv: true, usage: "its private key, in PEM"},
	{name: "git-limit", kind: list, value: "NAME=VALUE", group: groupNetwork,
		usage: "how long a part of a conversation may take: connect, tls, answer, prepare, stall, total, budget; low-speed in bytes per second, all-size in bytes, tries (repeatable)"},

	{name: "init", kind: toggle, group: groupInit,
		usage: "stay as the command's parent and send signals on to it, reap orphans, end what it leaves behind (default: exec it, unless something below needs us)"},
	{name: "timeout", value: "DURATION", group: groupInit, usage: "how long the whole task may take; then the command gets TERM, and the exit code is 124"},
	{name: "command-timeout", value: "DURATION", group: groupInit, usage: "how long the command may take"},
	{name: "no-output-timeout", value: "DURATION", group: groupInit, usage: "how long the command may print nothing"},
	{name: "quit-first", kind: toggle, group: groupInit, usage: "QUIT comes before a limit's TERM: Go, Java and others then say where they hang"},
	{name: "grace", value: "DURATION", group: groupInit, usage: "how long after TERM comes KILL (default: 10s; for what the command leaves behind 2s at most)"},
	{name: "save-budget", value: "DURATION", group: groupInit, usage: "how much of --timeout is kept for saving cache archives after the command; without --timeout: how long that may take"},

	{name: "timestamps", kind: toggle, group: groupOutput, usage: "each line of stdout and stderr as [task 2026-01-02T03:04:05.678Z] line, on stdout; our own lines have the time, too"},
	{name: "sections", value: "gitlab|github|none", group: groupOutput, usage: "mark steps, and the command if we stay, as parts of the log that can be folded (default: none; does not make us stay)"},
	{name: "output-limit", value: "SIZE", group: groupOutput, usage: "print only so much of stdout and stderr, on stdout, and at the end the last of it (a quarter of SIZE, 1 MiB at most)"},
	{name: "mask-env", kind: list, value: "NAME", group: groupOutput, usage: "print [MASKED] in place of this variable's value, and of each of its lines; 4 bytes at least (repeatable)"},
	{name: "mask-file", kind: list, value: "FILE", group: groupOutput, noEnv: true, usage: "the same for each line of FILE (repeatable)"},

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
