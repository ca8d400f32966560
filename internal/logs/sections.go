package logs

import (
	"fmt"
	"time"
)

// Sections are the ways to mark parts of a log that its viewer can fold.
type Sections string

const (
	NoSections Sections = "none"
	GitLab     Sections = "gitlab" // docs.gitlab.com: "Custom collapsible sections"
	GitHub     Sections = "github" // docs.github.com: "Workflow commands", grouping log lines
)

// sections is what of it is open. A step opens its section with its first line, so that one that says nothing leaves no trace.
type sections struct {
	kind Sections
	open string // the step, or "" if none is
	name string // its section's
	used map[string]int
}

// Sections has each step's lines marked as a section from now on.
func (l *Log) Sections(kind Sections) { l.sections = sections{kind: kind, used: map[string]int{}} }

// CommandSection opens the command's, which is shown unfolded. Our own lines about the command stand in it.
func (l *Log) CommandSection() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(l.sections.leave() + l.sections.begin(command, ""))
}

// EndSection ends the section that is open, if there is one.
func (l *Log) EndSection() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(l.sections.leave())
}

// enter is what stands before a step's line.
func (s *sections) enter(step string) string {
	if step == "" || step == s.open || s.open == command {
		return ""
	}
	return s.leave() + s.begin(step, "[collapsed=true]")
}

// command is the name of the command's section.
const command = "command"

func (s *sections) begin(step, option string) string {
	if s.kind != GitLab && s.kind != GitHub {
		return ""
	}
	s.open, s.name = step, "run_task_"+step
	if s.used[step]++; s.used[step] > 1 { // a name twice in a log confuses GitLab
		s.name += fmt.Sprintf("_%d", s.used[step])
	}
	if s.kind == GitHub {
		return "::group::" + step + "\n"
	}
	return fmt.Sprintf("section_start:%d:%s%s\r\x1b[0K%s\n", time.Now().Unix(), s.name, option, step)
}

func (s *sections) leave() string {
	if s.open == "" {
		return ""
	}
	s.open = ""
	if s.kind == GitHub {
		return "::endgroup::\n"
	}
	return fmt.Sprintf("section_end:%d:%s\r\x1b[0K\n", time.Now().Unix(), s.name)
}
