package checkout

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/wire"
)

const (
	stateFile = ownDir + "/state.json"
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

// publish moves the pack out of quarantine and writes the state that names it.
func (g *gitdir) publish(p *pin) error {
	for _, d := range []string{"objects", packDir} {
		if err := directory(g.dir, d); err != nil {
			return foreign(g.dir, d, err)
		}
	}
	for _, end := range []string{".pack", ".idx"} { // git looks for packs by their .idx
		name := p.Pack + end
		if err := g.dir.RemoveAll(packDir + "/" + name); err != nil {
			return foreign(g.dir, packDir, err)
		}
		if err := g.dir.Rename(inDir+"/"+name, packDir+"/"+name); err != nil {
			return err
		}
	}
	if err := g.dir.Sync(packDir); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(p.state, "", "\t")
	if err != nil {
		return err
	}
	return g.replace(stateFile, string(raw)+"\n")
}

// dress leaves in .git what we put there and nothing else: no hook, no configuration, no stale lock, no alternate object store that somebody planted.
func (g *gitdir) dress(u wire.URL, p *pin) error {
	keep := map[string][]string{
		".":       {ownDir, "objects"},
		ownDir:    {"state.json", "lock", "incoming"},
		"objects": {"pack"},
		packDir:   {p.Pack + ".pack", p.Pack + ".idx"},
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
	if len(p.tags) > 0 {
		var lines []string
		for ref, h := range p.tags {
			lines = append(lines, h.String()+" "+ref+"\n")
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
func (g *gitdir) finish(commit plumbing.Hash) error {
	if err := g.dir.RemoveAll(inDir); err != nil {
		return err
	}
	return g.replace("HEAD", commit.String()+"\n")
}

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
