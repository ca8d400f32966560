// Package task turns the command line, the settings file and the environment into one Task. Nobody else reads any of the three.
package task

import (
	"bytes"
	"cmp"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"run-task/caches"
	"run-task/checkout"
	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/internal/self"
	"run-task/perms"
	"run-task/supervise"
)

// Task is all that run-task was told. It is made once, complete and valid, and then only read.
type Task struct {
	Identity  perms.Identity
	Caches    caches.Options
	Chown     []string // given to the user, with all in them
	Provide   []string // directories that root makes for the user, if only root can
	Stores    []string // the same for those of archives and published commits, which a task can do without
	Checkouts checkout.Options
	Archives  caches.Archives
	Copies    []caches.CopySpec
	Command   supervise.Command // without the variables that the checkouts add: see Environ
	Alone     bool              // the checkout is all there is to do: no command
	Init      bool              // stay with the command, as Stay says
	Stay      supervise.Options
	Masks     []string // values that are printed nowhere
	Sections  logs.Sections

	StatusFile  string
	StatusEarly bool // it may be opened before the drop: whoever named it is trusted, and it lies in no cache

	Install string         // put the binary here; nothing else is done
	Resolve *checkout.Repo // resolve and pin this one, which is not checked out
	Store   *StoreJob      // work on a git store; nothing else is done

	CacheJob *CacheJob   // work on cache archives; nothing else is done
	Package  *PackageJob // the one archive is fetched, or the command makes it

	ExportFile string // what later tasks are told goes here

	Level    logs.Level
	Warnings []string
}

// Environ is the command's environment: the task's own, and where the checkouts are.
func (t *Task) Environ(done []checkout.Result) []string {
	env := slices.Clone(t.Command.Env)
	for _, kv := range told(done) {
		env = set(env, kv[0], kv[1])
	}
	return env
}

// told is what the command is told of the checkouts: names and values.
func told(done []checkout.Result) (all [][2]string) {
	for _, r := range done {
		prefix := "CHECKOUT_"
		if len(done) > 1 {
			prefix = variable(r.Name)
		}
		for _, kv := range [][2]string{{"SHA", r.Commit}, {"TREE", r.Tree}, {"DIR", r.Dir}} {
			if kv[1] != "" {
				all = append(all, [2]string{prefix + kv[0], kv[1]})
			}
		}
		for _, path := range slices.Sorted(maps.Keys(r.Trees)) {
			all = append(all, [2]string{prefix + "TREE_" + upper(path), r.Trees[path]})
		}
	}
	return all
}

// Export is what later tasks are told, as lines NAME=value (GitLab's "dotenv" reports and docker's --env-file read them): all that the command is told, and of a single
// checkout the repository and SHA as run-task takes them from the environment.
func (t *Task) Export(done []checkout.Result) ([]byte, error) {
	all := told(done)
	if len(done) == 1 {
		all = append(all, [2]string{"RUN_TASK_REPO", done[0].URL}, [2]string{"RUN_TASK_SHA", done[0].SHA})
	}
	var b bytes.Buffer
	for _, kv := range all {
		if strings.ContainsAny(kv[1], "\n\r") {
			return nil, fail.Errorf(fail.Usage, "%s is %q: such a value cannot be exported", kv[0], kv[1]).WithHint("choose a directory without a line end in its name")
		}
		b.WriteString(kv[0] + "=" + kv[1] + "\n")
	}
	return b.Bytes(), nil
}

// Resolving tells whether the task decides which commit it is.
func (t *Task) Resolving() bool {
	return t.Resolve != nil || len(t.Checkouts.Repos) == 1 && t.Checkouts.Repos[0].SHA == ""
}

// Dir is where the command starts.
func (t *Task) Dir(done []checkout.Result) string {
	if t.Command.Dir == "" && len(done) == 1 && done[0].Dir != "" {
		return done[0].Dir
	}
	return t.Command.Dir
}

func set(env []string, name, value string) []string {
	env = slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
	return append(env, name+"="+value)
}

