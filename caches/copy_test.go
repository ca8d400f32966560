package caches

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

func copied(t *testing.T, src, dst string) (output string, err error) {
	t.Helper()
	var b bytes.Buffer
	err = Copy(t.Context(), logs.New(&b, logs.Normal, false), []CopySpec{{src, dst}})
	return b.String(), err
}

func stat(t *testing.T, path string) fs.FileInfo {
	t.Helper()
	i, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func list(dir string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func makeWritable(dir string) {
	filepath.WalkDir(dir, func(p string, e fs.DirEntry, _ error) error {
		if e != nil && e.IsDir() {
			os.Chmod(p, 0o700)
		}
		return nil
	})
}

// shape is all of a tree that a copy must keep.
func shape(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		i := stat(t, p)
		mtime := i.ModTime()
		fmt.Fprintf(&b, "%s %v ", rel, i.Mode()&^(fs.ModeSetuid|fs.ModeSetgid))
		switch {
		case i.Mode().IsRegular():
			fmt.Fprintf(&b, "%q ", read(t, p))
		case i.Mode()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(p)
			fmt.Fprintf(&b, "-> %q ", target)
		}
		fmt.Fprintln(&b, mtime.UnixNano())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// tree makes a source with everything that a copy keeps.
func tree(t *testing.T) string {
	t.Helper()
	src := mkdir(t, tempDir(t), "src")
	write(t, "text", mkdir(t, src, "sub", "deep"), "f")
	write(t, "#!/bin/sh", src, "run")
	write(t, "", src, "empty\n\xff")
	write(t, "secret", src, "secret")
	mkdir(t, src, "none")
	mkdir(t, src, "tmp")
	os.Symlink("sub/deep/f", src+"/link")
	os.Symlink("/does/not/exist", src+"/dangling")
	os.Symlink("..", src+"/sub/up")
	os.Chmod(src+"/run", 0o751)
	os.Chmod(src+"/secret", 0o400)
	os.Chmod(src+"/tmp", 0o777|fs.ModeSticky)
	old := time.Unix(1_000_000_000, 123456789)
	for _, p := range []string{"sub/deep/f", "run", "secret", "sub/deep", "sub", "tmp", "none", "."} {
		old = old.Add(time.Hour + 7)
		os.Chtimes(filepath.Join(src, p), old, old)
	}
	ts := []unix.Timespec{{Sec: 5e8, Nsec: 5000}, {Sec: 5e8, Nsec: 5000}}
	unix.UtimesNanoAt(unix.AT_FDCWD, src+"/link", ts, unix.AT_SYMLINK_NOFOLLOW)
	os.Chmod(src+"/sub", 0o555)
	os.Chmod(src+"/none", 0o511)
	os.Chmod(src, 0o555)
	return src
}

func TestCopyTree(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	for name, prepare := range map[string]func(dst string){
		"missing":        func(string) {},
		"empty":          func(dst string) { os.MkdirAll(dst, 0o755) },
		"left by a kill": func(dst string) { os.MkdirAll(dst+"/"+stageName+"/sub", 0o755); os.WriteFile(dst+"/half", nil, 0o644) },
		"left beside":    func(dst string) { os.MkdirAll(filepath.Dir(dst)+"/.dst"+stageName+"/x", 0o755) },
		"file left beside": func(dst string) {
			os.MkdirAll(filepath.Dir(dst), 0o755)
			os.WriteFile(filepath.Dir(dst)+"/.dst"+stageName, nil, 0)
		},
		"left and read-only": func(dst string) {
			os.MkdirAll(dst+"/"+stageName+"/sub", 0o755)
			os.Chmod(dst+"/"+stageName+"/sub", 0o500)
		},
	} {
		t.Run(name, func(t *testing.T) {
			src := tree(t)
			want := shape(t, src)
			dst := tempDir(t) + "/made/parents/dst"
			prepare(dst)
			out, err := copied(t, src, dst)
			if err != nil {
				t.Fatal(err)
			}
			if got := shape(t, dst); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if shape(t, src) != want {
				t.Error("the source was changed")
			}
			if left := list(filepath.Dir(dst)); !slices.Equal(left, []string{"dst"}) {
				t.Errorf("left: %q", left)
			}
			if want := fmt.Sprintf("copied %q to %q: 12 entries, 19 B\n", src, dst); out != want {
				t.Errorf("said %q, want %q", out, want)
			}
		})
	}
}

// Without root a read-only directory can be neither filled nor moved to another parent.
func TestCopyWithoutRoot(t *testing.T) {
	needRoot(t) // to become somebody else
	src := tree(t)
	os.Chmod(src+"/secret", 0o444) // readable for others
	os.Chmod(src+"/run", 0o755)
	os.Chmod(src+"/none", 0o555)
	os.Chmod(src+"/sub/deep", 0o755)
	os.Chmod(src, 0o555)
	want := shape(t, src)
	tmp := tempDir(t)
	free, given := mkdir(t, tmp, "free"), mkdir(t, tmp, "given") // the parent of given cannot be written
	os.Chown(free, 1000, 1000)
	os.Chown(given, 1000, 1000)
	out, err := helper(t, 1000, order{Copies: []CopySpec{{src, free + "/dst"}, {src, given}}}).CombinedOutput()
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for _, dst := range []string{free + "/dst", given} {
		if got := shape(t, dst); got != want || owner(t, dst, "run") != 1000 {
			t.Errorf("%s: owner %d, got\n%s\nwant\n%s", dst, owner(t, dst, "run"), got, want)
		}
	}

	// What cannot be swept away must be known again the next time.
	stuck := mkdir(t, tmp, "stuck")
	write(t, "root's", mkdir(t, stuck, "half"), "f")
	mkdir(t, stuck, stageName)
	os.Chown(stuck, 1000, 1000)
	os.Chown(stuck+"/"+stageName, 1000, 1000)
	out, err = helper(t, 1000, order{Copies: []CopySpec{{src, stuck}}}).CombinedOutput()
	if left := list(stuck); err == nil || !slices.Equal(left, []string{stageName, "half"}) {
		t.Errorf("%v %s left %q", err, out, left)
	}

	others := mkdir(t, tmp, "others") // may be filled by all, belongs to root
	os.Chmod(others, 0o777)
	out, err = helper(t, 1000, order{Copies: []CopySpec{{src, others}}}).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "keeps its own mode") {
		t.Errorf("%v %s", err, out)
	}
}

// As root a file that is setuid for a user would become setuid for root.
func TestCopyNeverMakesSetuidFiles(t *testing.T) {
	src := mkdir(t, tempDir(t), "src")
	file := write(t, "x", src, "suid")
	write(t, "x", src, "sgid")
	if os.Getuid() == 0 {
		os.Chown(file, 1000, 1000)
	}
	os.Chmod(file, 0o755|fs.ModeSetuid)
	os.Chmod(src+"/sgid", 0o755|fs.ModeSetgid)
	os.Chmod(src, 0o755|fs.ModeSetgid)
	os.Link(file, src+"/other-name")
	dst := tempDir(t) + "/dst"
	out, err := copied(t, src, dst)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"", "suid", "sgid", "other-name"} {
		if mode := stat(t, dst+"/"+p).Mode(); mode.Perm() != 0o755 || mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			t.Errorf("%q is %v", p, mode)
		}
		if owner(t, dst, p) != os.Getuid() {
			t.Errorf("%q belongs to %d", p, owner(t, dst, p))
		}
	}
	if !strings.Contains(out, "warning: 3 files") {
		t.Errorf("said %q", out)
	}
}

