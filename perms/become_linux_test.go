package perms

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

// droptest builds the static helper once: with cgo, which the race detector needs, nothing can change all threads.
var droptest = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "droptest")
	if err != nil {
		return "", err
	}
	built = dir
	bin := filepath.Join(dir, "droptest")
	build := exec.Command("go", "build", "-o", bin, "./testdata/droptest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return bin, os.Chmod(dir, 0o755)
})

var built string // where, if it was

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(built)
	os.Exit(code)
}

// run starts the helper, with the words before it if any: setpriv and the like.
func run(t *testing.T, attr syscall.SysProcAttr, before string, args ...string) (out string, code int) {
	t.Helper()
	needRoot(t)
	bin, err := droptest()
	do(t, err)
	s := files(t, somePasswd, someGroups)
	do(t, os.Chmod(filepath.Dir(filepath.Dir(s.Passwd)), 0o755), os.Chmod(filepath.Dir(s.Passwd), 0o755), os.Chmod(s.Passwd, 0o644), os.Chmod(s.Groups, 0o644))
	argv := append(strings.Fields(before), bin, "-passwd", s.Passwd, "-groups", s.Groups)
	cmd := exec.Command(argv[0], append(argv[1:], args...)...)
	cmd.SysProcAttr = &attr
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// thread is what the kernel says of each thread; there must be one answer.
func thread(t *testing.T, out string) map[string]string {
	t.Helper()
	_, rest, _ := strings.Cut(out, "\nstatus ")
	var seen map[string]int
	if err := json.NewDecoder(strings.NewReader(rest)).Decode(&seen); err != nil || len(seen) != 1 || !strings.Contains(out, "threads true\n") {
		t.Fatalf("%v\n%s", err, out)
	}
	m := map[string]string{}
	for lines := range seen {
		for _, l := range strings.Fields(lines) {
			k, v, _ := strings.Cut(l, "=")
			m[k] = v
		}
	}
	return m
}

const none = "0000000000000000"

func wantThread(t *testing.T, out string, want map[string]string) {
	t.Helper()
	got := thread(t, out)
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s is %q, not %q", k, got[k], v)
		}
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
		if got[set] != none && want[set] == "" {
			t.Errorf("%s is %s", set, got[set])
		}
	}
}

func TestBecome(t *testing.T) {
	out, code := run(t, syscall.SysProcAttr{}, "setpriv --inh-caps=+chown,+kill --ambient-caps=+chown,+kill", "-leak", "become")
	if code != 0 || !strings.Contains(out, "dumpable 0\nkeepcaps 0\n") || strings.Contains(out, "open ") {
		t.Errorf("%d\n%s", code, out)
	}
	wantThread(t, out, map[string]string{"Uid": "1000,1000,1000,1000", "Gid": "1000,1000,1000,1000", "Groups": "44,1000", "CapBnd": none, "NoNewPrivs": "0", "Umask": "0022"})
}

func TestBecomeOptions(t *testing.T) {
	out, code := run(t, syscall.SysProcAttr{}, "", "-user", "4321:1234", "-nnp", "-pass-fds", "-leak", "become")
	fd := regexp.MustCompile(`leaked (\d+)`).FindStringSubmatch(out)
	if code != 0 || fd == nil || !strings.Contains(out, "open "+fd[1]+"\n") {
		t.Errorf("%d\n%s", code, out)
	}
	wantThread(t, out, map[string]string{"Uid": "4321,4321,4321,4321", "Gid": "1234,1234,1234,1234", "Groups": "1234", "NoNewPrivs": "1"})
}

// Securebits that keep capabilities over setresuid, and lock that.
func TestBecomeSecurebits(t *testing.T) {
	out, code := run(t, syscall.SysProcAttr{}, "setpriv --securebits=+no_setuid_fixup,+no_setuid_fixup_locked,+keep_caps_locked", "become")
	if code != 0 {
		t.Errorf("%d\n%s", code, out)
	}
	wantThread(t, out, map[string]string{"Uid": "1000,1000,1000,1000", "CapBnd": none})
}

