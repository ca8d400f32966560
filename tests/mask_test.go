//go:build linux

package tests

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hidden is text with the values hidden, as the documentation says it: each byte of any occurrence is covered, each run of covered bytes is one [MASKED].
func hidden(text string, values ...string) string {
	covered := make([]bool, len(text))
	for _, v := range values {
		for i := range text {
			if strings.HasPrefix(text[i:], v) {
				for j := range v {
					covered[i+j] = true
				}
			}
		}
	}
	var b strings.Builder
	for i := range len(text) {
		switch {
		case !covered[i]:
			b.WriteByte(text[i])
		case i == 0 || !covered[i-1]:
			b.WriteString("[MASKED]")
		}
	}
	return b.String()
}

// A secret that is written in two parts is not shown, however long the second takes to come.
func TestMasksOfTwoWrites(t *testing.T) {
	t.Parallel()
	const secret = "abcabcab"
	for _, flags := range [][]string{nil, {"--timestamps"}, {"--output-limit", "1M"}} {
		t.Run(fmt.Sprint(flags), func(t *testing.T) {
			t.Parallel()
			before := time.Now()
			o := obey(t, false, []string{"TOKEN=" + secret}, append(flags, "--mask-env", "TOKEN")...)
			stamped, want := slices.Contains(flags, "--timestamps"), ""
			shows := func(what string) {
				t.Helper()
				o.stdout.until(t, fmt.Sprintf("%q", what), func(heard string) bool {
					if stamped {
						heard, _, _ = unstamp(heard)
					}
					return heard == what
				})
			}
			for i := 1; i < len(secret); i++ {
				o.do(toOut("x" + secret[:i]))
				shows(want + "x")
				o.do(toOut(secret[i:] + "y\n"))
				want += "x[MASKED]y\n"
				shows(want)
			}
			// What turns out to be none is shown, as soon as that is clear.
			o.do(toOut("<abcabca"))
			shows(want + "<")
			o.do(toOut(">\n<abc"))
			want += "<abcabca>\n<"
			shows(want)
			o.do(toOut("abcabcabcab\n<abcabc"))
			code, stdout, stderr := o.ends()
			want += "[MASKED]\n<abcabc"
			if stamped {
				stampedAs(t, stdout, want, before, time.Now())
			} else {
				alike(t, "stdout", stdout, want)
			}
			if code != 0 || stderr != "" {
				t.Errorf("exit %d, %q", code, stderr)
			}
		})
	}
}

// Whatever the command writes in whatever pieces to whatever stream, what is shown is what the documentation says.
func TestRandomMasks(t *testing.T) {
	t.Parallel()
	values := []string{"abab", "babaab", "aaaa", "secret", "retsec", "b\x00\xff\x80", "line\r", "ba-----ab"}
	atoms := []string{"a", "b", "ab", "aba", "secret", "sec", "ret", "b\x00\xff", "\x80", "-----", "li", "ne\r", "\n", "\r", "ba", "é"}
	for i := range 8 {
		seed := rand.Uint64()
		stamps := i%4 == 3
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			// What a line of a file cannot hold is in a variable. The files' lines end in all ways.
			plant(t, dir+"/one", strings.Join(values[:3], "\r\n")+"\r\n\n\r\n")
			plant(t, dir+"/two", strings.Join(values[3:6], "\n"))
			flags := []string{"--mask-file", dir + "/one", "--mask-file", dir + "/two", "--mask-env", "LAST", "--mask-env", "CR"}
			if stamps {
				flags = append(flags, "--timestamps")
			}
			before := time.Now()
			o := obey(t, i%2 == 1, []string{"LAST=" + values[7], "CR=" + values[6]}, flags...)
			rnd := rand.New(rand.NewPCG(seed, 1))
			var orders []string
			var both, stdout, stderr strings.Builder
			for range 200 {
				piece := ""
				for range rnd.IntN(5) + 1 {
					piece += atoms[rnd.IntN(len(atoms))]
				}
				both.WriteString(piece)
				if rnd.IntN(3) > 0 {
					orders = append(orders, toOut(piece))
					stdout.WriteString(piece)
				} else {
					orders = append(orders, toErr(piece))
					stderr.WriteString(piece)
				}
				if rnd.IntN(2) == 0 {
					orders = append(orders, "drain")
				}
			}
			o.do(append(orders, "exit 3")...)
			code, gotOut, gotErr := o.ends()
			switch {
			case code != 3:
				t.Errorf("exit %d\n%s", code, gotErr)
			case stamps:
				stampedAs(t, gotOut, hidden(both.String(), append(values, "line")...), before, time.Now())
			case i%2 == 1:
				alike(t, "both", gotOut, hidden(both.String(), append(values, "line")...))
			default:
				alike(t, "stdout", gotOut, hidden(stdout.String(), append(values, "line")...))
				alike(t, "stderr", gotErr, hidden(stderr.String(), append(values, "line")...))
			}
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
		})
	}
}

