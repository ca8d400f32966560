package checkout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"

	"run-task/checkout/internal/odb"
	"run-task/checkout/internal/wire"
	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
)

// Below .git, run-task/ is ours: its being there says that the worktree is ours to clean.
const (
	ownDir    = "run-task"
	stateFile = ownDir + "/state.json"
	lockFile  = ownDir + "/lock"
	incoming  = "incoming-" // quarantine: one directory a fetch
	packDir   = "objects/pack"
)

// lockBudget is how long we wait for another checkout into the same directory.
const lockBudget = 10 * time.Minute

// gitdir is a worktree's .git directory, of which everything is ours and nothing of what we find there is trusted: packs are proven again, the rest is written anew.
type gitdir struct {
	dir  *fsx.Dir
	held *os.File // the lock
	keep []string // paths in the worktree that are not ours to touch
}

// state says which packs hold what. Its atomic rename is the commit point of a fetch.
type state struct {
	Version int               `json:"version"` // 1
	URL     string            `json:"url"`     // canonical, no credentials
	SHA     string            `json:"sha"`     // as pinned
	Depth   int               `json:"depth"`   // as asked
	Packs   []string          `json:"packs"`   // complete by themselves, up to the boundary
	Shallow []string          `json:"shallow"` // the boundary: commits whose parents are not here
	Tags    map[string]string `json:"tags"`    // with full history
}

var (
	hexID    = regexp.MustCompile(`^[0-9a-f]{40}$`)
	packName = regexp.MustCompile(`^pack-[0-9a-f]{40}$`)
)

// sane tells whether a state that was read can be one of ours: the last task may have written it.
func (s *state) sane() bool {
	for ref, h := range s.Tags {
		if !validRef(ref) || !strings.HasPrefix(ref, "refs/tags/") || !hexID.MatchString(h) {
			return false
		}
	}
	return s.Version == 1 && !slices.ContainsFunc(s.Packs, func(n string) bool { return !packName.MatchString(n) }) &&
		!slices.ContainsFunc(s.Shallow, func(h string) bool { return !hexID.MatchString(h) })
}

// claim makes sure that we may clean the directory, and marks it as ours before anything else is done to it.
func claim(root *fsx.Dir, keep []string, mayClean bool) (*gitdir, error) {
	names, err := root.Names()
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == "lost+found" || leadsTo(root, n, keep) })
	ours, err := marked(root)
	if err != nil {
		return nil, err
	}
	if !ours && len(names) > 0 && !mayClean {
		slices.Sort(names)
		return nil, fail.Errorf(fail.Usage, "the directory is not empty and run-task did not make it: it holds %q", names[:min(len(names), 5)]).
			WithHint("choose a missing or empty directory, or --adopt to have it cleaned: all that is not the commit's is removed")
	}
	for _, name := range []string{".git", ".git/" + ownDir} {
		if err := directory(root, name); err != nil {
			return nil, foreign(root, ".git", err)
		}
	}
	dir, err := root.OpenDir(".git")
	if err != nil {
		return nil, err
	}
	return &gitdir{dir: dir}, nil
}

