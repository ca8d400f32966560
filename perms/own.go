package perms

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
)

// Own gives dir and all below it to uid and gid, and prints one line about it. Directories get u+rwx as well. What is
// already right is not written to. As with any chown(2), changed files lose setuid and setgid bits and file capabilities.
//
// The tree may be hostile and may change meanwhile: Own follows no link (dir itself must not be one), crosses no mount
// and acts on the very file that it looked at. It leaves alone and counts: what is mounted below dir, files or
// directories; devices; files that have, or may have, a link outside of dir; and what the file system refuses to change
// (immutable files). It changes the owner of FIFOs, sockets and links without opening them.
//
// It fails with fail.Usage for a dir that is none, "" or "/", or is reached by a link that others than root could have made;
// with fail.OS for a missing capability or an unmapped id, with errors.ErrUnsupported but on Linux, and ends soon after ctx does.
func Own(ctx context.Context, log *logs.Log, dir string, uid, gid int) error {
	if !onLinux {
		return fail.Errorf(fail.OS, "own %q: %w", dir, errors.ErrUnsupported)
	}
	if err := validIDs(uid, gid); err != nil {
		return err
	}
	fd, opened, err := openTop(dir, openAnyDir)
	if err != nil {
		return fmt.Errorf("own %w", err)
	}
	defer unix.Close(fd)
	return ownTree(ctx, log, fd, dir, opened, uid, gid)
}

// OwnTree is Own for a directory that is open, as OpenDir returned it.
func OwnTree(ctx context.Context, log *logs.Log, d *fsx.Dir, uid, gid int) error {
	if !onLinux {
		return fail.Errorf(fail.OS, "own %q: %w", d.Name(), errors.ErrUnsupported)
	}
	if err := validIDs(uid, gid); err != nil {
		return err
	}
	return ownTree(ctx, log, d.Fd(), d.Name(), false, uid, gid)
}

func ownTree(ctx context.Context, log *logs.Log, fd int, name string, opened bool, uid, gid int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &walk{ctx: ctx, cancel: cancel, progress: log.Progress(), uid: uid, gid: gid, name: name, top: fd, links: map[file]*inode{}, met: map[place]bool{}}
	defer w.progress.Done()
	w.calm = time.Now().Add(-tick)
	if err := w.all(opened); err != nil {
		return err
	}
	log.Infof("owned %q: %s", name, w.summary())
	if w.refused.Load() > 0 {
		log.Verbosef("the file system refused to change %q", w.firstRefused)
	}
	return nil
}

// OwnDir gives one directory, and nothing in it, to uid and gid, with u+rwx. It fails as Own does.
func OwnDir(d *fsx.Dir, uid, gid int) error {
	if err := validIDs(uid, gid); err != nil {
		return err
	}
	st, err := d.Stat()
	if err != nil {
		return err
	}
	_, err = ownDir(d.Fd(), st, uid, gid)
	return explain(err, fmt.Sprintf("own %q", d.Name()), uid, gid)
}

// OpenDir opens a directory that the user named, as Own finds its own: name is cleaned lexically, its last component must not
// be a link, and root follows a link on the way only where nobody but root could have made it. Who is not root follows any. It
// fails with fail.Usage for what is no such directory, "" and "/" among it; the message begins with the name, quoted. But on
// Linux root gets errors.ErrUnsupported.
func OpenDir(name string) (*fsx.Dir, error) {
	open := func(dir int, base string) (int, bool, error) {
		fd, err := openDir(dir, base)
		return fd, false, err
	}
	if onLinux {
		fd, _, err := openTop(name, open)
		if err != nil {
			return nil, err
		}
		return fsx.FromFd(fd, name), nil
	}
	if unix.Geteuid() == 0 {
		return nil, fail.Errorf(fail.OS, "%q: %w", name, errors.ErrUnsupported)
	}
	if err := validPath(name); err != nil {
		return nil, err
	}
	dir := path.Clean(name)
	parent, err := fsx.Open(path.Dir(dir))
	if err != nil {
		return nil, explainTop(name, err)
	}
	defer parent.Close()
	d, err := parent.OpenDir(path.Base(dir))
	if err != nil {
		return nil, explainTop(name, err)
	}
	return d, nil
}

