//go:build linux

package tests

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// job is the main job with an archive of "tree".
func (k *trunk) job(more string, flags []string, words ...string) (code int, stdout, stderr string) {
	k.Helper()
	return (&command{dir: k.dir, env: k.env, args: slices.Concat([]string{"run-task"}, asUser(), k.flag(more), flags, []string{"--"}, words)}).run(k.T)
}

// keys are those in the store, by its own words.
func (k *trunk) keys() (keys []string) {
	k.Helper()
	_, out, _ := k.run("list", "--json", "--cache-store", k.store)
	var all []struct{ Key string }
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		k.Fatalf("%v: %s", err, out)
	}
	for _, a := range all {
		keys = append(keys, a.Key)
	}
	return keys
}

// What is saved after which command: TERM to run-task saves nothing, a limit only what is always saved, and no pull does.
func TestCacheWhen(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		flags   []string
		command string
		env     string
		code    int
		saves   string // of the three
		signal  bool
	}{
		"success":          {nil, "exit 0", "", 0, "on_success always", false},
		"failure":          {nil, "exit 3", "", 3, "on_failure always", false},
		"killed":           {nil, "kill -KILL $$", "", 137, "on_failure always", false},
		"a limit":          {[]string{"--command-timeout", "200ms"}, "sleep 1000", "", 124, "always", false},
		"the task's limit": {[]string{"--timeout", "60s", "--save-budget", "59500ms"}, "sleep 1000", "", 124, "always", false},
		"TERM":             {nil, "trap 'exit 0' TERM; echo ready; sleep 1000 & wait", "", 0, "", true},
		"pull":             {[]string{"--cache-policy", "pull"}, "exit 0", "", 0, "", false},
		"pull, variable":   {nil, "exit 0", "RUN_TASK_CACHE_POLICY=pull", 0, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newTrunk(t)
			if c.env != "" {
				k.env = append(k.env, c.env)
			}
			k.grow(1)
			args := slices.Concat([]string{"run-task"}, asUser(), c.flags)
			for _, when := range []string{"on_success", "on_failure", "always"} {
				if err := os.CopyFS(k.dir+"/"+when, os.DirFS(k.dir+"/tree")); err != nil {
					t.Fatal(err)
				}
				args = append(args, "--cache-archive", fmt.Sprintf("path=%s,key=%s,when=%s,policy=pull-push,store=%s", when, when, when, k.store))
			}
			own(t, k.dir)
			cmd := &command{dir: k.dir, env: k.env, args: append(args, "--", "/bin/sh", "-c", c.command)}
			var code int
			if c.signal {
				p, _ := told(t, cmd)
				p.expect("ready")
				p.signal(int(unix.SIGTERM))
				code = p.end()
			} else {
				code, _, _ = cmd.run(t)
			}
			if got := strings.Join(k.keys(), " "); code != c.code || got != sorted(c.saves) {
				t.Errorf("exit %d, saved %q, want %d and %q", code, got, c.code, c.saves)
			}
		})
	}
}

func sorted(words string) string {
	all := strings.Fields(words)
	slices.Sort(all)
	return strings.Join(all, " ")
}