func TestBecomeTwice(t *testing.T) {
	out, code := run(t, syscall.SysProcAttr{}, "", "-again", "become")
	if code != 0 {
		t.Errorf("%d\n%s", code, out)
	}
	wantThread(t, out, map[string]string{"Uid": "1000,1000,1000,1000", "Groups": "44,1000"})
}

func TestBecomeRootByName(t *testing.T) {
	out, code := run(t, syscall.SysProcAttr{}, "", "-user", "root", "-nnp", "-leak", "become")
	if code != 0 || !strings.Contains(out, "running as root, as asked: capabilities stay\n") || !strings.Contains(out, "dumpable 1\n") || strings.Contains(out, "open ") {
		t.Errorf("%d\n%s", code, out)
	}
	if got := thread(t, out); got["CapEff"] == none || got["CapBnd"] == none || got["NoNewPrivs"] != "1" || got["Uid"] != "0,0,0,0" || got["Umask"] != "0077" {
		t.Errorf("%v", got)
	}
	out, code = run(t, syscall.SysProcAttr{}, "", "-user", "root:44", "become")
	if got := thread(t, out); code != 0 || got["CapEff"] == none || got["Gid"] != "44,44,44,44" {
		t.Errorf("%d %v", code, got)
	}
}

// docker run --user 1234: no set*id call, but capabilities that were added survive an exec.
func TestBecomeNotRoot(t *testing.T) {
	out, code := run(t, syscall.SysProcAttr{}, "setpriv --reuid 1234 --regid 0 --groups 0,7 --inh-caps=+chown,+setuid,+setgid --ambient-caps=+chown,+setuid,+setgid", "-user", "worker", "become")
	if code != 0 || !strings.Contains(out, "--user worker asked, running as uid 1234: not root\n") || !strings.Contains(out, "dumpable 0\n") || !strings.Contains(out, "CAP_SETPCAP is missing") {
		t.Errorf("%d\n%s", code, out)
	}
	wantThread(t, out, map[string]string{"Uid": "1234,1234,1234,1234", "Gid": "0,0,0,0", "Groups": "0,7", "Umask": "0077"})
}

// docker run --cap-drop ...: either it works or the missing capability is named.
func TestBecomeCapDrop(t *testing.T) {
	for drop, missing := range map[string]string{"all": "CAP_SETGID", "setgid": "CAP_SETGID", "setuid": "CAP_SETUID", "setpcap": ""} {
		out, code := run(t, syscall.SysProcAttr{}, "setpriv --bounding-set=-"+drop+" --inh-caps=-all", "-user", "1000", "become")
		switch {
		case missing == "":
			if code != 0 || !strings.Contains(out, "bounding set stays as it is: CAP_SETPCAP is missing") {
				t.Errorf("%s: %d\n%s", drop, code, out)
			}
			wantThread(t, out, map[string]string{"Uid": "1000,1000,1000,1000"})
		case code != int(fail.OS) || !strings.Contains(out, missing+" is missing\n") || !strings.Contains(out, "hint: "):
			t.Errorf("%s: %d\n%s", drop, code, out)
		}
	}
	out, code := run(t, syscall.SysProcAttr{}, "setpriv --bounding-set=-all --inh-caps=-all", "-user", "root", "become")
	if code != 0 {
		t.Errorf("root stays: %d\n%s", code, out)
	}
}

func userNS(mappings ...syscall.SysProcIDMap) syscall.SysProcAttr {
	return syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: mappings, GidMappings: mappings, Credential: &syscall.Credential{NoSetGroups: true}}
}

