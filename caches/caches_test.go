package caches

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"run-task/internal/fail"
)

func TestEmptyCacheIsSetUp(t *testing.T) {
	dir := mkdir(t, tempDir(t), "c")
	os.Chmod(dir, 0o500)
	if os.Getuid() != 0 {
		os.Chmod(dir, 0o700)
	}
	o := task(dir)
	o.Require = []string{"toolchain=gcc-14", "Zone=1"}
	if _, err := check(o); err != nil {
		t.Fatal(err)
	}
	lines := fmt.Sprintf("Zone=1\ngid=%d\ntoolchain=gcc-14\nuid=%d\nversion=1", o.GID, o.UID)
	if got := read(t, dir, requiresName); got != lines {
		t.Errorf("requirement file %q, want %q", got, lines)
	}
	if i, _ := os.Lstat(filepath.Join(dir, requiresName)); i.Mode() != 0o444 {
		t.Errorf("its mode is %v", i.Mode())
	}
	if i, _ := os.Lstat(dir); i.Mode().Perm() != 0o700 || owner(t, dir) != o.UID {
		t.Errorf("the directory: %v of %d", i.Mode(), owner(t, dir))
	}
	o.Require = append(o.Require, "more=ours") // extra lines of ours do not matter
	o.TaskID = ""
	if _, err := check(o); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir, requiresName); got != lines {
		t.Errorf("a used cache's requirement file became %q", got)
	}
	stamp := `\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z `
	want := `^` + stamp + `T1\] created; requirements: ` + strings.ReplaceAll(lines, "\n", ", ") + "\n" + stamp + `UNKNOWN\] used` + "\n$"
	if got := read(t, dir, logName); !regexp.MustCompile(want).MatchString(got) {
		t.Errorf("log %q does not match %q", got, want)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left in the cache: %v", entries)
	}
}

