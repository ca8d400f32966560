//go:build linux

package tests

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A cache is what tasks made of it. Whatever is in one, root must change nothing outside of it.

const requires1000 = "gid=1000\nuid=1000\nversion=1"

// ground is a cache that uid 1000 filled, beside a directory of root's that is none of its business.
type ground struct {
	t                    *testing.T
	dir, cache, outside  string
	enter                []string // mounts
	requirements, logged string
}

func newGround(t *testing.T) *ground {
	t.Helper()
	dir := tempDir(t)
	g := &ground{t: t, dir: dir, cache: filepath.Join(dir, "cache"), outside: filepath.Join(dir, "outside")}
	g.requirements, g.logged = filepath.Join(g.cache, ".cacherequires"), filepath.Join(g.cache, ".cachelog")
	for _, d := range []string{g.cache, filepath.Join(g.cache, "sub"), g.outside, filepath.Join(g.outside, "sub")} {
		g.check(os.Mkdir(d, 0o755))
	}
	g.write(g.requirements, requires1000, 0o444)
	g.write(g.logged, "[2026-01-02T03:04:05Z first] created; requirements: gid=1000, uid=1000, version=1\n", 0o644)
	g.write(filepath.Join(g.cache, "sub/file"), "cached", 0o600)
	for _, name := range []string{"", "sub", ".cacherequires", ".cachelog", "sub/file"} {
		g.check(os.Lchown(filepath.Join(g.cache, name), 1000, 1000))
	}
	g.write(filepath.Join(g.outside, "secret"), requires1000, 0o600)
	g.write(filepath.Join(g.outside, "setuid"), "program", 0o4755)
	g.write(filepath.Join(g.outside, "sub/file"), "outside", 0o640)
	return g
}

func (g *ground) check(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *ground) write(name, data string, mode uint32) {
	g.t.Helper()
	g.check(os.WriteFile(name, []byte(data), 0o600))
	g.check(unix.Chmod(name, mode))
}

func (g *ground) in(name string) string  { return filepath.Join(g.cache, name) }
func (g *ground) out(name string) string { return filepath.Join(g.outside, name) }

// put replaces what is at a name in the cache, by what make does.
func (g *ground) put(name string, make func(path string) error) {
	g.t.Helper()
	g.check(os.RemoveAll(g.in(name)))
	g.check(make(g.in(name)))
}

