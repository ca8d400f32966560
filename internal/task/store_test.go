package task

import (
	"slices"
	"strings"
	"testing"
	"time"

	"run-task/checkout"
	"run-task/internal/fail"
)

func TestWhoPinsAreFor(t *testing.T) {
	for want, env := range map[string][]string{
		"gitlab:gl:7":        {"CI_PIPELINE_ID=7", "CI_SERVER_HOST=gl"},
		"github:gh:8:o/r:9":  {"GITHUB_RUN_ID=9", "GITHUB_SERVER_URL=https://gh:8", "GITHUB_REPOSITORY=o/r"},
		"taskcluster:group":  {"TASK_GROUP_ID=group", "TASK_ID=task"},
		"taskcluster:task":   {"TASK_ID=task"},
		"default":            nil,
		"from the variable":  {"RUN_TASK_PIN_HOLDER=from the variable", "TASK_ID=task"},
		"from the command=1": {"RUN_TASK_PIN_HOLDER=x"},
	} {
		args := []string{"--git-store", "/s"}
		if strings.HasPrefix(want, "from the command") {
			args = append(args, "--pin-holder", want)
		}
		task, _, err := parse(t, env, onRepo(args...)...)
		if err != nil || task.Checkouts.Store.Holder != want {
			t.Errorf("%q: %v, %+v: want %q", env, err, task.Checkouts.Store, want)
		}
	}
}

func TestTheStoresSettings(t *testing.T) {
	task, _, err := parse(t, nil, onRepo("--git-store", "/s", "--trust", "l", "--pin-ttl", "2d", "--always-contact-remote", "--wait-for-commit", "90s", "--git-seed", "/a", "--git-seed", "/b,c",
		"--export-tree", "x/y")...)
	if err != nil {
		t.Fatal(err)
	}
	o := task.Checkouts
	if want := (checkout.Store{Dir: "/s", Trust: "l", Holder: "default", TTL: 48 * time.Hour}); *o.Store != want || !o.AlwaysContact || o.Wait != 90*time.Second ||
		!slices.Equal(o.Seeds, []string{"/a", "/b,c"}) || !slices.Equal(o.Trees, []string{"x/y"}) {
		t.Errorf("got %+v, %+v", *o.Store, o)
	}
	if !slices.Contains(task.Provide, "/s") {
		t.Errorf("root makes %q for the user", task.Provide)
	}
	task, _, err = parse(t, []string{"RUN_TASK_GIT_STORE=/s", "RUN_TASK_TRUST=l", "RUN_TASK_GIT_SEED=/x", "RUN_TASK_KNOWN_HOSTS=/x", "RUN_TASK_CA=/x",
		"RUN_TASK_CLIENT_CERT=/x", "RUN_TASK_CLIENT_KEY=/x"}, onRepo()...)
	if err != nil || task.Checkouts.Store != nil || len(task.Checkouts.Seeds)+len(task.Checkouts.Net.Credentials.KnownHosts) > 0 || task.Checkouts.Net.Credentials.CA != "" || task.Checkouts.Net.Credentials.ClientCert+task.Checkouts.Net.Credentials.ClientKey != "" || len(task.Warnings) != 7 {
		t.Errorf("a variable decided about trust: %v, %+v", err, task)
	}
	if task, _, err = parse(t, nil, onRepo("--git-store", "/s")...); err != nil || task.Checkouts.Store.TTL != checkout.DefaultTTL {
		t.Errorf("%v, %+v", err, task)
	}
}

