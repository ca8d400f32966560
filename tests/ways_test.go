//go:build linux

package tests

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The ways to a worktree and into it: links, mounts, other users' directories and such as no path can name. An earlier task may have made any of them in
// a cache; what they lead to, and what is another user's, is none of ours.

// site has a repository, a cache that run-task has checked, an older checkout outside of it, and a directory of the user's that may only be read.
type site struct {
	*repo
	t                *testing.T
	dir, cache, old  string
	locked           string
	from, fromSecond []string // what to check out
}

func newSite(t *testing.T) *site {
	t.Helper()
	r, dir := newRepo(t), tempDir(t)
	s := &site{repo: r, t: t, dir: dir, cache: dir + "/cache", old: dir + "/home/old", locked: dir + "/home/locked",
		from: []string{"--repo", r.Path, "--sha", r.SHA["tip"]}, fromSecond: []string{"--repo", r.Path, "--sha", r.SHA["second"]}}
	mkdirAll(t, s.cache)
	mkdirAll(t, s.locked)
	own(t, dir+"/home")
	s.must("--cache", "cache")
	s.must(append(s.fromSecond, "--checkout", s.old)...)
	s.check(os.Chmod(s.locked, 0o500))
	return s
}

// clear leaves the checked cache and the user's home.
func (s *site) clear() {
	s.t.Helper()
	for _, dir := range []string{s.dir, s.cache} {
		names, err := os.ReadDir(dir)
		s.check(err)
		for _, n := range names {
			if !slices.Contains([]string{"cache", "home", ".cacherequires", ".cachelog"}, n.Name()) {
				s.check(os.RemoveAll(filepath.Join(dir, n.Name())))
			}
		}
	}
}

func (s *site) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) must(args ...string) string {
	s.t.Helper()
	return mustCheckOut(s.t, s.dir, args...)
}

// link makes one in the directory of the site, as an earlier task would have.
func (s *site) link(target, name string) {
	s.t.Helper()
	s.check(os.Symlink(target, filepath.Join(s.dir, name)))
	s.give(name)
}

func (s *site) give(name string) {
	s.t.Helper()
	own(s.t, filepath.Join(s.dir, name))
}

// refuse is a run that ends with that code and a hint, and changes nothing but what caches note about it.
func (s *site) refuse(code int, says string, args ...string) {
	s.t.Helper()
	before := contentOf(s.t, s.dir)
	got, stderr := checkOut(s.t, s.dir, args...)
	if got != code || !strings.Contains(stderr, says) || !strings.Contains(stderr, "run-task: hint: ") {
		s.t.Errorf("%q: exit %d, want %d and %q\n%s", args, got, code, says, stderr)
	}
	if changed := changes(before, contentOf(s.t, s.dir)); len(changed) > 0 {
		s.t.Errorf("%q: changed\n%s%s", args, strings.Join(changed, ""), stderr)
	}
}

// changes are the lines that only one of the two has.
func changes(before, after string) (lines []string) {
	was, is := slices.Collect(strings.Lines(before)), slices.Collect(strings.Lines(after))
	return slices.Concat(slices.DeleteFunc(slices.Clone(was), func(l string) bool { return slices.Contains(is, l) }),
		slices.DeleteFunc(is, func(l string) bool { return slices.Contains(was, l) }))
}

