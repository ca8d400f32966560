package task

import (
	"cmp"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"run-task/checkout"
	"run-task/internal/fail"
	"run-task/perms"
)

// StoreJob is what a subcommand of "run-task store" does.
type StoreJob struct {
	Verb   string // list, pin, unpin, gc, verify or path
	Dir    string
	Trust  string
	Holder string        // of the pins to remove, "" for all
	Repo   checkout.Repo // for pin, unpin and path
	GC     checkout.GC
	JSON   bool
	Out    io.Writer
}

// storeVerb is a subcommand of "run-task store".
type storeVerb struct {
	name, usage string
	settings    []string  // of the main job
	extra       []setting // of its own
}

// groupVerb is the group of a subcommand's own flags, which have no variable.
const groupVerb = "This subcommand alone"

var (
	asJSON = setting{name: "json", kind: toggle, group: groupVerb, argvOnly: true, usage: "print JSON"}
	remote = []string{"always-contact-remote", "wait-for-commit", "git-seed", "git-publish", "store-auth", "git-auth", "ssh-key", "known-hosts", "ca", "client-cert", "client-key", "git-limit"}

	storeVerbs = []storeVerb{
		{"list", "List the pins, those that have expired, too.", nil, []setting{asJSON}},
		{"pin", "Bring a commit into the store, pin it for the holder, and print its SHA.",
			append([]string{"repo", "sha", "ref", "resolve", "depth", "submodules", "trust", "pin-holder", "pin-ttl"}, remote...), []setting{asJSON}},
		{"unpin", "Remove the holder's pins of a commit. What they alone needed goes with a later gc.", []string{"repo", "sha", "trust", "pin-holder"},
			[]setting{{name: "all-holders", kind: toggle, group: groupVerb, argvOnly: true, usage: "all pins of the commit, whoever has them"}, asJSON}},
		{"gc", "Remove what no live pin needs. What has lost its last pin is marked, and goes when the grace is over. Repositories in which a task fetches are skipped.", nil,
			[]setting{{name: "max-size", value: "SIZE", group: groupVerb, argvOnly: true, usage: "give up the pins that expire next until the rest needs no more than this: 500M, 20GiB"},
				{name: "grace", value: "DURATION", group: groupVerb, argvOnly: true, usage: "how long to keep what has no pin, for tasks that just read it (default: 1h)"},
				{name: "dry-run", kind: toggle, group: groupVerb, argvOnly: true, usage: "change nothing"}, asJSON}},
		{"verify", "Read every object that a pin needs; print the pins that are not complete (exit 72). Takes as much space as the largest of them.", nil, []setting{asJSON}},
		{"path", "Print the directory of a repository in the store.", []string{"repo", "trust"}, nil},
	}
	storeSettings = []string{"git-store", "user", "group", "verbose", "quiet"}
)

const storeUsage = `run-task store list|pin|unpin|gc|verify|path [flags]

Work on a git store, see --git-store of the main job. Each has a --help of its own.
`

// own are the settings of a subcommand, in the order of the main job's.
func (s storeVerb) own() (own []setting) {
	for _, setting := range settings {
		for _, name := range append(storeSettings, s.settings...) {
			if setting.name == name {
				own = append(own, setting)
			}
		}
	}
	return append(own, s.extra...)
}

func (p *parser) store() *cli.Command {
	unknown := func(c *cli.Context) error {
		if c.NArg() == 0 {
			return fail.Errorf(fail.Usage, "store: no subcommand").WithHint("run-task store list|pin|unpin|gc|verify|path")
		}
		return fail.Errorf(fail.Usage, "store: unknown subcommand %q", c.Args().First()).WithHint("run-task store list|pin|unpin|gc|verify|path")
	}
	cmd := &cli.Command{Name: "store", OnUsageError: usageError, HideHelpCommand: true, CustomHelpTemplate: storeUsage, Action: unknown}
	for _, verb := range storeVerbs {
		cmd.Subcommands = append(cmd.Subcommands, &cli.Command{
			Name: verb.name, Flags: flags(verb.own()), OnUsageError: usageError, HideHelpCommand: true,
			CustomHelpTemplate: help("run-task store "+verb.name+" [flags]\n\n"+wrap(verb.usage, "", 98), verb.own(), ""),
			Action:             func(c *cli.Context) error { return p.storeJob(c, verb.name) },
		})
	}
	return cmd
}

