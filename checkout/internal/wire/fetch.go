package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/internal/retry"
)

// Want is the commit to fetch.
type Want struct {
	SHA   plumbing.Hash // a commit, or an annotated tag
	Depth int           // commits of history, the wanted one included; 0 means all of it, and the tags
	Hints []string      // full names of refs that probably contain the commit, the likeliest first; maxHints at most
	Have  *Have         // what is here already, nil if nothing

	// NoBlobs asks for commits and trees alone, if the server can leave blobs out (protocol version 2, "filter"); Objects gets those that are needed.
	NoBlobs bool

	Wait time.Duration // how long to wait for the commit where no way leads to it; 0 for not at all
}

// Have is what need not be sent again: a commit and all that it leads to, up to a boundary. It is offered to servers of version 2, and not
// any more once what came of it could not be used.
type Have struct {
	Commit  plumbing.Hash
	Shallow []plumbing.Hash // the boundary
	Tags    []plumbing.Hash // with full history: annotated tags of what is here, which are not
}

const maxHints = 32

// Where a pack comes from.
const (
	RemoteV2 = "remote-v2" // the server gave the very commit
	RemoteV0 = "remote-v0" // the same, before protocol version 2
	Hint     = "hint"      // it was reached through Pack.Ref
	All      = "all"       // it was reached through some branch or tag
	Local    = "local"     // it was read from a repository on this machine
)

// Pack is a pack on its way in.
type Pack struct {
	// The raw pack. An end that comes too early is io.ErrUnexpectedEOF. Nothing behind the pack's own trailer
	// needs to be read.
	io.Reader
	Shallow []plumbing.Hash          // commits whose parents are not sent; some of them may not be in the pack
	Partial bool                     // it has no blobs: Want.NoBlobs
	Thin    bool                     // it may lack what is here: Want.Have
	Source  string                   // RemoteV2, RemoteV0, Hint, All or Local
	Ref     string                   // which hint, for Hint
	Refs    map[string]plumbing.Hash // refs/tags/..., unpeeled, nil unless all of the history is wanted; many a one may not be in the pack
}

// ErrDamaged says that a pack's bytes are not what the server sent: Take's errors wrap it where the pack itself does not
// verify (its framing, checksum or deltas), and never for what is wrong with objects that arrived whole.
var ErrDamaged = errors.New("the pack was damaged on its way")

// Take ingests one pack into a fresh quarantine and says whether the wanted commit is there now with all that it needs.
// Its errors end the fetch, but for two: when reading the pack failed it is called again with another one, and so it is,
// once in a Fetch, after ErrDamaged. All else would be the same with the same objects.
type Take func(context.Context, Pack) (bool, error)

// Fetch gets one commit: by its name, else through each hint, else through all branches and tags, until take says that it
// is there; it returns where it came from. Passing failures are repeated within the budget of o.Retry. What it sends for a
// commit is the same bytes from every task, so that servers can cache their answers.
//
// It fails with Gone if the server no longer has the commit, Refused if it may have it but gives it to nobody, BadData if it sent
// a pack that lacks it, Denied for credentials, host keys and repositories that do not exist, Busy for a rate limit and
// Unavailable for all other trouble, the end of o.Limits.Total included.
//
// Whatever a server answers, with n hints there are at most 2n+3 steps (by name; list the hints; each of them twice; all), each
// tried at most o.Retry.Tries times. A try is at most one connection, one advertisement (over HTTP with maxRedirects before it),
// one list of refs and one pack.
func Fetch(ctx context.Context, log *logs.Log, u URL, o Options, w Want, take Take) (source string, err error) {
	if err := w.check(); err != nil {
		return "", err
	}
	err = bounded(ctx, log, u, o, func(ctx context.Context, f *fetcher) error {
		f.want, f.take = w, take
		source, err = f.wait(ctx)
		return err
	})
	return source, err
}

