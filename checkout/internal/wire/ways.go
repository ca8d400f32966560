package wire

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

// exact asks for the commit by its name.
func (f *fetcher) exact(ctx context.Context) (string, error) {
	source := RemoteV2
	ok, err := f.try(ctx, func(ctx context.Context) (bool, error) {
		f.asked, f.reason = nil, fail.Gone
		protocol := "protocol v2"
		if !f.ad.v2 {
			source, protocol = RemoteV0, "protocol v0"
		}
		if !f.ad.gives(f.want.SHA) {
			f.reason = fail.Refused
			f.notef("exact SHA (%s): not advertised, and nothing else may be asked for", protocol)
			return false, nil
		}
		tags, err := f.tags(ctx)
		if err != nil {
			return false, err
		}
		if f.want.Have != nil && f.ad.v2 {
			ok, said, err := f.get(ctx, []plumbing.Hash{f.want.SHA}, f.want.Depth, Pack{Source: source, Refs: tags, Thin: true})
			if ok || ctx.Err() != nil {
				return ok, err
			}
			f.log.Verbosef("with what is here it did not work, once more without: %s", whyNot(said, err))
			f.want.Have = nil
			f.drop()
			if err := f.connect(ctx); err != nil {
				return false, err
			}
		}
		ad := f.ad
		ok, said, err := f.get(ctx, []plumbing.Hash{f.want.SHA}, f.want.Depth, Pack{Source: source, Refs: tags})
		switch {
		case ok || err != nil:
		case said == "":
			f.notef("exact SHA (%s): a pack without it", protocol)
			f.reason = fail.BadData
		case strings.Contains(said, "not our ref"):
			f.notef("exact SHA (%s): %q", protocol, "not our ref")
			f.reason = ad.meaning()
		default:
			f.notef("exact SHA (%s): %q", protocol, said)
			f.reason = fail.Refused
		}
		return ok, err
	})
	if !ok {
		return "", err
	}
	f.log.Verbosef("commit %.8s is from %s (%s)", f.want.SHA, f.u, source)
	return source, nil
}

func whyNot(said string, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case said != "":
		return strconv.Quote(said)
	}
	return "a pack without it"
}

// gives tells whether a commit may be asked for by name. Before version 2 a client must not ask for what is not
// advertised, unless a capability says so (gitprotocol-capabilities, "allow-tip-sha1-in-want").
func (a *advert) gives(sha plumbing.Hash) bool {
	return a.v2 || a.has("allow-tip-sha1-in-want") || a.has("allow-reachable-sha1-in-want") ||
		slices.ContainsFunc(a.refs, func(r ref) bool { return r.hash == sha })
}

// meaning is what "not our ref" tells: that the server has no such object, if it would have given any object that it has;
// uploadpack.allowAnySHA1InWant shows as both capabilities.
func (a *advert) meaning() fail.Reason {
	if a.v2 || a.has("allow-tip-sha1-in-want") && a.has("allow-reachable-sha1-in-want") {
		return fail.Gone
	}
	return fail.Refused
}

// hints goes through the hints in their order.
func (f *fetcher) hints(ctx context.Context) (string, error) {
	if len(f.want.Hints) == 0 {
		return "", nil
	}
	var refs []ref
	if _, err := f.try(ctx, func(ctx context.Context) (_ bool, err error) {
		refs, err = f.refs(ctx, f.want.Hints...)
		return false, err
	}); err != nil {
		return "", err
	}
	if f.led == nil {
		f.led = map[plumbing.Hash]bool{}
	}
	for _, name := range f.want.Hints {
		i := slices.IndexFunc(refs, func(r ref) bool { return r.name == name })
		if i < 0 {
			f.notef("%s does not exist", name)
			continue
		}
		f.notef("%s is now %.8s", name, refs[i].hash)
		if f.led[refs[i].hash] {
			continue
		}
		f.led[refs[i].hash] = true
		for _, depth := range f.depths(refs[i]) {
			if ok, err := f.hint(ctx, refs[i], depth); ok || err != nil {
				return Hint, err
			}
		}
	}
	return "", nil
}

// depths are how deep to dig below a hint: the ref's own commit is there at any depth, and another one never at depth 1.
func (f *fetcher) depths(r ref) []int {
	switch {
	case r.hash == f.want.SHA || r.peeled == f.want.SHA:
		return []int{f.want.Depth}
	case f.want.Depth == 0:
		return []int{0}
	}
	return []int{max(50, f.want.Depth), 0}
}

func (f *fetcher) hint(ctx context.Context, r ref, depth int) (bool, error) {
	ok, err := f.try(ctx, func(ctx context.Context) (bool, error) {
		if !f.ad.v2 { // only what is advertised on this very connection may be asked for
			i := slices.IndexFunc(f.ad.refs, func(now ref) bool { return now.name == r.name })
			if i < 0 {
				return false, nil
			}
			r = f.ad.refs[i]
		}
		tags, err := f.tags(ctx)
		if err != nil {
			return false, err
		}
		ok, said, err := f.get(ctx, []plumbing.Hash{r.hash}, depth, Pack{Source: Hint, Ref: r.name, Refs: tags})
		if said != "" {
			f.notef("%q", said)
		}
		return ok, err
	})
	if ok {
		f.log.Infof("commit %.8s was reached through %s: %s does not give it by its name", f.want.SHA, r.name, f.u)
	}
	return ok, err
}

// all asks for all branches and tags.
func (f *fetcher) all(ctx context.Context) (string, error) {
	ok, err := f.try(ctx, func(ctx context.Context) (bool, error) {
		refs, err := f.refs(ctx, "refs/heads/", "refs/tags/")
		if err != nil {
			return false, err
		}
		if len(refs) == 0 {
			f.notef("no branches and tags")
			return false, nil
		}
		pack := Pack{Source: All}
		if f.want.Depth == 0 {
			pack.Refs = map[string]plumbing.Hash{}
		}
		var wants []plumbing.Hash
		for _, r := range refs {
			wants = append(wants, r.hash)
			if pack.Refs != nil && strings.HasPrefix(r.name, "refs/tags/") {
				pack.Refs[r.name] = r.hash
			}
		}
		plumbing.HashesSort(wants)
		wants = slices.Compact(wants)
		if !f.tooLarge && (f.wants == nil || !slices.Equal(wants, f.wants)) { // else the same would come again
			ok, said, err := f.get(ctx, wants, 0, pack)
			f.tooLarge = errors.Is(err, errTooLarge)
			switch {
			case f.tooLarge:
				f.looked = fmt.Sprintf("more than %s: name a ref that leads to the commit", logs.Bytes(f.o.Limits.AllSize))
			case ok || err != nil:
				return ok, err
			case said != "":
				f.looked = strconv.Quote(said)
			default:
				f.looked = "not reachable"
			}
			f.wants = wants
		}
		f.notef("%d branches and tags: %s", len(refs), f.looked)
		return false, nil
	})
	if !ok {
		return "", err
	}
	f.log.Infof("commit %.8s was reached through all branches and tags: %s does not give it by its name", f.want.SHA, f.u)
	return All, nil
}