// contentOf is names, modes, owners and contents below a directory, but for the logs of caches, and for what run-task notes in .git for itself. It does not
// look into directories that are called chain.
func contentOf(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() == ".cachelog" || e.Name() == "seal.json" {
			return err
		}
		if e.Name() == "incoming" {
			return fs.SkipDir
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		data := []byte(nil)
		switch {
		case e.Type().IsRegular():
			data, err = os.ReadFile(p)
		case e.Type()&fs.ModeSymlink != 0:
			target, e := os.Readlink(p)
			data, err = []byte(target), e
		}
		fmt.Fprintf(&b, "%s %o %d:%d %x\n", p, st.Mode, st.Uid, st.Gid, sha256.Sum256(data))
		if e.IsDir() && e.Name() == "chain" {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A link that an earlier task left in a cache leads the checkout nowhere: neither into another cache, nor to an older checkout, nor are permissions of
// what is behind it changed.
func TestLinksInCaches(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for name, c := range map[string]struct {
		plant func(*site)
		dir   string
	}{
		"to a directory of the user's":      {func(s *site) { s.link(s.locked, "cache/src") }, "cache/src"},
		"to an older checkout":              {func(s *site) { s.link("../home/old", "cache/src") }, "cache/src"},
		"to its parent":                     {func(s *site) { s.link("../home", "cache/sub") }, "cache/sub/old"},
		"to where nothing is":               {func(s *site) { s.link(s.dir+"/home/new", "cache/src") }, "cache/src"},
		"to a parent where nothing is":      {func(s *site) { s.link("../home", "cache/sub") }, "cache/sub/new/src"},
		"within the cache":                  {func(s *site) { s.plain("cache/other"); s.link("other", "cache/src") }, "cache/src"},
		"into another cache":                {func(s *site) { s.inSecond(); s.link("../second/src", "cache/src") }, "cache/src"},
		"to another cache":                  {func(s *site) { s.inSecond(); s.link("../second", "cache/sub") }, "cache/sub/src"},
		"below a link of the user's":        {func(s *site) { s.link("../home/old", "cache/src"); s.link("cache", "alias") }, "alias/src"},
		"behind a link into the cache":      {func(s *site) { s.plain("cache/sub"); s.link(s.old, "cache/sub/src"); s.link("cache/sub", "to") }, "to/src"},
		"behind a link to the link":         {func(s *site) { s.link("../home/old", "cache/src"); s.link("cache/src", "to") }, "to"},
		"no link, but one leads into it":    {func(s *site) { s.plain("cache/src"); s.link("cache/src", "to") }, "to"},
		"nothing there, but one leads":      {func(s *site) { s.link("cache/src", "to") }, "to"},
		"nothing there, but a parent leads": {func(s *site) { s.plain("cache/sub"); s.link(s.cache+"/sub/../sub", "to") }, "to/new/src"},
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			defer s.clear()
			c.plant(s)
			args := append(slices.Clone(s.from), "--checkout", c.dir, "--cache", "cache")
			if _, err := os.Stat(s.dir + "/second"); err == nil {
				args = append(args, "--cache", "second")
			}
			s.refuse(64, "link", args...)
			s.refuse(64, "link", append(args, "--adopt")...)
		})
	}
}

// plain makes an empty directory in a cache.
func (s *site) plain(name string) {
	s.t.Helper()
	mkdirAll(s.t, filepath.Join(s.dir, name))
	s.give(name)
}

// inSecond makes another cache with an older checkout in it.
func (s *site) inSecond() {
	s.t.Helper()
	mkdirAll(s.t, s.dir+"/second")
	s.must(append(s.fromSecond, "--cache", "second", "--checkout", "second/src")...)
}

// A directory that cannot even be looked at gets no permissions through a link.
func TestLinkToClosedDirectory(t *testing.T) {
	s := newSite(t)
	s.link(s.locked, "cache/src")
	for _, mode := range []uint32{0, 0o4055} {
		s.check(unix.Chmod(s.locked, mode))
		if code, stderr := checkOut(t, s.dir, append(s.from, "--checkout", "cache/src", "--cache", "cache")...); code != 64 {
			t.Errorf("exit %d\n%s", code, stderr)
		}
		var st unix.Stat_t
		if err := unix.Lstat(s.locked, &st); err != nil || st.Mode&0o7777 != mode {
			t.Errorf("%o became %o, %v", mode, st.Mode, err)
		}
	}
}

// The ways that a user may name: the user's own links are followed.
func TestLinksOfTheUser(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for name, c := range map[string]struct {
		link, at string
		args     []string
		src      string
	}{
		"a cache through a link":          {".", "alias", []string{"--cache", "alias/cache", "--checkout", "cache/src"}, "cache/src"},
		"a checkout by a cache's link":    {"cache", "alias", []string{"--cache", "cache", "--checkout", "alias/src"}, "cache/src"},
		"both":                            {".", "alias", []string{"--cache", "alias/cache", "--checkout", "alias/cache/sub/src"}, "cache/sub/src"},
		"through the parent of the cache": {".", "here", []string{"--cache", "cache", "--checkout", "here/cache/src"}, "cache/src"},
		"a link to a link":                {"here/cache/", "alias", []string{"--cache", "cache", "--checkout", "alias/src"}, "cache/src"},
		"outside":                         {"home", "alias", []string{"--cache", "cache", "--checkout", "alias/src"}, "home/src"},
		"outside, the checkout itself":    {"home/old", "alias", []string{"--cache", "cache", "--checkout", "alias"}, "home/old"},
		"beside a volume":                 {"home", "alias", []string{"--volume", "volume", "--checkout", "alias/src"}, "home/src"},
		"in a volume":                     {"volume", "alias", []string{"--volume", "volume", "--checkout", "alias/src"}, "volume/src"},
		"a volume":                        {".", "alias", []string{"--volume", "alias/volume", "--checkout", "volume"}, "volume"},
		"a volume by its link":            {"volume", "alias", []string{"--volume", "volume", "--checkout", "alias"}, "volume"},
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			defer s.clear()
			mkdirAll(t, s.dir+"/volume")
			s.check(os.Symlink(".", s.dir+"/here"))
			if c.at != "here" {
				s.check(os.Symlink(c.link, filepath.Join(s.dir, c.at)))
			}
			s.must(append(c.args, s.from...)...)
			judge(t, filepath.Join(s.dir, c.src), s.SHA["tip"])
		})
	}
}

