package checkout

import (
	"path"
	"slices"
	"strings"

	"run-task/checkout/internal/wire"
	"run-task/checkout/internal/worktree"
	"run-task/internal/fail"
)

var cleans = map[string]worktree.Clean{"all": worktree.All, "keep-ignored": worktree.KeepIgnored, "none": worktree.None}

// Validate checks what the user said about a checkout and puts it into its normal form: a lower-case SHA, a clean mode, directories without slashes at their ends. Every error is one of usage.
func Validate(r *Repo) error {
	if _, err := wire.ParseURL(r.URL); err != nil {
		return err
	}
	if r.SHA == "" && r.Resolve != "" {
		if r.Resolve != "HEAD" && !wire.ValidRef("refs/heads/"+r.Resolve) {
			return fail.Errorf(fail.Usage, "%q is not the name of a ref", r.Resolve).WithHint("give a branch, a tag, HEAD, or a full name such as refs/pull/1/merge")
		}
		return r.rest()
	}
	sha := strings.ToLower(r.SHA)
	switch hex := strings.Trim(sha, "0123456789abcdef") == ""; {
	case hex && len(sha) == 64:
		return fail.Errorf(fail.Usage, "%q is a SHA-256 commit: SHA-256 repositories are not supported", r.SHA)
	case !hex || len(sha) != 40:
		return fail.Errorf(fail.Usage, "%q is not a full commit SHA", r.SHA).WithHint("give all 40 hex digits: git rev-parse REF prints them")
	case strings.Trim(sha, "0") == "":
		return fail.Errorf(fail.Usage, "the SHA is all zeros: git's word for no commit").WithHint("the CI ran this task for a deleted ref")
	}
	r.SHA = sha
	return r.rest()
}

// rest validates all but where the commit is.
func (r *Repo) rest() error {
	if r.Submodules == "" {
		r.Submodules = "none"
	}
	if !slices.Contains([]string{"none", "top", "recursive"}, r.Submodules) {
		return fail.Errorf(fail.Usage, "submodules %q", r.Submodules).WithHint("none, top for those of the commit itself, or recursive for theirs, too")
	}
	if r.Clean == "" {
		r.Clean = "all"
	}
	if _, ok := cleans[r.Clean]; !ok {
		return fail.Errorf(fail.Usage, "clean mode %q", r.Clean).
			WithHint("all removes what is not the commit's, keep-ignored leaves of it what the commit's .gitignore files name, none leaves all of it")
	}
	for i, d := range r.Sparse {
		d = strings.Trim(d, "/")
		if d == "" || d == "." || path.Clean(d) != d || d == ".." || strings.HasPrefix(d, "../") || d == gitName || strings.HasPrefix(d, gitName+"/") || strings.ContainsAny(d, "\n\x00") {
			return fail.Errorf(fail.Usage, "%q is no directory in a repository", r.Sparse[i]).WithHint("sparse has directories, from the top, with a semicolon between two: sparse=docs;src/lib")
		}
		r.Sparse[i] = d
	}
	for _, h := range r.Hints {
		if !wire.ValidRef(h) {
			return fail.Errorf(fail.Usage, "%q is not the name of a ref", h)
		}
	}
	return nil
}

// Address is a repository's URL as it may be printed: without credentials.
func Address(repo string) string {
	u, err := wire.ParseURL(repo)
	if err != nil {
		return "(no valid URL)"
	}
	return u.String()
}
