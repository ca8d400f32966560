package logs

import (
	"bytes"
	"fmt"
	"regexp"
	"testing"
)

// A step that says nothing has no section, one that goes on has one, and a name is used once.
func TestSections(t *testing.T) {
	said := func(kind Sections) string {
		var b bytes.Buffer
		l := New(&b, Normal, false)
		l.Sections(kind)
		l.Warnf("no step")
		l.For("perms").Infof("a")
		l.For("perms").Verbosef("hidden")
		l.For("perms").Infof("b")
		l.For("vcs").Infof("c")
		l.For("perms").Infof("d")
		l.CommandSection()
		l.For("exec").Infof("about the command")
		fmt.Fprint(l, "run-task: error: x\n")
		l.EndSection()
		return regexp.MustCompile(`:\d{10}:`).ReplaceAllString(b.String(), ":T:")
	}
	start := func(name, option, title string) string {
		return "section_start:T:run_task_" + name + option + "\r\x1b[0K" + title + "\n"
	}
	end := func(name string) string { return "section_end:T:run_task_" + name + "\r\x1b[0K\n" }
	const folded = "[collapsed=true]"
	for kind, want := range map[Sections]string{
		NoSections: "warning: no step\n[perms] a\n[perms] b\n[vcs] c\n[perms] d\n[exec] about the command\nrun-task: error: x\n",
		GitHub: "warning: no step\n::group::perms\n[perms] a\n[perms] b\n::endgroup::\n::group::vcs\n[vcs] c\n::endgroup::\n::group::perms\n[perms] d\n::endgroup::\n" +
			"::group::command\n[exec] about the command\n::endgroup::\nrun-task: error: x\n",
		GitLab: "warning: no step\n" + start("perms", folded, "perms") + "[perms] a\n[perms] b\n" + end("perms") + start("vcs", folded, "vcs") + "[vcs] c\n" + end("vcs") +
			start("perms_2", folded, "perms") + "[perms] d\n" + end("perms_2") + start("command", "", "command") + "[exec] about the command\n" + end("command") + "run-task: error: x\n",
	} {
		if got := said(kind); got != want {
			t.Errorf("%s: got\n%q\nwant\n%q", kind, got, want)
		}
	}
}

// Times and tokens in our own lines.
func TestStampsAndTokens(t *testing.T) {
	var b bytes.Buffer
	l := New(&b, Normal, false)
	l.Timestamps()
	l.Warnf("x")
	l.For("vcs").Infof("glpat-abcdefgh1234 ghp_0123456789abcdefABCD github_pat_11AAAAAAA0123456789 xglpat- ghp_short npm_0123456789abcdef0123")
	want := "[run-task STAMP] warning: x\n[vcs STAMP] [MASKED] [MASKED] [MASKED] xglpat- ghp_short [MASKED]\n"
	if got := regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`).ReplaceAllString(b.String(), "STAMP"); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := l.For("a").Line("%d", 7); !regexp.MustCompile(`^\[a 20\S+Z\] 7\n$`).MatchString(got) {
		t.Errorf("Line: %q", got)
	}
}

func TestMasksOfTheLog(t *testing.T) {
	var b bytes.Buffer
	l := New(&b, Normal, false)
	l.Mask("two\nlines", "plain", "abc", `pa"ss\w`)
	l.Infof("two\nlines plain abc %s %q", `pa"ss\w`, `xpa"ss\w`)
	if want := "[MASKED] [MASKED] abc [MASKED] \"x[MASKED]\"\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	if got := l.Masks().String("two\nlines plain"); got != "[MASKED] [MASKED]" {
		t.Errorf("%q", got)
	}
}