// What is wrong with a store or an archive costs a warning, and the task goes on with what it had; --cache-strict makes it an error with a code of its own.
func TestCacheTrouble(t *testing.T) {
	t.Parallel()
	hang := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	t.Cleanup(hang.CloseClientConnections)
	denied := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }))
	t.Cleanup(denied.Close)
	spoil := func(change func([]byte) []byte) func(k *trunk) {
		return func(k *trunk) {
			k.grow(1)
			k.must("save", k.flag("")...)
			remove(k.dir + "/tree")
			name := k.dir + "/store/key.tar.zst"
			b, err := os.ReadFile(name)
			if err != nil {
				k.Fatal(err)
			}
			os.Remove(name)
			if err := os.WriteFile(name, change(b), 0o644); err != nil {
				k.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		prepare func(k *trunk)
		strict  int
	}{
		"flipped":     {spoil(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }), 65},
		"cut off":     {spoil(func(b []byte) []byte { return b[:len(b)-1] }), 65},
		"empty":       {spoil(func(b []byte) []byte { return nil }), 65},
		"another's":   {spoil(func(b []byte) []byte { return []byte(strings.Repeat("x", 5000)) }), 65},
		"hangs":       {func(k *trunk) { k.store = hang.URL + "/x" }, 69},
		"closed port": {func(k *trunk) { k.store = "http://127.0.0.1:1/x" }, 69},
		"denied":      {func(k *trunk) { k.store = denied.URL + "/x" }, 77},
		"no room for what is got": {func(k *trunk) {
			k.env = append(k.env, "TMPDIR="+k.dir+"/none")
			k.store = denied.URL + "/x"
		}, 74},
		"no such files": {func(k *trunk) { k.store += `,fallback={{files "no.lock"}}` }, 0},
		"nothing there": {func(k *trunk) {}, 0},
		"a file in place": {func(k *trunk) {
			spoil(func(b []byte) []byte { return b })(k)
			plant(k.T, k.dir+"/tree", "mine")
			own(k.T, k.dir)
		}, 64},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newTrunk(t)
			c.prepare(k)
			flags := []string{"--cache-budget", "500ms"}
			code, stdout, stderr := k.job("", flags, "/bin/sh", "-c", "ls -d tree 2>/dev/null; echo ran")
			if c.strict == 64 {
				if b, _ := os.ReadFile(k.dir + "/tree"); code != 64 || string(b) != "mine" {
					t.Errorf("exit %d, %q\n%s", code, b, stderr)
				}
				return
			}
			if code != 0 || stdout != "ran\n" || strings.Contains(stderr, "warning: ") != (name != "nothing there") {
				t.Errorf("exit %d, %q\n%s", code, stdout, stderr)
			}
			if litter, _ := filepath.Glob(k.dir + "/.run-task*"); len(litter) > 0 {
				t.Errorf("litter: %q", litter)
			}
			if code, stdout, stderr := k.job("", append(flags, "--cache-strict"), "echo", "ran"); code != c.strict || (stdout == "ran\n") != (c.strict == 0) {
				t.Errorf("strict: exit %d, %q\n%s", code, stdout, stderr)
			}
			if c.strict == 65 {
				if code, out, _ := k.run("verify", "--cache-store", k.store); code != 65 || !strings.Contains(out, "key: the archive is damaged") {
					t.Errorf("verify: exit %d, %q", code, out)
				}
				// The next save heals it, also one of what the archive says that it is.
				k.grow(1)
				if err := os.Rename(k.dir+"/tree", k.dir+"/made"); err != nil {
					t.Fatal(err)
				}
				own(t, k.dir)
				if code, _, stderr := k.job(",policy=pull-push", nil, "mv", "made", "tree"); code != 0 {
					t.Errorf("exit %d\n%s", code, stderr)
				}
				k.must("verify", "--cache-store", k.store)
			}
		})
	}
}

// Paths that lead elsewhere are refused, and nothing changes there.
func TestCachePaths(t *testing.T) {
	t.Parallel()
	k := newTrunk(t)
	k.grow(1)
	k.must("save", k.flag("")...)
	mkdirAll(t, k.dir+"/outside")
	mkdirAll(t, k.dir+"/work/sub")
	mkdirAll(t, k.dir+"/work/cache")
	for link, to := range map[string]string{"link": "../outside", "sub/link": "../../outside", "self": "."} {
		if err := os.Symlink(to, k.dir+"/work/"+link); err != nil {
			t.Fatal(err)
		}
	}
	own(t, k.dir)
	for _, path := range []string{"link", "link/x", "sub/link/x", "self/x", ".", "..", "../outside", "/", "sub/..", "cache", k.dir + "/work/link/x"} {
		args := slices.Concat([]string{"run-task"}, asUser(), []string{"--cache", "cache", "--cache-archive", "path=" + path + ",key=key,policy=pull-push,store=" + k.store, "--", "echo", "ran"})
		code, stdout, stderr := (&command{dir: k.dir + "/work", args: args}).run(t)
		if code != 64 || stdout != "" || !strings.Contains(stderr, "run-task: hint: ") {
			t.Errorf("%s: exit %d, %q\n%s", path, code, stdout, stderr)
		}
	}
	if names, _ := os.ReadDir(k.dir + "/outside"); len(names) != 0 {
		t.Errorf("outside: %v", names)
	}
}

