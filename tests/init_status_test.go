//go:build linux

package tests

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ending is a status file of a run-task that stayed.
type ending struct {
	status
	Command *struct {
		Code           int
		Signal, Reason string
		Seconds        float64
		MaxRSS         int64   `json:"max_rss"`
		User           float64 `json:"user_seconds"`
		System         float64 `json:"system_seconds"`
	}
	Truncated bool
}

func readEnding(t *testing.T, file string) (s ending) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil || strings.Count(string(data), "\n") != 1 || !strings.HasSuffix(string(data), "}\n") || len(data) > 4096 {
		t.Fatalf("%v: %d bytes, %q", err, len(data), data)
	}
	if s.Command == nil && s.Phase == "ended" || s.Version != 1 {
		t.Fatalf("%s", data)
	}
	return s
}

// How the command ended, and what it used: what its children used as well.
func TestStatusOfCommand(t *testing.T) {
	t.Parallel()
	const big = 100 << 20
	for _, c := range []struct {
		name, script   string
		code           int
		signal, reason string
		user, system   float64 // at least
		memory         int64   // at least, and at most twice that
	}{
		{name: "exits 0", script: `exit 0`, reason: "exited"},
		{name: "exits 72", script: `exit 72`, code: 72, reason: "exited"},
		{name: "exits 124", script: `exit 124`, code: 124, reason: "exited"},
		{name: "exits 137", script: `exit 137`, code: 137, reason: "exited"},
		{name: "killed", script: `kill -KILL $$`, code: 137, signal: "SIGKILL", reason: "signal"},
		{name: "crashed", script: `ulimit -c 0; kill -SEGV $$`, code: 139, signal: "SIGSEGV", reason: "signal"},
		{name: "killed by a real-time signal", script: `kill -40 $$`, code: 168, signal: "signal 40", reason: "signal"},
		{name: "computes", script: `exec probe burn 0.2 0.1`, reason: "exited", user: 0.2, system: 0.1},
		{name: "children compute", script: `probe burn 0.1 0 & probe burn 0.1 0; wait; exit 3`, code: 3, reason: "exited", user: 0.2},
		{name: "large", script: fmt.Sprint("exec probe occupy ", big), reason: "exited", memory: big},
		{name: "a large child, killed", script: fmt.Sprint("probe occupy ", big, "; kill -TERM $$"), code: 143, signal: "SIGTERM", reason: "signal", memory: big},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			kinds(t, func(t *testing.T, pid1 bool) {
				dir := tempDir(t)
				if code, _, stderr := (&command{pid1: pid1, dir: dir, args: loud("--", "/bin/sh", "-c", c.script)}).run(t); code != c.code || strings.Contains(stderr, "error: ") {
					t.Errorf("exit %d\n%s", code, stderr)
				}
				s := readEnding(t, dir+"/status.json")
				if s.Phase != "ended" || s.Code != c.code || s.Reason != "" || s.Step != "" || s.Error != "" || s.Hint != "" || s.Truncated {
					t.Errorf("status: %+v", s)
				}
				got := s.Command
				if got.Code != c.code || got.Signal != c.signal || got.Reason != c.reason {
					t.Errorf("the command: %+v", got)
				}
				if got.User < c.user || got.System < c.system || got.Seconds <= 0 || c.user+c.system > got.Seconds*2 {
					t.Errorf("times: %+v", got)
				}
				if got.MaxRSS < c.memory || c.memory > 0 && got.MaxRSS > 2*c.memory || got.MaxRSS < 0 {
					t.Errorf("memory: %+v", got)
				}
				last := s.Steps[len(s.Steps)-1]
				if last.Name != "exec" || last.Seconds+0.002 < got.Seconds { // both are rounded
					t.Errorf("the step %q took %g s, its command %g s", last.Name, last.Seconds, got.Seconds)
				}
			})
		})
	}
}

