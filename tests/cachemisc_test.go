//go:build linux

package tests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A store that does not work costs its own archive alone, wherever that is named; with --cache-strict the task fails, and the other archive is restored or saved all the same.
func TestCacheOneBrokenStore(t *testing.T) {
	t.Parallel()
	denied := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }))
	t.Cleanup(denied.Close)
	for name, c := range map[string]struct {
		store string
		code  int
		miss  bool // there is nothing to restore, and that is no error
	}{
		"denied":   {denied.URL + "/x", 77, false},
		"no place": {"dir:/proc/no/place", 74, true},
	} {
		for _, last := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, last %v", name, last), func(t *testing.T) {
				t.Parallel()
				k := newTrunk(t)
				k.grow(1)
				k.must("save", k.flag("")...)
				remove(k.dir + "/tree")
				flags := [][]string{{"--cache-archive", "path=other,key=key,store=" + c.store}, k.flag("")}
				if last {
					slices.Reverse(flags)
				}
				run := func(n int, more ...string) (code int, stdout, stderr string) {
					t.Helper()
					code, stdout, stderr = (&command{dir: k.dir, env: k.env, args: slices.Concat([]string{"run-task"}, asUser(), more, slices.Concat(flags...),
						[]string{"--", "/bin/sh", "-c", fmt.Sprintf(`grep -l '^tree' tree/*/* | wc -l; for f in tree/*/*; do sed -i 's/^tree .*/tree %d/' $f; done; mkdir -p other`, n)})}).run(t)
					return code, strings.TrimSpace(stdout), stderr
				}
				saved := func(want int) {
					t.Helper()
					remove(k.dir + "/tree")
					k.must("restore", k.flag("")...)
					if is := k.grown(k.dir + "/tree"); is != want {
						t.Errorf("tree %d is in the store, not %d", is, want)
					}
					remove(k.dir + "/tree")
				}
				if code, stdout, stderr := run(2, "--cache-policy", "pull-push"); code != 0 || stdout != "60" || strings.Count(stderr, "warning: ") != 2 {
					t.Errorf("exit %d, %q\n%s", code, stdout, stderr)
				}
				saved(2)
				if code, stdout, stderr := run(3, "--cache-strict", "--cache-policy", "pull"); (code != c.code || stdout != "") != c.miss {
					t.Errorf("strict: exit %d, %q\n%s", code, stdout, stderr)
				}
				if is := k.grown(k.dir + "/tree"); !c.miss && is != 2 {
					t.Errorf("strict: tree %d was restored", is)
				}
				remove(k.dir + "/tree")
				k.grow(1)
				if code, stdout, stderr := run(4, "--cache-strict", "--cache-policy", "push"); code != c.code || stdout != "60" {
					t.Errorf("strict save: exit %d, %q\n%s", code, stdout, stderr)
				}
				saved(4)
			})
		}
	}
}

// ownersOf are the entries below a directory: mode, owner and name.
func ownersOf(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(p, &st)
		}
		fmt.Fprintf(&b, "%06o %d:%d %s\n", st.Mode, st.Uid, st.Gid, strings.TrimPrefix(p, dir))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// All that a restore makes is the task's user's, the directories on the way included, with the modes that were saved; of setuid and setgid bits only where that is not root.
