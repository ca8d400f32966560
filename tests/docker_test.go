//go:build linux

package tests

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"run-task/tests/gitserver"
)

// engine is the real Docker engine with images of ours: "scratch" holds run-task, the probe and account files and nothing else, "busybox" a shell, too,
// "bare" only the two programs.
type engine struct {
	label, prefix string
	mu            sync.Mutex
	n             int
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	if out, err := exec.Command("docker", "version", "--format", "{{.Server.Version}}").CombinedOutput(); err != nil {
		skip(t, t.Name(), "needs a running Docker engine ("+strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", " ")+")")
	}
	id := strings.ToLower(rand.Text()[:8])
	e := &engine{label: "run-task-tests=" + id, prefix: "run-task-tests-" + id}
	t.Cleanup(e.clean)
	return e
}

// clean removes what carries our label.
func (e *engine) clean() {
	for list, remove := range map[string]string{"ps -aq": "rm -f", "volume ls -q": "volume rm -f", "image ls -q": "image rm -f"} {
		out, _ := exec.Command("docker", append(strings.Fields(list), "--filter", "label="+e.label)...).Output()
		if ids := strings.Fields(string(out)); len(ids) > 0 {
			exec.Command("docker", append(strings.Fields(remove), ids...)...).Run()
		}
	}
}

// build makes an image of a Dockerfile and files beside it, and gives its name.
func (e *engine) build(t *testing.T, name, dockerfile string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for to, from := range files {
		data, err := os.ReadFile(from)
		if err != nil {
			data = []byte(from) // the content itself
		}
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		t.Fatal(err)
	}
	tag := e.prefix + ":" + name
	if out, err := exec.Command("docker", "build", "-q", "--label", e.label, "-t", tag, dir).CombinedOutput(); err != nil {
		t.Fatalf("docker build: %v\n%s", err, out)
	}
	return tag
}

func (e *engine) volume(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("docker", "volume", "create", "--label", e.label).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// run is docker run with the words of a line; it gives the container's exit code and output.
func (e *engine) run(t *testing.T, line string, args ...any) (code int, stdout, stderr string) {
	t.Helper()
	cmd := e.command(fmt.Sprintf(line, args...))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return wait(t, cmd), out.String(), errs.String()
}

func (e *engine) command(line string) *exec.Cmd {
	e.mu.Lock()
	e.n++
	name := fmt.Sprintf("%s-%d", e.prefix, e.n)
	e.mu.Unlock()
	return exec.Command("docker", append([]string{"run", "--rm", "--name", name, "--label", e.label}, strings.Fields(line)...)...)
}

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000::/home/worker:/bin/sh\n"
	group  = "root:x:0:\nworker:x:1000:\nvideo:x:44:worker\n"
)

