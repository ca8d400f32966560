package checkout

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/wire"
	"run-task/checkout/internal/worktree"
	"run-task/internal/fsx"
)

const (
	stateFile = ownDir + "/state.json"
	sealFile  = ownDir + "/seal.json"
	inDir     = ownDir + "/incoming"
	packDir   = "objects/pack"
)

// quarantine is a directory for packs that nobody sees before publish.
func (g *gitdir) quarantine() (err error) {
	if err := g.dir.RemoveAll(inDir); err != nil { // of a run that was killed
		return foreign(g.dir, inDir, err)
	}
	if err := g.dir.Mkdir(inDir, 0o777); err != nil {
		return err
	}
	g.in, err = g.dir.OpenDir(inDir)
	return err
}

// emptyQuarantine forgets the packs that were received again. Those that are open can still be read.
func (g *gitdir) emptyQuarantine() error { return empty(g.in) }

func empty(dir *fsx.Dir) error {
	names, err := dir.Names()
	for _, name := range names {
		if err == nil {
			err = dir.RemoveAll(name)
		}
	}
	return err
}

// publish moves new packs out of quarantine and writes the state that names them all.
func (g *gitdir) publish(p *pin) error {
	for _, d := range []string{"objects", packDir} {
		if err := directory(g.dir, d); err != nil {
			return foreign(g.dir, d, err)
		}
	}
	for _, pack := range p.arrived {
		for _, end := range []string{".pack", ".idx"} { // git looks for packs by their .idx
			name := pack + end
			if err := g.dir.RemoveAll(packDir + "/" + name); err != nil {
				return foreign(g.dir, packDir, err)
			}
			if err := g.dir.Rename(inDir+"/"+name, packDir+"/"+name); err != nil {
				return err
			}
		}
	}
	if len(p.arrived) > 0 {
		if err := g.dir.Sync(packDir); err != nil {
			return err
		}
	}
	raw, err := p.state.encode()
	if err != nil {
		return err
	}
	return g.put(stateFile, raw)
}

// promise marks the packs of a partial repository (gitformat-pack(5)): what their objects name and is not here can be had from the remote.
func (g *gitdir) promise(p *pin) error {
	for _, pack := range p.Packs {
		if !p.Partial {
			break
		}
		if err := g.put(packDir+"/"+pack+".promisor", ""); err != nil {
			return err
		}
	}
	return nil
}

// dress leaves in .git what we put there and nothing else: no hook, no configuration, no stale lock, no alternate object store that somebody planted.
func (g *gitdir) dress(u wire.URL, p *pin) error {
	if err := inOrder(func() error { return g.strip(p) }, func() error { return g.promise(p) }); err != nil {
		return err
	}
	var alternates []string // gitrepository-layout(5)
	if p.alternates != "" {
		alternates = []string{p.alternates}
	}
	for _, f := range []struct{ name, content string }{
		{"config", configOf(u, p)}, {"info/exclude", g.exclude()}, {"info/sparse-checkout", p.patterns()}, {"shallow", lines(p.Shallow)}, {"packed-refs", refLines(p.tags)},
		{"objects/info/alternates", lines(alternates)},
	} {
		err := error(nil)
		if f.content == "" {
			err = g.dir.RemoveAll(f.name)
		} else {
			err = g.put(f.name, f.content)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return foreign(g.dir, f.name, err)
		}
	}
	return nil
}

