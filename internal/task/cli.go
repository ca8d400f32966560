package task

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/net/http/httpproxy"

	"run-task/internal/fail"
	"run-task/internal/self"
)

// Parse reads the command line, the settings file and the environment. A nil Task with no error means that the answer is complete: help, the
// version, a plan or a name, which is printed to out. A Task that comes with an error is not to be run: it says as much as
// was understood, where the status goes above all.
func Parse(args, env []string, out io.Writer) (*Task, error) {
	p := &parser{env: env, out: &answer{w: out}}
	before := args
	for i, a := range args[1:] {
		// Split here, or "run-task -- cache" would run our subcommand instead of a program of that name.
		if a == "--" {
			before, p.command = args[:i+1], args[i+2:]
			p.split = true
			break
		}
	}
	err := p.app().Run(before)
	if err != nil && p.task == nil {
		p.task = fromWords(before, env)
	}
	if err == nil {
		err = p.out.(*answer).err
	}
	return p.task, err
}

// answer remembers that it could not be given: cli does not look.
type answer struct {
	w   io.Writer
	err error
}

func (a *answer) Write(b []byte) (int, error) {
	n, err := a.w.Write(b)
	if err != nil && a.err == nil {
		a.err = fail.Errorf(fail.IO, "standard output: %w", err)
	}
	return n, err
}

type parser struct {
	env     []string
	out     io.Writer
	split   bool     // there was a "--"
	command []string // what came after it
	task    *Task
}

func (p *parser) app() *cli.App {
	app := &cli.App{
		Name:            "run-task",
		Flags:           flags(settings),
		Action:          p.main,
		Commands:        []*cli.Command{p.checkout(), p.install(), p.cache(), p.store(), p.packageJob()},
		Writer:          p.out,
		ErrWriter:       io.Discard,
		HideVersion:     true, // ours says more, and -v is not taken for it
		HideHelpCommand: true, // or "run-task help" would be a subcommand
		// Otherwise a path with a comma becomes two.
		DisableSliceFlagSeparator: true,
		// Otherwise cli exits by itself on errors that have an ExitCode method.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   usageError,

		CustomAppHelpTemplate: help(usageText, settings, "  --version\n        print version, commit and the sha256 of this binary\n  --help, -h\n        print this\n"+examples),
	}
	app.Flags = append(app.Flags, &cli.BoolFlag{Name: "version"})
	return app
}

// usageError is where cli would print the whole help page.
func usageError(c *cli.Context, err error, _ bool) error {
	return fail.Errorf(fail.Usage, "%w", err).WithHint("see %s --help", c.App.Name)
}

func flags(settings []setting) []cli.Flag {
	var out []cli.Flag
	for _, s := range settings {
		switch s.kind {
		case list:
			out = append(out, &cli.StringSliceFlag{Name: s.name, KeepSpace: true})
		case toggle:
			out = append(out, &cli.BoolFlag{Name: s.name})
		default:
			out = append(out, &cli.StringFlag{Name: s.name})
		}
	}
	return out
}

func (p *parser) main(c *cli.Context) error {
	if c.Bool("version") {
		return p.version()
	}
	if c.NArg() > 0 {
		return fail.Errorf(fail.Usage, "unexpected argument %q", c.Args().First()).
			WithHint("the command comes after --: run-task %s-- %s", flagsOf(c), strings.Join(c.Args().Slice(), " "))
	}
	if len(p.command) == 0 && !c.IsSet("resolve") {
		return fail.Errorf(fail.Usage, "no command to run").WithHint("put it after the flags: run-task [flags] -- command [args...]")
	}
	return p.build(c, &Task{}, p.command, nil)
}

// fromWords is as much of a task that was not understood as is needed to print what is wrong: its secrets, that may stand anywhere.
func fromWords(args, env []string) *Task {
	v := &values{said: map[string][]string{"mask-env": strings.Split(lookup(env, "RUN_TASK_MASK_ENV"), "\n")}}
	for i, word := range args {
		name, value, ok := strings.Cut(strings.TrimLeft(word, "-"), "=")
		if !ok && i+1 < len(args) {
			value = args[i+1]
		}
		if (name == "mask-env" || name == "mask-file") && value != "" {
			v.said[name] = append(v.said[name], value)
		}
	}
	t := &Task{}
	for name, said := range v.said {
		for _, value := range said { // one by one: what is wrong with one says nothing about the others
			t.masks(&values{said: map[string][]string{name: {value}}}, env)
		}
	}
	return &Task{Masks: t.Masks}
}