// A cache in a cache, and a volume in one.
func TestNestedCaches(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.plain("cache/inner")
	both := []string{"--cache", "cache", "--cache", "cache/inner"}
	for _, to := range []string{"cache/inner/src", "cache/inner/sub/src", "cache/beside"} {
		for _, name := range []string{"tip", "first"} {
			s.must(append(both, "--checkout", to, "--repo", s.Path, "--sha", s.SHA[name])...)
			judge(t, filepath.Join(s.dir, to), s.SHA[name])
		}
	}
	// A link in the outer one is a task's, also where the name is that of the inner one.
	s.check(os.Rename(s.cache+"/inner", s.dir+"/inner"))
	s.link("../inner", "cache/inner")
	s.refuse(64, "link", append(s.from, slices.Concat(both, []string{"--checkout", "cache/inner/src"})...)...)
}

// While run-task runs, what it is to check out into is now a directory and now a link to an older checkout.
func TestLinksThatComeAndGo(t *testing.T) {
	s := newSite(t)
	args := []string{"--cache", "cache", "--checkout", "cache/a/b/old", "--repo", s.Path, "--sha"}
	s.must(append(args, s.SHA["tip"])...)
	s.link("../../../home/old", "cache/a/b/link")
	s.link("../../home", "cache/a/link")
	before := contentOf(t, s.dir+"/home")
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			for _, name := range []string{"/a/b/old", "/a/b/old", "/a/b", "/a/b"} {
				if err := unix.Renameat2(unix.AT_FDCWD, s.cache+name, unix.AT_FDCWD, s.cache+filepath.Dir(name)+"/link", unix.RENAME_EXCHANGE); err != nil {
					<-stop
					stopped <- err
					return
				}
			}
		}
	}()
	outcomes := map[int]int{}
	for i := range 20 {
		code, stderr := checkOut(t, s.dir, append(args, s.SHA[[]string{"tip", "first"}[i%2]])...)
		if outcomes[code]++; code == 2 || code == 70 {
			t.Errorf("exit %d\n%s", code, stderr)
		}
	}
	close(stop)
	s.check(<-stopped)
	if changed := changes(before, contentOf(t, s.dir+"/home")); len(changed) > 0 {
		t.Errorf("changed outside:\n%s", changed)
	}
	if outcomes[0] == 0 || outcomes[64] == 0 {
		t.Errorf("the directory or the link was never met: %v", outcomes)
	}
	t.Logf("exit codes: %v", outcomes)
	s.must(append(args, s.SHA["tip"])...)
	judge(t, s.cache+"/a/b/old", s.SHA["tip"])
}

