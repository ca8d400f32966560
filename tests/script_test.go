//go:build linux

package tests

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/*.txtar. Beside testscript's own commands a script has these:
//
//	run-task ARGS...     run it; it must exit 0
//	code N COMMAND...    run it; it must exit N
//	probe ARGS...        run the probe by itself
//	gitrepo DIR          make a repository, see makeRepo
//	git ARGS...          native git
//	needs root           skip, visibly, without
//	chown UID:GID FILE...
//	link OLD NEW         make a hard link
//
// In place of run-task a command may start with any of these words: "pid1" (be PID 1 of new namespaces), "as UID[:GID]", "bind A B" (a mount that only
// this command sees), "noproc", "fd N FILE", "ignore SIGNAL", "umask MODE". $UID is that of the tests.
func TestScripts(t *testing.T) {
	cmds := commands()
	for _, word := range append(slices.Collect(maps.Keys(prefixes)), "run-task", "probe", "git") {
		cmds[word] = func(ts *testscript.TestScript, _ bool, args []string) { run(ts, 0, append([]string{word}, args...)) }
	}
	testscript.Run(t, testscript.Params{
		Dir:                "testdata",
		WorkdirRoot:        scratch,
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+":"+env.Getenv("PATH"))
			env.Setenv("UID", strconv.Itoa(os.Getuid()))
			env.Setenv("GID", strconv.Itoa(os.Getgid()))
			env.Setenv("BIN", bin)
			env.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
			env.Setenv("GIT_CONFIG_SYSTEM", "/dev/null")
			env.Values["t"] = env.T()
			return os.Chmod(env.WorkDir, 0o755)
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Getuid() == 0, nil
			}
			return false, fmt.Errorf("no condition %q", cond)
		},
		Cmds: cmds,
	})
}

func commands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	return map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"code": func(ts *testscript.TestScript, neg bool, args []string) {
			n, err := strconv.Atoi(args[0])
			ts.Check(err)
			run(ts, n, args[1:])
		},
		"needs": func(ts *testscript.TestScript, neg bool, args []string) {
			if os.Getuid() != 0 {
				skip(ts.Value("t").(testscript.T), ts.Name(), "needs root")
			}
		},
		"gitrepo": func(ts *testscript.TestScript, neg bool, args []string) {
			r, err := makeRepo(ts.MkAbs(args[0]))
			ts.Check(err)
			for name, sha := range r.SHA {
				ts.Setenv(strings.ToUpper(name), sha)
			}
		},
		"chown": func(ts *testscript.TestScript, neg bool, args []string) {
			u, g, ok := strings.Cut(args[0], ":")
			uid, err1 := strconv.Atoi(u)
			gid, err2 := strconv.Atoi(g)
			if !ok || err1 != nil || err2 != nil {
				ts.Fatalf("usage: chown UID:GID FILE...")
			}
			for _, name := range args[1:] {
				ts.Check(os.Lchown(ts.MkAbs(name), uid, gid))
			}
		},
		"link": func(ts *testscript.TestScript, neg bool, args []string) {
			ts.Check(os.Link(ts.MkAbs(args[0]), ts.MkAbs(args[1])))
		},
	}
}

// prefixes are the words that may stand before a command, with the number of words that belong to each.
var prefixes = map[string]int{"pid1": 0, "as": 1, "bind": 2, "noproc": 0, "fd": 2, "ignore": 1, "umask": 1}

// run runs what a script wrote and compares its exit code.
func run(ts *testscript.TestScript, want int, args []string) {
	var words []string
	for len(args) > 0 {
		n, isPrefix := prefixes[args[0]]
		if !isPrefix || len(args) < n+2 {
			break
		}
		switch args[0] {
		case "pid1":
			words = append(words, "proc")
		case "as":
			uid, gid, ok := strings.Cut(args[1], ":")
			if !ok {
				gid = uid
			}
			words = append(words, "user", uid, gid)
		case "bind":
			words = append(words, "bind", ts.MkAbs(args[1]), ts.MkAbs(args[2]))
		case "fd":
			words = append(words, "fd", args[1], ts.MkAbs(args[2]))
		default:
			words = append(words, args[:n+1]...)
		}
		args = args[n+1:]
	}
	if len(args) == 0 {
		ts.Fatalf("no command")
	}
	if len(words) > 0 {
		args = append(append(append([]string{"probe", "fork"}, words...), "--"), args...)
	}
	err := ts.Exec(args[0], args[1:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got := exit.ExitCode()
		if ws := exit.Sys().(syscall.WaitStatus); ws.Signaled() {
			got = 128 + int(ws.Signal()) // as a shell has it
		}
		if got != want {
			ts.Fatalf("exit code %d, want %d: %s", got, want, strings.Join(args, " "))
		}
	case err != nil:
		ts.Fatalf("%s: %v", strings.Join(args, " "), err)
	case want != 0:
		ts.Fatalf("exit code 0, want %d: %s", want, strings.Join(args, " "))
	}
}
