package task

import (
	"fmt"
	"slices"
	"strings"
)

const usageText = `run-task makes a container ready for one CI task, then becomes the task's command.

  run-task [flags] -- command [args...]
  run-task checkout [flags] DIR[,KEY=VALUE...]...   the checkout alone, with no command after it
  run-task store list|pin|unpin|gc|verify|path      work on a git store
  run-task install DIR                              put this binary into DIR, for other containers that mount it
  run-task cache restore|save|key|list|verify|gc    work on cache archives
  run-task cache name NAME...                       cache names that change with this binary: NAME-<20 hex digits>
  run-task package [flags] -- command [args...]     fetch a directory from a store, or build it and put it there

It checks cache directories and gives them to the task's user, drops privileges for good, checks
out the pinned commit without git in the image, restores cache archives, and execs the command, or
stays as its init, with limits and readable output, and saves archives. Try --plan first.

Settings come from the command line, then ` + File + ` (keys are the flags' names), then the
variable in brackets, then the CI's own variables. Flags without a variable decide identity,
ownership or trust: the environment has no say in them. The values of a repeatable flag stand one
a line in its variable.
`

// Examples of what most users begin with.
const examples = `
Examples:
  run-task --user worker --cache /builds/cache --checkout /builds/src -- make test
  run-task --checkout src,repo=https://host/repo.git,sha=<40 hex digits>,depth=0 -- ./ci
  run-task --resolve main --repo https://host/repo.git --git-store /cache/git --export-env task.env
  run-task --timeout 1h --no-output-timeout 10m --timestamps --mask-env TOKEN -- ./ci
  run-task --cache-store dir:/caches --cache-archive 'path=vendor,key=ruby-{{files "Gemfile.lock"}},fallback=ruby-' -- ./ci
  run-task checkout --status-file /dev/termination-log /src
`

// help is the page of the main job, or of a subcommand with its settings.
func help(usage string, settings []setting, after string) string {
	var b strings.Builder
	b.WriteString(usage)
	group := ""
	for _, s := range settings {
		if s.group != group {
			group = s.group
			fmt.Fprintf(&b, "\n%s:\n", group)
		}
		fmt.Fprintf(&b, "  %s\n", strings.TrimSpace("--"+s.name+" "+s.value))
		usage := s.usage
		if e := s.env(); e != "" {
			usage += " [" + e + "]"
		}
		b.WriteString(wrap(usage, "        ", 98))
	}
	b.WriteString(after)
	return strings.ReplaceAll(b.String(), "{{", `{{"{{"}}`) // cli takes it for a template
}

// wrap breaks text at spaces into indented lines of at most width bytes, where it has spaces to break at.
func wrap(text, indent string, width int) string {
	var lines []string
	for _, word := range strings.Fields(text) {
		if last := len(lines) - 1; last >= 0 && len(lines[last])+1+len(word) <= width {
			lines[last] += " " + word
		} else {
			lines = append(lines, indent+word)
		}
	}
	return strings.Join(append(lines, ""), "\n")
}

// forCheckout are the settings of "run-task checkout", which has no command and takes its directories as arguments.
func forCheckout() []setting {
	return slices.DeleteFunc(slices.Clone(settings), func(s setting) bool {
		return s.name == "checkout" || s.name == "cwd" || s.group == groupArchives || s.name == "pass-fds" || s.group == groupInit && s.name != "timeout" && s.name != "grace" ||
			s.group == groupOutput && (s.name == "timestamps" || s.name == "output-limit")
	})
}