// bounded runs f within Limits.Total.
func bounded(ctx context.Context, log *logs.Log, u URL, o Options, run func(context.Context, *fetcher) error) error {
	if err := o.Limits.Check(); err != nil {
		return err
	}
	o.Limits = o.Limits.withDefaults()
	ctx, cancel := context.WithTimeoutCause(ctx, o.Limits.Total,
		fail.Errorf(fail.Unavailable, "%s: not done after %s, the limit for one fetch", u, o.Limits.Total).WithHint("look why the server or the network is so slow"))
	defer cancel()
	for _, secret := range append(u.secrets(), o.Credentials.secrets()...) {
		log.Mask(secret)
	}
	if o.Retry.Start.IsZero() { // one budget for all ways together
		o.Retry.Start = time.Now()
		if o.Retry.Now != nil {
			o.Retry.Start = o.Retry.Now()
		}
	}
	if o.Stats == nil {
		o.Stats = &Stats{}
	}
	o.Retry.Paused = func(d time.Duration) {
		o.Stats.Retries++
		o.Stats.Waited += d
	}
	if u.Scheme == "https" || u.Scheme == "http" {
		o.shown = o.Credentials.login(log, u)
	}
	f := &fetcher{log: log, u: u, o: o, reason: fail.Gone}
	defer f.drop()
	err := run(ctx, f)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// commit goes through the ways to get one.
func (f *fetcher) commit(ctx context.Context) (source string, err error) {
	if f.u.Scheme == "file" {
		if err := fetchLocal(ctx, f.u, f.o.Temp, f.want, f.counted); err != nil {
			return "", err
		}
		return Local, nil
	}
	for _, way := range []func(context.Context) (string, error){f.exact, f.hints, f.all} {
		source, err := way(ctx)
		if err != nil {
			return "", fmt.Errorf("%s: %w", f.u, err)
		}
		if source != "" {
			return source, nil
		}
	}
	return "", f.lost()
}

func (w Want) check() error {
	if w.SHA.IsZero() || w.Depth < 0 {
		return fail.Errorf(fail.Usage, "no commit %s with depth %d can be fetched", w.SHA, w.Depth)
	}
	if w.Wait < 0 {
		return fail.Errorf(fail.Usage, "the time to wait for a commit is negative: %s", w.Wait).WithHint("give a positive one, or none")
	}
	if len(w.Hints) > maxHints {
		return fail.Errorf(fail.Usage, "more than %d refs to look for the commit in", maxHints).WithHint("give the likeliest ones")
	}
	for _, h := range w.Hints {
		if !strings.HasPrefix(h, "refs/") || len(h) > 1000 || strings.ContainsFunc(h, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return fail.Errorf(fail.Usage, "%q is not a full ref name", h).WithHint("give it as refs/heads/... or refs/tags/...")
		}
	}
	return nil
}

type fetcher struct {
	log  *logs.Log
	u    URL
	o    Options
	want Want
	take Take

	link    link // nil when there is none
	ad      *advert
	damaged bool // a pack was, before

	led      map[plumbing.Hash]bool // what hints were that were followed, in all rounds of waiting
	wants    []plumbing.Hash        // all branches and tags, when they were asked for
	looked   string                 // what came of that
	tooLarge bool                   // it was more than Limits.AllSize

	asked  []string    // what was asked and answered, for the last error
	reason fail.Reason // of it
}

func (f *fetcher) notef(format string, args ...any) {
	f.asked = append(f.asked, fmt.Sprintf(format, args...))
}

func (f *fetcher) connect(ctx context.Context) (err error) {
	if f.link == nil {
		f.link, f.ad, err = open(ctx, f.log, f.u, f.o)
	}
	return err
}

func (f *fetcher) drop() {
	if f.link != nil {
		f.link.close()
	}
	f.link = nil
}

// try runs one attempt, and again while what fails may pass.
func (f *fetcher) try(ctx context.Context, attempt func(context.Context) (bool, error)) (ok bool, err error) {
	err = retry.Do(ctx, f.log, f.o.Retry, func(ctx context.Context) error {
		err := f.connect(ctx)
		if err == nil {
			ok, err = attempt(ctx)
		}
		if err != nil {
			f.drop()
		}
		if errors.Is(err, ErrDamaged) && !f.damaged {
			f.damaged = true
			return retry.Again(err, 0)
		}
		return err
	})
	return ok, err
}

// get asks for commits and lets take have the pack. said is what the server answered instead of one.
func (f *fetcher) get(ctx context.Context, wants []plumbing.Hash, depth int, pack Pack) (ok bool, said string, err error) {
	if !f.link.lasting() {
		defer f.drop()
	}
	if depth > 0 && !f.ad.canDeepen() {
		f.log.Verbosef("the server cannot shorten the history: all of it comes")
		depth = 0
	}
	var have *Have
	if pack.Thin {
		have = f.want.Have
	}
	pack.Partial = f.want.NoBlobs && f.ad.canFilter()
	body, err := f.ad.fetchRequest(wants, depth, f.want.Depth == 0, pack.Partial, have)
	if err != nil {
		return false, "", err
	}
	p, err := f.link.ask(ctx, body)
	if err == nil {
		if f.ad.v2 {
			pack.Shallow, err = readV2Header(p)
		} else if pack.Shallow, err = readV0Header(p, depth > 0); depth == 0 {
			pack.Shallow = f.ad.shallow
		}
	}
	var server *serverError
	if errors.As(err, &server) {
		return false, server.text, nil
	}
	if err != nil {
		return false, "", netError(err)
	}
	r := p.pack(f.log)
	if pack.Source == All {
		r.most = f.o.Limits.AllSize
	}
	pack.Reader = r
	ok, err = f.take(ctx, pack)
	f.o.Stats.Bytes += r.got
	switch broken := r.broken(); {
	case broken == nil || ok:
	case errors.Is(broken, errTooLarge):
		err = broken
	default:
		err = netError(fmt.Errorf("the pack did not arrive whole: %w", broken))
	}
	return ok && err == nil, "", err
}

// netError gives an error its reason, unless it has one.
func netError(err error) error {
	var known *fail.Error
	if errors.As(err, &known) {
		return err
	}
	return retry.Net(err)
}

// refs are the refs whose names begin with one of the prefixes.
func (f *fetcher) refs(ctx context.Context, prefixes ...string) ([]ref, error) {
	refs := f.ad.refs
	if f.ad.v2 {
		p, err := f.link.ask(ctx, f.ad.refsRequest(prefixes))
		if err == nil {
			refs, err = readRefs(p)
		}
		if err != nil { // some servers look at rights only here
			return nil, greetingError(err, "")
		}
	}
	var found []ref
	for _, r := range refs { // a server may send more than it was asked for
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(r.name, p) }) {
			found = append(found, r)
		}
	}
	return found, nil
}