func TestCacheOwners(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for name, c := range map[string]struct {
		enter, user []string
		ids, set    string
	}{
		"root that becomes the user": {nil, []string{"--user", "1000:1000"}, "1000:1000", "10"},
		"the user":                   {[]string{"user", "1000", "1000"}, nil, "1000:1000", "10"},
		"another one":                {[]string{"user", "1234", "4321"}, nil, "1234:4321", "10"},
		"root":                       {nil, []string{"--user", "root"}, "0:0", "10"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			var uid, gid int
			fmt.Sscanf(c.ids, "%d:%d", &uid, &gid)
			if err := os.Chown(dir, uid, gid); err != nil {
				t.Fatal(err)
			}
			run := func(script string) {
				t.Helper()
				cmd := &command{dir: dir, enter: c.enter, env: []string{"TMPDIR=" + dir}, args: slices.Concat([]string{"run-task"}, c.user,
					[]string{"--cache-archive", "path=on/the/way/tree,key=key,policy=pull-push,store=dir:" + dir + "/in/store", "--", "/bin/sh", "-c", script})}
				if code, stdout, stderr := cmd.run(t); code != 0 || strings.Contains(stderr, "warning: ") {
					t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
				}
			}
			run(`mkdir -p on/the/way/tree/d on/the/way/tree/e && cd on/the/way/tree && echo x >f && echo x >p && echo x >d/g && ln -s f l && ln f h && mkfifo pipe && rm pipe && chmod 640 f && chmod 4755 p && chmod 400 d/g && chmod 1555 d && chmod 700 e`)
			want := fmt.Sprintf(`040755 %[1]s 
041555 %[1]s /d
100400 %[1]s /d/g
040700 %[1]s /e
100640 %[1]s /f
100640 %[1]s /h
120777 %[1]s /l
104755 %[1]s /p
`, c.ids)
			if got := ownersOf(t, dir+"/on/the/way/tree"); got != want {
				t.Fatalf("the command made\n%s", got)
			}
			remove(dir + "/on")
			run("true")
			if uid == 0 {
				want = strings.Replace(want, "104755", "100755", 1)
			}
			if got := ownersOf(t, dir+"/on/the/way/tree"); got != want {
				t.Errorf("restored\n%s\nwant\n%s", got, want)
			}
			all := ownersOf(t, dir)
			for line := range strings.Lines(all) {
				if !strings.Contains(line, " "+c.ids+" ") {
					t.Errorf("not the user's: %s", line)
				}
			}
			for _, way := range []string{"/on", "/on/the", "/on/the/way"} {
				if !strings.Contains(all, "040755 "+c.ids+" "+way+"\n") {
					t.Errorf("%s is not there with the modes of a new directory:\n%s", way, all)
				}
			}
		})
	}
}

// place is a target that is there before the restore.
type place struct {
	name string
	make func(t *testing.T, dir string) // makes dir/in/tree, empty
	kept bool                           // the directory itself is not replaced
}

