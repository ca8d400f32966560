package worktree

import (
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What is read is what git reads, error for error.
func TestConfigIsReadAsGitReadsIt(t *testing.T) {
	hard := []string{"[", "]", "[submodule \"", "\"]", "[submodule \"a\"]\n", "[Sub.Mod]", "\"", "\\", "\\\\", "\\\"", "\\n", "\\\n", "\n", "\r\n", "\r", " ", "  ", "=", " = ", "#", ";", "\t",
		"path", "URL", "update", "a/b", "../x.git", "-", ".", "1", "é", "path = x y \n", "url=\"a # b\" ; c\n", "ignore\n", "\ufeff", "_"}
	easy := []string{"[submodule \"a\\\\b\"]\n", "\tpath = lib/x\n", "url=../y.git ; why\n", "[ core]\n", "[core]", "bare\n", "# c\n", "name = \"a b\" c\\\n d\n", "[Old.Style]\r\n", "x=\"\n\"\n", "é = 1\n"}
	r := rand.New(rand.NewPCG(1, 1))
	file := filepath.Join(t.TempDir(), "config")
	read, refused := 0, 0
	for i := range 400 {
		text := ""
		if i%3 > 0 {
			text = "[submodule \"a\"]\n"
		}
		for range 1 + r.IntN(8) {
			if r.IntN(4) == 0 {
				text += hard[r.IntN(len(hard))]
			} else {
				text += easy[r.IntN(len(easy)-1+i%2)]
			}
		}
		write(t, file, text, 0o644)
		out, err := exec.Command("git", "config", "--file", file, "--null", "--list").Output()
		all, ours := parseConfig([]byte(text))
		if (err == nil) != (ours == nil) {
			t.Errorf("%q: git says %v, we say %v", text, err, ours)
		}
		if refused++; err != nil || ours != nil {
			continue
		}
		refused--
		var got strings.Builder
		for _, s := range all {
			got.WriteString(s.key)
			if s.set {
				got.WriteString("\n" + s.value)
			}
			got.WriteString("\x00")
		}
		if tabs := strings.NewReplacer("\t", " ", "\r", " "); tabs.Replace(got.String()) != tabs.Replace(string(out)) { // which old versions make blanks of
			t.Errorf("%q: git reads %q, we read %q", text, out, got.String())
		}
		if len(all) > 0 {
			read++
		}
	}
	if read < 50 || refused < 50 {
		t.Errorf("%d were read, %d refused", read, refused)
	}
	for _, bad := range []string{"[a\x00]\n", "c d\n", "c = \"d\n", "_\n"} {
		if all, err := parseConfig([]byte("# \x00\n[a]\nb=c\x00d\n" + bad)); err == nil || len(all) != 1 || all[0] != (setting{"a.b", "c\x00d", true}) {
			t.Errorf("%q: %+v, %v", bad, all, err)
		}
	}
}
