//go:build linux

package tests

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"run-task/internal/fail"
	"run-task/internal/task"
)

// The README's tables are the code's tables.
func TestReadmeTables(t *testing.T) {
	codes := "| code | reason | meaning | does a retry help? | GitLab's word |\n|---|---|---|---|---|\n"
	for _, r := range fail.Table() {
		codes += fmt.Sprintf("| %d | %s | %s | %s | %s |\n", r.Reason, r.Word, r.Meaning, r.Retry, r.GitLab)
	}
	flags := "| flag | variable | what |\n|---|---|---|\n"
	for _, r := range task.Table() {
		variable := "-"
		if r.Variable != "" {
			variable = "`" + r.Variable + "`"
		}
		flags += fmt.Sprintf("| `%s` | %s | %s |\n", strings.ReplaceAll(r.Flag, "|", `\|`), variable, strings.ReplaceAll(r.Usage, "|", `\|`))
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, table := range map[string]string{"exit codes": codes, "flags": flags} {
		// The header is the README's own; rows are compared, all of them, in their order.
		_, rows, _ := strings.Cut(table, "|---|\n")
		if !strings.Contains(string(readme), "|\n"+rows) {
			t.Errorf("README.md's table of %s differs from the code's, which is:\n%s", name, table)
		}
	}
}

// --help has every flag, with its variable.
func TestHelpIsComplete(t *testing.T) {
	out := (&command{args: []string{"run-task", "--help"}}).must(t)
	flat := strings.Join(strings.Fields(out), " ")
	for _, r := range task.Table() {
		if !strings.Contains(flat, r.Flag) || !strings.Contains(flat, r.Usage) {
			t.Errorf("--help does not have %s: %s", r.Flag, r.Usage)
		}
		if r.Variable != "" && !strings.Contains(flat, "["+r.Variable+"]") {
			t.Errorf("--help does not have [%s]", r.Variable)
		}
	}
}
