package task

import (
	"cmp"
	"net/url"
	"strconv"
	"strings"
	"time"

	"run-task/checkout"
	"run-task/internal/fail"
	"run-task/store"
)

// storeOptions reads what is said about the git store and where commits are looked for.
func storeOptions(o *checkout.Options, v *values, env []string) (err error) {
	o.Seeds, o.AlwaysContact, o.Trees = v.list("git-seed"), v.on("always-contact-remote"), v.list("export-tree")
	o.Trust = v.text("trust")
	if o.Publish = v.text("git-publish"); o.Publish != "" {
		if err := store.Valid(o.Publish); err != nil {
			return fail.Errorf(fail.Usage, "--git-publish: %w", err)
		}
	}
	for _, seed := range o.Seeds {
		if strings.Contains(seed, "://") || strings.HasPrefix(seed, "dir:") {
			if err := store.Valid(seed); err != nil {
				return fail.Errorf(fail.Usage, "--git-seed: %w", err)
			}
		}
	}
	seen := map[string]string{}
	for _, path := range o.Trees {
		if other, twice := seen[upper(path)]; twice {
			return fail.Errorf(fail.Usage, "the hashes of %q and %q would have the same name, CHECKOUT_TREE_%s", other, path, upper(path)).WithHint("export one of them")
		}
		seen[upper(path)] = path
	}
	if o.Wait, err = duration(v, "wait-for-commit", 0); err != nil {
		return err
	}
	if dir := v.text("git-store"); dir != "" {
		o.Store = &checkout.Store{Dir: dir, Trust: v.text("trust"), Holder: cmp.Or(v.text("pin-holder"), holder(env))}
		o.Store.TTL, err = duration(v, "pin-ttl", checkout.DefaultTTL)
	}
	return err
}

const noPipeline = "default"

// holder names the CI's pipeline, each CI's in a way of its own. Where there is none all tasks share one.
func holder(env []string) string {
	get := func(name string) string { return lookup(env, name) }
	if id := get("CI_PIPELINE_ID"); id != "" {
		return "gitlab:" + get("CI_SERVER_HOST") + ":" + id
	}
	if id := get("GITHUB_RUN_ID"); id != "" {
		host := get("GITHUB_SERVER_URL")
		if u, err := url.Parse(host); err == nil {
			host = u.Host
		}
		return "github:" + host + ":" + get("GITHUB_REPOSITORY") + ":" + id
	}
	if id := cmp.Or(get("TASK_GROUP_ID"), get("TASK_ID")); id != "" {
		return "taskcluster:" + id
	}
	return noPipeline
}

// duration reads a time with its unit: Go's, and d for days.
func duration(v *values, name string, otherwise time.Duration) (time.Duration, error) {
	s := v.text(name)
	if s == "" {
		return otherwise, nil
	}
	d, err := parseDuration(s)
	if err != nil {
		return 0, fail.Errorf(fail.Usage, "--%s %q is not a time", name, s).WithHint("give a number and a unit: 30s, 10m, 168h, 7d")
	}
	return d, nil
}

func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil || n == 0 {
			return 0, strconv.ErrSyntax
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err == nil && d <= 0 {
		err = strconv.ErrRange
	}
	return d, err
}