// Content decides: what is the same is not sent, and a change that leaves size and time is one.
func TestCacheUnchanged(t *testing.T) {
	t.Parallel()
	k := newTrunk(t)
	k.grow(1)
	k.must("save", k.flag("")...)
	object := func() string {
		var st unix.Stat_t
		if err := unix.Stat(k.dir+"/store/key.tar.zst", &st); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(st.Ino, st.Mtim)
	}
	before := object()
	remove(k.dir + "/tree")
	for _, script := range []string{"true", "touch tree/*/*", "cp -r tree t2; rm -r tree; mv t2 tree"} {
		if code, _, stderr := k.job(",policy=pull-push", nil, "/bin/sh", "-c", script); code != 0 || !strings.Contains(stderr, "unchanged: ") || object() != before {
			t.Errorf("%s: exit %d\n%s", script, code, stderr)
		}
	}
	same := `f=tree/1/1; cp -p $f ../ref 2>/dev/null || cp -p $f ref; r=ref; printf X | dd of=$f bs=1 seek=100 conv=notrunc 2>/dev/null; touch -r $r $f`
	if code, _, stderr := k.job(",policy=pull-push", nil, "/bin/sh", "-c", same); code != 0 || !strings.Contains(stderr, "saved: ") || object() == before {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

// {{tree}} is what git says, of directories, files and the whole commit, also where the objects are another repository's.
func TestCacheKeysOfCommits(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	for name, where := range map[string][]string{
		"its own":  {"--checkout", "src"},
		"borrowed": {"--git-store", "git", "--checkout", "src,alternates=true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newTrunk(t)
			args := slices.Concat([]string{"run-task", "--repo", r.Path, "--sha", r.SHA["tip"], "--cwd", "."}, asUser(), where)
			var want, dirs []string
			for i, path := range []string{"deep/er", "deep/", "run.sh", "."} {
				dirs = append(dirs, fmt.Sprint("out", i))
				args = append(args, "--cache-archive", fmt.Sprintf(`path=out%d,key=%d-{{tree "%s"}},policy=pull-push,store=%s`, i, i, path, k.store))
				want = append(want, fmt.Sprintf("%d-%s", i, gitOut(t, r.Path, "rev-parse", r.SHA["tip"]+":"+strings.Trim(strings.TrimPrefix(path, "."), "/"))))
			}
			code, _, stderr := (&command{dir: k.dir, args: append(append(args, "--", "mkdir"), dirs...)}).run(t)
			if keys := k.keys(); code != 0 || !slices.Equal(keys, want) {
				t.Errorf("exit %d, %q, want %q\n%s", code, keys, want, stderr)
			}
			for dir, wants := range map[string]string{"src": want[0][2:] + "\n", ".": ""} { // alone, in what an earlier run checked out
				code, stdout, stderr := (&command{dir: k.dir, args: slices.Concat([]string{"run-task", "cache", "key", "--cwd", dir}, asUser(), []string{"--cache-archive", `path=x,key={{tree "deep/er"}},store=` + k.store})}).run(t)
				if stdout != wants || (code == 64) != (wants == "") || code != 0 && code != 64 {
					t.Errorf("in %s: exit %d, %q\n%s", dir, code, stdout, stderr)
				}
			}
		})
	}
}

func gitOut(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := native(dir, nil, args...)
	if err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return out
}

// gc goes by age and then by size.
func TestCacheGC(t *testing.T) {
	t.Parallel()
	k := newTrunk(t)
	for i := range 4 {
		k.grow(i)
		k.must("save", "--cache-archive", fmt.Sprintf("path=tree,key=k%d,store=%s", i, k.store))
		at := time.Now().Add(-time.Duration(10-i) * 24 * time.Hour)
		if err := os.Chtimes(fmt.Sprintf("%s/store/k%d.tar.zst", k.dir, i), at, at); err != nil {
			t.Fatal(err)
		}
	}
	k.must("gc", "--cache-store", k.store, "--max-age", "8d", "--dry-run")
	if got := fmt.Sprint(k.keys()); got != "[k0 k1 k2 k3]" {
		t.Errorf("a dry run left %s", got)
	}
	k.must("gc", "--cache-store", k.store, "--max-age", "1000d", "--max-size", "1G")
	if got := fmt.Sprint(k.keys()); got != "[k0 k1 k2 k3]" {
		t.Errorf("%s are left", got)
	}
	// Whoever is read is used.
	remove(k.dir + "/tree")
	k.must("restore", "--cache-archive", "path=tree,key=k0,store="+k.store)
	k.must("gc", "--cache-store", k.store, "--max-age", "204h")
	if got := fmt.Sprint(k.keys()); got != "[k0 k2 k3]" {
		t.Errorf("%s are left", got)
	}
	k.must("gc", "--cache-store", k.store, "--max-size", "1")
	if got := fmt.Sprint(k.keys()); got != "[]" {
		t.Errorf("%s are left", got)
	}
}

// packages is a server that answers as GitLab's generic package registry does, or with a status for all.
type packages struct {
	*httptest.Server
	files  map[string][]byte
	status atomic.Int64
	puts   atomic.Int64
}

func newPackages(t *testing.T) *packages {
	p := &packages{files: map[string][]byte{}}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s := p.status.Load(); s > 0 {
			w.WriteHeader(int(s))
			return
		}
		if r.Header.Get("JOB-TOKEN") != "job-token-of-the-ci" {
			w.WriteHeader(401)
			return
		}
		have, ok := p.files[r.URL.Path]
		switch {
		case r.Method == http.MethodPut:
			p.puts.Add(1)
			body, _ := io.ReadAll(r.Body)
			if strings.Contains(r.URL.Path, "/late") { // another task was faster
				w.WriteHeader(400)
				fmt.Fprint(w, `{"message":"400 Bad request - Duplicate package is not allowed"}`)
				return
			}
			p.files[r.URL.Path] = body
			w.WriteHeader(201)
		case !ok:
			w.WriteHeader(404)
		default:
			w.Write(have)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

// Fetch or build: the rule of three answers.
func TestPackage(t *testing.T) {
	t.Parallel()
	p := newPackages(t)
	k := newTrunk(t)
	host := strings.TrimPrefix(p.URL, "http://")
	hostname, port, _ := strings.Cut(host, ":")
	k.env = []string{"CI_SERVER_HOST=" + hostname, "CI_SERVER_PORT=" + port, "CI_SERVER_PROTOCOL=http", "CI_JOB_TOKEN=job-token-of-the-ci", "TMPDIR=" + k.dir}
	run := func(key string, args ...string) (code int, stdout, stderr string) {
		t.Helper()
		return (&command{dir: k.dir, env: k.env, args: slices.Concat([]string{"run-task", "package"}, asUser(), []string{"--key", key, "--path", "out", "--store", p.URL + "/packages/generic/p/1"}, args)}).run(t)
	}
	build := []string{"--", "/bin/sh", "-c", "mkdir -p out; echo built >out/file; echo ran"}
	want := func(what string, wantCode int, ran bool, puts int64, key string, args ...string) {
		t.Helper()
		before := p.puts.Load()
		code, stdout, stderr := run(key, args...)
		if code != wantCode || strings.Contains(stdout, "ran") != ran || p.puts.Load()-before != puts || strings.Contains(stderr, "job-token") {
			t.Errorf("%s: exit %d, %q, %d puts\n%s", what, code, stdout, p.puts.Load()-before, stderr)
		}
		if ran || wantCode == 0 && len(args) > 1 {
			if b, err := os.ReadFile(k.dir + "/out/file"); err != nil || string(b) != "built\n" {
				t.Errorf("%s: %q, %v", what, b, err)
			}
		}
		remove(k.dir + "/out")
	}
	want("asked before", 66, false, 0, "a", "--check")
	want("404", 0, true, 1, "a", build...)
	want("200", 0, false, 0, "a", build...)
	want("asked after", 0, false, 0, "a", "--check")
	for _, status := range []int64{500, 403, 401, 418} {
		p.status.Store(status)
		want(fmt.Sprint(status), 0, true, 0, "a", append([]string{"--cache-budget", "2s"}, build...)...)
	}
	p.status.Store(404)
	want("the command fails", 3, false, 0, "b", "--", "/bin/sh", "-c", "exit 3")
	p.status.Store(0)
	want("a duplicate", 0, true, 1, "late", build...)
	for path := range p.files {
		p.files[path][100] ^= 1
	}
	want("damaged", 65, false, 0, "a", build...)
}