// privateKey is a value of several lines; one of them is too short to be masked by itself.
const privateKey = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEG\nCCqGSM49AwEHBG0wawIBAQQg\nxy=\n-----END PRIVATE KEY-----\n"

// A value of several lines is hidden as a whole, and line by line however its lines end.
func TestMasksOfSeveralLines(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSuffix(privateKey, "\n"), "\n")
	dir := tempDir(t)
	for name, value := range map[string]string{"LF": privateKey, "CRLF": strings.ReplaceAll(privateKey, "\n", "\r\n"), "no end": strings.TrimSuffix(privateKey, "\n")} {
		o := obey(t, false, []string{"KEY=" + value}, "--mask-env", "KEY")
		o.do(toOut("<" + value + ">"))
		for _, end := range []string{"\n", "\r\n", "\r", " ", "\\n"} {
			o.do(toOut(strings.Join(lines, end)+"\n"), "drain", toErr("  "+strings.Join(lines, end+"  ")), "drain", toOut("--\n"))
		}
		_, stdout, stderr := o.ends()
		if !strings.HasPrefix(stdout, "<[MASKED]>") {
			t.Errorf("%s, as a whole: %q", name, stdout)
		}
		for _, l := range lines {
			if len(l) > 4 && strings.Contains(stdout+stderr, l) {
				t.Errorf("%s: %q is in %q and %q", name, l, stdout, stderr)
			}
		}
		if !strings.HasSuffix(stderr, `  [MASKED]\n  [MASKED]\n  [MASKED]\n  xy=\n  [MASKED]`) {
			t.Errorf("%s, line by line: %q", name, stderr)
		}
	}
	plant(t, dir+"/key", strings.ReplaceAll(privateKey, "\n", "\r\n"))
	if code, _, stderr := relayedTask([]string{"--mask-file", dir + "/key"}, "probe").run(t); code != 64 || strings.Contains(stderr, "xy=") || !strings.Contains(stderr, "line 4") {
		t.Errorf("a file with a short line: exit %d\n%s", code, stderr)
	}
}