// Whose a code is: the command's own, or that of run-task, which never started it or could not.
func TestStatusTellsWhose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, args, phase, reason, step string
		code                            int
	}{
		{"its own 72", "-- probe exit 72", "ended", "", "", 72},
		{"ours", "--cache cache -- probe exit 0", "failed", "purge-cache", "cache", 72},
		{"its own 127", "-- probe exit 127", "ended", "", "", 127},
		{"no such program", "-- no-such-program", "failed", "not-found", "exec", 127},
		{"its own 126", "-- probe exit 126", "ended", "", "", 126},
		{"no program", "-- ./file", "failed", "cannot-exec", "exec", 126},
		{"its own 64", "-- probe exit 64", "ended", "", "", 64},
		{"no such directory", "--cwd nowhere -- probe exit 0", "failed", "usage", "exec", 64},
		{"not understood", "--grace 0 -- probe exit 0", "failed", "usage", "", 64},
		{"its own 137", "-- probe kill 9", "ended", "", "", 137},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			mkdirAll(t, dir+"/cache")
			plant(t, dir+"/cache/file", "of another task's")
			plant(t, dir+"/file", "no program")
			code, _, stderr := (&command{dir: dir, args: loud(strings.Fields(c.args)...)}).run(t)
			s := readEnding(t, dir+"/status.json")
			if code != c.code || s.Code != c.code || s.Phase != c.phase || s.Reason != c.reason || s.Step != c.step || (s.Command != nil) != (c.phase == "ended") || (s.Error != "") != (c.phase == "failed") {
				t.Errorf("exit %d, %+v\n%s", code, s, stderr)
			}
			if s.Error != "" && !strings.Contains(stderr, "run-task: error: "+s.Error+"\n") || s.Hint != "" && !strings.Contains(stderr, "run-task: hint: "+s.Hint+"\n") {
				t.Errorf("error %q, hint %q, but\n%s", s.Error, s.Hint, stderr)
			}
		})
	}
}

// A run-task that is killed with its command leaves that it had started it.
func TestStatusOfKilledRunTask(t *testing.T) {
	t.Parallel()
	kinds(t, func(t *testing.T, pid1 bool) {
		dir := tempDir(t)
		p, _ := told(t, &command{pid1: pid1, dir: dir, args: loud("--", "/bin/sh", "-c", "echo ready; read line")}) // it ends with the test's end of its stdin
		p.expect("ready")
		p.signal(int(unix.SIGKILL))
		if pid1 {
			if code := p.end(); code != 137 {
				t.Errorf("exit %d\n%s", code, &p.errs)
			}
		} else {
			p.cmd.Process.Kill()
			p.end()
		}
		if s := readEnding(t, dir+"/status.json"); s.Phase != "command" || s.Code != 0 || s.Command != nil || s.Reason != "" || len(s.Steps) == 0 {
			t.Errorf("status: %+v", s)
		}
	})
}

// That the file cannot be written any more changes nothing of how the task ends.
func TestStatusOnFullDisk(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := tempDir(t)
	mkdirAll(t, dir+"/small")
	mount(t, "tmpfs", dir+"/small", "tmpfs", "size=64k,mode=777")
	for name, c := range map[string]struct {
		script string
		code   int
	}{
		"exits":   {`exit 5`, 5},
		"killed":  {`kill -KILL $$`, 137},
		"limited": {`exec sleep 1000`, 124},
	} {
		os.Remove(dir + "/small/fill")
		flags := []string{"run-task", "--init", "--user", "root", "--status-file", "small/status.json"}
		if c.code == 124 {
			flags = append(flags, "--no-output-timeout", "300ms")
		}
		// The place that the file has would do for what is to be written: the command takes it.
		script := `[ -s small/status.json ] && : >small/status.json && { cat /dev/zero >small/fill 2>&- || echo full; } ; ` + c.script
		code, stdout, stderr := (&command{dir: dir, args: append(flags, "--", "/bin/sh", "-c", script)}).run(t)
		if code != c.code || stdout != "full\n" || strings.Count(stderr, "warning: status file: ") != 1 || !strings.Contains(stderr, "no space left on device") {
			t.Errorf("%s: exit %d, %q\n%s", name, code, stdout, stderr)
		}
	}
	// Where there is no place for it from the start nothing is started.
	os.Remove(dir + "/small/status.json")
	plant(t, dir+"/small/fill", "")
	if err := os.WriteFile(dir+"/small/fill", make([]byte, 64<<10+1), 0o600); err == nil {
		t.Error("the disk is not full")
	}
	code, stdout, stderr := (&command{dir: dir, args: []string{"run-task", "--init", "--user", "root", "--status-file", "small/status.json", "--", "probe", "say", "never"}}).run(t)
	if code != 74 || stdout != "" || !strings.Contains(stderr, "no space left on device") {
		t.Errorf("exit %d, %q\n%s", code, stdout, stderr)
	}
}