func TestWhatDoesNotCountAsContent(t *testing.T) {
	dir := mkdir(t, tempDir(t), "c")
	mkdir(t, dir, "lost+found")
	write(t, "[then T0] created; requirements: a\n", dir, logName)
	write(t, "vers", dir, requiresName+".tmp77")
	needRoot(t) // lost+found must be root's
	os.Chmod(filepath.Join(dir, "lost+found"), 0o700)
	if _, err := check(task(dir)); err != nil {
		t.Fatal(err)
	}
	if owner(t, dir, "lost+found") != 0 {
		t.Error("lost+found did not stay root's")
	}
	if _, err := os.Lstat(filepath.Join(dir, requiresName+".tmp77")); err == nil {
		t.Error("a killed run's temporary file is still there")
	}
	if got := read(t, dir, logName); !strings.HasPrefix(got, "[then T0]") || strings.Count(got, "\n") != 2 {
		t.Errorf("log %q", got)
	}

	// For a task that is not root, which cannot look into lost+found.
	own := mkdir(t, tempDir(t), "c")
	os.Mkdir(filepath.Join(own, "lost+found"), 0o700)
	os.Chown(own, 1000, 1000)
	if code, out := checkAs(t, 1000, Options{Dirs: []string{own}}); code != 0 {
		t.Errorf("not root: %d %s", code, out)
	}

	for name, content := range map[string]func(dir string) error{
		"full lost+found":      func(d string) error { return os.MkdirAll(d+"/lost+found/x", 0o700) },
		"user's lost+found":    func(d string) error { os.Mkdir(d+"/lost+found", 0o700); return os.Chown(d+"/lost+found", 1000, 1000) },
		"file lost+found":      func(d string) error { return os.WriteFile(d+"/lost+found", nil, 0o600) },
		"temporary directory":  func(d string) error { return os.Mkdir(d+"/.cacherequires.tmp1", 0o755) },
		"link to lost+found":   func(d string) error { return os.Symlink("/", d+"/lost+found") },
		"an other hidden file": func(d string) error { return os.WriteFile(d+"/.cache", nil, 0o600) },
	} {
		dir := mkdir(t, tempDir(t), "c")
		if err := content(dir); err != nil {
			t.Fatal(err)
		}
		_, err := check(task(dir))
		if fail.Of(err) != fail.PurgeCache {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMismatch(t *testing.T) {
	for name, theirs := range map[string]string{
		"a line more":        "gid=%d\nuid=%d\nversion=1\ntoolchain=clang",
		"another version":    "gid=%d\nuid=%d\nversion=2",
		"owner and a line":   "gid=7%d\nuid=7%d\nversion=1\ntoolchain=clang",
		"an empty line":      "gid=%d\n\nuid=%d\nversion=1",
		"terminal and forge": "gid=%d\nuid=%d\n\x1b[2Jrun-task: hint: x",
	} {
		t.Run(name, func(t *testing.T) {
			dir := mkdir(t, tempDir(t), "c")
			o := task(dir)
			o.Untrusted = true
			theirs := fmt.Sprintf(theirs, o.GID, o.UID)
			write(t, theirs, dir, requiresName)
			write(t, "[then T0] created\x1b[2J; requirements: a\n", dir, logName)
			write(t, "data", dir, "data")
			_, err := check(o)
			wantReason(t, err, fail.PurgeCache)
			for _, l := range strings.Split(theirs, "\n") {
				if !strings.Contains(err.(*fail.Error).Details[0], fmt.Sprintf("%q", l)) {
					t.Errorf("%q is not shown in %q", l, err.(*fail.Error).Details)
				}
			}
			all := printed(err)
			if !strings.Contains(all, fmt.Sprintf(`this task has: "gid=%d" "uid=%d" "version=1"`, o.GID, o.UID)) ||
				!strings.Contains(all, `[then T0] created\`) || !strings.Contains(all, "requirements mismatch; wanted: gid=") || strings.Contains(all, "\x1b") {
				t.Errorf("printed:\n%s", all)
			}
			want := fmt.Sprintf("T1] requirements mismatch; wanted: gid=%d, uid=%d, version=1\n", o.GID, o.UID)
			if got := read(t, dir, logName); !strings.HasSuffix(got, want) {
				t.Errorf("log %q", got)
			}
			if read(t, dir, requiresName) != theirs || read(t, dir, "data") != "data" {
				t.Error("a refused cache was changed")
			}
		})
	}
}

func TestPythonsFileIsUnderstood(t *testing.T) {
	for _, format := range []string{"gid=%d\nuid=%d\nversion=1", "version=1\r\ngid=%d\r\nuid=%d\r\n", "gid=%d\ruid=%d"} {
		dir := mkdir(t, tempDir(t), "c")
		o := task(dir)
		write(t, fmt.Sprintf(format, o.GID, o.UID), dir, requiresName)
		write(t, "x", dir, "data")
		if _, err := check(o); err != nil {
			t.Errorf("%q: %v", format, err)
		}
	}
}

func TestUntrustedCachesAreReowned(t *testing.T) {
	needRoot(t)
	dir := mkdir(t, tempDir(t), "c")
	o := task(dir)
	o.UID, o.GID = 1001, 1002
	if _, err := check(o); err != nil {
		t.Fatal(err)
	}
	sub := mkdir(t, dir, "a", "b")
	file := write(t, "x", sub, "f")
	filepath.WalkDir(dir, func(p string, _ os.DirEntry, _ error) error { return os.Lchown(p, 1001, 1002) })

	o.UID, o.GID = 1000, 1000
	_, err := check(o)
	wantReason(t, err, fail.PurgeCache)
	if !strings.Contains(fail.Hint(err), "--untrusted-caches") || owner(t, file) != 1001 {
		t.Errorf("trusted: hint %q, owner %d", fail.Hint(err), owner(t, file))
	}
	o.Untrusted = true
	if code, out := checkAs(t, 1000, o); code != fail.PurgeCache {
		t.Errorf("without root: %d %s", code, out)
	}
	write(t, "half", dir, requiresName+".tmp9")
	if _, err := check(o); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dir, sub, file} {
		if owner(t, p) != 1000 {
			t.Errorf("%s belongs to %d", p, owner(t, p))
		}
	}
	if got := read(t, dir, requiresName); got != "gid=1000\nuid=1000\nversion=1" {
		t.Errorf("requirement file %q", got)
	}
	if got := read(t, dir, logName); !strings.HasSuffix(got, "T1] chown; requirements: gid=1000, uid=1000, version=1\n") {
		t.Errorf("log %q", got)
	}
	if _, err := os.Lstat(filepath.Join(dir, requiresName+".tmp9")); err == nil {
		t.Error("a killed run's temporary file is still there")
	}
	o.Untrusted = false
	if _, err := check(o); err != nil {
		t.Errorf("after it: %v", err)
	}
}

func TestPopulatedWithoutFile(t *testing.T) {
	dir := mkdir(t, tempDir(t), "c")
	mkdir(t, dir, "inner")
	write(t, "x", dir, "run-task: hint: \x1b[2J")
	_, err := check(task(dir))
	wantReason(t, err, fail.PurgeCache)
	if all := printed(err); !strings.Contains(all, `"inner" "run-task: hint: \\x1b[2J"`) && !strings.Contains(all, `"inner" "run-task: hint: \x1b[2J"`) {
		t.Errorf("printed:\n%s", all)
	}
	if got := read(t, dir, logName); !strings.HasSuffix(got, "T1] missing .cacherequires\n") {
		t.Errorf("log %q", got)
	}
	_, err = check(task(dir, dir+"/inner"))
	if !strings.Contains(fail.Hint(err), "mount") {
		t.Errorf("the hint for a nested cache: %q", fail.Hint(err))
	}
}

func TestNoDirectory(t *testing.T) {
	tmp := tempDir(t)
	mkdir(t, tmp, "real", "sub")
	write(t, "x", tmp, "file")
	os.Symlink("real", tmp+"/link")
	before := state(t, tmp)
	for _, bad := range []string{"", "/", "//", "/..", "/proc/self/root", tmp + "/a\x00b", "\x00", tmp + "/none", tmp + "/none/none", tmp + "/file", tmp + "/file/x", tmp + "/link", tmp + "/link/"} {
		_, err := check(task(bad))
		wantReason(t, err, fail.Usage)
		_, err = check(Options{Volumes: []string{bad}})
		wantReason(t, err, fail.Usage)
	}
	if after := state(t, tmp); after != before {
		t.Errorf("changed:\n%s\n%s", before, after)
	}
	if _, err := check(task(tmp + "/link/sub")); err != nil {
		t.Errorf("a link on the way: %v", err)
	}
}

// A task that owns the outer cache could lead root's chown of the inner one anywhere.
func TestNoLinkInsideACacheIsFollowed(t *testing.T) {
	tmp := tempDir(t)
	outer, outside := mkdir(t, tmp, "outer"), mkdir(t, tmp, "outside", "inner")
	if _, err := check(task(outer)); err != nil {
		t.Fatal(err)
	}
	os.Symlink(tmp+"/outside", outer+"/sub")
	before := state(t, tmp+"/outside")
	o := task(outer+"/sub/inner", outer)
	_, err := check(o)
	wantReason(t, err, fail.Usage)
	o.Dirs, o.Volumes = []string{outer}, []string{outer + "/sub/inner"}
	_, err = check(o)
	wantReason(t, err, fail.Usage)
	if state(t, tmp+"/outside") != before {
		t.Errorf("%s was changed", outside)
	}
}

func TestADirectoryNamedTwiceIsCheckedOnce(t *testing.T) {
	tmp := tempDir(t)
	dir := mkdir(t, tmp, "real", "c")
	os.Symlink("real", tmp+"/alias")
	o := task(dir, dir+"/.", tmp+"/real/../alias/c")
	o.Volumes = []string{dir + "//", tmp + "/alias/c"}
	if out, err := check(o); err != nil {
		t.Fatal(err, out)
	}
	if got := read(t, dir, logName); strings.Count(got, "\n") != 1 {
		t.Errorf("log %q", got)
	}
}

func TestVolumes(t *testing.T) {
	tmp := tempDir(t)
	o := task()
	o.Volumes = []string{mkdir(t, tmp, "v"), tmp + "/v/."}
	if _, err := check(o); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(tmp + "/v"); len(entries) != 0 || owner(t, tmp, "v") != o.UID {
		t.Errorf("volume holds %v, owner %d", entries, owner(t, tmp, "v"))
	}
	full := mkdir(t, tmp, "full")
	for i := range 30 {
		write(t, "", full, fmt.Sprintf("f\n%02d", i))
	}
	o.Volumes = []string{full}
	before := state(t, tmp)
	_, err := check(o)
	wantReason(t, err, fail.Usage)
	if all := printed(err); !strings.Contains(all, `"f\n00" "f\n01"`) || !strings.Contains(all, "and 10 more") || strings.Contains(all, "f\n") {
		t.Errorf("printed:\n%s", all)
	}
	if state(t, tmp) != before {
		t.Error("a refused volume was changed")
	}
	if os.Getuid() == 0 {
		os.MkdirAll(tmp+"/ext4/lost+found", 0o700)
		o.Volumes = []string{tmp + "/ext4"}
		if _, err := check(o); err != nil {
			t.Errorf("fresh file system: %v", err)
		}
	}
}

func TestWithoutRoot(t *testing.T) {
	needRoot(t) // to become somebody else
	foreign, own := mkdir(t, tempDir(t), "foreign"), mkdir(t, tempDir(t), "own")
	os.Chown(own, 1000, 1000)
	code, out := checkAs(t, 1000, Options{Dirs: []string{foreign}})
	if code != fail.IO || !strings.Contains(out, "cannot be written by uid 1000") || !strings.Contains(out, "hint: make it writable") {
		t.Errorf("%d %s", code, out)
	}
	if code, out := checkAs(t, 1000, Options{Dirs: []string{own}}); code != 0 {
		t.Fatalf("%d %s", code, out)
	}
	write(t, "x", own, "data")
	// Both ways: root appends to the user's log, the user to one that root made.
	if _, err := check(task(own)); err != nil {
		t.Fatal(err)
	}
	os.Remove(own + "/" + logName)
	if _, err := check(task(own)); err != nil {
		t.Fatal(err)
	}
	if code, out := checkAs(t, 1000, Options{Dirs: []string{own}}); code != 0 || strings.Contains(out, "warning") {
		t.Errorf("%d %s", code, out)
	}
	if got := read(t, own, logName); strings.Count(got, "used\n") != 2 {
		t.Errorf("log %q", got)
	}
	os.Chown(own+"/"+logName, 0, 0)
	if code, out := checkAs(t, 1000, Options{Dirs: []string{own}}); code != 0 || !strings.Contains(out, "warning: cache") {
		t.Errorf("a log that cannot be written: %d %s", code, out)
	}
	os.Chmod(own+"/"+requiresName, 0)
	if code, out := checkAs(t, 1000, Options{Dirs: []string{own}}); code != fail.PurgeCache {
		t.Errorf("an unreadable file: %d %s", code, out)
	}
}

func TestLogStaysSmallAndHonest(t *testing.T) {
	dir := mkdir(t, tempDir(t), "c")
	o := task(dir)
	o.TaskID = "T1] used\n[forged T2"
	if _, err := check(o); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir, logName); strings.Count(got, "\n") != 1 {
		t.Errorf("a line was forged: %q", got)
	}
	line := strings.Repeat("x", 99) + "\n"
	write(t, strings.Repeat(line, maxLog/100+1), dir, logName)
	if _, err := check(o); err != nil {
		t.Fatal(err)
	}
	got := read(t, dir, logName)
	if len(got) > tailLog+300 || !strings.HasPrefix(got, line) || !strings.Contains(got, line+"[") || !strings.HasSuffix(got, "used\n") {
		t.Errorf("log of %d bytes: %.120q ... %q", len(got), got, got[len(got)-100:])
	}
	write(t, strings.Repeat("y", maxLog+1), dir, logName) // no line end at all
	if _, err := check(o); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir, logName); len(got) > 300 {
		t.Errorf("log of %d bytes", len(got))
	}
}