// What the library alone would lose: names that share a file, holes, attributes, the nanoseconds of links.
func TestCopyKeepsTheRest(t *testing.T) {
	src := mkdir(t, tempDir(t), "src")
	file := write(t, "shared", mkdir(t, src, "a"), "file")
	os.Mkdir(src+"/b", 0o755)
	os.Link(file, src+"/b/name")
	hole, err := os.Create(src + "/hole")
	if err == nil {
		_, err = hole.WriteAt([]byte("end"), 4<<20)
	}
	err = errors.Join(err, hole.Close(), os.Chmod(src+"/hole", 0o400), os.Symlink("x", src+"/link"), os.Chtimes(src+"/hole", time.Unix(7, 8), time.Unix(7, 8)),
		unix.UtimesNanoAt(unix.AT_FDCWD, src+"/link", []unix.Timespec{{Sec: 5, Nsec: 6}, {Sec: 5, Nsec: 6}}, unix.AT_SYMLINK_NOFOLLOW),
		unix.Setxattr(file, "user.a", []byte("1"), 0), unix.Setxattr(src+"/b", "user.d", []byte("2"), 0), unix.Setxattr(write(t, "", src, "plain"), "user.p", []byte("3"), 0))
	if err != nil {
		t.Fatal(err)
	}
	dst := tempDir(t) + "/dst"
	if out, err := copied(t, src, dst); err != nil {
		t.Fatal(err, out)
	}
	if got, want := shape(t, dst), shape(t, src); got != want {
		t.Errorf("shapes differ: %d and %d bytes", len(got), len(want))
	}
	var one, other, sparse unix.Stat_t
	if err := errors.Join(unix.Stat(dst+"/a/file", &one), unix.Stat(dst+"/b/name", &other), unix.Stat(dst+"/hole", &sparse)); err != nil || one.Ino != other.Ino || one.Nlink != 2 || sparse.Blocks*512 > 1<<20 {
		t.Errorf("%v: inodes %d and %d, %d blocks", err, one.Ino, other.Ino, sparse.Blocks)
	}
	for name, want := range map[string]string{"a/file user.a": "1", "b user.d": "2", "plain user.p": "3"} {
		path, attribute, _ := strings.Cut(name, " ")
		value := make([]byte, 10)
		if n, err := unix.Getxattr(dst+"/"+path, attribute, value); err != nil || string(value[:n]) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCopyFile(t *testing.T) {
	tmp := tempDir(t)
	src := write(t, "text", tmp, "f")
	os.Chmod(src, 0o440|fs.ModeSetuid)
	os.Chtimes(src, time.Unix(1, 2), time.Unix(1, 2))
	os.Symlink("f", tmp+"/link")
	if _, err := copied(t, tmp+"/link", tmp+"/a/b/g"); err != nil {
		t.Fatal(err)
	}
	if i := stat(t, tmp+"/a/b/g"); i.Mode() != 0o440 || i.ModTime() != time.Unix(1, 2) || read(t, tmp, "a/b/g") != "text" {
		t.Errorf("got %v %v", i.Mode(), i.ModTime())
	}
	if left := list(tmp + "/a/b"); !slices.Equal(left, []string{"g"}) {
		t.Errorf("left: %q", left)
	}
	mkdir(t, tmp, "empty")
	for _, dst := range []string{tmp + "/a/b/g", tmp + "/empty", src} {
		_, err := copied(t, src, dst)
		wantReason(t, err, fail.Usage)
	}
}

func TestCopyRefuses(t *testing.T) {
	tmp := tempDir(t)
	src := mkdir(t, tmp, "src")
	write(t, "x", src, "f")
	mkdir(t, tmp, "full", "src")
	write(t, "x", tmp, "full", "f")
	mkdir(t, tmp, "killed", stageName)
	mkdir(t, tmp, "killed", "src")
	os.Symlink("src", tmp+"/alias")
	os.Symlink("nowhere", tmp+"/dangling")
	mkdir(t, tmp, "empty")
	os.Symlink("empty", tmp+"/to-empty")
	for name, put := range map[string]func(p string) error{
		"fifo": func(p string) error { return unix.Mkfifo(p, 0o644) },
		"sock": func(p string) error { _, err := net.Listen("unix", p); return err },
		"dev":  func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
	} {
		if err := put(mkdir(t, tmp, name) + "/special"); err != nil && os.Getuid() == 0 {
			t.Fatal(err)
		}
		write(t, "x", tmp, name, "a")
	}
	before := state(t, tmp)
	for _, c := range []struct{ src, dst, want string }{
		{"none", "new", "no such file"},
		{"dangling", "new", "no such file"},
		{"src", "full", "not empty"},
		{"src", "src", "inside"},
		{"src", "src/new", "inside"},
		{"alias", "src/new/deep", "inside"},
		{"src", "alias/new", "inside"},
		{"killed/src", "killed", "inside"}, // would be swept away with what looks like a killed copy
		{"full/src", "full", "inside"},
		{"src", "dangling", "exists"},
		{"src", "dangling/x", "nowhere"},
		{"src", "to-empty", "exists"},
		{"src", "src/f", "inside"},
		{"full/src", "full/f", "exists"},
		{"fifo", "new/deep", "is a FIFO"},
		{"fifo", "empty", "is a FIFO"},
		{"sock", "new", "is a socket"},
		{"dev", "new", "is a device"},
		{"dev/special", "new", "is a device"},
	} {
		if os.Getuid() != 0 && strings.HasPrefix(c.src, "dev") {
			continue
		}
		_, err := copied(t, tmp+"/"+c.src, tmp+"/"+c.dst)
		wantReason(t, err, fail.Usage)
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s to %s: %v, want %q", c.src, c.dst, err, c.want)
		}
		if after := state(t, tmp); after != before {
			t.Fatalf("%s to %s changed\n%s\nto\n%s", c.src, c.dst, before, after)
		}
	}
	t.Chdir(src) // which "" is not
	for _, c := range [][2]string{{"", tmp + "/new"}, {tmp + "/full", ""}, {tmp + "/sr\x00c", tmp + "/new"}, {src, tmp + "/n\x00w"}} {
		_, err := copied(t, c[0], c[1])
		wantReason(t, err, fail.Usage)
		if after := state(t, tmp); after != before {
			t.Fatalf("%q changed\n%s\nto\n%s", c, before, after)
		}
	}
}

func TestFailedCopyLeavesNothing(t *testing.T) {
	src := mkdir(t, tempDir(t), "src")
	for i := range 20 {
		write(t, "x", src, fmt.Sprint(i))
	}
	tmp := tempDir(t)
	mkdir(t, tmp, "existing")
	for _, dst := range []string{tmp + "/new", tmp + "/existing"} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := copying{CopySpec: CopySpec{src, dst}, log: logs.New(&bytes.Buffer{}, logs.Normal, false)}
		c.progress = c.log.Progress()
		info, err := c.source()
		if err != nil {
			t.Fatal(err)
		}
		fill, err := c.destination(info)
		if err != nil {
			t.Fatal(err)
		}
		cancel() // after the walk, so that it is the copy that ends
		if fill {
			err = c.fill(ctx, info)
		} else {
			err = c.create(ctx)
		}
		if fail.Of(err) != fail.Cancelled {
			t.Errorf("%s: %v", dst, err)
		}
	}
	if left := list(tmp); !slices.Equal(left, []string{"existing"}) || len(list(tmp+"/existing")) > 0 {
		t.Errorf("left: %q and %q", left, list(tmp+"/existing"))
	}
	if err := Copy(context.Background(), logs.New(&bytes.Buffer{}, logs.Normal, false), []CopySpec{{src, tmp + "/existing"}}); err != nil {
		t.Errorf("the next run: %v", err)
	}
}