func TestBecomeUserNamespace(t *testing.T) {
	one := syscall.SysProcIDMap{ContainerID: 0, HostID: 0, Size: 1}
	worker := syscall.SysProcIDMap{ContainerID: 1000, HostID: 1000, Size: 1}

	ns := userNS(one)
	ns.GidMappingsEnableSetgroups = true
	out, code := run(t, ns, "", "-user", "1000:1000", "become")
	if code != int(fail.OS) || !strings.Contains(out, "is not mapped in this user namespace") {
		t.Errorf("one id: %d\n%s", code, out)
	}
	out, code = run(t, ns, "", "-user", "root", "become")
	if code != 0 {
		t.Errorf("one id, root: %d\n%s", code, out)
	}
	out, code = run(t, userNS(one, worker), "setpriv --clear-groups", "-user", "1000:1000", "become")
	if code == 0 {
		t.Errorf("setgroups was not denied\n%s", out)
	}
}

var setgroupsDenied = userNS(syscall.SysProcIDMap{ContainerID: 0, HostID: 0, Size: 1}, syscall.SysProcIDMap{ContainerID: 44, HostID: 44, Size: 1},
	syscall.SysProcIDMap{ContainerID: 1000, HostID: 1000, Size: 1})

// Where the namespace denies setgroups, the groups that we have must be the user's.
func TestBecomeSetgroupsDenied(t *testing.T) {
	for groups, ok := range map[string]bool{"--clear-groups": true, "--groups 44": true, "--groups 0": false, "--groups 7": false} {
		out, code := runIn(t, setgroupsDenied, groups)
		if ok {
			if code != 0 {
				t.Errorf("%s: %d\n%s", groups, code, out)
				continue
			}
			got := thread(t, out)
			if got["Uid"] != "1000,1000,1000,1000" || got["Groups"] != strings.TrimPrefix(strings.TrimPrefix(groups, "--clear-groups"), "--groups ") {
				t.Errorf("%s: %v", groups, got)
			}
		} else if code != int(fail.OS) || !strings.Contains(out, "this user namespace denies it") {
			t.Errorf("%s: %d\n%s", groups, code, out)
		}
	}
}

// runIn has a child with other groups make the namespace: the groups must be there before.
func runIn(t *testing.T, ns syscall.SysProcAttr, groups string) (string, int) {
	t.Helper()
	needRoot(t)
	const inner = "PERMS_TEST_INNER"
	if os.Getenv(inner) != "" {
		out, code := run(t, ns, "", "-user", "1000", "become")
		fmt.Printf("%s\nexit %d\n", out, code)
		return out, code
	}
	cmd := exec.Command("setpriv", append(strings.Fields(groups), os.Args[0], "-test.run=^TestInner$", "-test.v")...)
	cmd.Env = append(os.Environ(), inner+"=1")
	b, err := cmd.CombinedOutput()
	out, code, found := strings.Cut(string(b), "\nexit ")
	n := -1
	fmt.Sscan(code, &n)
	if !found {
		t.Fatalf("%v\n%s", err, b)
	}
	return out, n
}

// TestInner is the child of runIn, and nothing by itself.
func TestInner(t *testing.T) {
	if os.Getenv("PERMS_TEST_INNER") != "" {
		runIn(t, setgroupsDenied, "")
	}
}

func TestBecomeWithoutProc(t *testing.T) {
	out, code := run(t, syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}, "", "-no-proc", "become")
	if code != 0 || !strings.Contains(out, "no /proc: the identity was read back, but not of every thread\n") || !strings.Contains(out, "dumpable 0\n") {
		t.Errorf("%d\n%s", code, out)
	}
	out, code = run(t, syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}, "", "-no-proc", "-deny", "close_range", "become")
	if code != int(fail.OS) || !strings.Contains(out, "neither close_range nor /proc/self/fd works") {
		t.Errorf("%d\n%s", code, out)
	}
}

func TestBecomeOldSeccomp(t *testing.T) {
	out, code := run(t, syscall.SysProcAttr{}, "", "-leak", "-deny", "close_range,statx", "become")
	if code != 0 || strings.Contains(out, "open ") {
		t.Errorf("%d\n%s", code, out)
	}
	wantThread(t, out, map[string]string{"Uid": "1000,1000,1000,1000"})
}