// What cannot be masked is an error that does not say it.
func TestWhatCannotBeMasked(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	plant(t, dir+"/short", "long enough\n\nq7z\n")
	plant(t, dir+"/short CRLF", "long enough\r\nq7z\r\n")
	plant(t, dir+"/no end", "q7z")
	plant(t, dir+"/large", "")
	if err := os.Truncate(dir+"/large", 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(dir+"/fifo", 0o644); err != nil {
		t.Fatal(err)
	}
	plant(t, dir+"/closed", "q7zq7z\n")
	if err := os.Chmod(dir+"/closed", 0); err != nil {
		t.Fatal(err)
	}
	// A FIFO must not be waited for, nor a device be read to its end.
	for _, name := range []string{"short", "short CRLF", "no end", "large", "fifo", "missing", "closed", ".", "/dev/zero", ""} {
		path := filepath.Join(dir, name)
		if filepath.IsAbs(name) || name == "" {
			path = name
		}
		c := &command{args: append([]string{"run-task", "--mask-file", path}, "--", "probe", "say", "never")}
		if os.Getuid() == 0 {
			c.enter = []string{"user", "1000", "1000"}
		}
		code, stdout, stderr := c.run(t)
		if code != 64 || stdout != "" || strings.Count(stderr, "run-task: error: ") != 1 || !strings.Contains(stderr, "\nrun-task: hint: ") || strings.Contains(stderr, "q7z") || strings.Count(stderr, "\n") != 2 {
			t.Errorf("%q: exit %d, stdout %q\n%s", name, code, stdout, stderr)
		}
	}
	for _, value := range []string{"q7z", "q", "\n", "éq"} {
		code, stdout, stderr := (&command{env: []string{"SHORT=" + value}, args: slices.Concat([]string{"run-task"}, asUser(), []string{"--mask-env", "SHORT", "--", "probe", "say", "never"})}).run(t)
		if code != 64 || stdout != "" || strings.Count(stderr, "run-task: error: ") != 1 || strings.Contains(stderr, "q7z") || !strings.Contains(stderr, "SHORT") || strings.Count(stderr, "\n") != 2 {
			t.Errorf("%q: exit %d, stdout %q\n%s", value, code, stdout, stderr)
		}
	}
}

// The variable says which others to mask, one a line. One that is not there is a warning, and which files to mask is not for the job to say.
func TestMasksOfTheEnvironment(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	plant(t, dir+"/file", "in the file\n")
	c := relayedTask(nil, "probe", "all", "say", "first-value", "second-value", "in the file", "third", ",", "backwards", "ONE", "TWO", ",", "exit", "3")
	c.env = []string{"RUN_TASK_MASK_ENV=ONE\nTWO\nUNSET\nEMPTY", "ONE=first-value", "TWO=second-value", "EMPTY=", "RUN_TASK_MASK_FILE=" + dir + "/file"}
	code, stdout, stderr := c.run(t)
	if code != 3 || stdout != "[MASKED] [MASKED] in the file third\neulav-tsrif\neulav-dnoces\n" {
		t.Errorf("exit %d, %q", code, stdout)
	}
	warnings := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	for _, name := range []string{"UNSET", "EMPTY", "RUN_TASK_MASK_FILE"} {
		if !slices.ContainsFunc(warnings, func(l string) bool { return strings.HasPrefix(l, "warning: ") && strings.Contains(l, name) }) {
			t.Errorf("no warning about %s in\n%s", name, stderr)
		}
	}
	if len(warnings) != 3 {
		t.Errorf("warnings:\n%s", stderr)
	}
}

// A file of secrets can be root's alone.
func TestMaskFileOfRoot(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := tempDir(t)
	plant(t, dir+"/secrets", "first secret\r\nsecond secret")
	if err := os.Chmod(dir+"/secrets", 0o600); err != nil {
		t.Fatal(err)
	}
	stdout := relayedTask([]string{"--mask-file", dir + "/secrets"}, "/bin/sh", "-c", "echo first secret, second secret; cat "+dir+"/secrets || true").must(t)
	if stdout != "[MASKED], [MASKED]\n" {
		t.Errorf("%q", stdout)
	}
}

// leakOf gives a part of a secret that is in a text, "" if none is. Parts of 6 bytes count.
func leakOf(text, secret string) string {
	for i := 0; i+6 <= len(secret); i++ {
		if strings.Contains(text, secret[i:i+6]) {
			return secret[i : i+6]
		}
	}
	return ""
}

// A secret is nowhere in what run-task itself says and writes, in whatever it was told in and whichever way its words are quoted there.
func TestMasksOfOwnLines(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	secrets := map[string]string{"plain": "hunter2secret", "quotes": `pa"ssw\ord'1234567`, "control": "first\tsec\x01ond\x1bthird", "lines": "first-line\nother-line", "not UTF-8": "pass\xffword\xfe1234", "unicode": "пароль\u202eкод"}
	src := func(repo, sha string, more ...string) []string {
		return append(more, "--checkout", "src", "--repo", repo, "--sha", sha, "--", "probe")
	}
	tests := map[string]func(t *testing.T){}
	for _, c := range []struct {
		name  string
		every bool // try it with each secret
		code  int
		where string // the plain value is masked here: "stdout", "stderr"
		args  []string
	}{
		{"program", true, 127, "stderr", []string{"--", "no-such-SECRET"}},
		{"limit", true, 124, "stderr", []string{"--command-timeout", "300ms", "--", "probe", "obey", "a", "SECRET", "--token=SECRET"}},
		{"plan", true, 0, "stdout", []string{"--plan", "--", "probe", "SECRET", "--token=SECRET"}},
		{"missing repository", true, 64, "stderr", src("/nowhere/SECRET", r.SHA["tip"])},
		{"no --", true, 64, "stderr", []string{"curl", "--header", "PRIVATE-TOKEN: SECRET"}},
		{"wrong time", true, 64, "stderr", []string{"--timeout", "SECRET", "--", "probe"}},
		{"checkout", false, 0, "stderr", []string{"--verbose", "--checkout", "src-SECRET", "--repo", "LINK", "--sha", r.SHA["tip"], "--ref", "SECRET", "--", "probe", "exit", "0"}},
		{"plan of a checkout", false, 0, "stdout", []string{"--plan", "--checkout", "SECRET", "--repo", "https://host.invalid/SECRET", "--sha", r.SHA["tip"], "--", "probe"}},
		{"missing program", false, 127, "stderr", []string{"--", "./no/such/SECRET"}},
		{"directory", false, 64, "stderr", []string{"--cwd", "SECRET", "--", "probe"}},
		{"wrong size", false, 64, "stderr", []string{"--output-limit", "SECRET", "--", "probe"}},
		{"wrong kind", false, 64, "stderr", []string{"--sections", "SECRET", "--", "probe"}},
		{"wrong checkout", false, 64, "stderr", []string{"--checkout", "src,SECRET", "--", "probe"}},
		{"wrong SHA", false, 64, "stderr", src(r.Path, "SECRET")},
		{"wrong limit", false, 64, "stderr", src(r.Path, r.SHA["tip"], "--git-limit", "SECRET")},
		{"wrong copy", false, 64, "stderr", []string{"--copy", "SECRET", "--", "probe"}},
		{"missing file", false, 64, "stderr", []string{"--mask-file", "/nowhere/SECRET", "--", "probe"}},
	} {
		for kind, secret := range secrets {
			if kind != "plain" && !c.every {
				continue
			}
			tests[c.name+", "+kind] = func(t *testing.T) {
				dir := tempDir(t)
				own(t, dir)
				status, link := dir+"/status.json", dir+"/repo-"+secret
				if err := os.Symlink(r.Path, link); err != nil {
					t.Fatal(err)
				}
				var args []string
				for _, a := range c.args {
					args = append(args, strings.NewReplacer("LINK", link, "SECRET", secret).Replace(a))
				}
				run := &command{dir: dir, env: []string{"TOKEN=" + secret}, args: slices.Concat([]string{"run-task"}, asUser(), []string{"--mask-env", "TOKEN", "--status-file", status}, args)}
				o := obeyAs(t, false, run)
				code := wait(t, o.cmd)
				stdout, stderr := o.stdout.all(), o.stderr.all()
				if code != c.code {
					t.Errorf("exit %d, want %d", code, c.code)
				}
				data, _ := os.ReadFile(status)
				var said any // as who reads it has it
				json.Unmarshal(data, &said)
				texts := map[string]string{"stdout": stdout, "stderr": stderr, "status file": string(data), "status": fmt.Sprint(said)}
				for where, text := range texts {
					for line := range strings.SplitSeq(secret, "\n") {
						if part := leakOf(text, line); part != "" {
							t.Errorf("%q is in the %s", part, where)
						}
					}
				}
				if kind == "plain" && !strings.Contains(texts[c.where], "[MASKED]") {
					t.Errorf("%s has nothing masked", c.where)
				}
				if t.Failed() {
					t.Logf("%s%s%s", stdout, stderr, data)
				}
			}
		}
	}
	together(t, 8, tests)
}

// What looks like a token, or stands in a URL before the host, is masked in lines of run-task's own without being told.
func TestTokensInOwnLines(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	tokens := []string{"glpat-abcdefghij0123456789", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuv", "glptt-0123456789abcdef0123456789abcdef01234567"}
	for _, token := range tokens {
		for _, flags := range [][]string{nil, {"--init"}, {"--timestamps"}} {
			dir := tempDir(t)
			own(t, dir)
			c := &command{dir: dir, args: slices.Concat([]string{"run-task"}, asUser(), flags, []string{"--status-file", "status.json", "--checkout", "src-" + token, "--repo", r.Path, "--sha", r.SHA["tip"], "--cwd", ".", "--", "no-" + token})}
			code, _, stderr := c.run(t)
			data, err := os.ReadFile(dir + "/status.json")
			if code != 127 || err != nil || strings.Count(stderr, "[MASKED]") < 2 || leakOf(stderr+string(data), token) != "" {
				t.Errorf("exit %d, %v\n%s%s", code, err, stderr, data)
			}
		}
	}
	o := obeyAs(t, false, relayedTask([]string{"--command-timeout", "300ms"}, "probe", "obey", "https://joe:hunter2hunter2@host/x", "--token="+tokens[0]))
	o.stderr.until(t, "the list", func(heard string) bool { return strings.Contains(heard, "  pid ") })
	if code, _, stderr := o.ends(); code != 124 || strings.Contains(stderr, "hunter2") || leakOf(stderr, tokens[0]) != "" || !strings.Contains(stderr, "obey https://[MASKED]@host/x --token=[MASKED]") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}