// strip removes what is not ours. The files that it leaves are written or compared next.
func (g *gitdir) strip(p *pin) error {
	var packs []string
	for _, name := range p.Packs {
		packs = append(packs, name+".pack", name+".idx")
		if p.Partial {
			packs = append(packs, name+".promisor")
		}
	}
	for _, d := range []struct {
		name string
		keep []string
	}{
		{".", []string{ownDir, "objects", "refs", "info", "HEAD", "index", "config", "shallow", "packed-refs"}},
		{ownDir, []string{"state.json", "seal.json", "index", "lock", "incoming"}},
		{"objects", []string{"pack", "info"}}, {"objects/info", []string{"alternates"}}, {packDir, packs},
		{"refs", []string{"heads", "tags"}}, {"refs/heads", nil}, {"refs/tags", nil},
		{"info", []string{"exclude", "sparse-checkout"}},
	} {
		err := error(nil)
		if d.name != "." {
			err = directory(g.dir, d.name)
		}
		if err == nil {
			err = g.keepOnly(d.name, d.keep)
		}
		if err != nil {
			return foreign(g.dir, d.name, err)
		}
	}
	return nil
}

// configOf is git-config(1).
func configOf(u wire.URL, p *pin) string {
	core, remote, version := "", "", 0
	if len(p.Sparse) > 0 {
		core = "\tsparseCheckout = true\n\tsparseCheckoutCone = true\n"
	}
	if p.Partial {
		version = 1
		remote = "\tpromisor = true\n\tpartialCloneFilter = blob:none\n[extensions]\n\tpartialClone = origin\n"
	}
	return fmt.Sprintf("[core]\n\trepositoryformatversion = %d\n\tfilemode = true\n\tbare = false\n%s[remote \"origin\"]\n\turl = %s\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n%s%s",
		version, core, quoteConfig(u.String()), remote, modulesConfig(p.submodules))
}

// patterns is the content of info/sparse-checkout.
func (p *pin) patterns() string {
	if len(p.Sparse) == 0 {
		return ""
	}
	return worktree.NewCone(p.Sparse).Patterns()
}

func lines(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return strings.Join(slices.Sorted(slices.Values(all)), "\n") + "\n"
}

// refLines is a packed-refs file (git-pack-refs(1)), sorted by name.
func refLines(refs map[string]plumbing.Hash) string {
	var b strings.Builder
	for _, ref := range slices.Sorted(maps.Keys(refs)) {
		b.WriteString(refs[ref].String() + " " + ref + "\n")
	}
	return b.String()
}

// exclude hides the kept paths from git status (gitignore(5)).
func (g *gitdir) exclude() string {
	var b strings.Builder
	for _, path := range g.keep {
		if !strings.Contains(path, "\n") { // cannot be said
			b.WriteString("/" + special.ReplaceAllString(path, `\$0`) + "\n")
		}
	}
	return b.String()
}

var special = regexp.MustCompile(`[\\*?\[ ]`)

func (g *gitdir) keepOnly(dir string, names []string) error {
	d := g.dir
	if dir != "." {
		var err error
		if d, err = g.dir.OpenDir(dir); err != nil {
			return err
		}
		defer d.Close()
	}
	found, err := d.Names()
	if err != nil {
		return err
	}
	for _, n := range found {
		if !slices.Contains(names, n) {
			if err := d.RemoveAll(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish names the commit: the worktree is whole.
func (g *gitdir) finish(p *pin, warnings []string) error {
	if err := g.dir.RemoveAll(inDir); err != nil {
		return err
	}
	if err := g.sealUp(p, warnings); err != nil {
		return err
	}
	return g.put("HEAD", headOf(p.commit))
}

func headOf(commit plumbing.Hash) string { return commit.String() + "\n" }

// holds tells whether a file of ours has this content, and nobody else can change it.
func (g *gitdir) holds(name, data string) bool {
	st, err := g.dir.Lstat(name)
	if err != nil || !st.IsRegular() || st.Perm() != 0o644 || st.Nlink != 1 || int(st.UID) != os.Geteuid() || st.Size != int64(len(data)) {
		return false
	}
	is, err := g.dir.ReadFile(name, st.Size)
	return err == nil && string(is) == data
}

// put makes a file of ours hold data, also in the place of a directory that somebody planted.
func (g *gitdir) put(name, data string) error {
	if g.holds(name, data) {
		return nil
	}
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