// snapshot is all that can be seen of a directory and what is in it but its access times: also its inodes' change times, which nobody can set back.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		content := ""
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = fmt.Sprintf("%x", sha256.Sum256(data))
		}
		fmt.Fprintf(&b, "%s %o %d:%d size %d links %d mtime %v ctime %v %s\n", path, st.Mode, st.Uid, st.Gid, st.Size, st.Nlink, st.Mtim, st.Ctim, content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (g *ground) runTask(args ...string) (int, string) {
	g.t.Helper()
	c := &command{args: append([]string{"run-task"}, args...), dir: g.dir, enter: g.enter}
	code, _, stderr := c.run(g.t)
	return code, stderr
}

// hostile is what a task may have left in its cache. 72 is the answer where run-task's own files are not what they seem; a tree full of traps is admitted.
var hostile = []struct {
	name  string
	plant func(*ground)
	code  int
}{
	{"requirements are a link to a file outside that would do", func(g *ground) {
		g.put(".cacherequires", func(p string) error { return os.Symlink(g.out("secret"), p) })
	}, 72},
	{"requirements are a dangling link", func(g *ground) {
		g.put(".cacherequires", func(p string) error { return os.Symlink(g.out("new"), p) })
	}, 72},
	{"requirements are a hard link to a file outside", func(g *ground) {
		g.put(".cacherequires", func(p string) error { return os.Link(g.out("secret"), p) })
	}, 72},
	{"requirements are a FIFO", func(g *ground) { g.put(".cacherequires", func(p string) error { return unix.Mkfifo(p, 0o666) }) }, 72},
	{"requirements are a directory", func(g *ground) { g.put(".cacherequires", func(p string) error { return os.Mkdir(p, 0o777) }) }, 72},
	{"requirements are a device", func(g *ground) {
		g.put(".cacherequires", func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) })
	}, 72},
	{"requirements are a socket", func(g *ground) {
		g.put(".cacherequires", func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o666, 0) })
	}, 72},
	{"requirements are empty", func(g *ground) { g.put(".cacherequires", func(p string) error { return os.WriteFile(p, nil, 0o444) }) }, 72},
	{"requirements are a gigabyte", func(g *ground) {
		g.put(".cacherequires", func(p string) error { return os.Truncate(touch(p), 1<<30) })
	}, 72},
	{"requirements are binary", func(g *ground) {
		g.put(".cacherequires", func(p string) error { return os.WriteFile(p, []byte("\x00\xff\x1b[2J\r\n\u2028uid=1000"), 0o444) })
	}, 72},
	{"requirements are a bind mount of a file outside", func(g *ground) {
		g.enter = []string{"bind", g.out("secret"), g.requirements}
	}, -1}, // its content would do: what counts is that it stays as it is
	{"the log is a link to a file outside", func(g *ground) {
		g.put(".cachelog", func(p string) error { return os.Symlink(g.out("secret"), p) })
	}, 72},
	{"the log is a dangling link", func(g *ground) {
		g.put(".cachelog", func(p string) error { return os.Symlink(g.out("new"), p) })
	}, 72},
	{"the log is a hard link to a file outside", func(g *ground) {
		g.put(".cachelog", func(p string) error { return os.Link(g.out("secret"), p) })
	}, 72},
	{"the log is a FIFO", func(g *ground) { g.put(".cachelog", func(p string) error { return unix.Mkfifo(p, 0o666) }) }, 72},
	{"the log is a directory", func(g *ground) { g.put(".cachelog", func(p string) error { return os.Mkdir(p, 0o777) }) }, 72},
	{"the log is a device", func(g *ground) {
		g.put(".cachelog", func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 7))) })
	}, 72},
	{"the temporary name of the requirements is a link", func(g *ground) {
		g.put(".cacherequires.tmp1", func(p string) error { return os.Symlink(g.out("secret"), p) })
	}, 0},
	{"links to directories and files outside, and to nothing", func(g *ground) {
		g.put("dir", func(p string) error { return os.Symlink(g.outside, p) })
		g.put("file", func(p string) error { return os.Symlink(g.out("secret"), p) })
		g.put("sub/relative", func(p string) error { return os.Symlink("../../outside/sub", p) })
		g.put("sub/dangling", func(p string) error { return os.Symlink(g.out("new"), p) })
		g.put("sub/self", func(p string) error { return os.Symlink("self", p) })
		g.put("sub/proc", func(p string) error { return os.Symlink("/proc/self/root"+g.outside, p) })
	}, 0},
	{"hard links to files outside", func(g *ground) {
		g.put("sub/hard", func(p string) error { return os.Link(g.out("secret"), p) })
		g.put("hard", func(p string) error { return os.Link(g.out("setuid"), p) })
	}, 0},
	{"a directory of outside mounted inside", func(g *ground) {
		g.put("mounted", func(p string) error { return os.Mkdir(p, 0o755) })
		g.enter = []string{"bind", g.outside, g.in("mounted")}
	}, 0},
	{"a file of outside mounted inside", func(g *ground) {
		g.put("sub/mounted", func(p string) error { return os.WriteFile(p, nil, 0o644) })
		g.enter = []string{"bind", g.out("secret"), g.in("sub/mounted")}
	}, 0},
	{"special files", func(g *ground) {
		g.put("fifo", func(p string) error { return unix.Mkfifo(p, 0o666) })
		g.put("sub/null", func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) })
		g.put("socket", func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o666, 0) })
	}, 0},
	{"names that are hard to print", func(g *ground) {
		g.put("a\n[perms] forged\x1b[2J", func(p string) error { return os.WriteFile(p, nil, 0o644) })
		g.put("\xff\xfe", func(p string) error { return os.Mkdir(p, 0) })
	}, 0},
}

func touch(p string) string {
	os.WriteFile(p, nil, 0o644)
	return p
}

func TestHostileCaches(t *testing.T) {
	needRoot(t)
	// What root does with the cache: uses it as it is, gives it to another user, gives it to another user when told to with --chown.
	ways := map[string][]string{
		"used":     {"--user", "1000:1000", "--cache", "cache"},
		"re-owned": {"--user", "2000:2000", "--cache", "cache", "--untrusted-caches"},
		"refused":  {"--user", "2000:2000", "--cache", "cache"},
		"chown":    {"--user", "2000:2000", "--chown", "cache"},
	}
	for _, h := range hostile {
		for way, args := range ways {
			t.Run(way+": "+h.name, func(t *testing.T) {
				t.Parallel()
				g := newGround(t)
				h.plant(g)
				before := snapshot(t, g.outside)
				code, stderr := g.runTask(append(args, "--", "probe", "exit", "0")...)
				if after := snapshot(t, g.outside); after != before {
					t.Errorf("outside changed:\n%swas\n%s%s", after, before, stderr)
				}
				want := h.code
				switch {
				case way == "chown" && want == 72:
					want = 0 // it is a tree as any other
				case way == "refused":
					want = 72
				}
				if code != want && want >= 0 {
					t.Errorf("exit %d, want %d\n%s", code, want, stderr)
				}
				if strings.ContainsRune(stderr, '\x1b') || strings.Contains(stderr, "\n[perms] forged") {
					t.Errorf("a file's name drives the terminal: %q", stderr)
				}
			})
		}
	}
}