var places = []place{
	{"a plain directory", func(t *testing.T, dir string) { mkdirAll(t, dir+"/in/tree"); own(t, dir+"/in") }, false},
	{"below a directory of root's", func(t *testing.T, dir string) { mkdirAll(t, dir+"/in/tree"); own(t, dir+"/in/tree") }, true},
	{"a mount", func(t *testing.T, dir string) {
		mkdirAll(t, dir+"/in/tree")
		mount(t, "none", dir+"/in/tree", "tmpfs", "uid=1000,gid=1000,mode=755")
		own(t, dir+"/in")
	}, true},
	{"a bind mount below a directory of root's", func(t *testing.T, dir string) {
		mkdirAll(t, dir+"/in/tree")
		mkdirAll(t, dir+"/volume")
		own(t, dir+"/volume")
		if err := unix.Mount(dir+"/volume", dir+"/in/tree", "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(dir+"/in/tree", unix.MNT_DETACH) })
	}, true},
	{"a mount on a read-only file system", func(t *testing.T, dir string) {
		mkdirAll(t, dir+"/in")
		mount(t, "none", dir+"/in", "tmpfs", "uid=1000,gid=1000,mode=755")
		mkdirAll(t, dir+"/in/tree")
		mount(t, "none", dir+"/in/tree", "tmpfs", "uid=1000,gid=1000,mode=755")
		if err := unix.Mount("none", dir+"/in", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
	}, true},
}

// On what is there already an archive goes entry by entry: what it has replaces, whatever it was; what it has not stays. That is so where the place is replaced as a whole and where
// entries have to move into it, which is where it is a mount or the directory above cannot be written.
func TestCacheMerges(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, p := range places {
		for _, empty := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, empty %v", p.name, empty), func(t *testing.T) {
				t.Parallel()
				k := newTrunk(t)
				for name, data := range map[string]string{"both": "new", "new": "new", "d/both": "new", "d/new": "new", "was-dir": "new", "was-file/x": "new", "was-link/x": "new"} {
					plant(t, k.dir+"/tree/"+name, data)
				}
				mkdirAll(t, k.dir+"/tree/closed")
				plant(t, k.dir+"/tree/closed/both", "new")
				os.Chmod(k.dir+"/tree/closed", 0o555)
				os.Chmod(k.dir+"/tree/both", 0o600)
				os.Symlink("new", k.dir+"/tree/link")
				own(t, k.dir+"/tree")
				k.must("save", k.flag("")...)
				want := map[string]string{"both": "new", "new": "new", "d/both": "new", "d/new": "new", "was-dir": "new", "was-file/x": "new", "was-link/x": "new", "closed/both": "new", "link": "-> new"}

				p.make(t, k.dir)
				target := k.dir + "/in/tree"
				if !empty {
					for name, data := range map[string]string{"both": "old", "old": "old", "d/both": "old", "d/old": "old", "was-dir/x": "old", "was-file": "old", "only/deep/old": "old", "closed/both": "old", "closed/old": "old", "link": "old"} {
						plant(t, target+"/"+name, data)
						if strings.HasSuffix(name, "old") {
							want[name] = "old"
						}
					}
					os.Symlink("..", target+"/was-link")
					for _, name := range []string{"both", "old", "d", "was-dir", "was-file", "only", "closed", "link", "was-link"} {
						own(t, target+"/"+name)
					}
					os.Chmod(target+"/closed", 0o500)
				}
				was, err := os.Stat(target)
				if err != nil {
					t.Fatal(err)
				}
				out := k.must("restore", "--cache-archive", "path=in/tree,key=key,store="+k.store)
				if got := entriesOf(t, target); got != said(want) {
					t.Errorf("there is\n%s\nwant\n%s\n%s", got, said(want), out)
				}
				is, err := os.Stat(target)
				if err != nil || os.SameFile(was, is) != p.kept {
					t.Errorf("the same directory: %v, %v", os.SameFile(was, is), err)
				}
				if modes := ownersOf(t, target); !strings.Contains(modes, "040555 1000:1000 /closed\n") || !strings.Contains(modes, "100600 1000:1000 /both\n") {
					t.Errorf("modes\n%s", modes)
				}
				if names, _ := filepath.Glob(k.dir + "/in/.run-task*"); len(names) > 0 {
					t.Errorf("litter: %q", names)
				}
				// It is one tree from here on: what is saved of it is all of it.
				k.must("save", "--cache-archive", "path=in/tree,key=all,store="+k.store)
				k.must("restore", "--cache-archive", "path=again,key=all,store="+k.store)
				if got := entriesOf(t, k.dir+"/again"); got != said(want) {
					t.Errorf("saved and restored again\n%s\nwant\n%s", got, said(want))
				}
			})
		}
	}
}

// entriesOf are the files and links below a directory, and what is in them.
func entriesOf(t *testing.T, dir string) string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		if e.Type()&fs.ModeSymlink != 0 {
			var to string
			to, err = os.Readlink(p)
			b = []byte("-> " + to)
		}
		all[strings.TrimPrefix(p, dir+"/")] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return said(all)
}