func flagsOf(c *cli.Context) string {
	if c.NumFlags() > 0 {
		return "[flags] "
	}
	return ""
}

// build completes the Task; what is in place is said in place of flags.
func (p *parser) build(c *cli.Context, t *Task, command []string, place map[string][]string) error {
	v, err := gather(c, p.env)
	if err != nil {
		return err
	}
	for name, said := range place {
		v.said[name], v.from[name] = said, fromArgv
	}
	where, err := t.build(v, p.env, command)
	if err == nil && v.on("plan") {
		return t.plan(p.out, v, where)
	}
	if !v.on("plan") {
		p.task = t
	}
	return err
}

func (p *parser) version() error {
	hash, err := self.Hash()
	if err != nil {
		hash = "unknown: " + err.Error()
	}
	version, commit := self.Version()
	_, err = fmt.Fprintf(p.out, "run-task %s\ncommit %s\nsha256 %s\n", version, commit, hash)
	return err
}

// checkout is the checkout step alone, for init containers and pre-build scripts.
func (p *parser) checkout() *cli.Command {
	return &cli.Command{
		Name: "checkout", Flags: flags(forCheckout()), OnUsageError: usageError, HideHelpCommand: true,
		CustomHelpTemplate: help("run-task checkout [flags] DIR[,KEY=VALUE...]...\n\n"+
			"The checkout alone, with no command after it. DIR and its keys are as in --checkout of the main job.\n", forCheckout(), ""),
		Action: func(c *cli.Context) error {
			if err := p.alone(c); err != nil {
				return err
			}
			if c.NArg() == 0 {
				return fail.Errorf(fail.Usage, "no directory to check out into").WithHint("run-task checkout DIR[,repo=URL,sha=SHA]")
			}
			for _, dir := range c.Args().Slice() {
				if strings.HasPrefix(dir, "-") { // cli takes flags after the first argument for arguments
					return fail.Errorf(fail.Usage, "%q comes after the directory", dir).WithHint("flags first: run-task checkout [flags] DIR..., and ./%s for a directory of that name", dir)
				}
			}
			return p.build(c, &Task{}, nil, map[string][]string{"checkout": c.Args().Slice()})
		},
	}
}

func (p *parser) install() *cli.Command {
	return &cli.Command{
		Name: "install", OnUsageError: usageError, HideHelpCommand: true,
		CustomHelpTemplate: "run-task install DIR\n\nPut this binary into DIR, for other containers that mount it.\n",
		Action: func(c *cli.Context) error {
			if err := p.alone(c); err != nil {
				return err
			}
			if c.NArg() != 1 || c.Args().First() == "" {
				return fail.Errorf(fail.Usage, "install takes one directory").WithHint("run-task install DIR")
			}
			p.task = &Task{Install: c.Args().First(), Alone: true}
			return nil
		},
	}
}

// alone refuses what a subcommand would silently ignore: a command, and flags that stand before the subcommand's name.
func (p *parser) alone(c *cli.Context) error {
	if p.split {
		return fail.Errorf(fail.Usage, "%s takes no command", c.Command.Name).WithHint("the main job is: run-task [flags] -- command [args...]")
	}
	lineage := c.Lineage()
	for _, up := range lineage[1:] {
		if up.Command != nil && up.NumFlags() > 0 {
			return fail.Errorf(fail.Usage, "--%s stands before the word %q", up.LocalFlagNames()[0], c.Command.Name).
				WithHint("put it after: run-task %s [flags] ...", c.Command.Name)
		}
	}
	return nil
}

// proxy chooses HTTP proxies as curl and git do, from the variables that they read.
func proxy(env []string) func(*http.Request) (*url.URL, error) {
	first := func(names ...string) string {
		for _, n := range names {
			if v := lookup(env, n); v != "" {
				return v
			}
		}
		return ""
	}
	choose := (&httpproxy.Config{
		HTTPProxy:  lookup(env, "http_proxy"), // curl reads no HTTP_PROXY: CGI servers set it from a header
		HTTPSProxy: first("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
		NoProxy:    first("no_proxy", "NO_PROXY"),
	}).ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return choose(r.URL) }
}
