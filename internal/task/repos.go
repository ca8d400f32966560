package task

import (
	"cmp"
	"encoding/csv"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"run-task/checkout"
	"run-task/internal/fail"
)

// origin is a repository, a commit and hints that come together from one source.
type origin struct {
	repo, sha string
	refs      []string
	argv      bool   // said on the command line
	where     string // for --plan
}

// readSpec reads DIR[,KEY=VALUE...]. Values are quoted as in docker's --mount: a field with a comma is written "key=a,b", quotes doubled (RFC 4180).
func readSpec(spec string) (dir string, keys map[string]string, err error) {
	r := csv.NewReader(strings.NewReader(spec))
	fields, err := r.Read()
	if err == nil {
		_, err = r.Read()
	}
	if err != io.EOF || fields == nil {
		dir, _, _ := strings.Cut(spec, ",") // what follows may hold a password
		return "", nil, fail.Errorf(fail.Usage, "--checkout %q: its value is not one comma-separated line", dir).WithHint(`a value with a comma or a quote is written "key=va,lue", quotes doubled`)
	}
	if fields[0] == "" || strings.ContainsRune(fields[0], 0) {
		return "", nil, fail.Errorf(fail.Usage, "--checkout %q names no directory", spec).WithHint("--checkout DIR[,repo=URL,sha=SHA]")
	}
	keys = map[string]string{}
	for _, f := range fields[1:] {
		k, v, ok := strings.Cut(f, "=")
		switch k {
		case "repo", "sha", "ref", "depth", "clean", "sparse", "submodules", "readonly", "alternates", "name":
		default:
			ok = false
		}
		if _, twice := keys[k]; !ok || twice || v == "" {
			return "", nil, fail.Errorf(fail.Usage, "--checkout %q: %q is not a key=value that is known and said once", fields[0], k).
				WithHint("the directory comes first; keys are repo, sha, ref, depth, clean, sparse, submodules, readonly, alternates, name")
		}
		keys[k] = v
	}
	return fields[0], keys, nil
}

// repos makes the checkouts complete: each with a repository, a SHA and hints that come from one source together.
func repos(v *values, env []string) ([]checkout.Repo, map[string]string, error) {
	short, err := shortForm(v)
	if err != nil {
		return nil, nil, err
	}
	specs, resolve := v.list("checkout"), v.text("resolve")
	if resolve != "" && len(specs) > 1 {
		return nil, nil, fail.Errorf(fail.Usage, "--resolve goes with one --checkout at most, there are %d", len(specs)).WithHint("resolve each repository in a task of its own")
	}
	if short != nil && short.argv && len(specs) != 1 && resolve == "" { // from elsewhere it is a default
		return nil, nil, fail.Errorf(fail.Usage, "%s goes with exactly one --checkout, there are %d", short.where, len(specs)).
			WithHint("say it in the checkout itself: --checkout DIR,repo=URL,sha=SHA")
	}
	var out []checkout.Repo
	where, names := map[string]string{}, map[string]bool{}
	for _, spec := range specs {
		dir, keys, err := readSpec(spec)
		if err != nil {
			return nil, nil, err
		}
		o, err := chooseOrigin(dir, keys, short, env, v)
		if err != nil {
			return nil, nil, err
		}
		r := checkout.Repo{Dir: dir, URL: o.repo, SHA: o.sha, Resolve: resolve, Hints: hints(o.refs), Depth: 1, Clean: keys["clean"], Name: keys["name"], Adopt: v.on("adopt")}
		if r.Name == "" {
			r.Name = defaultName(dir)
		}
		if s := keys["sparse"]; s != "" {
			r.Sparse = strings.Split(s, ";")
		}
		r.Submodules = cmp.Or(keys["submodules"], v.text("submodules"))
		for key, to := range map[string]*bool{"readonly": &r.ReadOnly, "alternates": &r.Alternates} {
			switch s := keys[key]; s {
			case "", "false":
			case "true":
				*to = true
			default:
				return nil, nil, fail.Errorf(fail.Usage, "%s=%q is neither true nor false", key, s)
			}
		}
		if r.Alternates && v.text("git-store") == "" {
			return nil, nil, fail.Errorf(fail.Usage, "alternates=true without a git store to borrow from").WithHint("add --git-store DIR")
		}
		if r.Depth, err = depth(cmp.Or(keys["depth"], v.text("depth"))); err != nil {
			return nil, nil, err
		}
		if err := checkout.Validate(&r); err != nil {
			return nil, nil, err
		}
		if names[variable(r.Name)] {
			return nil, nil, fail.Errorf(fail.Usage, "two checkouts are called %q, or nearly so", r.Name).WithHint("tell them apart: --checkout %s,name=NAME", dir)
		}
		names[variable(r.Name)], where[r.Name] = true, o.where
		out = append(out, r)
	}
	return out, where, checkout.ValidateAll(out)
}

// alone is the repository of a commit that is not checked out, but resolved or pinned.
func alone(v *values, env []string) (*checkout.Repo, error) {
	short, err := shortForm(v)
	if err != nil {
		return nil, err
	}
	o, err := chooseOrigin("", nil, short, env, v)
	if err != nil {
		return nil, err
	}
	r := &checkout.Repo{URL: o.repo, SHA: o.sha, Resolve: v.text("resolve"), Hints: hints(o.refs), Submodules: v.text("submodules")}
	if r.Depth, err = depth(v.text("depth")); err != nil {
		return nil, err
	}
	return r, checkout.Validate(r)
}

