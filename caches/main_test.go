package caches

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

const helperEnv = "CACHES_TEST_HELPER"

// order is what a helper process is told on stdin: to do all Checks, then all Copies, one by one.
type order struct {
	Checks []Options
	Copies []CopySpec
}

// TestMain is also the program that tests run as another user, or kill.
func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) == "" {
		os.Exit(m.Run())
	}
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		panic(err)
	}
	fmt.Println("ready")
	log := logs.New(os.Stderr, logs.Normal, false)
	var err error
	for i := 0; err == nil && i < len(o.Checks); i++ {
		err = Check(context.Background(), log, o.Checks[i])
	}
	if err == nil && len(o.Copies) > 0 {
		err = Copy(context.Background(), log, o.Copies)
	}
	if err != nil {
		fail.Print(os.Stderr, err)
		os.Exit(int(fail.Of(err)))
	}
	os.Exit(0)
}

// helper is this test binary as uid, ready to start; /proc/self/exe needs no right to the directories above it.
func helper(t *testing.T, uid int, o order) *exec.Cmd {
	t.Helper()
	in, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=1")
	cmd.Stdin = bytes.NewReader(in)
	if uid != os.Getuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	return cmd
}

// checkAs runs Check in a process of uid's, without root.
func checkAs(t *testing.T, uid int, o Options) (code fail.Reason, output string) {
	t.Helper()
	o.UID, o.GID, o.Root = uid, uid, false
	out, err := helper(t, uid, order{Checks: []Options{o}}).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fail.Reason(exit.ExitCode()), string(out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, string(out)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

// tempDir can be reached by every user, unlike t.TempDir.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "caches-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		filepath.WalkDir(dir, func(p string, e fs.DirEntry, _ error) error {
			if e != nil && e.IsDir() {
				os.Chmod(p, 0o700)
			}
			return nil
		})
		os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// task is the options of a task that runs as uid 1000, or as ourselves where we are not root.
func task(dirs ...string) Options {
	if os.Getuid() == 0 {
		return Options{Dirs: dirs, UID: 1000, GID: 1000, Root: true, TaskID: "T1"}
	}
	return Options{Dirs: dirs, UID: os.Getuid(), GID: os.Getgid(), TaskID: "T1"}
}

func check(o Options) (output string, err error) {
	var b bytes.Buffer
	err = Check(context.Background(), logs.New(&b, logs.Verbose, false), o)
	return b.String(), err
}

// wantReason fails the test unless err has the reason and, as all that a user causes, a hint.
func wantReason(t *testing.T, err error, want fail.Reason) {
	t.Helper()
	if err == nil || fail.Of(err) != want {
		t.Fatalf("got %v (%v), want %v", err, fail.Of(err), want)
	}
	if want != fail.IO && fail.Hint(err) == "" {
		t.Errorf("%v has no hint", err)
	}
}

// printed is what the user sees of an error.
func printed(err error) string {
	var b strings.Builder
	fail.Print(&b, err)
	return b.String()
}

func mkdir(t *testing.T, elem ...string) string {
	t.Helper()
	p := filepath.Join(elem...)
	if err := os.MkdirAll(p, 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

func write(t *testing.T, text string, elem ...string) string {
	t.Helper()
	p := filepath.Join(elem...)
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// state is all of a tree that a check could have changed.
func state(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := e.Info()
		if err != nil {
			return err
		}
		st := i.Sys().(*syscall.Stat_t)
		fmt.Fprintf(&b, "%s %v %d:%d %d links %v\n", p, i.Mode(), st.Uid, st.Gid, st.Nlink, i.ModTime().UnixNano())
		if i.Mode().IsRegular() {
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(&b, f)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func owner(t *testing.T, elem ...string) int {
	t.Helper()
	i, err := os.Lstat(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return int(i.Sys().(*syscall.Stat_t).Uid)
}
