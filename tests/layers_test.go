//go:build linux

package tests

import (
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// capabilities are the packages that do run-task's work, and the only other capabilities that each may know.
var capabilities = map[string][]string{
	"caches":    {"perms", "store"},
	"checkout":  {"store"},
	"perms":     nil,
	"report":    {"supervise"},
	"store":     nil,
	"supervise": nil,
}

// TestLayers keeps the packages pointing in one direction: main > internal/task > capabilities > internal. So no capability ever sees a flag or a variable.
func TestLayers(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}}: {{join .Imports \" \"}}", "run-task/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		pkg, imports, _ := strings.Cut(strings.TrimSpace(line), ":")
		if strings.HasPrefix(pkg, "run-task/tests") {
			continue
		}
		seen[top(pkg)] = true
		for _, imported := range strings.Fields(imports) {
			if ours(imported) && !mayImport(pkg, imported) {
				t.Errorf("%s must not import %s", pkg, imported)
			}
		}
	}
	for _, name := range []string{"caches", "checkout", "perms", "supervise", "internal"} {
		if !seen[name] {
			t.Errorf("no package %s: this test looks at the wrong things", name)
		}
	}
	known := append(slices.Collect(maps.Keys(capabilities)), "internal", "run-task")
	for name := range seen {
		if !slices.Contains(known, name) {
			t.Errorf("a new top-level package %q: give it a line in architecture and here", name)
		}
	}
}

func mayImport(pkg, imported string) bool {
	from, to := top(pkg), top(imported)
	switch {
	case pkg == "run-task":
		return true
	case imported == "run-task/internal/task":
		return false
	case pkg == "run-task/internal/task":
		return true
	case to == "internal":
		return true
	}
	return from == to || slices.Contains(capabilities[from], to)
}

func ours(pkg string) bool { return pkg == "run-task" || strings.HasPrefix(pkg, "run-task/") }

// top is the first folder of a package: its capability, or internal.
func top(pkg string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(pkg, "run-task/"), "/")
	return name
}
