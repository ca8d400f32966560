package task

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"run-task/checkout"
	"run-task/internal/fail"
)

const sha = "0123456789abcdef0123456789abcdef01234567"

// parse is Parse for whoever runs the tests: root must say so.
func parse(t *testing.T, env []string, args ...string) (*Task, string, error) {
	t.Helper()
	var out bytes.Buffer
	task, err := Parse(append([]string{"run-task"}, args...), env, &out)
	return task, out.String(), err
}

func TestTheFirstDashesSplit(t *testing.T) {
	task, _, err := parse(t, nil, "--user", "root", "--", "help", "--", "cache")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"help", "--", "cache"}; !slices.Equal(task.Command.Args, want) {
		t.Errorf("command %q, want %q", task.Command.Args, want)
	}
}

func TestUsageErrors(t *testing.T) {
	u := []string{"--user", "root"}
	for name, c := range map[string]struct {
		args []string
		env  []string
		want string // in the error or the hint
	}{
		"nothing at all":        {nil, nil, "run-task [flags] -- command"},
		"dashes, no command":    {[]string{"--"}, nil, "no command to run"},
		"forgotten dashes":      {[]string{"make", "test"}, nil, "run-task -- make test"},
		"unknown flag":          {[]string{"--bogus", "--", "x"}, nil, "-bogus"},
		"unknown cache word":    {[]string{"cache", "bogus"}, nil, `"bogus"`},
		"cache alone":           {[]string{"cache"}, nil, "restore|save|key"},
		"flag before the word":  {[]string{"--user", "root", "checkout", "x"}, nil, "run-task checkout [flags]"},
		"command after install": {[]string{"install", "x", "--", "y"}, nil, "takes no command"},
		"flag after directory":  {[]string{"checkout", "d", "--user", "root"}, nil, "flags first"},
		"checkout of nothing":   {append([]string{"checkout"}, u...), nil, "no directory"},
		"loud and quiet":        {append(u, "--verbose", "--quiet", "--", "x"), nil, "exclude each other"},
		"ref alone":             {append(u, "--checkout", "d", "--ref", "main", "--", "x"), nil, "a ref alone pins no commit"},
		"repo alone":            {append(u, "--checkout", "d", "--repo", "https://h/r", "--", "x"), nil, "without a SHA"},
		"sha alone":             {append(u, "--checkout", "d,sha="+sha, "--", "x"), []string{"CI_REPOSITORY_URL=https://h/r", "CI_COMMIT_SHA=" + sha}, "without a repository"},
		"repo and sha apart":    {append(u, "--checkout", "d", "--repo", "https://h/r", "--", "x"), []string{"RUN_TASK_SHA=" + sha}, "without a SHA"},
		"said twice":            {append(u, "--checkout", "d,repo=https://h/r,sha="+sha, "--repo", "https://h/r", "--sha", sha, "--", "x"), nil, "said twice"},
		"short form for two":    {append(u, "--checkout", "a", "--checkout", "b", "--repo", "https://h/r", "--sha", sha, "--", "x"), nil, "exactly one --checkout"},
		"short form for none":   {append(u, "--repo", "https://h/r", "--sha", sha, "--", "x"), nil, "exactly one --checkout"},
		"one name twice":        {append(u, "--checkout", "a/x,repo=h:r,sha="+sha, "--checkout", "b/x,repo=h:r,sha="+sha, "--", "x"), nil, "name=NAME"},
		"no repository":         {append(u, "--checkout", "d", "--", "x"), nil, "CI_REPOSITORY_URL"},
		"short SHA":             {append(u, "--checkout", "d,repo=h:r,sha=abc123", "--", "x"), nil, "40 hex digits"},
		"SHA-256":               {append(u, "--checkout", "d,repo=h:r,sha="+strings.Repeat("a", 64), "--", "x"), nil, "SHA-256 repositories are not supported"},
		"zeros":                 {append(u, "--checkout", "d,repo=h:r,sha="+strings.Repeat("0", 40), "--", "x"), nil, "all zeros"},
		"unknown key":           {append(u, "--checkout", "d,branch=x", "--", "x"), nil, `"branch"`},
		"key twice":             {append(u, "--checkout", "d,depth=1,depth=2", "--", "x"), nil, `"depth"`},
		"negative depth":        {append(u, "--checkout", "d,repo=h:r,depth=-1,sha="+sha, "--", "x"), nil, "number of commits"},
		"clean mode":            {append(u, "--checkout", "d,repo=h:r,clean=some,sha="+sha, "--", "x"), nil, "clean mode"},
		"hostile ref":           {append(u, "--checkout", "d,repo=h:r,ref=--upload-pack=x y,sha="+sha, "--", "x"), nil, "name of a ref"},
		"option as repository":  {append(u, "--checkout", "d,repo=--upload-pack=x,sha="+sha, "--", "x"), nil, "--upload-pack"},
		"bad copy":              {append(u, "--copy", "a", "--", "x"), nil, "SRC=DST"},
		"bad requirement":       {append(u, "--require", "uid=0", "--", "x"), nil, "run-task sets uid itself"},
		"requirement of lines":  {append(u, "--require", "a=b\nuid=0", "--", "x"), nil, "one line"},
		"switch in a variable":  {append(u, "--", "x"), []string{"RUN_TASK_VERBOSE=maybe"}, "RUN_TASK_VERBOSE"},
	} {
		t.Run(name, func(t *testing.T) {
			_, out, err := parse(t, c.env, c.args...)
			if fail.Of(err) != fail.Usage || out != "" {
				t.Fatalf("error %v (%d), stdout %q: want a usage error and an empty stdout", err, fail.Of(err), out)
			}
			if !strings.Contains(err.Error()+"\n"+fail.Hint(err), c.want) {
				t.Errorf("error %q, hint %q: neither has %q", err, fail.Hint(err), c.want)
			}
		})
	}
}