// Only PID 1 gives its pipes away.
func TestBecomeStdio(t *testing.T) {
	for pid1, want := range map[bool]string{true: "uid 1000", false: "uid 0"} {
		var attr syscall.SysProcAttr
		if pid1 {
			attr.Cloneflags = syscall.CLONE_NEWPID
		}
		out, code := run(t, attr, "", "become")
		for _, line := range []string{"fd 0 type 020000 uid 0\n", "fd 1 type 010000 " + want + "\n", "fd 2 type 010000 " + want + "\n"} {
			if code != 0 || !strings.Contains(out, line) {
				t.Errorf("PID 1 %v: %d, no %q\n%s", pid1, code, line, out)
			}
		}
	}
}

// A program file with capabilities of its own would hand them to whoever starts it.
func TestResolveFileCapabilities(t *testing.T) {
	needRoot(t)
	bin, err := droptest()
	do(t, err)
	b, err := os.ReadFile(bin)
	do(t, err)
	withCaps := filepath.Join(filepath.Dir(bin), "with-caps")
	do(t, os.WriteFile(withCaps, b, 0o755))
	const chownPermitted = "\x01\x00\x00\x02" + "\x01\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" // vfs_cap_data, revision 2
	if err := syscall.Setxattr(withCaps, "security.capability", []byte(chownPermitted), 0); err != nil {
		t.Skipf("this file system has no file capabilities: %v", err)
	}
	out, err := exec.Command("setpriv", "--reuid", "1234", "--clear-groups", withCaps, "become").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "with file capabilities") {
		t.Errorf("%v\n%s", err, out)
	}
	do(t, syscall.Removexattr(withCaps, "security.capability"), os.Chmod(withCaps, 0o755|os.ModeSetuid))
	out, err = exec.Command("setpriv", "--reuid", "1234", "--clear-groups", withCaps, "become").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "must not be started setuid") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestOwnCapDrop(t *testing.T) {
	for drop, c := range map[string]struct {
		mode os.FileMode
		want string // of the error, "" for none
	}{
		"all":          {0o755, "CAP_CHOWN is missing"},
		"chown":        {0o755, "CAP_CHOWN is missing"},
		"fowner":       {0o755, ""},
		"dac_override": {0o700, ""},
	} {
		top := t.TempDir()
		write(t, top+"/a/file")
		do(t, os.Chmod(top+"/a", c.mode), os.Chmod(filepath.Dir(top), 0o755))
		out, code := run(t, syscall.SysProcAttr{}, "setpriv --bounding-set=-"+drop+" --inh-caps=-all", "own", top)
		if c.want == "" {
			if code != 0 {
				t.Errorf("%s: %d\n%s", drop, code, out)
			}
			wantOwner(t, top+"/a/file", "1000:1000 644")
		} else if code != int(fail.OS) || !strings.Contains(out, c.want) || !strings.Contains(out, "hint: ") {
			t.Errorf("%s: %d\n%s", drop, code, out)
		}
	}
}

// Without capabilities a tree that is right is no error, and one that is not names the capability.
func TestOwnNotRoot(t *testing.T) {
	top := t.TempDir()
	write(t, top+"/a/file")
	do(t, os.Chmod(filepath.Dir(top), 0o755))
	as := "setpriv --reuid 1000 --regid 1000 --clear-groups"
	out, code := run(t, syscall.SysProcAttr{}, as, "own", top)
	if code != int(fail.OS) || !strings.Contains(out, "CAP_CHOWN is missing") {
		t.Errorf("%d\n%s", code, out)
	}
	if out, code := run(t, syscall.SysProcAttr{}, "", "own", top); code != 0 {
		t.Errorf("%d\n%s", code, out)
	}
	do(t, os.Chmod(top+"/a", 0))
	out, code = run(t, syscall.SysProcAttr{}, as, "own", top)
	if code != 0 || !strings.Contains(out, "3 entries, 1 changed") {
		t.Errorf("%d\n%s", code, out)
	}
	wantOwner(t, top+"/a", "1000:1000 700")
}