// A cache in the .git of a checkout would be removed with it: that is said before anything changes.
func TestCacheInGitDirectory(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, c := range []struct {
		at   string
		ours bool // is what it is in
	}{{".git", false}, {".git/a/cache", false}, {".git/cache", true}, {".git.run-task", false}, {".git.run-task/cache", true}} {
		t.Run(c.at, func(t *testing.T) {
			s.t = t
			in := s.old + "/" + c.at
			if !c.ours {
				s.check(os.RemoveAll(s.old))
			}
			s.plain("home/old/" + c.at)
			s.give("home/old")
			s.must("--cache", in)
			plant(t, in+"/kept", "x")
			for _, more := range [][]string{nil, {"--adopt"}} {
				s.refuse(64, "is in its .git", slices.Concat([]string{"--cache", in, "--checkout", s.old}, s.from, more)...)
			}
			s.plain("home/new/" + c.at)
			s.refuse(64, "is in its .git", append([]string{"--volume", "home/new/" + c.at, "--checkout", "home/new", "--adopt"}, s.from...)...)
			s.check(os.RemoveAll(s.dir + "/home/new"))
			s.check(os.RemoveAll(s.old))
			s.must(append([]string{"--checkout", s.old}, s.from...)...)
		})
	}
}

// What another user owns in a checkout, and could change under the task's hands, is replaced; or the cache has to be purged, and nothing was changed.
func TestForeignInCheckout(t *testing.T) {
	needRoot(t)
	t.Parallel()
	s := newSite(t)
	src, args := s.cache+"/src", append(s.from, "--cache", "cache", "--checkout", "cache/src")
	s.must(args...)
	for _, at := range []string{"", "README", "link", "deep", "deep/er/est", ".git", ".git/objects", ".git/objects/pack", ".git/refs", ".git/refs/heads", ".git/run-task",
		".git/run-task/lock", ".git/run-task/state.json", ".git/run-task/seal.json", ".git/index", ".git/config", ".git/HEAD", "..."} {
		for _, mode := range []uint32{0o755, 0o777} {
			t.Run(fmt.Sprintf("%s %o", at, mode), func(t *testing.T) {
				s.t = t
				s.check(chownTree(src, at, 1001, mode))
				if inside, _ := os.ReadDir(filepath.Join(src, strings.TrimPrefix(at, "..."))); mode == 0o755 && len(inside) > 0 {
					s.refuse(72, "belongs to uid 1001", args...)
					s.check(chownTree(src, "...", 1000, mode))
					return
				}
				s.must(args...)
				judge(t, src, s.SHA["tip"])
				s.check(filepath.WalkDir(src, func(p string, _ fs.DirEntry, err error) error {
					var st unix.Stat_t
					if err == nil {
						err = unix.Lstat(p, &st)
					}
					if p != src && st.Uid != 1000 { // the directory itself cannot be replaced: that is warned of
						t.Errorf("%s belongs to uid %d", p, st.Uid)
					}
					return err
				}))
				s.check(os.Lchown(src, 1000, 1000))
			})
		}
	}
}

// chownTree gives one file or directory to that uid, or with "..." all of them, directories with that mode, and files so that as many may write to them.
func chownTree(dir, at string, uid int, mode uint32) error {
	return filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && (at == "..." || p == filepath.Join(dir, at)) {
			if err = os.Lchown(p, uid, uid); err == nil && e.IsDir() {
				err = unix.Chmod(p, mode)
			} else if info, e := e.Info(); err == nil && e == nil && info.Mode().IsRegular() {
				err = os.Chmod(p, info.Mode()|os.FileMode(mode&0o222))
			}
		}
		return err
	})
}

