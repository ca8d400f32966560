package task

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"run-task/caches"
	"run-task/internal/fail"
	"run-task/internal/self"
	"run-task/perms"
)

// CacheJob is what a subcommand of "run-task cache" does, but for name.
type CacheJob struct {
	Verb string   // restore, save, key, list, verify or gc
	Keys []string // to verify; a prefix to list
	GC   caches.Collection
	JSON bool
	Out  io.Writer
}

// PackageJob is "run-task package": the one archive of the task is fetched, or the command makes it.
type PackageJob struct {
	Check bool // only tell whether it is there
}

var (
	archiveSettings = []string{"cache-archive", "cache-store", "cache-strict", "cache-budget", "cwd", "cache", "volume"}
	storeAlone      = []string{"cache-store"}
	everyCacheVerb  = []string{"store-auth", "ca", "user", "group", "verbose", "quiet"}

	cacheVerbs = []storeVerb{
		{"restore", "Restore each --cache-archive, whatever its policy.", archiveSettings, []setting{asJSON}},
		{"save", "Save each --cache-archive, whatever its policy and when.", archiveSettings, []setting{asJSON}},
		{"key", "Print the key of each --cache-archive.", []string{"cache-archive", "cache-store", "cwd"}, []setting{asJSON}},
		{"list", "List the archives in the store, or those whose keys begin with PREFIX.", storeAlone, []setting{asJSON}},
		{"verify", "Read every byte of the archives in the store, or of those named; print those that are not what was saved (exit 65).", storeAlone, []setting{asJSON}},
		{"gc", "Remove old archives, commits of --git-publish, and what killed writers left.", storeAlone,
			[]setting{{name: "max-age", value: "DURATION", group: groupVerb, argvOnly: true, usage: "remove what nobody has put or, where the store notes that, got for so long"},
				{name: "max-size", value: "SIZE", group: groupVerb, argvOnly: true, usage: "then remove the oldest until the rest needs no more than this: 500M, 20GiB"},
				{name: "grace", value: "DURATION", group: groupVerb, argvOnly: true, usage: "how old what a killed writer left must be (default: 24h)"},
				{name: "dry-run", kind: toggle, group: groupVerb, argvOnly: true, usage: "change nothing"}, asJSON}},
	}
)

const (
	cacheWords = "restore|save|key|list|verify|gc|name"
	cacheHelp  = "run-task cache " + cacheWords + ` [flags]

Work on cache archives, see --cache-archive of the main job. Each has a --help of its own.

run-task cache name NAME...

Print cache names that change with this binary: NAME-<20 hex digits>, one a line.
`
)

// settingsOf are the named settings, in the order of the main job's, and more.
func settingsOf(names []string, more []setting) (own []setting) {
	for _, s := range settings {
		if slices.Contains(names, s.name) {
			own = append(own, s)
		}
	}
	return append(own, more...)
}

func (p *parser) cache() *cli.Command {
	cmd := &cli.Command{
		Name: "cache", OnUsageError: usageError, HideHelpCommand: true, CustomHelpTemplate: cacheHelp,
		// cli would exit 3 on a word that it does not know.
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return fail.Errorf(fail.Usage, "cache: no subcommand").WithHint("run-task cache %s", cacheWords)
			}
			return fail.Errorf(fail.Usage, "cache: unknown subcommand %q", c.Args().First()).WithHint("run-task cache %s", cacheWords)
		},
		Subcommands: []*cli.Command{{Name: "name", OnUsageError: usageError, HideHelpCommand: true, Action: p.cacheName, CustomHelpTemplate: cacheHelp}},
	}
	for _, verb := range cacheVerbs {
		own := settingsOf(slices.Concat(everyCacheVerb, verb.settings), verb.extra)
		args := map[string]string{"list": " [PREFIX]", "verify": " [KEY...]"}[verb.name]
		cmd.Subcommands = append(cmd.Subcommands, &cli.Command{
			Name: verb.name, Flags: flags(own), OnUsageError: usageError, HideHelpCommand: true,
			CustomHelpTemplate: help("run-task cache "+verb.name+" [flags]"+args+"\n\n"+wrap(verb.usage, "", 98), own, ""),
			Action:             func(c *cli.Context) error { return p.cacheJob(c, verb) },
		})
	}
	return cmd
}

func (p *parser) cacheJob(c *cli.Context, verb storeVerb) error {
	if err := p.alone(c); err != nil {
		return err
	}
	v, err := gather(c, p.env)
	if err != nil {
		return err
	}
	v.only(slices.Concat(everyCacheVerb, verb.settings))
	t := &Task{Alone: true, Warnings: v.warnings}
	j := &CacheJob{Verb: verb.name, Keys: c.Args().Slice(), JSON: c.Bool("json"), Out: p.out}
	t.named(v, p.env)
	if t.Level, err = level(v); err != nil {
		return err
	}
	if t.Identity, err = perms.Resolve(perms.Spec{User: v.text("user"), Group: v.text("group")}); err != nil {
		return err
	}
	t.Command.Dir = v.text("cwd")
	if t.Checkouts.Stores, err = storeAccess(v, p.env, lookup(t.Identity.Environ(p.env), "HOME")); err != nil {
		return err
	}
	if err := t.archives(v, p.env); err != nil {
		return err
	}
	if err := t.archivePlaces(); err != nil {
		return err
	}
	if err := j.say(c, t); err != nil {
		return err
	}
	t.provideStores()
	t.CacheJob = j
	p.task = t
	return nil
}

