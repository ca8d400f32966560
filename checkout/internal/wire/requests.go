package wire

import (
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
)

// ourName is how we call ourselves: the same for every task, see Fetch.
const ourName = "run-task"

// canDeepen tells whether a depth may be asked for.
func (a *advert) canDeepen() bool {
	if a.v2 {
		return slices.Contains(strings.Fields(a.caps["fetch"]), "shallow")
	}
	return a.has("shallow")
}

// canFilter tells whether blobs can be left out.
func (a *advert) canFilter() bool {
	return a.v2 && slices.Contains(strings.Fields(a.caps["fetch"]), "filter")
}

// fetchRequest asks for commits. Nothing in it differs from task to task with the same have, nor does the order. have may be nil, and has to be before
// version 2; so has noBlobs to be false.
func (a *advert) fetchRequest(wants []plumbing.Hash, depth int, tags, noBlobs bool, have *Have) ([]byte, error) {
	if a.v2 {
		return a.fetchV2(wants, depth, tags, noBlobs, have), nil
	}
	return a.fetchV0(wants, depth, tags)
}

// command begins a request of version 2 (gitprotocol-v2, "Command Request"): with no capability that the server did not name.
func (a *advert) command(name string) *request {
	r := &request{}
	r.linef("command=%s", name)
	if a.has("agent") {
		r.linef("agent=%s", ourName)
	}
	if a.has("object-format") {
		r.linef("object-format=sha1")
	}
	r.delim()
	return r
}

func (a *advert) refsRequest(prefixes []string) []byte {
	r := a.command("ls-refs")
	r.linef("peel")
	for _, p := range prefixes {
		r.linef("ref-prefix %s", p)
	}
	r.flush()
	return r.Bytes()
}

func (a *advert) fetchV2(wants []plumbing.Hash, depth int, tags, noBlobs bool, have *Have) []byte {
	r := a.command("fetch")
	if have != nil {
		r.linef("thin-pack")
	}
	r.linef("no-progress")
	if tags {
		r.linef("include-tag")
	}
	r.linef("ofs-delta")
	if have != nil {
		for _, h := range have.Shallow {
			r.linef("shallow %s", h)
		}
		wants = append(slices.Clip(wants), have.Tags...)
	}
	if depth > 0 {
		r.linef("deepen %d", depth)
	}
	if noBlobs {
		r.linef("filter blob:none")
	}
	for _, h := range wants {
		r.linef("want %s", h)
	}
	if have != nil {
		r.linef("have %s", have.Commit)
	}
	r.linef("done")
	r.flush()
	return r.Bytes()
}

// fetchV0 is gitprotocol-pack, "Packfile Negotiation", all at once: with no haves there is nothing to wait for.
func (a *advert) fetchV0(wants []plumbing.Hash, depth int, tags bool) ([]byte, error) {
	if !a.has("side-band-64k") {
		return nil, fail.Errorf(fail.Refused, "the server is too old: it has no side-band-64k").WithHint("update the git server")
	}
	caps := " side-band-64k"
	for _, c := range []string{"no-progress", "include-tag", "ofs-delta"} {
		if a.has(c) && (c != "include-tag" || tags) {
			caps += " " + c
		}
	}
	if a.has("agent") {
		caps += " agent=" + ourName
	}
	r := &request{}
	for i, h := range wants {
		if i > 0 {
			caps = ""
		}
		r.linef("want %s%s", h, caps)
	}
	if depth > 0 {
		r.linef("deepen %d", depth)
	}
	r.flush()
	r.linef("done")
	return r.Bytes(), nil
}