func (p *parser) storeJob(c *cli.Context, verb string) error {
	if err := p.alone(c); err != nil {
		return err
	}
	if c.NArg() > 0 {
		return fail.Errorf(fail.Usage, "store %s: unexpected argument %q", verb, c.Args().First()).WithHint("see run-task store %s --help", verb)
	}
	v, err := gather(c, p.env)
	if err != nil {
		return err
	}
	t := &Task{Alone: true, Warnings: v.warnings}
	if t.Level, err = level(v); err != nil {
		return err
	}
	if t.Identity, err = perms.Resolve(perms.Spec{User: v.text("user"), Group: v.text("group")}); err != nil {
		return err
	}
	if verb != "pin" { // the others speak to no server: what a fleet or a job says about servers is not for them
		v.only(slices.Concat(storeSettings, []string{"repo", "sha", "trust", "pin-holder"}))
	}
	if t.Checkouts, err = t.options(v, p.env); err != nil {
		return err
	}
	s := t.Checkouts.Store
	if s == nil {
		return fail.Errorf(fail.Usage, "store %s: no store is named", verb).WithHint("add --git-store DIR")
	}
	if verb == "pin" {
		t.Provide = []string{s.Dir}
	}
	t.Store = &StoreJob{Verb: verb, Dir: s.Dir, Trust: s.Trust, Holder: s.Holder, JSON: c.Bool("json"), Out: p.out}
	if err := t.Store.say(c, v, p.env); err != nil {
		return err
	}
	p.task = t
	return nil
}

// say reads what one of the subcommands is told.
func (s *StoreJob) say(c *cli.Context, v *values, env []string) (err error) {
	switch s.Verb {
	case "pin":
		var r *checkout.Repo
		if r, err = alone(v, env); err == nil {
			s.Repo = *r
		}
	case "unpin":
		o, err := shortForm(v)
		if err != nil {
			return err
		}
		if o == nil {
			return fail.Errorf(fail.Usage, "store unpin: no commit is named").WithHint("add --repo URL --sha SHA")
		}
		s.Repo = checkout.Repo{URL: o.repo, SHA: o.sha}
		if c.Bool("all-holders") {
			s.Holder = ""
		}
		return checkout.Validate(&s.Repo)
	case "path":
		if s.Repo.URL = v.text("repo"); s.Repo.URL == "" {
			return fail.Errorf(fail.Usage, "store path: no repository is named").WithHint("add --repo URL")
		}
	case "gc":
		s.GC.DryRun = c.Bool("dry-run")
		if s.GC.Grace, err = parseDuration(cmp.Or(c.String("grace"), "1h")); err != nil {
			return fail.Errorf(fail.Usage, "--grace %q is not a time", c.String("grace")).WithHint("give a number and a unit: 30s, 10m, 168h, 7d")
		}
		if size := c.String("max-size"); size != "" {
			if s.GC.MaxSize, err = parseSize(size); err != nil {
				return fail.Errorf(fail.Usage, "--max-size %q is not a size", size).WithHint("give a number of bytes, or one with a unit: 500M, 20GiB")
			}
		}
	}
	return err
}

// parseSize reads a number of bytes: k, M, G and T are powers of 1000, Ki, Mi, Gi and Ti of 1024; a B may follow.
func parseSize(s string) (int64, error) {
	number := strings.TrimRight(s, "kKMGTiB")
	unit := strings.TrimSuffix(s[len(number):], "B")
	base := int64(1000)
	if strings.HasSuffix(unit, "i") {
		base, unit = 1024, strings.TrimSuffix(unit, "i")
	}
	n, err := strconv.ParseInt(number, 10, 64)
	power := slices.Index([]string{"", "k", "M", "G", "T"}, strings.Replace(unit, "K", "k", 1))
	if err != nil || n <= 0 || power < 0 || power == 0 && base == 1024 {
		return 0, strconv.ErrSyntax
	}
	for range power {
		if n > (1<<62)/base {
			return 0, strconv.ErrRange
		}
		n *= base
	}
	return n, nil
}