func TestWhereTheCommitComesFrom(t *testing.T) {
	other := strings.Repeat("b", 40)
	gitlab := []string{"CI_REPOSITORY_URL=https://gitlab-ci-token:s3cret@gl/r.git", "CI_COMMIT_SHA=" + sha, "CI_COMMIT_REF_NAME=main", "CI_PIPELINE_ID=7"}
	github := []string{"GITHUB_SERVER_URL=https://gh", "GITHUB_REPOSITORY=o/r", "GITHUB_SHA=" + sha, "GITHUB_REF=refs/pull/1/merge"}
	for name, c := range map[string]struct {
		args, env []string
		want      checkout.Repo
	}{
		"argv": {[]string{"--checkout", "d", "--repo", "https://h/r", "--sha", strings.ToUpper(other), "--ref", "v1", "--depth", "0"}, gitlab,
			checkout.Repo{URL: "https://h/r", SHA: other, Hints: []string{"refs/heads/v1", "refs/tags/v1"}, Depth: 0}},
		"in the value": {[]string{"--checkout", `d,"repo=https://h/a,b",sha=` + other + ",depth=5,clean=none,name=n"}, gitlab,
			checkout.Repo{URL: "https://h/a,b", SHA: other, Depth: 5, Clean: "none", Name: "n"}},
		"variables": {[]string{"--checkout", "d"}, append([]string{"RUN_TASK_REPO=https://h/r", "RUN_TASK_SHA=" + other}, gitlab...),
			checkout.Repo{URL: "https://h/r", SHA: other, Depth: 1}},
		"a variable names the directory, GitLab the rest": {nil, append([]string{"RUN_TASK_CHECKOUT=d"}, append(gitlab, github...)...),
			checkout.Repo{URL: "https://gitlab-ci-token:s3cret@gl/r.git", SHA: sha, Hints: []string{"refs/pipelines/7", "refs/heads/main", "refs/tags/main"}, Depth: 1}},
		"GitHub": {[]string{"--checkout", "d"}, github,
			checkout.Repo{URL: "https://gh/o/r", SHA: sha, Hints: []string{"refs/pull/1/merge"}, Depth: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			task, _, err := parse(t, c.env, append(append([]string{"--user", "root"}, c.args...), "--", "x")...)
			if err != nil {
				t.Fatal(err)
			}
			c.want.Dir = "d"
			if c.want.Name == "" {
				c.want.Name = "d"
			}
			if c.want.Clean == "" {
				c.want.Clean = "all"
			}
			got := task.Checkouts.Repos[0]
			if got.URL != c.want.URL || got.SHA != c.want.SHA || !slices.Equal(got.Hints, c.want.Hints) || got.Depth != c.want.Depth || got.Clean != c.want.Clean || got.Name != c.want.Name || got.Dir != c.want.Dir {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestTheEnvironmentDecidesNothingAboutTrust(t *testing.T) {
	env := []string{"RUN_TASK_USER=0", "RUN_TASK_CACHE=/x", "RUN_TASK_CHOWN=/etc", "RUN_TASK_VOLUME=/y", "RUN_TASK_REQUIRE=a=b", "RUN_TASK_ADOPT=1", "RUN_TASK_UNTRUSTED_CACHES=1",
		"RUN_TASK_CHEKOUT=d", "RUN_TASK_CHECKOUT=/srv/x", "RUN_TASK_COPY=a=/srv/y", "RUN_TASK_STATUS_FILE=/etc/x", "CI_REPOSITORY_URL=https://h/r", "CI_COMMIT_SHA=" + sha}
	task, _, err := parse(t, env, "--user", "root", "--", "x")
	if err != nil {
		t.Fatal(err)
	}
	if len(task.Caches.Dirs)+len(task.Caches.Volumes)+len(task.Chown)+len(task.Caches.Require) > 0 || task.Caches.Untrusted || task.Checkouts.Repos[0].Adopt {
		t.Errorf("a variable decided about trust: %+v", task)
	}
	if len(task.Provide) > 0 || task.StatusEarly {
		t.Errorf("root would open or make what a variable names: %q, status early %v", task.Provide, task.StatusEarly)
	}
	if len(task.Warnings) != 8 {
		t.Errorf("warnings: %q", task.Warnings)
	}
}

func TestTheCommandsEnvironment(t *testing.T) {
	env := []string{"A=1", "RUN_TASK_VERBOSE=1", "TASKCLUSTER_CACHES=/c", "TASKCLUSTER_VOLUMES=", "TASKCLUSTER_UNTRUSTED_CACHES=1", "TASKCLUSTER_ROOT_URL=u", "TASK_ID=t", "CHECKOUT_SHA=old", "CHECKOUT_B=kept"}
	task, _, err := parse(t, env, "--user", "root", "--", "x")
	if err != nil {
		t.Fatal(err)
	}
	has := func(env []string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !slices.Contains(env, w) {
				t.Errorf("%q is not in %q", w, env)
			}
		}
	}
	one := checkout.Result{Name: "my-src", Dir: "/d", SHA: sha, Commit: sha, Tree: "t"}
	got := task.Environ([]checkout.Result{one})
	has(got, "A=1", "TASKCLUSTER_ROOT_URL=u", "TASK_ID=t", "CHECKOUT_SHA="+sha, "CHECKOUT_TREE=t", "CHECKOUT_DIR=/d", "CHECKOUT_B=kept")
	for _, kv := range got {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "RUN_TASK_") || slices.Contains([]string{"TASKCLUSTER_CACHES", "TASKCLUSTER_VOLUMES", "TASKCLUSTER_UNTRUSTED_CACHES"}, name) || kv == "CHECKOUT_SHA=old" {
			t.Errorf("%q reached the command", kv)
		}
	}
	two := one
	two.Name = "b"
	has(task.Environ([]checkout.Result{one, two}), "CHECKOUT_MY_SRC_SHA="+sha, "CHECKOUT_B_DIR=/d")
}

func TestTaskclustersVariables(t *testing.T) {
	task, _, err := parse(t, []string{"TASKCLUSTER_CACHES=/a;;/b", "TASKCLUSTER_VOLUMES=/v;", "TASKCLUSTER_UNTRUSTED_CACHES="}, "--user", "root", "--cache", "/c,d", "--", "x")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"/c,d", "/a", "/b"}; !slices.Equal(task.Caches.Dirs, want) || !slices.Equal(task.Caches.Volumes, []string{"/v"}) || !task.Caches.Untrusted {
		t.Errorf("got %+v", task.Caches)
	}
}

func TestThePlanMasksAndNamesSources(t *testing.T) {
	env := []string{"CI_REPOSITORY_URL=https://gitlab-ci-token:s3cretToken@gl/r.git", "CI_COMMIT_SHA=" + sha, "RUN_TASK_CHECKOUT=d"}
	task, out, err := parse(t, env, "--user", "root", "--cache", "/c", "--plan", "--", "make", "all")
	if err != nil || task != nil {
		t.Fatal(task, err)
	}
	if strings.Contains(out, "s3cretToken") {
		t.Errorf("the plan prints the token:\n%s", out)
	}
	for _, want := range []string{`check "/c" (--cache`, sha, "GitLab's CI_REPOSITORY_URL", `["make" "all"]`, "uid=0"} {
		if !strings.Contains(out, want) {
			t.Errorf("the plan does not have %q:\n%s", want, out)
		}
	}
}

func TestHelpNamesEverySetting(t *testing.T) {
	_, out, err := parse(t, nil, "--help")
	if err != nil {
		t.Fatal(err)
	}
	out = strings.Join(strings.Fields(out), " ") // undo the wrapping
	for _, r := range Table() {
		if !strings.Contains(out, r.Flag) || !strings.Contains(out, r.Variable) || !strings.Contains(out, r.Usage) {
			t.Errorf("--help lacks %+v:\n%s", r, out)
		}
	}
}

func FuzzCheckoutValue(f *testing.F) {
	for _, s := range []string{"d", "d,repo=h:r,sha=" + sha, `d,"repo=a,b"`, `"d,e",depth=1`, "d,", "d\nx", `d,"`, ",", "d,depth=1,depth=1", "d,clean=all", "\n", "\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		dir, keys, err := readSpec(s)
		if err != nil {
			if fail.Of(err) != fail.Usage {
				t.Errorf("%q: %v is no usage error", s, err)
			}
			return
		}
		if dir == "" {
			t.Errorf("%q: no directory and no error", s)
		}
		for k, v := range keys {
			if v == "" || !slices.Contains([]string{"repo", "sha", "ref", "depth", "clean", "sparse", "submodules", "readonly", "alternates", "name"}, k) {
				t.Errorf("%q: key %q is %q", s, k, v)
			}
		}
	})
}