// say reads what one of the subcommands is told.
func (j *CacheJob) say(c *cli.Context, t *Task) (err error) {
	archives := slices.Contains([]string{"restore", "save", "key"}, j.Verb)
	most := map[string]int{"list": 1, "verify": 1 << 20}[j.Verb]
	switch {
	case archives && len(t.Archives.Specs) == 0:
		return fail.Errorf(fail.Usage, "cache %s: no archive is named", j.Verb).WithHint("add --cache-archive path=DIR,key=KEY,store=LOCATION")
	case !archives && t.Archives.Default == "":
		return fail.Errorf(fail.Usage, "cache %s: no store is named", j.Verb).WithHint("add --cache-store LOCATION")
	case len(j.Keys) > most:
		return fail.Errorf(fail.Usage, "cache %s: unexpected argument %q", j.Verb, j.Keys[most]).WithHint("see run-task cache %s --help", j.Verb)
	}
	for _, k := range j.Keys {
		if strings.HasPrefix(k, "-") { // cli takes flags after the first argument for arguments
			return fail.Errorf(fail.Usage, "%q comes after the key", k).WithHint("flags first: run-task cache %s [flags] ...", j.Verb)
		}
	}
	switch j.Verb {
	case "restore":
		t.Archives.Policy = "pull"
	case "save":
		t.Archives.Policy = "push"
		for i := range t.Archives.Specs {
			t.Archives.Specs[i].When = "always"
		}
	case "gc":
		return j.sayGC(c)
	}
	return nil
}

func (j *CacheJob) sayGC(c *cli.Context) (err error) {
	j.GC.DryRun, j.GC.Now = c.Bool("dry-run"), time.Now()
	for name, d := range map[string]*time.Duration{"max-age": &j.GC.MaxAge, "grace": &j.GC.Grace} {
		if text := c.String(name); text != "" {
			if *d, err = parseDuration(text); err != nil {
				return fail.Errorf(fail.Usage, "--%s %q is not a time", name, text).WithHint("give a number and a unit: 30s, 10m, 168h, 7d")
			}
		}
	}
	if size := c.String("max-size"); size != "" {
		if j.GC.MaxSize, err = parseSize(size); err != nil {
			return fail.Errorf(fail.Usage, "--max-size %q is not a size", size).WithHint("give a number of bytes, or one with a unit: 500M, 20GiB")
		}
	}
	return nil
}

// forPackage are the settings of "run-task package".
func forPackage() []setting {
	own := slices.DeleteFunc(slices.Clone(settings), func(s setting) bool {
		return slices.Contains([]string{"cache-archive", "cache-store", "cache-policy", "cache-strict", "resolve", "export-env"}, s.name)
	})
	return append(own,
		setting{name: "key", value: "TEMPLATE", group: groupVerb, argvOnly: true, usage: `the package's key, as in --cache-archive: workhorse-{{tree "workhorse"}}`},
		setting{name: "path", value: "DIR", group: groupVerb, argvOnly: true, usage: "the directory that it is"},
		setting{name: "store", value: "LOCATION", group: groupVerb, argvOnly: true, usage: "where packages are, as in --cache-store"},
		setting{name: "level", value: "LEVEL", group: groupVerb, argvOnly: true, usage: "fastest, default or best (default: default)"},
		setting{name: "check", kind: toggle, group: groupVerb, argvOnly: true, usage: "only tell whether it is there: exit 0, or 66; no command"})
}

// packageJob fetches one archive, or has the command make it.
func (p *parser) packageJob() *cli.Command {
	return &cli.Command{
		Name: "package", Flags: flags(forPackage()), OnUsageError: usageError, HideHelpCommand: true,
		CustomHelpTemplate: help("run-task package --key TEMPLATE --path DIR --store LOCATION [flags] -- command [args...]\n\n"+
			wrap("Fetch or build: if the store has the package, it is put at DIR and the command is not run. If it has none, the command makes DIR, which is then put into the store. On any other answer the command "+
				"makes it, and nothing is put.", "", 98), forPackage(), ""),
		Action: p.packageMain,
	}
}

func (p *parser) packageMain(c *cli.Context) error {
	if c.NArg() > 0 {
		return fail.Errorf(fail.Usage, "unexpected argument %q", c.Args().First()).WithHint("the command comes after --")
	}
	check := c.Bool("check")
	for _, name := range []string{"key", "path", "store"} {
		if c.String(name) == "" {
			return fail.Errorf(fail.Usage, "package: --%s is missing", name).WithHint("run-task package --key TEMPLATE --path DIR --store LOCATION -- command")
		}
	}
	if check == (len(p.command) > 0) {
		return fail.Errorf(fail.Usage, "package: it takes a command, or --check").WithHint("put the command after the flags: -- make; or ask with --check")
	}
	policy := "pull-push"
	if check {
		policy = "pull"
	}
	spec := fmt.Sprintf(`%s,%s,%s,level=%s,policy=%s`, quoted("path", c.String("path")), quoted("key", c.String("key")), quoted("store", c.String("store")), cmp.Or(c.String("level"), "default"), policy)
	return p.build(c, &Task{Package: &PackageJob{Check: check}}, p.command, map[string][]string{"cache-archive": {spec}})
}

// quoted is a field of a list of KEY=VALUE,....
func quoted(key, value string) string {
	return `"` + key + "=" + strings.ReplaceAll(value, `"`, `""`) + `"`
}

func (p *parser) cacheName(c *cli.Context) error {
	if err := p.alone(c); err != nil {
		return err
	}
	if c.NArg() == 0 {
		return fail.Errorf(fail.Usage, "no name given").WithHint("run-task cache name NAME...")
	}
	hash, err := self.Hash()
	if err != nil {
		return err
	}
	var names []string
	for _, n := range c.Args().Slice() {
		name, err := caches.Name(n, hash)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	_, err = fmt.Fprintln(p.out, strings.Join(names, "\n"))
	return err
}
