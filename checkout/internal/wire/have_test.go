package wire

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/tests/gitserver"
)

// What is here is offered once. Whatever comes of it, the commit comes all the same: once more, without.
func TestHave(t *testing.T) {
	root, sha := fixture(t)
	for name, c := range map[string]struct {
		first func(io.Reader) (bool, error)
		want  []bool // which packs are thin
	}{
		"it works":            {func(r io.Reader) (bool, error) { _, err := io.Copy(io.Discard, r); return true, err }, []bool{true}},
		"a pack without it":   {func(r io.Reader) (bool, error) { _, err := io.Copy(io.Discard, r); return false, err }, []bool{true, false}},
		"a damaged pack":      {func(io.Reader) (bool, error) { return false, ErrDamaged }, []bool{true, false}},
		"objects are missing": {func(io.Reader) (bool, error) { return false, fail.Errorf(fail.BadData, "missing") }, []bool{true, false}},
	} {
		for server, url := range map[string]string{"http": gitserver.HTTP(t, root, gitserver.Options{}), "daemon": gitserver.Daemon(t, root, gitserver.Options{})} {
			for _, depth := range []int{0, 1} {
				client := newClient(t, url+"/r.git", sha.Tip)
				client.want.Depth = depth
				client.want.Have = &Have{Commit: plumbing.NewHash(sha.Ancestor)}
				if depth > 0 {
					client.want.Have.Shallow = []plumbing.Hash{plumbing.NewHash(sha.Ancestor)}
				}
				var thin []bool
				source, err := Fetch(t.Context(), logs.New(&client.log, logs.Verbose, false), client.u, client.o, client.want, func(ctx context.Context, p Pack) (bool, error) {
					if thin = append(thin, p.Thin); p.Thin {
						return c.first(p)
					}
					return client.take(ctx, p)
				})
				if err != nil || source != RemoteV2 || !slices.Equal(thin, c.want) {
					t.Errorf("%s, %s, depth %d: %q, %v, packs %v\n%s", name, server, depth, source, err, thin, client.log.String())
				}
			}
		}
	}
}

// Nobody offers anything to a server that is older, and the end of the task ends it.
func TestHaveNot(t *testing.T) {
	root, sha := fixture(t)
	client := newClient(t, gitserver.HTTP(t, root, gitserver.Options{V0: true})+"/r.git", sha.Tip)
	client.want.Have = &Have{Commit: plumbing.NewHash(sha.Ancestor)}
	if source, err := client.fetch(); err != nil || source != RemoteV0 || len(client.packs) != 1 || client.packs[0].Thin {
		t.Error(source, err, len(client.packs))
	}
	client = newClient(t, gitserver.HTTP(t, root, gitserver.Options{})+"/r.git", sha.Tip)
	client.want.Have = &Have{Commit: plumbing.NewHash(sha.Ancestor)}
	ctx, cancel := context.WithCancelCause(t.Context())
	calls := 0
	_, err := Fetch(ctx, logs.New(&client.log, logs.Verbose, false), client.u, client.o, client.want, func(context.Context, Pack) (bool, error) {
		calls++
		cancel(fail.ErrInterrupted)
		return false, context.Cause(ctx)
	})
	if !errors.Is(err, fail.ErrInterrupted) || calls != 1 {
		t.Errorf("%v after %d packs", err, calls)
	}
}

func TestRequestWithHave(t *testing.T) {
	a := &advert{v2: true, caps: map[string]string{}}
	id := func(c string) plumbing.Hash { return plumbing.NewHash(strings.Repeat(c, 40)) }
	got := string(a.fetchV2([]plumbing.Hash{id("1")}, 5, false, false, &Have{Commit: id("2"), Shallow: []plumbing.Hash{id("3"), id("4")}, Tags: []plumbing.Hash{id("5")}}))
	var lines []string
	for len(got) >= 4 {
		n, err := strconv.ParseUint(got[:4], 16, 16)
		if err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		n = max(n, 4)
		lines = append(lines, strings.TrimSuffix(got[4:n], "\n"))
		got = got[n:]
	}
	want := []string{"command=fetch", "", "thin-pack", "no-progress", "ofs-delta", "shallow " + id("3").String(), "shallow " + id("4").String(), "deepen 5",
		"want " + id("1").String(), "want " + id("5").String(), "have " + id("2").String(), "done", ""}
	if !slices.Equal(lines, want) {
		t.Errorf("%q", lines)
	}
}