// directory makes a directory that can be listed and changed, also where there is something else of that name.
func directory(d *fsx.Dir, name string) error {
	if st, err := d.Lstat(name); err == nil && !st.IsDir() {
		if err := d.Unlink(name); err != nil {
			return err
		}
	}
	if err := d.Mkdir(name, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.MakeWritable(name)
}

// marked tells whether the directory has our mark. A .git that is empty is one, too: what a kill between two mkdirs leaves, or
// another checkout that has just begun.
func marked(root *fsx.Dir) (bool, error) {
	for range 2 { // the second look sees what that other one made while we looked around
		st, err := root.Lstat(".git/" + ownDir)
		if err == nil {
			return st.IsDir(), nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			return false, err
		}
		names, err := root.Names()
		if err != nil {
			return false, err
		}
		if slices.Equal(names, []string{".git"}) && isEmpty(root, ".git") {
			return true, nil
		}
	}
	return false, nil
}

func isEmpty(d *fsx.Dir, name string) bool {
	sub, err := d.OpenDir(name)
	if err != nil {
		return false
	}
	defer sub.Close()
	names, err := sub.Names()
	return err == nil && len(names) == 0
}

// foreign explains an EACCES by whose the file is: a cache that another user filled.
func foreign(d *fsx.Dir, name string, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	st, lerr := d.Lstat(name)
	if lerr != nil {
		st, lerr = d.Stat()
	}
	if lerr == nil && int(st.UID) != os.Getuid() {
		return fail.Errorf(fail.PurgeCache, "%w: it belongs to uid %d, we are uid %d", err, st.UID, os.Getuid()).WithHint("purge the cache, or give it to the user with --chown")
	}
	return err
}

func (g *gitdir) close() {
	if g.held != nil {
		g.held.Close()
	}
	g.dir.Close()
}

// lock keeps two checkouts out of one worktree.
func (g *gitdir) lock(ctx context.Context, log *logs.Log) error {
	if st, err := g.dir.Lstat(lockFile); err == nil && !st.IsRegular() {
		if err := g.dir.RemoveAll(lockFile); err != nil {
			return foreign(g.dir, lockFile, err)
		}
	}
	f, err := g.dir.OpenFile(lockFile, unix.O_RDWR|unix.O_CREAT, 0o666)
	if err != nil {
		return foreign(g.dir, lockFile, err)
	}
	g.held = f
	limited, cancel := context.WithTimeout(ctx, lockBudget)
	defer cancel()
	err = fsx.Lock(limited, f, func() { log.Infof("waiting for another checkout into %q", g.dir.Name()) })
	if errors.Is(err, context.DeadlineExceeded) {
		return fail.Errorf(fail.Busy, "another checkout into this directory took longer than %s", lockBudget).WithHint("give each task a directory of its own")
	}
	return err
}

// probe looks for the commit in the packs that an earlier run left here. Whatever is wrong with them only means that we fetch.
func (g *gitdir) probe(ctx context.Context, log *logs.Log, u wire.URL, sha plumbing.Hash, depth int) *pin {
	raw, err := g.dir.ReadFile(stateFile, 64<<20)
	if err != nil {
		return nil
	}
	p := &pin{source: here}
	if json.Unmarshal(raw, &p.state) != nil || !p.sane() || p.URL != u.String() || p.Depth != depth || (depth > 0 && p.SHA != sha.String()) {
		return nil
	}
	packs, err := g.dir.OpenDir(packDir)
	if err != nil {
		return nil
	}
	defer packs.Close()
	switch found, err := p.load(ctx, packs, sha); {
	case err != nil && ctx.Err() == nil:
		log.Warnf("the objects in %q cannot be used, fetching them again: %v", g.dir.Name(), err)
		return nil
	case !found || err != nil:
		return nil
	}
	p.SHA = sha.String()
	return p
}

// load opens the packs and proves the commit, if they have it.
func (p *pin) load(ctx context.Context, packs *fsx.Dir, sha plumbing.Hash) (found bool, err error) {
	if p.store, err = odb.Open(packs, p.Packs); err != nil {
		return false, err
	}
	if found = p.store.Has(sha); found {
		if err = p.store.Check(ctx); err == nil {
			err = p.prove(ctx, sha)
		}
	}
	if !found || err != nil {
		p.store.Close()
	}
	return found, err
}

// sweep removes quarantines that a killed run left.
func (g *gitdir) sweep() error {
	own, err := g.dir.OpenDir(ownDir)
	if err != nil {
		return err
	}
	defer own.Close()
	return keepOnly(own, func(name string) bool { return !strings.HasPrefix(name, incoming) })
}

func (g *gitdir) quarantine() (string, *fsx.Dir, error) {
	for i := 0; ; i++ {
		name := fmt.Sprintf("%s/%s%d", ownDir, incoming, i)
		err := g.dir.Mkdir(name, 0o777)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", nil, err
		}
		d, err := g.dir.OpenDir(name)
		return name, d, err
	}
}

// begin takes HEAD away: from here until finish this is no repository.
func (g *gitdir) begin() error {
	if err := g.dir.RemoveAll("HEAD"); err != nil {
		return foreign(g.dir, "HEAD", err)
	}
	return g.dir.Sync(".")
}