// chain makes directories in each other, which soon no path can name, as the task's user would have.
func chain(t *testing.T, top, name string, levels int) {
	t.Helper()
	at, err := unix.Open(filepath.Dir(top), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	next := filepath.Base(top)
	for n := 0; err == nil && n < levels; n++ {
		below := -1
		if err = unix.Mkdirat(at, next, 0o755); err == nil {
			below, err = unix.Openat(at, next, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
		if err == nil && os.Getuid() == 0 {
			err = unix.Fchown(below, 1000, 1000)
		}
		unix.Close(at)
		at, next = below, name
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(at)
}

// Directories deeper than anybody can work with end the checkout before anything is changed, and take no memory to speak of.
func TestDeepDirectories(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at, name string
		levels   int
	}{
		{"chain", "x", 3000},
		{"deep/chain", strings.Repeat("x", 200), 400},
		{".git/chain", strings.Repeat("x", 255), 2100},
	} {
		t.Run(c.at, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			at, args := s.old+"/"+c.at, append(s.from, "--checkout", s.old)
			s.plain("home/old/" + filepath.Dir(c.at))
			chain(t, at, c.name, c.levels)
			s.tooDeep(args...)
			if c.at == ".git/chain" {
				s.plain("home/old/.git/run-task/incoming") // which goes first of all
				s.check(os.Rename(at, s.old+"/.git/run-task/incoming/chain"))
				s.tooDeep(args...)
				s.check(os.Rename(s.old+"/.git/run-task/incoming/chain", at))
				s.check(os.Rename(s.old+"/.git/run-task", s.dir+"/mark"))
				s.tooDeep(append(args, "--adopt")...)
				s.check(os.Rename(s.dir+"/mark", s.old+"/.git/run-task"))
			}
			s.check(os.RemoveAll(at))
			s.must(args...)
			judge(t, s.old, s.SHA["tip"])
		})
	}
}

// tooDeep is a run that ends with 72 and has changed nothing.
func (s *site) tooDeep(args ...string) {
	s.t.Helper()
	before := contentOf(s.t, s.old)
	code, stderr, peak := measured(s.t, s.dir, args...)
	if code != 72 || !strings.Contains(stderr, "too deep in each other") || !strings.Contains(stderr, "hint: purge the cache") || len(stderr) > 4096 {
		s.t.Errorf("%q: exit %d\n%.9999s", args, code, stderr)
	}
	if peak > 300<<20 {
		s.t.Errorf("%q: %d MB of memory", args, peak>>20)
	}
	if changed := changes(before, contentOf(s.t, s.old)); len(changed) > 0 {
		s.t.Errorf("%q: changed:\n%s", args, changed)
	}
}

// measured is checkOut with the peak of its memory in bytes.
func measured(t *testing.T, dir string, args ...string) (code int, stderr string, peak int64) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "peak")
	c := &command{args: slices.Concat([]string{"probe", "peak", file, "run-task"}, asUser(), args, []string{"--", "probe", "exit", "0"}), dir: dir}
	code, _, stderr = c.run(t)
	said, err := os.ReadFile(file)
	if err == nil {
		peak, err = strconv.ParseInt(string(said), 10, 64)
	}
	if err != nil {
		t.Fatal(err)
	}
	return code, stderr, peak
}

// What has the name that our .git grows under is not ours without our mark, and stays.
func TestAsideNameIsTaken(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	mine := s.dir + "/home/mine"
	args := append(s.from, "--checkout", mine, "--adopt")
	for name, make := range map[string]func(s *site, p string){
		"a directory":      func(s *site, p string) { plant(s.t, p+"/work", "x") },
		"a file":           func(s *site, p string) { plant(s.t, p, "x") },
		"a link":           func(s *site, p string) { s.check(os.Symlink("../old/.git", p)) },
		"a dangling link":  func(s *site, p string) { s.check(os.Symlink("nowhere", p)) },
		"a FIFO":           func(s *site, p string) { s.check(unix.Mkfifo(p, 0o600)) },
		"an old directory": func(s *site, p string) { plant(s.t, p+"/run-task.old/lock", "x") },
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			plant(t, mine+"/.git/config", "mine")
			make(s, mine+"/.git.run-task")
			s.give("home/mine")
			s.refuse(64, ".git.run-task", args...)
			s.check(os.RemoveAll(mine + "/.git.run-task"))
		})
	}
	s.t = t
	s.plain("home/mine/.git.run-task") // of a run that was killed, or has just begun
	s.must(args...)
	judge(t, mine, s.SHA["tip"])
}

