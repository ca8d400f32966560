package ignore

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// repo is a repository in which git is asked.
type repo struct {
	t   *testing.T
	dir string
	env []string
	has world // what ask wrote
}

// world is the ignore files of a repository: info/exclude as exclude, others by their paths.
type world map[string]string

const exclude = ".git/info/exclude"

func newRepo(t *testing.T) *repo {
	t.Helper()
	dir, home := t.TempDir(), t.TempDir()
	// Nothing of this machine's git configuration, core.excludesFile above all, has a say.
	env := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "GIT_") })
	env = append(env, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "HOME="+home, "XDG_CONFIG_HOME="+home, "LC_ALL=C")
	r := &repo{t: t, dir: dir, env: env, has: world{}}
	r.git("", "init", "--quiet", "--template=")
	return r
}

func (r *repo) git(stdin string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env, cmd.Stdin = r.dir, r.env, strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() > 1 { // 1 is check-ignore's for nothing ignored
		r.t.Fatalf("git %q: %v: %s", args, err, stderr.Bytes())
	}
	return string(out)
}

func (r *repo) mkdir(dirs ...string) {
	r.t.Helper()
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Join(r.dir, d), 0o777); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *repo) write(name, data string) {
	r.t.Helper()
	r.mkdir(path.Dir(name))
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(data), 0o666); err != nil {
		r.t.Fatal(err)
	}
}

func (r *repo) isDir(name string) bool {
	st, err := os.Lstat(filepath.Join(r.dir, name))
	return err == nil && st.IsDir()
}

// put makes w all the ignore files that there are.
func (r *repo) put(w world) {
	r.t.Helper()
	for name := range r.has {
		if _, ok := w[name]; !ok {
			if err := os.Remove(filepath.Join(r.dir, name)); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	for name, data := range w {
		if had, ok := r.has[name]; !ok || had != data {
			r.write(name, data)
		}
	}
	r.has = maps.Clone(w)
}

// ask has git say which paths it ignores. A path that does not exist is a file's.
func (r *repo) ask(w world, paths []string) []bool {
	r.t.Helper()
	r.put(w)
	// "./" keeps a colon at the beginning from being a pathspec's magic.
	out := r.git("./"+strings.Join(paths, "\x00./")+"\x00", "check-ignore", "--no-index", "--verbose", "--non-matching", "--stdin", "-z")
	fields := strings.Split(strings.TrimSuffix(out, "\x00"), "\x00") // file, line, pattern, path
	if len(fields) != 4*len(paths) {
		r.t.Fatalf("git said %d fields of %d paths", len(fields), len(paths))
	}
	ignored := make([]bool, len(paths))
	for i, p := range paths {
		if fields[4*i+3] != "./"+p {
			r.t.Fatalf("git answered for %q, not %q", fields[4*i+3], p)
		}
		ignored[i] = fields[4*i] != "" && !strings.HasPrefix(fields[4*i+2], "!")
	}
	return ignored
}

func (w world) rules(name string) *Rules {
	data, ok := w[name]
	if !ok {
		return nil
	}
	r, err := Parse([]byte(data))
	if err != nil {
		panic(err)
	}
	return r
}

func (w world) matcher() *Matcher { return New(w.rules(exclude), w.rules(".gitignore")) }

// ignored is what git check-ignore --no-index says, by walking to the path.
func (w world) ignored(name string, dir bool) bool {
	m, parts := w.matcher(), strings.Split(name, "/")
	for i, part := range parts[:len(parts)-1] {
		m.Enter(part, w.rules(path.Join(strings.Join(parts[:i+1], "/"), ".gitignore")))
	}
	return m.Ignored(parts[len(parts)-1], dir)
}

func (w world) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(w)) {
		fmt.Fprintf(&b, "  %s: %q\n", name, w[name])
	}
	return b.String()
}

// compare asks both about all paths, and reports the first difference as small as it can make it. what says where it came from.
func (r *repo) compare(what string, w world, paths []string) (ignored int) {
	r.t.Helper()
	for i, git := range r.ask(w, paths) {
		name := paths[i]
		if git {
			ignored++
		}
		if dir := r.isDir(name); w.ignored(name, dir) != git {
			small := r.shrink(w, name, dir)
			r.t.Fatalf("%s: ignored(%q, %v) is %v in git, not here, with\n%s", what, name, dir, small.git(r, name), small)
		}
	}
	return ignored
}

func (w world) git(r *repo, name string) bool { return r.ask(w, []string{name})[0] }

// shrink drops files, lines and bytes from the world as long as the two disagree on the path.
func (r *repo) shrink(w world, name string, dir bool) world {
	differ := func(w world) bool { return w.git(r, name) != w.ignored(name, dir) }
	w = maps.Clone(w)
	for _, file := range slices.Sorted(maps.Keys(w)) {
		without := maps.Clone(w)
		delete(without, file)
		if path.Dir(file) != "." && file != exclude && !strings.HasPrefix(name, path.Dir(file)+"/") || differ(without) {
			w = without
		}
	}
	for file := range w {
		for _, parts := range [][]string{strings.SplitAfter(w[file], "\n"), nil} {
			if parts == nil {
				parts = strings.Split(w[file], "")
			}
			for i := 0; i < len(parts); {
				fewer := slices.Delete(slices.Clone(parts), i, i+1)
				without := maps.Clone(w)
				without[file] = strings.Join(fewer, "")
				if differ(without) {
					w, parts = without, fewer
				} else {
					i++
				}
			}
		}
	}
	return w
}