// build fills in the Task of the main job, or of the checkout alone. On an error as much is filled in as was understood.
func (t *Task) build(v *values, env, command []string) (where map[string]string, err error) {
	t.Warnings, t.Alone, t.ExportFile = v.warnings, len(command) == 0, v.text("export-env")
	t.named(v, env)
	if t.Level, err = level(v); err != nil {
		return nil, err
	}
	if err := t.stay(v, env); err != nil {
		return nil, err
	}
	t.Identity, err = perms.Resolve(perms.Spec{User: v.text("user"), Group: v.text("group"), RequireUser: v.on("require-user"),
		NoNewPrivs: v.on("no-new-privs"), PassFDs: v.on("pass-fds")})
	if err != nil {
		return nil, err
	}
	if err := t.requirements(v, env); err != nil {
		return nil, err
	}
	if where, err = t.checkouts(v, env); err != nil {
		return nil, err
	}
	t.Command.Dir = v.text("cwd")
	if err := t.archives(v, env); err != nil {
		return nil, err
	}
	if err := t.archivePlaces(); err != nil {
		return nil, err
	}
	t.Init = t.Init || !t.Alone && t.Archives.Saves()
	for _, c := range v.list("copy") {
		src, dst, ok := strings.Cut(c, "=")
		if !ok || src == "" || dst == "" {
			return nil, fail.Errorf(fail.Usage, "--copy %q is not SRC=DST", c).WithHint("--copy src=/workspace")
		}
		t.Copies = append(t.Copies, caches.CopySpec{Src: src, Dst: dst})
	}
	t.provide(v)
	t.Command = supervise.Command{Args: command, Dir: v.text("cwd"), Env: t.Identity.Environ(forCommand(env, named(v, env)))}
	return where, nil
}

// level is what --verbose and --quiet ask for; the one from the stronger source wins.
func level(v *values) (logs.Level, error) {
	verbose, quiet := v.on("verbose"), v.on("quiet")
	switch from := v.from; {
	case verbose && quiet && from["verbose"] == from["quiet"]:
		return logs.Normal, fail.Errorf(fail.Usage, "--verbose and --quiet exclude each other").WithHint("keep one of them")
	case verbose && !(quiet && from["quiet"] < from["verbose"]):
		return logs.Verbose, nil
	case quiet:
		return logs.Quiet, nil
	}
	return logs.Normal, nil
}

// named takes the flags' and Taskcluster's word for what the cache directories and volumes are, and where the status goes.
func (t *Task) named(v *values, env []string) {
	o := caches.Options{Dirs: v.list("cache"), Volumes: v.list("volume"), Require: v.list("require"), Untrusted: v.on("untrusted-caches"), TaskID: lookup(env, "TASK_ID")}
	if v.taskcluster {
		o.Dirs = append(slices.Clone(o.Dirs), fields(lookup(env, "TASKCLUSTER_CACHES"))...)
		o.Volumes = append(slices.Clone(o.Volumes), fields(lookup(env, "TASKCLUSTER_VOLUMES"))...)
		o.Untrusted = o.Untrusted || slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "TASKCLUSTER_UNTRUSTED_CACHES=") })
	}
	t.Caches = o
	t.StatusFile = v.text("status-file")
	t.StatusEarly = t.StatusFile != "" && v.from["status-file"].trusted() && perms.RootsAlone(filepath.Dir(t.StatusFile)) && !caches.Passes(o, t.StatusFile)
}

func (t *Task) requirements(v *values, env []string) error {
	o := &t.Caches
	o.UID, o.GID, o.Root = t.Identity.UID, t.Identity.GID, t.Identity.Root
	if v.on("require-self") {
		hash, err := self.Hash()
		if err != nil {
			return err
		}
		o.Require = append(slices.Clone(o.Require), "run-task="+hash)
	}
	_, err := o.Requirements() // say now what is wrong with them
	return err
}

// fields splits Taskcluster's ;-separated lists, empty items ignored.
func fields(s string) []string {
	return slices.DeleteFunc(strings.Split(s, ";"), func(f string) bool { return f == "" })
}