func TestAsideNameIsMounted(t *testing.T) {
	needRoot(t)
	for _, at := range []string{".git.run-task", ".git.run-task/run-task"} {
		s := newSite(t)
		plant(t, s.dir+"/home/mine/.git/config", "mine")
		mkdirAll(t, s.dir+"/home/mine/"+at)
		mkdirAll(t, s.dir+"/home/mounted")
		s.give("home")
		before := contentOf(t, s.dir)
		args := slices.Concat([]string{"run-task"}, asUser(), s.from, []string{"--checkout", "home/mine", "--adopt", "--", "probe"})
		c := &command{dir: s.dir, args: args, enter: []string{"bind", s.dir + "/home/mounted", s.dir + "/home/mine/" + at}}
		if code, _, stderr := c.run(t); code != 64 || !strings.Contains(stderr, ".git.run-task") {
			t.Errorf("%s: exit %d\n%s", at, code, stderr)
		}
		if changed := changes(before, contentOf(t, s.dir)); len(changed) > 0 {
			t.Errorf("%s: changed:\n%s", at, changed)
		}
	}
}

// In a sticky directory nobody but its owner can replace another's .git.
func TestStickyDirectory(t *testing.T) {
	needRoot(t)
	s := newSite(t)
	src := s.dir + "/shared"
	plant(t, src+"/.git/config", "theirs")
	plant(t, src+"/mine", "x")
	s.check(chownTree(src, "...", 1001, 0o777))
	s.check(os.Chown(src, 0, 0))
	s.give("shared/mine") // so that .git is all that is in the way
	s.check(unix.Chmod(src, 0o1777))
	s.refuse(72, "belongs to uid 1001", append(s.from, "--checkout", "shared", "--adopt")...)
	s.check(os.RemoveAll(src + "/.git")) // an empty one would do as a mark
	s.check(os.Mkdir(src+"/.git", 0o777))
	s.check(os.Lchown(src+"/.git", 1001, 1001))
	s.refuse(72, "belongs to uid 1001", append(s.from, "--checkout", "shared", "--adopt")...)
}

// Runs that adopt one directory at the same time, some of which come to nothing, are in nobody's way.
func TestAdoptionsAtOnce(t *testing.T) {
	s := newSite(t)
	src := s.dir + "/home/shared"
	gone := []string{"--repo", s.Path, "--sha", strings.Repeat("1", 40)}
	for round := range 8 {
		os.RemoveAll(src + "/.git/run-task")
		plant(t, src+"/stray", "x")
		plant(t, src+"/.git/config", "mine")
		s.give("home/shared")
		var all sync.WaitGroup
		for i := range 4 {
			from, want := gone, 66
			if i == round%4 {
				from, want = s.from, 0
			}
			all.Go(func() {
				args := slices.Concat([]string{"run-task"}, asUser(), from, []string{"--checkout", src, "--adopt", "--", "probe", "exit", "0"})
				if out, err := (&command{args: args, dir: s.dir}).cmd().CombinedOutput(); exitOf(err) != want {
					t.Errorf("round %d: %v, want %d\n%s", round, err, want, out)
				}
			})
		}
		all.Wait()
		judge(t, src, s.SHA["tip"])
		if left, _ := filepath.Glob(src + "/.git.*"); len(left) > 0 {
			t.Errorf("left over: %q", left)
		}
	}
}

func exitOf(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}