// validPath leaves out "", which would be the working directory, and what no system call takes.
func validPath(name string) error {
	if name == "" || strings.ContainsRune(name, 0) {
		return fail.Errorf(fail.Usage, "%q: no path", name).WithHint("name a directory; for the working directory itself that is \".\"")
	}
	return nil
}

// openTop opens the directory that the user named. Links on the way are followed where only root could have made them, the last component is none.
func openTop(name string, open func(dir int, base string) (int, bool, error)) (fd int, opened bool, err error) {
	if err := validPath(name); err != nil {
		return -1, false, err
	}
	dir := path.Clean(name)
	parent, rest, err := descend(path.Dir(dir), nil)
	if err != nil {
		return -1, false, explainTop(name, err)
	}
	defer unix.Close(parent)
	if len(rest) > 0 {
		return -1, false, explainTop(name, unix.ENOENT)
	}
	fd, opened, err = open(parent, path.Base(dir))
	if err != nil {
		return -1, false, explainTop(name, err)
	}
	if err := notAll(fd); err != nil {
		unix.Close(fd)
		return -1, false, explainTop(name, err)
	}
	return fd, opened, nil
}

var errAll = errors.New("the whole file system will not be given away")

// notAll refuses "/", by whatever name.
func notAll(fd int) error {
	root, err := openPath(unix.AT_FDCWD, "/")
	if err != nil {
		return err
	}
	defer unix.Close(root)
	r, err1 := look(root)
	st, err2 := look(fd)
	if err := errors.Join(err1, err2); err != nil || r.file() != st.file() {
		return err
	}
	return errAll
}

// explainTop says why a directory that the user named cannot be opened.
func explainTop(name string, err error) error {
	usage := func(why error, hint string) error {
		return fail.Errorf(fail.Usage, "%q: %w", name, why).WithHint("%s", hint)
	}
	var known *fail.Error
	switch {
	case errors.As(err, &known):
		return fmt.Errorf("%q: %w", name, err)
	case errors.Is(err, unix.ENOENT):
		return usage(errors.New("does not exist"), "mount or make the directory before run-task starts")
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return usage(errors.New("not a directory; links are not followed"), "name the directory itself")
	case errors.Is(err, errForeignLink):
		return usage(errForeignLink, "name the directory by a path without links")
	case errors.Is(err, errAll), errors.Is(err, unix.ENAMETOOLONG):
		return usage(err, "name the directory itself")
	}
	return explain(err, fmt.Sprintf("%q", name), 0, 0)
}

// ownDir changes the mode first: afterwards it would need CAP_FOWNER.
func ownDir(fd int, st fsx.Stat, uid, gid int) (changed bool, err error) {
	if st.Perm()&0o700 != 0o700 {
		if err := unix.Fchmod(fd, st.Perm()|0o700); err != nil {
			return true, needs(capFowner, err)
		}
		changed = true
	}
	if int(st.UID) != uid || int(st.GID) != gid {
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return true, needs(capChown, err)
		}
		changed = true
	}
	return changed, nil
}

// openAnyDir opens a directory also where its mode keeps us out, if it is ours to change; opened says that it was.
func openAnyDir(dir int, name string) (fd int, opened bool, err error) {
	fd, err = openDir(dir, name)
	if err != unix.EACCES {
		return fd, false, err
	}
	err = needs(capDacOverride, err)
	p, perr := openPath(dir, name)
	if perr != nil {
		return -1, false, err
	}
	defer unix.Close(p)
	st, perr := look(p)
	if perr != nil || !st.IsDir() || st.Perm()&0o700 == 0o700 || chmodPath(p, st.Perm()|0o700) != nil {
		return -1, false, err
	}
	fd, err = openDir(p, ".")
	return fd, true, err
}