// tags are what Pack.Refs is to be.
func (f *fetcher) tags(ctx context.Context) (map[string]plumbing.Hash, error) {
	if f.want.Depth > 0 {
		return nil, nil
	}
	refs, err := f.refs(ctx, "refs/tags/")
	if err != nil {
		return nil, err
	}
	tags := make(map[string]plumbing.Hash, len(refs))
	for _, r := range refs {
		tags[r.name] = r.hash
	}
	return tags, nil
}

func (f *fetcher) lost() error {
	asked := "asked   " + strings.Join(f.asked, "; ")
	switch f.reason {
	case fail.BadData:
		return fail.Errorf(fail.BadData, "%s: the server sent a pack without the commit %.8s", f.u, f.want.SHA).WithDetails(asked).
			WithHint("the repository on the server is damaged, or what answers for it is broken: look with git fsck there")
	case fail.Refused:
		return fail.Errorf(fail.Refused, "commit %.8s is not given out by %s", f.want.SHA, f.u).WithDetails(asked).
			WithHint("name a ref that contains the commit, or set uploadpack.allowAnySHA1InWant on the server")
	}
	return fail.Errorf(fail.Gone, "commit %.8s is gone from %s", f.want.SHA, f.u).WithDetails(asked).
		WithHint("no other commit is ever used in its place; start a new pipeline, or keep its ref or pin longer")
}