// options are what holds for all checkouts.
func (t *Task) options(v *values, env []string) (checkout.Options, error) {
	mayClean := func(dir string) bool { return caches.Contains(t.Caches, dir) }
	home := lookup(t.Identity.Environ(env), "HOME") // the task's user's: ours may be root's
	o := checkout.Options{MayClean: mayClean, Keep: slices.Concat(t.Caches.Dirs, t.Caches.Volumes)}
	var err error
	if o.Net, err = network(v, env, home); err != nil {
		return o, err
	}
	if o.Stores, err = storeAccess(v, env, home); err != nil {
		return o, err
	}
	return o, storeOptions(&o, v, env)
}

func (t *Task) checkouts(v *values, env []string) (where map[string]string, err error) {
	o, err := t.options(v, env)
	if err != nil {
		return nil, err
	}
	if v.text("resolve") != "" && len(v.list("checkout")) == 0 {
		t.Resolve, err = alone(v, env)
	} else {
		o.Repos, where, err = repos(v, env)
	}
	if err != nil {
		return nil, err
	}
	for _, r := range o.Repos {
		if checkout.Inside(t.StatusFile, r.Dir) {
			return nil, fail.Errorf(fail.Usage, "the status file %q is in the checkout %q, which would remove it", t.StatusFile, r.Dir).WithHint("put it elsewhere")
		}
		if caches.Root(t.Caches, r.Dir) {
			return nil, fail.Errorf(fail.Usage, "checkout %q is the root of a cache: cleaning would remove its requirement file", r.Dir).WithHint("use a directory in it: --checkout %s/src", r.Dir)
		}
	}
	if err := t.storePlace(o); err != nil {
		return nil, err
	}
	if t.Resolve != nil && o.Store == nil && len(o.Trees) > 0 {
		return nil, fail.Errorf(fail.Usage, "--export-tree needs the commit, and --resolve alone only asks for its SHA").WithHint("add --git-store DIR or --checkout DIR")
	}
	t.Checkouts = o
	return where, nil
}

// storePlace refuses a store where other things are, or the other way round.
func (t *Task) storePlace(o checkout.Options) error {
	if o.Store == nil {
		return nil
	}
	dir := o.Store.Dir
	for _, r := range o.Repos {
		if checkout.Inside(dir, r.Dir) || checkout.Inside(r.Dir, dir) {
			return fail.Errorf(fail.Usage, "the git store %q and the checkout %q are one in the other", dir, r.Dir).WithHint("put them beside each other")
		}
	}
	if caches.Root(t.Caches, dir) {
		return fail.Errorf(fail.Usage, "the git store %q is the root of a cache, where the requirement file is", dir).WithHint("use a directory in it: --git-store %s", filepath.Join(dir, "git"))
	}
	return nil
}

// provide lists what root makes for the user: only what a trusted source named, or the environment could have root hand out directories.
func (t *Task) provide(v *values) {
	if v.from["checkout"].trusted() {
		for _, r := range t.Checkouts.Repos {
			t.Provide = append(t.Provide, r.Dir)
		}
	}
	if v.from["copy"].trusted() {
		for _, c := range t.Copies {
			dst := c.Dst
			if st, err := os.Stat(c.Src); err == nil && !st.IsDir() {
				dst = filepath.Dir(dst)
			}
			t.Provide = append(t.Provide, dst)
		}
	}
	if s := t.Checkouts.Store; s != nil {
		t.Provide = append(t.Provide, s.Dir)
	}
	t.provideStores()
	t.Chown = v.list("chown")
}

// provideStores lists the directories that archives and commits are kept in.
func (t *Task) provideStores() {
	locations := []string{t.Checkouts.Publish}
	for _, s := range t.Archives.Specs {
		locations = append(locations, cmp.Or(s.Store, t.Archives.Default))
	}
	for _, l := range locations {
		t.Stores = append(t.Stores, storeDir(l)...)
	}
}

// forCommand removes what was said to run-task alone: its own variables, and those that flags name.
func forCommand(env, named []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "TASKCLUSTER_CACHES", "TASKCLUSTER_VOLUMES", "TASKCLUSTER_UNTRUSTED_CACHES":
			return true
		case "CHECKOUT_SHA", "CHECKOUT_TREE", "CHECKOUT_DIR": // of a run-task that started this one
			return true
		}
		return strings.HasPrefix(name, "RUN_TASK_") || slices.Contains(named, name)
	})
}