func TestDocker(t *testing.T) {
	e := newEngine(t)
	files := map[string]string{"run-task": binary, "probe": probe, "passwd": passwd, "group": group}
	scratch := e.build(t, "scratch", "FROM scratch\nCOPY run-task probe /bin/\nCOPY passwd group /etc/\nENTRYPOINT [\"run-task\"]\n", files)
	bare := e.build(t, "bare", "FROM scratch\nCOPY run-task probe /bin/\n", files)
	copied := e.build(t, "entrypoint", "FROM scratch\nCOPY --from="+scratch+" /bin/run-task /bin/probe /bin/\nCOPY passwd group /etc/\nENTRYPOINT [\"run-task\", \"--cache\", \"/cache\", \"--\"]\nCMD [\"probe\", \"get\", \"uid\"]\nVOLUME /cache\n", files)

	type result struct {
		name, line string
		code       int
		want       []string // in the output, a line each
	}
	nothing := []string{"capinh=0000000000000000", "capprm=0000000000000000", "capeff=0000000000000000", "capbnd=0000000000000000", "capamb=0000000000000000"}
	for _, c := range []result{
		{"root to worker", scratch + " -- probe", 0, append([]string{"pid=1", "uid=1000 1000 1000 1000", "gid=1000 1000 1000 1000", "groups=44 1000", "env.HOME=/home/worker", "env.USER=worker", "umask=0022", "cwd=/"}, nothing...)},
		{"numbers", bare + " run-task --user 1234:1235 -- probe", 0, append([]string{"pid=1", "uid=1234 1234 1234 1234", "gid=1235 1235 1235 1235", "groups=1235", "env.HOME=/"}, nothing...)},
		{"root, nobody to become", bare + " run-task -- probe", 64, []string{"run-task: hint: --user NAME, or --user root"}},
		{"root, as asked", bare + " run-task --user root -- probe", 0, []string{"uid=0 0 0 0", "capeff=00000000a80425fb"}},
		{"docker's user", "--user 1234:1235 " + scratch + " -- probe", 0, append([]string{"uid=1234 1234 1234 1234", "gid=1235 1235 1235 1235"}, nothing[1:3]...)},
		{"docker's user is the worker", "--user 1000:1000 " + scratch + " --user worker --require-user -- probe", 0, []string{"uid=1000 1000 1000 1000"}},
		{"docker's user is another", "--user 1234:1235 " + scratch + " --user worker --require-user -- probe", 71, nil},
		{"no capabilities", "--cap-drop ALL " + scratch + " -- probe", 71, []string{"CAP_SET"}},
		{"no capabilities, no root", "--cap-drop ALL --user 1000:1000 " + scratch + " -- probe", 0, append([]string{"uid=1000 1000 1000 1000"}, nothing...)},
		{"no capabilities, root as asked", "--cap-drop ALL " + scratch + " --user root -- probe", 0, []string{"uid=0 0 0 0", "capeff=0000000000000000"}},
		{"only what the drop needs", "--cap-drop ALL --cap-add SETUID --cap-add SETGID " + scratch + " -- probe", 0, append([]string{"uid=1000 1000 1000 1000"}, nothing[:3]...)},
		{"read-only", "--read-only " + scratch + " -- probe", 0, []string{"uid=1000 1000 1000 1000"}},
		{"no new privileges", "--security-opt no-new-privileges " + scratch + " -- probe", 0, []string{"uid=1000 1000 1000 1000", "nonewprivs=1"}},
		{"--no-new-privs", scratch + " --no-new-privs -- probe", 0, []string{"uid=1000 1000 1000 1000", "nonewprivs=1"}},
		{"behind docker's init", "--init " + scratch + " -- probe", 0, append([]string{"ppid=1", "uid=1000 1000 1000 1000"}, nothing...)},
		{"entrypoint and default command", copied, 0, []string{"uid=1000 1000 1000 1000"}},
		{"entrypoint and another command", copied + " probe stat /cache/.cacherequires", 0, []string{".cacherequires: file 0444 0:0"}},
		{"the command's exit code", scratch + " -- probe exit 42", 42, nil},
		{"no such command", scratch + " -- make", 127, nil},
		{"no command", scratch, 64, nil},
		{"its own version", scratch + " --version", 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := e.run(t, "%s", c.line)
			if code != c.code {
				t.Errorf("exit %d, want %d", code, c.code)
			}
			for _, w := range c.want {
				if !strings.Contains("\n"+out+errs, "\n"+w) && (code < 64 || !strings.Contains(errs, w)) {
					t.Errorf("no %q", w)
				}
			}
			if t.Failed() {
				t.Logf("docker run %s\n%s%s", c.line, out, errs)
			}
		})
	}

	// A cache volume meets one task after the other.
	t.Run("cache", func(t *testing.T) {
		t.Parallel()
		mount := "-v " + e.volume(t) + ":/cache "
		for _, c := range []result{
			{"first", mount + scratch + " --cache /cache -- probe write /cache/mine hello", 0, nil},
			{"second", mount + scratch + " --cache /cache -- probe all cat /cache/mine , stat /cache/.cacherequires , stat /cache/mine , cat /cache/.cachelog", 0, []string{"hello", ".cacherequires: file 0444", "mine: file 0644 1000:1000"}},
			{"read-only root", "--read-only " + mount + scratch + " --cache /cache -- probe cat /cache/mine", 0, []string{"hello"}},
			{"docker's user", "--user 1000:1000 " + mount + scratch + " --cache /cache -- probe cat /cache/mine", 0, []string{"hello"}},
			{"another user", mount + scratch + " --user 1001:1001 --cache /cache -- probe say never", 72, []string{"run-task: hint: "}},
			{"another docker user", "--user 1001:1001 " + mount + scratch + " --cache /cache -- probe say never", 72, nil},
			{"another kind", mount + scratch + " --cache /cache --require toolchain=gcc -- probe exit 0", 0, nil},
			{"untrusted", mount + scratch + " --user 1001:1002 --cache /cache --untrusted-caches -- probe all stat /cache/mine , cat /cache/.cacherequires", 0, []string{"mine: file 0644 1001:1002", "gid=1002", "uid=1001"}},
			{"back again", mount + scratch + " --cache /cache -- probe say never", 72, nil},
			{"Taskcluster, untrusted", mount + "-e TASKCLUSTER_CACHES=/cache -e TASKCLUSTER_UNTRUSTED_CACHES=1 " + scratch + " -- probe stat /cache/mine", 0, []string{"mine: file 0644 1000:1000"}},
		} {
			code, out, errs := e.run(t, "%s", c.line)
			if code != c.code || strings.Contains(out, "never") {
				t.Errorf("%s: exit %d, want %d\n%s%s", c.name, code, c.code, out, errs)
			}
			for _, w := range c.want {
				if !strings.Contains("\n"+out+errs, "\n"+w) {
					t.Errorf("%s: no %q in\n%s%s", c.name, w, out, errs)
				}
			}
		}
		required := "-v " + e.volume(t) + ":/cache " + scratch + " --cache /cache --require toolchain="
		if code, _, errs := e.run(t, "%sgcc-14 -- probe exit 0", required); code != 0 {
			t.Errorf("exit %d\n%s", code, errs)
		}
		if code, out, errs := e.run(t, "%sgcc-15 -- probe say never", required); code != 72 || out != "" {
			t.Errorf("exit %d\n%s%s", code, out, errs)
		}
		if code, _, errs := e.run(t, "--cap-drop ALL --cap-add SETUID --cap-add SETGID -v %s:/cache %s --cache /cache -- probe", e.volume(t), scratch); code != 71 || !strings.Contains(errs, "CAP_CHOWN") {
			t.Errorf("no CAP_CHOWN: exit %d\n%s", code, errs)
		}
		if code, _, errs := e.run(t, "-v %s:/volume %s --volume /volume -- probe write /volume/file x", e.volume(t), scratch); code != 0 {
			t.Errorf("a volume: exit %d\n%s", code, errs)
		}
	})

	// The main job: a checkout from a server, in an image without git, without CA files and with nothing writable but a cache.
	t.Run("checkout", func(t *testing.T) {
		t.Parallel()
		root := tempDir(t)
		c := gitserver.Repo(t, root, "repo.git")
		url := gitserver.HTTP(t, root, gitserver.Options{}) + "/repo.git"
		mount := "--read-only --network host -v " + e.volume(t) + ":/cache "
		for _, sha := range []string{c.Tip, c.Forced, c.Tip} {
			code, out, errs := e.run(t, "%s%s --cache /cache --checkout /cache/src --repo %s --sha %s -- probe all cat .git/HEAD , cat README , get cwd uid , stat README", mount, scratch, url, sha)
			content := gitserver.Git(t, filepath.Join(root, "repo.git"), "show", sha+":README")
			if code != 0 || !strings.HasPrefix(out, sha+"\n"+content+"\n") || !strings.Contains(out, "cwd=/cache/src") || !strings.Contains(out, "README: file 0644 1000:1000") {
				t.Errorf("exit %d\n%s%s", code, out, errs)
			}
		}
		daemon := gitserver.Daemon(t, root, gitserver.Options{}) + "/repo.git"
		if code, _, errs := e.run(t, "--network host -e CI_REPOSITORY_URL=%s -e CI_COMMIT_SHA=%s %s --checkout /src -- probe cat README", daemon, c.Tip, scratch); code != 0 {
			t.Errorf("GitLab's variables: exit %d\n%s", code, errs)
		}
		// As an init container, which shares a volume with the task's.
		shared := e.volume(t)
		line := "--network host -v %s:/src --cap-drop ALL --user 1000:1000 %s checkout --status-file /src/status.json /src/tree,repo=%s,sha=%s"
		code, _, errs := e.run(t, "-v %s:/src %s --user root --chown /src -- probe exit 0", shared, scratch)
		if code != 0 {
			t.Errorf("exit %d\n%s", code, errs)
		}
		e.run(t, "-v %s:/src %s --chown /src -- probe exit 0", shared, scratch)
		if code, _, errs := e.run(t, line, shared, scratch, url, c.Tip); code != 0 {
			t.Errorf("an init container: exit %d\n%s", code, errs)
		}
	})

	// docker stop while run-task works: no waiting for the KILL, and a code that says so.
	t.Run("stop", func(t *testing.T) {
		t.Parallel()
		url, met := hanging(t)
		cmd := e.command("--network host " + scratch + " --checkout /src --repo " + url + " --sha " + anySHA + " -- probe say never")
		var errs bytes.Buffer
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-met:
		case <-time.After(time.Minute):
			t.Error("run-task does not connect")
		}
		if out, err := exec.Command("docker", "stop", "--time", "60", cmd.Args[4]).CombinedOutput(); err != nil {
			t.Errorf("docker stop: %v\n%s", err, out)
		}
		if code := wait(t, cmd); code != 143 {
			t.Errorf("exit %d\n%s", code, &errs)
		}
	})

	// With a shell, as most images have one; the binary comes from a volume that a container of ours filled.
	t.Run("busybox", func(t *testing.T) {
		t.Parallel()
		static, err := exec.LookPath("busybox")
		if err != nil {
			skip(t, t.Name(), "needs busybox-static")
		}
		image := e.build(t, "busybox", "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"/bin\"]\nCOPY passwd group /etc/\n", map[string]string{"busybox": static, "passwd": passwd, "group": group})
		mount := "-v " + e.volume(t) + ":/shared "
		if code, _, errs := e.run(t, "%s%s install /shared", mount, scratch); code != 0 {
			t.Fatalf("exit %d\n%s", code, errs)
		}
		code, out, errs := e.run(t, "%s%s /shared/run-task -- id", mount, image)
		if code != 0 || !strings.Contains(out, "uid=1000(worker) gid=1000(worker) groups=") {
			t.Errorf("exit %d\n%s%s", code, out, errs)
		}
		if code, out, errs := e.run(t, "%s%s /shared/run-task --user root -- su worker -c whoami", mount, image); code != 0 || out != "worker\n" {
			t.Errorf("exit %d\n%s%s", code, out, errs)
		}
		// The task's output can be opened by name after the drop, as daemons configured to log to /dev/stdout do.
		if code, out, errs := e.run(t, "%s%s /shared/run-task -- cp /etc/group /dev/stdout", mount, image); code != 0 || out != group {
			t.Errorf("exit %d\n%s%s", code, out, errs)
		}
	})
}