// publish moves the packs out of quarantine and writes the state that names them.
func (g *gitdir) publish(p *pin) error {
	for _, d := range []string{"objects", packDir} {
		if err := directory(g.dir, d); err != nil {
			return foreign(g.dir, d, err)
		}
	}
	if p.incoming != "" {
		for _, name := range p.Packs {
			for _, end := range []string{".pack", ".idx"} { // git looks for packs by their .idx
				to := packDir + "/" + name + end
				if err := g.dir.RemoveAll(to); err != nil {
					return err
				}
				if err := g.dir.Rename(p.incoming+"/"+name+end, to); err != nil {
					return err
				}
			}
		}
		if err := g.dir.Sync(packDir); err != nil {
			return err
		}
	}
	p.Version = 1
	raw, err := json.MarshalIndent(p.state, "", "\t")
	if err != nil {
		return err
	}
	if err := g.replace(stateFile, string(raw)+"\n"); err != nil {
		return err
	}
	return g.sweep()
}

// dress leaves in .git what we put there and nothing else: no hook, no configuration, no stale lock, no alternate object store that somebody planted.
func (g *gitdir) dress(u wire.URL, p *pin) error {
	keep := map[string][]string{
		".":       {ownDir, "objects"},
		ownDir:    {"state.json", "lock"},
		"objects": {"pack"},
		packDir:   nil,
	}
	for _, name := range p.Packs {
		keep[packDir] = append(keep[packDir], name+".pack", name+".idx")
	}
	for d, names := range keep {
		if err := g.keepOnly(d, names); err != nil {
			return foreign(g.dir, d, err)
		}
	}
	for _, d := range []string{"refs", "refs/heads", "refs/tags", "objects/info"} {
		if err := g.dir.Mkdir(d, 0o777); err != nil {
			return err
		}
	}
	config := "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n" +
		"[remote \"origin\"]\n\turl = " + quoteConfig(u.String()) + "\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
	if err := g.replace("config", config); err != nil {
		return err
	}
	if err := g.exclude(); err != nil {
		return err
	}
	if len(p.Shallow) > 0 {
		slices.Sort(p.Shallow)
		if err := g.replace("shallow", strings.Join(p.Shallow, "\n")+"\n"); err != nil {
			return err
		}
	}
	if len(p.Tags) > 0 {
		var lines []string
		for ref, h := range p.Tags {
			lines = append(lines, h+" "+ref+"\n")
		}
		slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[40:], b[40:]) })
		return g.replace("packed-refs", strings.Join(lines, ""))
	}
	return nil
}

// exclude hides the kept paths from git status (gitignore(5)).
func (g *gitdir) exclude() error {
	var lines strings.Builder
	for _, path := range g.keep {
		if !strings.Contains(path, "\n") { // cannot be said
			lines.WriteString("/" + regexp.MustCompile(`[\\*?\[ ]`).ReplaceAllString(path, `\$0`) + "\n")
		}
	}
	if lines.Len() == 0 {
		return nil
	}
	if err := g.dir.Mkdir("info", 0o777); err != nil {
		return err
	}
	return g.replace("info/exclude", lines.String())
}

func (g *gitdir) keepOnly(dir string, names []string) error {
	d := g.dir
	if dir != "." {
		var err error
		if d, err = g.dir.OpenDir(dir); err != nil {
			return err
		}
		defer d.Close()
	}
	return keepOnly(d, func(n string) bool { return slices.Contains(names, n) })
}

func keepOnly(d *fsx.Dir, keep func(string) bool) error {
	names, err := d.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if !keep(n) {
			if err := d.RemoveAll(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish names the commit: the worktree is whole.
func (g *gitdir) finish(commit plumbing.Hash) error { return g.replace("HEAD", commit.String()+"\n") }

// replace writes a file of ours, also in the place of a directory that somebody planted.
func (g *gitdir) replace(name, data string) error {
	if st, err := g.dir.Lstat(name); err == nil && st.IsDir() {
		if err := g.dir.RemoveAll(name); err != nil {
			return err
		}
	}
	return g.dir.WriteFile(name, []byte(data), 0o644)
}

// quoteConfig writes a value as git-config(1) reads it.
func quoteConfig(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func hashes(hex []string) []plumbing.Hash {
	var out []plumbing.Hash
	for _, h := range hex {
		out = append(out, plumbing.NewHash(h))
	}
	return out
}

func tagHashes(tags map[string]string) []plumbing.Hash {
	var out []plumbing.Hash
	for _, h := range tags {
		out = append(out, plumbing.NewHash(h))
	}
	return out
}