func said(entries map[string]string) string {
	var lines []string
	for name, data := range entries {
		lines = append(lines, name+": "+data+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// Sixteen tasks at once each restore a key, make another tree of it and save that: each sees one whole tree or none, and one whole tree is there in the end.
func TestCacheSixteenTasks(t *testing.T) {
	t.Parallel()
	k := newTrunk(t)
	var all sync.WaitGroup
	for n := range 16 {
		me := &trunk{T: t, dir: tempDir(t), store: k.store}
		own(t, me.dir)
		me.grow(n)
		if err := os.Rename(me.dir+"/tree", me.dir+"/mine"); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for _, seen := range []string{"seen-1", "seen-2"} {
				if code, _, stderr := me.job(",policy=pull-push", []string{"--cache-strict"}, "/bin/sh", "-c", "mv tree "+seen+" 2>/dev/null; cp -r mine tree"); code != 0 || !strings.Contains(stderr, "aved: ") && !strings.Contains(stderr, "unchanged: ") {
					t.Errorf("exit %d\n%s", code, stderr)
				}
				remove(me.dir + "/tree")
			}
		})
		defer func() {
			me.grown(me.dir + "/seen-1")
			if me.grown(me.dir+"/seen-2") < 0 { // it has saved one itself by then
				t.Error("nothing was restored")
			}
		}()
	}
	all.Wait()
	k.must("restore", k.flag("")...)
	if k.grown(k.dir+"/tree") < 0 {
		t.Error("nothing is there in the end")
	}
	k.must("verify", "--cache-store", k.store)
	if names, _ := os.ReadDir(k.dir + "/store"); len(names) != 1 {
		t.Errorf("litter: %v", names)
	}
}

// archiveLine is what is documented of an archive, in the status file and as the answer of "cache restore" and "cache save".
type archiveLine struct {
	Path, Key, From, Restored, Saved string
	Files, Bytes, Packed             int64
	Seconds                          *float64
}

// With --json a restore and a save print one line with the fields of the status file's archives; the main job writes the same there.
func TestCacheJSON(t *testing.T) {
	t.Parallel()
	k, _, _ := newBucketTrunk(t)
	k.grow(1)
	parse := func(text []byte) archiveLine {
		t.Helper()
		var all []archiveLine
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&all); err != nil || len(all) != 1 || all[0].Seconds == nil || all[0].Path != "tree" || all[0].Key != "key" {
			t.Fatalf("%v: %s", err, text)
		}
		all[0].Seconds = nil
		return all[0]
	}
	run := func(verb string) archiveLine {
		t.Helper()
		code, stdout, stderr := k.run(verb, append(k.flag(""), "--json")...)
		if code != 0 || strings.Count(stdout, "\n") != 1 || !strings.HasSuffix(stdout, "\n") {
			t.Fatalf("exit %d, %q\n%s", code, stdout, stderr)
		}
		return parse([]byte(stdout))
	}
	var size int64
	filepath.WalkDir(k.dir+"/tree", func(p string, e fs.DirEntry, _ error) error {
		if st, err := os.Lstat(p); err == nil && st.Mode().IsRegular() {
			size += st.Size()
		}
		return nil
	})
	if got, want := run("restore"), (archiveLine{Path: "tree", Key: "key", Restored: "miss"}); got != want {
		t.Errorf("nothing there: %+v", got)
	}
	first := run("save")
	packed := first.Packed
	if want := (archiveLine{Path: "tree", Key: "key", Restored: "skipped", Saved: "saved", Files: 60, Bytes: size, Packed: packed}); first != want || packed < 160 {
		t.Errorf("saved: %+v, want %+v", first, want)
	}
	if got := run("save"); got.Saved != "unchanged" || got.Files != 60 {
		t.Errorf("saved again: %+v", got)
	}
	remove(k.dir + "/tree")
	if got, want := run("restore"), (archiveLine{Path: "tree", Key: "key", From: "key", Restored: "hit", Files: 60, Bytes: size, Packed: packed}); got != want {
		t.Errorf("restored: %+v, want %+v", got, want)
	}
	for script, saved := range map[string]string{"true": "unchanged", "echo more >tree/more": "saved"} {
		remove(k.dir + "/tree")
		code, _, stderr := k.job(",policy=pull-push", []string{"--status-file", "status.json"}, "/bin/sh", "-c", script)
		var s struct {
			Phase    string
			Archives json.RawMessage
		}
		b, err := os.ReadFile(k.dir + "/status.json")
		if err == nil {
			err = json.Unmarshal(b, &s)
		}
		if err != nil || code != 0 || s.Phase != "ended" {
			t.Fatalf("exit %d, %v: %s\n%s", code, err, b, stderr)
		}
		if got := parse(s.Archives); got.Restored != "hit" || got.From != "key" || got.Saved != saved {
			t.Errorf("the main job: %+v", got)
		}
	}
}