func depth(s string) (int, error) {
	if s == "" {
		return 1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 1<<30 {
		return 0, fail.Errorf(fail.Usage, "depth %q is not a number of commits", s).WithHint("1 is the commit alone, 0 all of its history")
	}
	return n, nil
}

// chooseOrigin takes repository, SHA and ref from the first source that has them, never from two.
func chooseOrigin(dir string, keys map[string]string, short *origin, env []string, v *values) (*origin, error) {
	resolve := v.text("resolve") != ""
	if keys["repo"] != "" || keys["sha"] != "" || keys["ref"] != "" {
		if short != nil && short.argv {
			return nil, fail.Errorf(fail.Usage, "the repository of %q is said twice: in --checkout and by %s", dir, short.where).WithHint("keep one of them")
		}
		o := &origin{repo: keys["repo"], sha: keys["sha"], refs: []string{keys["ref"]}, where: v.where("checkout")}
		return o, o.complete(resolve)
	}
	for _, o := range []*origin{short, gitlab(env), github(env)} {
		if o != nil && resolve && o != short {
			o.sha, o.refs = "", nil // they are of the commit that the CI has
		}
		if o != nil {
			return o, o.complete(resolve)
		}
	}
	if dir == "" {
		return nil, fail.Errorf(fail.Usage, "no repository").WithHint("add --repo URL")
	}
	return nil, fail.Errorf(fail.Usage, "no repository for the checkout %q", dir).
		WithHint("add --repo URL --sha SHA, or run where GitLab's CI_REPOSITORY_URL and CI_COMMIT_SHA, or GitHub's GITHUB_REPOSITORY and GITHUB_SHA are set")
}

// complete tells whether there is a repository with a SHA, or without one where a ref is to be resolved.
func (o *origin) complete(resolve bool) error {
	switch {
	case resolve && (o.sha != "" || len(hints(o.refs)) > 0):
		return fail.Errorf(fail.Usage, "--resolve asks for the SHA, and one or a ref is given (%s)", o.where).WithHint("leave out --resolve to use what is given")
	case resolve && o.repo != "":
		return nil
	case o.sha == "" && o.repo == "":
		return fail.Errorf(fail.Usage, "a ref alone pins no commit (%s)", o.where).WithHint("add repo and sha: the same ref can be another commit a minute later")
	case o.sha == "":
		return fail.Errorf(fail.Usage, "repository %q comes without a SHA (%s)", checkout.Address(o.repo), o.where).WithHint("repository and SHA come from one source together: add the sha")
	case o.repo == "":
		return fail.Errorf(fail.Usage, "SHA %q comes without a repository (%s)", o.sha, o.where).WithHint("repository and SHA come from one source together: add the repo")
	}
	return nil
}

// shortForm is --repo, --sha and --ref from the first source that has any of them.
func shortForm(v *values) (*origin, error) {
	first := unset
	for _, name := range []string{"repo", "sha", "ref"} {
		if s := v.from[name]; s != unset && (first == unset || s < first) {
			first = s
		}
	}
	if first == unset {
		return nil, nil
	}
	o := &origin{argv: first == fromArgv}
	for name, to := range map[string]*string{"repo": &o.repo, "sha": &o.sha} {
		if v.from[name] == first {
			*to = v.text(name)
		}
	}
	if v.from["ref"] == first {
		o.refs = []string{v.text("ref")}
	}
	o.where = map[source]string{fromArgv: "--repo, --sha, --ref", fromFile: File, fromEnv: "RUN_TASK_REPO, RUN_TASK_SHA, RUN_TASK_REF"}[first]
	return o, o.complete(v.text("resolve") != "")
}

// gitlab reads GitLab CI's predefined variables (docs.gitlab.com, "Predefined CI/CD variables reference").
func gitlab(env []string) *origin {
	repo := lookup(env, "CI_REPOSITORY_URL")
	if repo == "" {
		return nil
	}
	o := &origin{repo: repo, sha: lookup(env, "CI_COMMIT_SHA"), where: "GitLab's CI_REPOSITORY_URL, CI_COMMIT_SHA"}
	if id := lookup(env, "CI_PIPELINE_ID"); id != "" {
		o.refs = append(o.refs, "refs/pipelines/"+id)
	}
	o.refs = append(o.refs, lookup(env, "CI_COMMIT_REF_NAME"))
	return o
}

// github reads GitHub Actions' default variables (docs.github.com, "Variables reference").
func github(env []string) *origin {
	server, repo := lookup(env, "GITHUB_SERVER_URL"), lookup(env, "GITHUB_REPOSITORY")
	if server == "" || repo == "" {
		return nil
	}
	return &origin{repo: strings.TrimSuffix(server, "/") + "/" + repo, sha: lookup(env, "GITHUB_SHA"), refs: []string{lookup(env, "GITHUB_REF")},
		where: "GitHub's GITHUB_SERVER_URL, GITHUB_REPOSITORY, GITHUB_SHA"}
}

// hints makes full ref names of what the user or the CI calls a ref: a short name may be a branch or a tag.
func hints(refs []string) []string {
	var out []string
	for _, r := range refs {
		switch {
		case r == "":
		case strings.HasPrefix(r, "refs/"):
			out = append(out, r)
		default:
			out = append(out, "refs/heads/"+r, "refs/tags/"+r)
		}
	}
	return out
}

// defaultName is the directory's own name, made fit for a variable's name.
func defaultName(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		abs = dir
	}
	return filepath.Base(abs)
}

// variable makes CHECKOUT_<NAME>_ of a checkout's name.
func variable(name string) string { return "CHECKOUT_" + upper(name) + "_" }

// upper makes a part of a variable's name of any text: upper case, anything else than letters and digits is "_".
func upper(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, text)
}