func TestOwnUnmapped(t *testing.T) {
	top := t.TempDir()
	do(t, os.Chmod(filepath.Dir(top), 0o755))
	ns := userNS(syscall.SysProcIDMap{ContainerID: 0, HostID: 0, Size: 1})
	out, code := run(t, ns, "", "own", top)
	if code != int(fail.OS) || !strings.Contains(out, "uid 1000 or gid 1000 is not mapped") {
		t.Errorf("%d\n%s", code, out)
	}
}

// Where statx is refused, mounts are told apart by other means.
func TestOwnOldSeccomp(t *testing.T) {
	if !namespaced(t, syscall.CLONE_NEWNS) {
		return
	}
	mountsUntouched(t, func(top string) string {
		out, code := run(t, syscall.SysProcAttr{}, "", "-deny", "statx,openat2", "-uid", itoa(me), "own", top)
		if code != 0 {
			t.Errorf("%d\n%s", code, out)
		}
		return out
	})
}

func TestProvide(t *testing.T) {
	needRoot(t)
	base := t.TempDir()
	t.Chdir(base)
	do(t, os.Mkdir("empty", 0o755), os.MkdirAll("full/x", 0o755), os.MkdirAll("users/theirs", 0o755), os.Chown("users", me, me),
		os.Mkdir("open", 0o777), os.Chmod("open", 0o777), os.WriteFile("file", nil, 0o644), os.Mkdir("roots-group", 0o775), os.Chmod("roots-group", 0o775),
		os.Symlink("full/x", "link"), os.Symlink("full/x", "foreign"), os.Lchown("foreign", me, me), os.Symlink("new/by/link", "dangling"), os.MkdirAll("volume/lost+found", 0o755),
		os.Mkdir("open-volume", 0o777), os.Chmod("open-volume", 0o777), os.Mkdir("sticky", 0o777), os.Chmod("sticky", 0o777|os.ModeSticky))
	id := Identity{UID: me, GID: me, Groups: []int{me}, Root: true, Drop: true}
	var out strings.Builder
	log := logs.New(&out, logs.Normal, false)
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	err := Provide(log, []string{"new/deep/er", "new/deep/er", "empty", "full", "full/made", "users/theirs", "users/new", "open/new", "roots-group/new", "link/below", "foreign/new", "dangling", "volume", "open-volume", "sticky"}, id)
	do(t, err)
	for name, want := range map[string]string{
		"new": mine(0o755), "new/deep": mine(0o755), "new/deep/er": mine(0o755), "empty": mine(0o755), "full": roots(0o755), "full/x": roots(0o755), "full/made": mine(0o755),
		"users/theirs": roots(0o755), "roots-group": roots(0o775), "roots-group/new": mine(0o755), "full/x/below": mine(0o755), "volume": mine(0o755),
		"open-volume": mine(0o777), "sticky": roots(0o1777), "open": roots(0o777),
	} {
		wantOwner(t, name, want)
	}
	for _, name := range []string{"users/new", "open/new", "full/x/new", "new/by"} { // new is the user's by then
		if _, err := os.Lstat(name); err == nil {
			t.Errorf("%s was made", name)
		}
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := []string{`made "new/deep/er" for uid 4711`, `gave "empty", which was empty, to uid 4711`, `made "full/made" for uid 4711`, `made "roots-group/new" for uid 4711`, `made "link/below" for uid 4711`, `gave "volume", which was empty, to uid 4711`,
		`gave "open-volume", which was empty, to uid 4711`}
	if !slices.Equal(lines, want) {
		t.Errorf("%q", lines)
	}
	if err := Provide(log, []string{base + "/file/x"}, id); fail.Of(err) != fail.Usage || fail.Hint(err) == "" { // through /tmp, which is sticky
		t.Error(err)
	}
	if err := Provide(log, []string{"file/x"}, id); fail.Of(err) != fail.Usage {
		t.Errorf("file: %v", err)
	}
	for _, id := range []Identity{{UID: me, GID: me}, {UID: 0, Root: true, Keep: true}} {
		if err := Provide(log, []string{"other"}, id); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat("other"); err == nil {
			t.Error("made although the identity does not change")
		}
	}
}
