//go:build unix

// Package fsx is the file system seen through directory descriptors: every name below a Dir is one component or a relative
// path that is walked without following a link, so that a tree that changes while it is read cannot lead anywhere else.
// It also has the two things that must be written once: files that appear whole or not at all, and locks.
package fsx

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Dir is an open directory. It stays that directory whatever happens to its name.
type Dir struct {
	fd   int
	name string // for messages only
}

// Open opens the directory at name, which the user gave us: links in it are followed.
func Open(name string) (*Dir, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &Dir{fd, name}, nil
}

// OpenOwn is Open for a directory that, if it is ours, gets u+rwx first where it lacks any of it.
func OpenOwn(name string) (*Dir, error) {
	d, err := Open(name)
	if err == nil {
		var st Stat
		if st, err = d.Stat(); err != nil || int(st.UID) != os.Geteuid() || st.Perm()&0o700 == 0o700 {
			return d, err
		}
		d.Close()
	} else if !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	if makeWritable(unix.AT_FDCWD, name, 0) != nil && err != nil {
		return nil, err
	}
	return Open(name)
}

// FromFd is the directory that is open as fd, which Close closes. name is for messages.
func FromFd(fd int, name string) *Dir { return &Dir{fd, name} }

// Fd is the descriptor, for system calls that are not here. It is valid until Close.
func (d *Dir) Fd() int { return d.fd }

// Name is the path for messages; it is never opened.
func (d *Dir) Name() string { return d.name }

// Close closes the descriptor.
func (d *Dir) Close() error { return unix.Close(d.fd) }

func (d *Dir) err(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path.Join(d.name, name), Err: err}
}

// parent walks to the directory that holds the last component of name. done must be called.
func (d *Dir) parent(name string) (fd int, base string, done func(), err error) {
	dir, base := path.Split(name)
	if dir == "" {
		return d.fd, base, func() {}, nil
	}
	sub, err := d.OpenDir(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return 0, "", nil, err
	}
	return sub.fd, base, func() { sub.Close() }, nil
}