// Kubernetes' termination message is a file of root's that is mounted by itself, where nothing can be made nor renamed; run-task's user may not open it.
func TestStatusIsTerminationMessage(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := tempDir(t)
	mkdirAll(t, dir+"/dev")
	plant(t, dir+"/message", strings.Repeat("old ", 2000))
	plant(t, dir+"/dev/termination-log", "")
	plant(t, dir+"/dev/null", "") // a neighbour
	var before, after unix.Stat_t
	if err := unix.Stat(dir+"/message", &before); err != nil {
		t.Fatal(err)
	}
	listing := snapshot(t, dir+"/dev")
	for _, user := range []string{"root", "1000:1000"} {
		c := &command{dir: dir, enter: []string{"bind", dir + "/message", dir + "/dev/termination-log"},
			args: []string{"run-task", "--init", "--user", user, "--status-file", dir + "/dev/termination-log", "--", "probe", "all", "cat", "dev/termination-log", ",", "exit", "9"}}
		code, stdout, stderr := c.run(t)
		if code != 9 || !strings.HasPrefix(stdout, `{"version":1,"phase":"command","code":0,`) || !strings.HasSuffix(stdout, "}\n") {
			t.Errorf("%s: exit %d, %q\n%s", user, code, stdout, stderr)
		}
		if s := readEnding(t, dir+"/message"); s.Phase != "ended" || s.Code != 9 || s.Command.Code != 9 {
			t.Errorf("%s: %+v", user, s)
		}
		if err := unix.Stat(dir+"/message", &after); err != nil || after.Ino != before.Ino || after.Mode != before.Mode || after.Uid != before.Uid {
			t.Errorf("%s: %+v, was %+v, %v", user, after, before, err)
		}
	}
	if now := snapshot(t, dir+"/dev"); now != listing {
		t.Errorf("is\n%swas\n%s", now, listing)
	}
}

// However much there is to say the file is one object of at most 4096 bytes, and says that something is missing.
func TestStatusIsSmall(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	long := strings.Repeat(`"\<é>`, 1000)
	code, _, stderr := (&command{dir: dir, args: loud("--", "no such "+long)}).run(t)
	s := readEnding(t, dir+"/status.json")
	if code != 127 || s.Code != 127 || s.Reason != "not-found" || !s.Truncated || len(s.Error) < 200 || !strings.HasPrefix(s.Error, "exec: ") || len(s.Steps) == 0 {
		t.Errorf("exit %d, %+v\n%.500s", code, s, stderr)
	}
}