func TestStoreUsageErrors(t *testing.T) {
	dir := t.TempDir()
	u := []string{"--user", "root"}
	resolve := slices.Clip(append(u, "--resolve", "main", "--repo", "https://h/r"))
	store := func(args ...string) []string { return append([]string{"store"}, args...) }
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"store in the checkout":   {onRepo("--git-store", "d/store"), "one in the other"},
		"checkout in the store":   {append(u, "--git-store", "s", "--checkout", "s/d,repo=h:r,sha="+sha, "--", "x"), "one in the other"},
		"store as the checkout":   {onRepo("--git-store", "d/../d"), "one in the other"},
		"store as a cache":        {onRepo("--git-store", dir, "--cache", dir), "--git-store " + dir + "/git"},
		"nothing to borrow from":  {append(u, "--checkout", "d,alternates=true,repo=h:r,sha="+sha, "--", "x"), "--git-store"},
		"no boolean":              {append(u, "--checkout", "d,alternates=1,repo=h:r,sha="+sha, "--", "x"), "neither true nor false"},
		"submodules":              {onRepo("--submodules", "all"), "recursive"},
		"trees of one name":       {onRepo("--export-tree", "a/b", "--export-tree", "A_b"), "CHECKOUT_TREE_A_B"},
		"resolve and SHA":         {append(resolve, "--sha", sha), "--resolve asks for the SHA"},
		"resolve and SHA in spec": {append(u, "--resolve", "main", "--checkout", "d,repo=h:r,sha="+sha), "--resolve asks for the SHA"},
		"resolve and ref":         {append(resolve, "--ref", "x"), "--resolve asks for the SHA"},
		"resolve for two":         {append(u, "--resolve", "main", "--checkout", "a,repo=h:r", "--checkout", "b,repo=h:r"), "one --checkout at most"},
		"resolve nowhere":         {append(u, "--resolve", "main"), "--repo"},
		"resolve an option":       {append(u, "--resolve", "--upload-pack=x y", "--repo", "h:r"), "name of a ref"},
		"tree of nothing":         {append(resolve, "--export-tree", "a"), "--git-store"},
		"store, no word":          {store(), "list|pin"},
		"store, unknown word":     {store("bogus"), `"bogus"`},
		"store of nowhere":        {store("list", "--user", "root"), "--git-store"},
		"a command":               {store("list", "--git-store", "/s", "--", "x"), "no command"},
		"an argument":             {store("list", "--user", "root", "--git-store", "/s", "x"), `"x"`},
		"flag of another":         {store("list", "--git-store", "/s", "--sha", sha), "-sha"},
		"unpin nothing":           {store("unpin", "--user", "root", "--git-store", "/s", "--repo", "h:r"), "--sha"},
		"unpin a part of a SHA":   {store("unpin", "--user", "root", "--git-store", "/s", "--repo", "h:r", "--sha", "abc"), "40 hex digits"},
		"pin without a SHA":       {store("pin", "--user", "root", "--git-store", "/s", "--repo", "h:r"), "without a SHA"},
		"path of nothing":         {store("path", "--user", "root", "--git-store", "/s"), "--repo"},
		"grace without a unit":    {store("gc", "--user", "root", "--git-store", "/s", "--grace", "5"), "--grace"},
		"size of nothing":         {store("gc", "--user", "root", "--git-store", "/s", "--max-size", "0"), "--max-size"},
		"option before the verb":  {[]string{"store", "--user", "root", "list"}, "-user"},
	} {
		t.Run(name, func(t *testing.T) {
			_, out, err := parse(t, nil, c.args...)
			if fail.Of(err) != fail.Usage || out != "" {
				t.Fatalf("error %v (%d), stdout %q: want a usage error and an empty stdout", err, fail.Of(err), out)
			}
			if !strings.Contains(err.Error()+"\n"+fail.Hint(err), c.want) {
				t.Errorf("error %q, hint %q: neither has %q", err, fail.Hint(err), c.want)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	gitlab := []string{"CI_REPOSITORY_URL=https://gl/r.git", "CI_COMMIT_SHA=" + sha, "CI_COMMIT_REF_NAME=main", "CI_PIPELINE_ID=7"}
	for name, c := range map[string]struct {
		args, env []string
		alone     bool
		repo      string
	}{
		"a repository":              {[]string{"--repo", "https://h/r"}, gitlab, true, "https://h/r"},
		"the CI's":                  {nil, gitlab, true, "https://gl/r.git"},
		"a checkout, the CI's":      {[]string{"--checkout", "d"}, gitlab, false, "https://gl/r.git"},
		"a checkout's own":          {[]string{"--checkout", "d,repo=https://i/r"}, gitlab, false, "https://i/r"},
		"a repository in variables": {nil, append([]string{"RUN_TASK_REPO=https://v/r"}, gitlab...), true, "https://v/r"},
	} {
		t.Run(name, func(t *testing.T) {
			task, _, err := parse(t, c.env, append([]string{"--user", "root", "--resolve", "v1"}, c.args...)...)
			if err != nil {
				t.Fatal(err)
			}
			r := task.Resolve
			if (r != nil) != c.alone || !task.Resolving() || !task.Alone {
				t.Fatalf("%+v", task)
			}
			if !c.alone {
				r = &task.Checkouts.Repos[0]
			}
			if r.URL != c.repo || r.SHA != "" || r.Resolve != "v1" || len(r.Hints) > 0 || r.Depth != 1 {
				t.Errorf("%+v", r)
			}
		})
	}
	_, out, err := parse(t, gitlab, "--user", "root", "--resolve", "v1", "--git-store", "/s", "--export-env", "/e", "--plan")
	for _, want := range []string{`resolve "v1" of https://gl/r.git, and check out nothing (--resolve)`, `the git store "/s" (--git-store)`, `pin them for "gitlab::7" (the CI's pipeline) and 168h0m0s (default)`, `write "/e"`} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%v: the plan does not have %q:\n%s", err, want, out)
		}
	}
}

func TestSubmodulesAndAlternates(t *testing.T) {
	task, _, err := parse(t, nil, "--user", "root", "--git-store", "/s", "--submodules", "top", "--checkout", "a,repo=h:r,sha="+sha,
		"--checkout", "b,submodules=recursive,alternates=true,repo=h:r,sha="+sha, "--", "x")
	if err != nil {
		t.Fatal(err)
	}
	a, b := task.Checkouts.Repos[0], task.Checkouts.Repos[1]
	if a.Submodules != "top" || a.Alternates || b.Submodules != "recursive" || !b.Alternates {
		t.Errorf("%+v\n%+v", a, b)
	}
	if task, _, err = parse(t, nil, onRepo()...); err != nil || task.Checkouts.Repos[0].Submodules != "none" {
		t.Errorf("%v, %+v", err, task)
	}
}

func TestExport(t *testing.T) {
	var task Task
	one := checkout.Result{Name: "a", Dir: "/d", URL: "https://h/r", SHA: "5a", Commit: "c0", Tree: "7e", Trees: map[string]string{"x/y.z": "77", "b": "66"}}
	for name, c := range map[string]struct {
		done []checkout.Result
		want string
	}{
		"none":     {nil, ""},
		"one":      {[]checkout.Result{one}, "CHECKOUT_SHA=c0\nCHECKOUT_TREE=7e\nCHECKOUT_DIR=/d\nCHECKOUT_TREE_B=66\nCHECKOUT_TREE_X_Y_Z=77\nRUN_TASK_REPO=https://h/r\nRUN_TASK_SHA=5a\n"},
		"resolved": {[]checkout.Result{{URL: "https://h/r", SHA: "5a"}}, "RUN_TASK_REPO=https://h/r\nRUN_TASK_SHA=5a\n"},
		"two": {[]checkout.Result{one, {Name: "b-c", Dir: "/e", SHA: "5b", Commit: "5b", Tree: "7f"}},
			"CHECKOUT_A_SHA=c0\nCHECKOUT_A_TREE=7e\nCHECKOUT_A_DIR=/d\nCHECKOUT_A_TREE_B=66\nCHECKOUT_A_TREE_X_Y_Z=77\nCHECKOUT_B_C_SHA=5b\nCHECKOUT_B_C_TREE=7f\nCHECKOUT_B_C_DIR=/e\n"},
	} {
		if got, err := task.Export(c.done); string(got) != c.want || err != nil {
			t.Errorf("%s: %v\n%swant\n%s", name, err, got, c.want)
		}
	}
	one.Dir = "/d\nX=1"
	if got, err := task.Export([]checkout.Result{one}); fail.Of(err) != fail.Usage {
		t.Errorf("a directory with a line end: %q, %v", got, err)
	}
}

func TestStoreSubcommands(t *testing.T) {
	base := []string{"--user", "root", "--git-store", "/s"}
	at := func(verb string, args ...string) []string { return slices.Concat([]string{"store", verb}, base, args) }
	env := []string{"CI_PIPELINE_ID=7", "CI_SERVER_HOST=gl", "TOKEN=t"}
	for name, c := range map[string]struct {
		args []string
		ok   func(s *StoreJob, task *Task) bool
	}{
		"list": {at("list", "--json"), func(s *StoreJob, _ *Task) bool { return s.JSON }},
		"pin": {at("pin", "--repo", "https://h/r", "--sha", sha, "--ref", "v1", "--depth", "0", "--trust", "l", "--pin-ttl", "1h", "--git-auth", "host=h,token-env=TOKEN", "--git-limit", "tries=2"),
			func(s *StoreJob, task *Task) bool {
				o := task.Checkouts
				return s.Repo.SHA == sha && s.Repo.Depth == 0 && len(s.Repo.Hints) == 2 && *o.Store == checkout.Store{Dir: "/s", Trust: "l", Holder: "gitlab:gl:7", TTL: time.Hour} &&
					len(o.Net.Credentials.Logins) == 1 && o.Net.Tries == 2
			}},
		"pin a ref":    {at("pin", "--repo", "h:r", "--resolve", "main"), func(s *StoreJob, _ *Task) bool { return s.Repo.SHA == "" && s.Repo.Resolve == "main" }},
		"unpin":        {at("unpin", "--repo", "h:r", "--sha", strings.ToUpper(sha)), func(s *StoreJob, _ *Task) bool { return s.Repo.SHA == sha && s.Holder == "gitlab:gl:7" }},
		"unpin others": {at("unpin", "--repo", "h:r", "--sha", sha, "--pin-holder", "x"), func(s *StoreJob, _ *Task) bool { return s.Holder == "x" }},
		"unpin all":    {at("unpin", "--repo", "h:r", "--sha", sha, "--all-holders"), func(s *StoreJob, _ *Task) bool { return s.Holder == "" }},
		"gc":           {at("gc"), func(s *StoreJob, _ *Task) bool { return s.GC == checkout.GC{Grace: time.Hour} }},
		"gc, all of it": {at("gc", "--grace", "1ns", "--max-size", "2MiB", "--dry-run"),
			func(s *StoreJob, _ *Task) bool {
				return s.GC == checkout.GC{Grace: 1, MaxSize: 2 << 20, DryRun: true}
			}},
		"verify": {at("verify"), func(s *StoreJob, _ *Task) bool { return !s.JSON }},
		"path":   {at("path", "--repo", "h:r", "--trust", "l"), func(s *StoreJob, _ *Task) bool { return s.Repo.URL == "h:r" && s.Trust == "l" }},
	} {
		t.Run(name, func(t *testing.T) {
			task, out, err := parse(t, env, c.args...)
			if err != nil || out != "" {
				t.Fatal(err, out)
			}
			if s := task.Store; s == nil || s.Verb != c.args[1] || s.Dir != "/s" || !task.Alone || slices.Contains(task.Provide, "/s") != (s.Verb == "pin") || !c.ok(s, task) {
				t.Errorf("%+v\n%+v", s, task)
			}
		})
	}
	for _, verb := range storeVerbs {
		if _, out, err := parse(t, nil, "store", verb.name, "--help"); err != nil || !strings.Contains(out, "--git-store") || strings.Contains(out, "RUN_TASK_JSON") || strings.Contains(out, "RUN_TASK_GRACE") {
			t.Errorf("store %s --help: %v\n%s", verb.name, err, out)
		}
	}
}

// What the environment says about servers does not keep anybody from looking after a store.
func TestStoreWorkWithoutServersNeedsNoSecrets(t *testing.T) {
	env := []string{"RUN_TASK_GIT_AUTH=host=h,token-env=NONE", "RUN_TASK_SSH_KEY=env:NONE", "RUN_TASK_WAIT_FOR_COMMIT=5", "RUN_TASK_PIN_TTL=5", "RUN_TASK_REF=main"}
	for _, verb := range storeVerbs {
		args := []string{"store", verb.name, "--user", "root", "--git-store", "/s"}
		if slices.Contains(verb.settings, "repo") {
			args = append(args, "--repo", "h:r")
		}
		if slices.Contains(verb.settings, "sha") {
			args = append(args, "--sha", sha)
		}
		if _, _, err := parse(t, env, args...); (err != nil) != (verb.name == "pin") {
			t.Errorf("store %s: %v", verb.name, err)
		}
	}
}

func TestUnpinTakesTheCommitFromOneSource(t *testing.T) {
	unpin := []string{"store", "unpin", "--user", "root", "--git-store", "/s"}
	for said, env := range map[string]string{"--repo=h:r": "RUN_TASK_SHA=" + sha, "--sha=" + sha: "RUN_TASK_REPO=h:r"} {
		if task, _, err := parse(t, []string{env}, append(unpin, said)...); fail.Of(err) != fail.Usage {
			t.Errorf("%s with %s: %v, %+v", said, env, err, task)
		}
	}
	if task, _, err := parse(t, []string{"RUN_TASK_REPO=h:r", "RUN_TASK_SHA=" + sha}, unpin...); err != nil || task.Store.Repo.SHA != sha {
		t.Errorf("both from the environment: %v", err)
	}
}