// OpenDir opens a directory below d, no component of name being a link. ENOTDIR or ELOOP means that one was.
func (d *Dir) OpenDir(name string) (*Dir, error) {
	fd := d.fd
	for rest := name; rest != ""; {
		var one string
		one, rest, _ = strings.Cut(rest, "/")
		if one == ".." || one == "" {
			closeIfNot(fd, d.fd)
			return nil, d.err("open", name, unix.EINVAL)
		}
		next, err := retry(func() (int, error) {
			return unix.Openat(fd, one, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		})
		closeIfNot(fd, d.fd)
		if err != nil {
			return nil, d.err("open", name, err)
		}
		fd = next
	}
	if fd == d.fd {
		return nil, d.err("open", name, unix.EINVAL)
	}
	return &Dir{fd, short(path.Join(d.name, name))}, nil
}

func closeIfNot(fd, keep int) {
	if fd != keep {
		unix.Close(fd)
	}
}

// OpenFile opens a file below d, no component of name being a link; it never waits for the other end of a FIFO. What was opened need not be a regular file.
func (d *Dir) OpenFile(name string, flags int, perm uint32) (*os.File, error) {
	fd, base, done, err := d.parent(name)
	if err != nil {
		return nil, err
	}
	defer done()
	f, err := retry(func() (int, error) {
		return unix.Openat(fd, base, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, perm)
	})
	if err != nil {
		return nil, d.err("open", name, err)
	}
	return os.NewFile(uintptr(f), path.Join(d.name, name)), nil
}

// View opens what is at name, no component of it being a link, to be read: do gets the descriptor, which is closed after it, and the metadata. It is OpenFile
// without an os.File, which costs as much as the opening, for thousands of files.
func (d *Dir) View(name string, do func(fd int, st Stat) error) error {
	return d.at("open", name, func(at int, base string) error {
		fd, err := retry(func() (int, error) {
			return unix.Openat(at, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		})
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		var raw unix.Stat_t
		if err := unix.Fstat(fd, &raw); err != nil {
			return err
		}
		return do(fd, fromStat(&raw))
	})
}

// Read fills b from a descriptor, from where it stands; n is less than its length only at the end of the file.
func Read(fd int, b []byte) (n int, err error) {
	for n < len(b) {
		got, err := retry(func() (int, error) { return unix.Read(fd, b[n:]) })
		if got <= 0 || err != nil {
			return n, os.NewSyscallError("read", err)
		}
		n += got
	}
	return n, nil
}

// Create makes a file that is not there yet, no component of name being a link, and tells its metadata. On an error a part of it may be there.
// It is WriteFile without all that makes it safe, for thousands of files.
func (d *Dir) Create(name string, data []byte, perm uint32) (st Stat, err error) {
	err = d.at("create", name, func(at int, base string) error {
		fd, err := retry(func() (int, error) {
			return unix.Openat(at, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
		})
		if err != nil {
			return err
		}
		for len(data) > 0 && err == nil {
			var n int
			n, err = retry(func() (int, error) { return unix.Write(fd, data) })
			data = data[max(n, 0):]
		}
		var raw unix.Stat_t
		if err == nil {
			err = unix.Fstat(fd, &raw)
			st = fromStat(&raw)
		}
		return cmp.Or(err, unix.Close(fd))
	})
	return st, err
}

// Copy makes a file of the same name and content as the one in from, which must be a regular file, durably; where the file system can, both share their
// blocks. A file of that name that is there is an error, and a failure leaves nothing.
func Copy(to, from *Dir, name string, perm uint32) error {
	in, err := from.OpenFile(name, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	if st, err := FileStat(in); err != nil || !st.IsRegular() {
		return cmp.Or(err, error(&fs.PathError{Op: "copy", Path: in.Name(), Err: unix.EINVAL}))
	}
	out, err := to.OpenFile(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, perm)
	if err != nil {
		return err
	}
	if Clone(out, in) != nil {
		_, err = io.Copy(out, in)
	}
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		to.Unlink(name)
	}
	return err
}

// Lstat tells what stands at name, a link itself included.
func (d *Dir) Lstat(name string) (Stat, error) {
	fd, base, done, err := d.parent(name)
	if err != nil {
		return Stat{}, err
	}
	defer done()
	var st unix.Stat_t
	if err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Stat{}, d.err("lstat", name, err)
	}
	return fromStat(&st), nil
}

// Stat tells about the directory itself.
func (d *Dir) Stat() (Stat, error) {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return Stat{}, d.err("stat", "", err)
	}
	return fromStat(&st), nil
}

// FileStat tells about an open file.
func FileStat(f *os.File) (Stat, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Stat{}, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return fromStat(&st), nil
}

// listings are buffers for Names, which is called for every directory of a tree.
var listings = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// Names lists the directory, unsorted, without "." and "..". No two goroutines may list one Dir at a time.
func (d *Dir) Names() (names []string, err error) {
	if _, err := unix.Seek(d.fd, 0, io.SeekStart); err != nil {
		return nil, d.err("list", "", err)
	}
	pooled := listings.Get().(*[]byte)
	defer listings.Put(pooled)
	buf := *pooled
	for {
		n, err := retry(func() (int, error) { return unix.ReadDirent(d.fd, buf) })
		if err != nil {
			return nil, d.err("list", "", err)
		}
		if n <= 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// Mkdir makes one directory.
func (d *Dir) Mkdir(name string, perm uint32) error {
	return d.at("mkdir", name, func(fd int, base string) error { return unix.Mkdirat(fd, base, perm) })
}

// MkdirAll makes a directory and its parents below d; existing ones are fine, links are not.
func (d *Dir) MkdirAll(name string, perm uint32) error {
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		if err := d.Mkdir(name[:i], perm); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	sub, err := d.OpenDir(name)
	if err != nil {
		return err
	}
	return sub.Close()
}

// Unlink removes a name that is not a directory.
func (d *Dir) Unlink(name string) error {
	return d.at("unlink", name, func(fd int, base string) error { return unix.Unlinkat(fd, base, 0) })
}

// Rmdir removes an empty directory.
func (d *Dir) Rmdir(name string) error {
	return d.at("rmdir", name, func(fd int, base string) error { return unix.Unlinkat(fd, base, unix.AT_REMOVEDIR) })
}

// Symlink makes a link at name.
func (d *Dir) Symlink(target, name string) error {
	return d.at("symlink", name, func(fd int, base string) error { return unix.Symlinkat(target, fd, base) })
}

// Link makes a second name of a file, no component of either being a link.
func (d *Dir) Link(old, new string) error {
	return d.at("link", old, func(from int, base string) error {
		return d.at("link", new, func(to int, name string) error { return unix.Linkat(from, base, to, name, 0) })
	})
}

// Rename moves old to new, both below d, replacing a file.
func (d *Dir) Rename(old, new string) error {
	ofd, obase, odone, err := d.parent(old)
	if err != nil {
		return err
	}
	defer odone()
	return d.at("rename", new, func(fd int, base string) error { return unix.Renameat(ofd, obase, fd, base) })
}

func (d *Dir) at(op, name string, call func(fd int, base string) error) error {
	fd, base, done, err := d.parent(name)
	if err != nil {
		return err
	}
	defer done()
	return d.err(op, name, call(fd, base))
}

// SetTime sets when what stands at name, a link itself included, was last modified; "." is the directory itself.
func (d *Dir) SetTime(name string, sec, nsec int64) error {
	return d.at("set the time of", name, func(fd int, base string) error { return setTime(fd, base, sec, nsec) })
}

// Readlink reads a link's target.
func (d *Dir) Readlink(name string) (string, error) {
	fd, base, done, err := d.parent(name)
	if err != nil {
		return "", err
	}
	defer done()
	for size := 256; ; size *= 2 {
		b := make([]byte, size)
		n, err := unix.Readlinkat(fd, base, b)
		if err != nil {
			return "", d.err("readlink", name, err)
		}
		if n < size {
			return string(b[:n]), nil
		}
	}
}

// TooDeep is as deep as directories are looked into: none that anybody works with is as deep, and each level costs a descriptor.
const TooDeep = 2048

// ErrTooDeep is RemoveAll's for what is deeper than TooDeep.
var ErrTooDeep = errors.New("directories are too deep in each other to be looked through")

// RemoveAll removes name and all below it; a missing one is fine. Directories without write or search permission are made
// writable first (Go's module cache has them). It follows no link and crosses no mount: EXDEV names the mount point.
func (d *Dir) RemoveAll(name string) error {
	err := d.removeAll(name, TooDeep)
	if err == ErrTooDeep {
		err = d.err("remove", name, err)
	}
	return err
}

func (d *Dir) removeAll(name string, levels int) error {
	st, err := d.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return ignoreMissing(d.Unlink(name))
	}
	if mount, err := d.IsMount(name); err != nil {
		return err
	} else if mount {
		return d.err("remove", name, unix.EXDEV)
	}
	if st.Perm()&0o700 != 0o700 {
		d.MakeWritable(name) // if it is not ours and empty, that is not needed; else what comes next fails
	}
	if levels == 0 {
		return ErrTooDeep
	}
	sub, err := d.OpenDir(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	names, err := sub.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := sub.removeAll(n, levels-1); err != nil {
			return err
		}
	}
	return ignoreMissing(d.Rmdir(name))
}

// MakeWritable gives a directory of ours u+rwx where it lacks any of it, and takes setuid and the like from it then; EPERM means that it is not ours.
func (d *Dir) MakeWritable(name string) error {
	st, err := d.Lstat(name)
	if err != nil || st.Perm()&0o700 == 0o700 {
		return err
	}
	if !st.IsDir() {
		return d.err("chmod", name, unix.ENOTDIR)
	}
	return d.at("chmod", name, func(fd int, base string) error { return makeWritable(fd, base, unix.O_NOFOLLOW) })
}

// Writable fails if names may not be listed, made and removed in the directory with the rights that the process has now:
// EACCES, or EROFS on a read-only file system.
func (d *Dir) Writable() error {
	return d.err("access", "", unix.Faccessat(d.fd, ".", unix.R_OK|unix.W_OK|unix.X_OK, unix.AT_EACCESS))
}

// IsMount says whether something is mounted at name: another file system, or the same one once more (a bind mount), which
// needs Linux 5.8 to be seen.
func (d *Dir) IsMount(name string) (bool, error) {
	fd, base, done, err := d.parent(name)
	if err != nil {
		return false, err
	}
	defer done()
	if mount, ok := mountRoot(fd, base); ok {
		return mount, nil
	}
	var own, st unix.Stat_t
	if err := unix.Fstat(fd, &own); err != nil {
		return false, d.err("stat", path.Dir(name), err)
	}
	if err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, d.err("lstat", name, err)
	}
	return st.Dev != own.Dev, nil
}

// short keeps the names of directories that are deep in each other from taking more memory than they are worth.
func short(name string) string {
	if len(name) < 8<<10 {
		return name
	}
	return name[:4<<10] + "/..."
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ReadFile reads a regular file of at most max bytes. EFBIG means a longer one, EINVAL one that is no regular file, ELOOP a link.
func (d *Dir) ReadFile(name string, max int64) ([]byte, error) {
	f, err := d.OpenFile(name, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readRegular(f, max, func(err error) error { return d.err("read", name, err) })
}

// WriteFile makes name hold data, whole or not at all, also over a power cut: temporary file, fsync, rename, fsync of the directory.
func (d *Dir) WriteFile(name string, data []byte, perm uint32) error {
	tmp := fmt.Sprintf("%s.tmp%x", name, rand.Uint64()) // every container has a PID 1
	if err := d.writeNew(tmp, data, perm); err != nil {
		d.Unlink(tmp)
		return err
	}
	if err := d.Rename(tmp, name); err != nil {
		d.Unlink(tmp)
		return err
	}
	return d.Sync(path.Dir(name))
}

func (d *Dir) writeNew(name string, data []byte, perm uint32) error {
	f, err := d.OpenFile(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, unix.Fchmod(int(f.Fd()), perm), f.Sync(), f.Close())
}

// Sync makes the names in a directory below d (or d itself, ".") survive a power cut.
func (d *Dir) Sync(name string) error {
	if name == "." {
		return d.err("sync", "", unix.Fsync(d.fd))
	}
	sub, err := d.OpenDir(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	return sub.Sync(".")
}

// retry repeats a call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// Stat is what run-task needs of a file's metadata, with the same field sizes on every system.
type Stat struct {
	Dev, Ino, Nlink      uint64
	Mode                 uint32 // type and permissions, as S_IF* and octal bits
	UID, GID             uint32
	Size                 int64
	Blocks               int64 // of 512 bytes that it takes
	MtimeSec, CtimeSec   int64
	MtimeNsec, CtimeNsec int64
}

// IsDir and the like tell the file's type.
func (s Stat) IsDir() bool     { return s.Mode&unix.S_IFMT == unix.S_IFDIR }
func (s Stat) IsRegular() bool { return s.Mode&unix.S_IFMT == unix.S_IFREG }
func (s Stat) IsSymlink() bool { return s.Mode&unix.S_IFMT == unix.S_IFLNK }

// Perm is the permission bits, setuid, setgid and sticky included.
func (s Stat) Perm() uint32 { return s.Mode & 0o7777 }

// SameTime tells whether both were last modified at the same time.
func (s Stat) SameTime(o Stat) bool { return s.MtimeSec == o.MtimeSec && s.MtimeNsec == o.MtimeNsec }

// Holes tells whether a regular file may have holes that are worth looking for.
func (s Stat) Holes() bool { return s.IsRegular() && s.Size >= 32<<10 && s.Blocks*512 < s.Size }

// Kind names the type for messages.
func (s Stat) Kind() string {
	switch s.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symbolic link"
	case unix.S_IFIFO:
		return "FIFO"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "device"
	}
	return fmt.Sprintf("file of type %#o", s.Mode&unix.S_IFMT)
}