// What the command gets of what stands around it: a trace it takes part in, but nothing that was meant for run-task.
func TestInitEnvironment(t *testing.T) {
	t.Parallel()
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	dir := tempDir(t)
	c := &command{dir: dir, args: slices.Concat([]string{"run-task"}, asUser(), []string{"--", "probe"}), env: []string{"TRACEPARENT=" + trace, "TRACESTATE=a=b", "TOKEN=" + secretArg,
		"RUN_TASK_INIT=1", "RUN_TASK_TIMEOUT=1h", "RUN_TASK_GRACE=1s", "RUN_TASK_MASK_ENV=TOKEN", "RUN_TASK_MISSPELT=1"}}
	code, stdout, stderr := c.run(t)
	for _, line := range []string{"TRACEPARENT=" + trace, "TRACESTATE=a=b", "TOKEN=[MASKED]"} {
		if !strings.Contains(stdout, "\nenv."+line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	if code != 0 || strings.Contains(stdout, "RUN_TASK_") || !strings.Contains(stderr, "RUN_TASK_MISSPELT is ignored") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
}

// Secrets that stand in what the file says are masked there, too.
func TestStatusMasks(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	for _, c := range []struct {
		name string
		args []string
		code int
	}{
		{"in an error", []string{"--", "./" + secretArg}, 127},
		{"in an error of the command line", []string{"--grace", secretArg, "--", "probe"}, 64},
		{"in a checkout's directory", []string{"--checkout", secretArg, "--repo", r.Path, "--sha", r.SHA["tip"], "--", "probe", "exit", "0"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			code, stdout, stderr := (&command{dir: dir, env: []string{"TOKEN=" + secretArg}, args: loud(append([]string{"--mask-env", "TOKEN"}, c.args...)...)}).run(t)
			data, err := os.ReadFile(dir + "/status.json")
			if said := stdout + stderr + string(data); code != c.code || err != nil || strings.Contains(said, secretArg) || !strings.Contains(string(data), "[MASKED]") {
				t.Errorf("exit %d, %v\n%s", code, err, said)
			}
		})
	}
}

// fieldsOf gathers the names of all that is in a JSON object, as the documentation's table has them: "steps[].name".
func fieldsOf(at string, value any, seen map[string]bool) {
	switch v := value.(type) {
	case map[string]any:
		for name, inner := range v {
			seen[at+name] = true
			fieldsOf(at+name+".", inner, seen)
		}
	case []any:
		for _, inner := range v {
			fieldsOf(strings.TrimSuffix(at, ".")+"[].", inner, seen)
		}
	}
}

// The documentation's tables are about what is written, and about all of it.
func TestStatusDocumentation(t *testing.T) {
	t.Parallel()
	needRoot(t)
	doc, err := os.ReadFile("../docs/status-file.md")
	if err != nil {
		t.Fatal(err)
	}
	documented, always, words := map[string]bool{}, map[string]bool{}, map[string]string{}
	for line := range strings.Lines(string(doc)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		name := strings.Trim(cells[1], " `")
		if len(cells) == 4 { // a reason and its code
			words[name] = strings.TrimSpace(cells[2])
			continue
		}
		documented[name] = true
		always[name] = strings.TrimSpace(cells[2]) == "always"
		if name == "checkouts[].phases" { // its parts are in its description
			for _, part := range []string{"wait", "fetch", "files", "submodules"} {
				if !strings.Contains(cells[3], "`"+part+"`") {
					t.Errorf("%s has no %s: %s", name, part, cells[3])
				}
				documented[name+"."+part], always[name+"."+part] = true, true
			}
		}
	}

	r := newRepo(t)
	produced, phases := map[string]bool{}, map[string]bool{}
	from, shelf := "repo="+r.Path+",sha="+r.SHA["tip"], tempDir(t)
	for _, args := range [][]string{
		{"--init", "--checkout", "a,name=A," + from, "--", "/bin/sh", "-c", fmt.Sprint("probe occupy ", 100<<20, "; kill $$")},
		{"--checkout", "a," + from, "--", "probe", "exit", "0"},
		{"--command-timeout", "100ms", "--", "sleep", "1000"},
		{"--init", "--", strings.Repeat("x", 5000)},
		{"--cache-archive", "path=p,key=k,policy=pull-push,store=dir:" + shelf, "--", "mkdir", "p"},
		{"--cache-archive", "path=p,key=k2,fallback=k*,store=dir:" + shelf, "--", "probe", "exit", "0"},
		{"--cache", "nowhere", "--", "probe"},
		{"checkout", "a," + from},
	} {
		dir := tempDir(t)
		sub := []string{"run-task"}
		if args[0] == "checkout" {
			sub, args = append(sub, args[0]), args[1:]
		}
		_, _, stderr := (&command{dir: dir, args: slices.Concat(sub, []string{"--user", "root", "--status-file", "status.json"}, args)}).run(t)
		data, err := os.ReadFile(dir + "/status.json")
		var object map[string]any
		if err == nil {
			err = json.Unmarshal(data, &object)
		}
		if err != nil {
			t.Fatalf("%v\n%s%s", err, data, stderr)
		}
		phases[fmt.Sprint(object["phase"])] = true
		if reason := object["reason"]; reason != nil && words[fmt.Sprint(reason)] != fmt.Sprint(object["code"]) {
			t.Errorf("reason %s, code %v: not in the table", reason, object["code"])
		}
		here := map[string]bool{}
		fieldsOf("", object, here)
		maps.Copy(produced, here)
		for name, must := range always {
			parent := strings.TrimSuffix(name, filepath.Ext(name)) // "checkouts[]" of "checkouts[].dir"
			if has := parent == name || here[strings.TrimSuffix(parent, "[]")]; must && has && !here[name] {
				t.Errorf("%s is not always there: %s", name, data)
			}
		}
	}
	for name := range produced {
		if !documented[name] {
			t.Errorf("%s is written, but not documented", name)
		}
	}
	for name := range documented {
		if !produced[name] {
			t.Errorf("%s is documented, but was not written", name)
		}
	}
	for phase := range phases {
		if !strings.Contains(string(doc), "`"+phase+"`: ") {
			t.Errorf("the phase %s is not documented", phase)
		}
	}
}
