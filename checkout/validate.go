package checkout

import (
	"path"
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
		if !validRef(h) {
			return fail.Errorf(fail.Usage, "%q is not the name of a ref", h)
		}
	}
	return nil
}

// validRef follows git-check-ref-format(1).
func validRef(name string) bool {
	for _, c := range []byte(name) {
		if c <= ' ' || c == 0x7f || strings.IndexByte(`~^:?*[\`, c) >= 0 {
			return false
		}
	}
	for _, part := range strings.Split(name, "/") {
		if part == "" || part[0] == '.' || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return strings.HasPrefix(name, "refs/") && !strings.Contains(name, "..") && !strings.Contains(name, "@{") && !strings.HasSuffix(name, ".")
}

// Address is a repository's URL as it may be printed: without credentials.
func Address(repo string) string {
	u, err := wire.ParseURL(repo)
	if err != nil {
		return "(no valid URL)"
	}
	return u.String()
}