// Set up as new, a directory must be empty: what is planted there before the first task is no different.
func TestHostileEmptyCaches(t *testing.T) {
	needRoot(t)
	for name, plant := range map[string]func(*ground){
		"the log is a link":      func(g *ground) { g.check(os.Symlink(g.out("secret"), g.logged)) },
		"the log dangles":        func(g *ground) { g.check(os.Symlink(g.out("new"), g.logged)) },
		"the log is a hard link": func(g *ground) { g.check(os.Link(g.out("secret"), g.logged)) },
		"the log is a FIFO":      func(g *ground) { g.check(unix.Mkfifo(g.logged, 0o666)) },
		"lost+found is a link":   func(g *ground) { g.check(os.Symlink(g.outside, g.in("lost+found"))) },
		"lost+found is not empty": func(g *ground) {
			g.check(os.Mkdir(g.in("lost+found"), 0o700))
			g.check(os.Link(g.out("secret"), g.in("lost+found/x")))
		},
		"lost+found is a user's": func(g *ground) {
			g.check(os.Mkdir(g.in("lost+found"), 0o700))
			g.check(os.Chown(g.in("lost+found"), 1000, 1000))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGround(t)
			g.check(os.RemoveAll(g.cache))
			g.check(os.Mkdir(g.cache, 0o755))
			plant(g)
			before := snapshot(t, g.outside)
			code, stderr := g.runTask("--user", "2000:2000", "--cache", "cache", "--untrusted-caches", "--", "probe", "exit", "0")
			if after := snapshot(t, g.outside); after != before {
				t.Errorf("outside changed:\n%swas\n%s%s", after, before, stderr)
			}
			if code != 72 {
				t.Errorf("exit %d, want 72\n%s", code, stderr)
			}
		})
	}
}

// A cache whose requirement file a task cannot read, without root.
func TestUnreadableRequirements(t *testing.T) {
	needRoot(t)
	g := newGround(t)
	g.check(os.Lchown(g.requirements, 0, 0))
	g.check(os.Chmod(g.requirements, 0))
	g.enter = []string{"user", "1000", "1000"}
	if code, stderr := g.runTask("--cache", "cache", "--", "probe"); code != 72 {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

// While root changes a cache's owner, whoever can write there swaps directories and files for links to the outside, again and again.
func TestSwapsWhileChowning(t *testing.T) {
	needRoot(t)
	g := newGround(t)
	for i := range 50 {
		name := fmt.Sprintf("sub/%d", i)
		g.write(g.in(name), "cached", 0o644)
		g.write(g.out(name), "outside", 0o644)
	}
	g.check(os.Symlink(g.out("sub"), g.in("sub.link")))
	g.check(os.Symlink(g.out("secret"), g.in("file.link")))
	g.write(g.in("file"), "cached", 0o644)
	g.check(os.Mkdir(g.in("twice"), 0o755))
	g.check(os.Mkdir(g.in("twice/sub"), 0o755))
	g.check(os.Symlink("../outside", g.in("twice.link")))
	before := snapshot(t, g.outside)

	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, name := range []string{"sub", "file", "twice"} {
				if err := unix.Renameat2(unix.AT_FDCWD, g.in(name), unix.AT_FDCWD, g.in(name+".link"), unix.RENAME_EXCHANGE); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	outcomes := map[int]int{}
	for i := range 20 {
		user := fmt.Sprintf("%d:%d", 2000+i%2, 2000+i%2)
		args := []string{"--user", user, "--cache", "cache", "--untrusted-caches", "--", "probe", "exit", "0"}
		if i%3 == 0 {
			args = []string{"--user", user, "--chown", "cache", "--", "probe", "exit", "0"}
		}
		code, stderr := g.runTask(args...)
		outcomes[code]++
		if code == 2 || code == 70 {
			t.Fatalf("exit %d\n%s", code, stderr)
		}
	}
	close(stop)
	<-stopped
	if after := snapshot(t, g.outside); after != before {
		t.Errorf("outside changed:\n%swas\n%s", after, before)
	}
	if outcomes[0] == 0 {
		t.Errorf("no run came to its end: %v", outcomes)
	}
	t.Logf("exit codes: %v", outcomes)
}
