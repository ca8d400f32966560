package perms

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

// Provide makes those of dirs that only root can make, with their parents, and gives them to the user that root will
// become; an existing directory that is root's and empty is given too (an image's WORKDIR, a fresh volume), unless it is
// sticky: git works in no directory that belongs to somebody else. Each prints a line.
// Where the user owns a directory on the way, or others than root may write to it, the user makes the rest, after the
// drop: root makes nothing there, unless the directory is sticky (/tmp) and the next on the way is there and root's alone.
// It does nothing unless root becomes somebody else, and fails with fail.Usage for "" and where something other than a
// directory is in the way, fail.OS for a missing capability, fail.IO for a read-only file system.
func Provide(log *logs.Log, dirs []string, id Identity) error {
	if !id.Drop || id.UID == 0 {
		return nil
	}
	if !onLinux {
		return fail.Errorf(fail.OS, "make directories: %w", errors.ErrUnsupported)
	}
	if err := validIDs(id.UID, id.GID); err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := validPath(dir); err != nil {
			return fmt.Errorf("make %w", err)
		}
		err := id.provide(log, dir)
		for tries := 0; errors.Is(err, unix.EEXIST) && tries < 10; tries++ { // another run-task makes the same
			err = id.provide(log, dir)
		}
		if err != nil {
			return explain(err, fmt.Sprintf("make %q", dir), id.UID, id.GID)
		}
	}
	return nil
}

func (id Identity) provide(log *logs.Log, dir string) error {
	fd, rest, err := descend(dir, id.mayWrite)
	if errors.Is(err, errForeignLink) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	st, err := look(fd)
	if err != nil || id.mayWrite(st) && (len(rest) > 0 || st.UID != 0 || st.Mode&unix.S_ISVTX != 0) {
		return err
	}
	if len(rest) > 0 {
		if err := id.makeAll(fd, rest); err != nil {
			return err
		}
		log.Infof("made %q for uid %d", dir, id.UID)
		return nil
	}
	given, err := id.giveEmpty(fd, st)
	if given {
		log.Infof("gave %q, which was empty, to uid %d", dir, id.UID)
	}
	return err
}

// mayWrite tells whether a directory is the user's business, or others'. What the group root may write is still root's
// unless the user is in that group.
func (id Identity) mayWrite(st stat) bool {
	return st.UID != 0 || st.Perm()&0o002 != 0 || st.Perm()&0o020 != 0 && (st.GID != 0 || slices.Contains(id.Groups, 0))
}

// makeAll makes a directory and those below it, and gives them away from the last to the first: until then nobody but root can reach in.
func (id Identity) makeAll(parent int, names []string) error {
	if len(names) == 0 {
		return nil
	}
	if names[0] == ".." { // a link's target leads through what does not exist
		return unix.ENOENT
	}
	if err := mkdir(parent, names[0], 0o755); err != nil {
		return err
	}
	fd, err := openDir(parent, names[0])
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	st, err := look(fd)
	if err != nil {
		return err
	}
	if st.UID != 0 {
		return fail.Errorf(fail.IO, "directory %q changed hands while it was made", names[0])
	}
	if err := id.makeAll(fd, names[1:]); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, st.Perm()|0o755); err != nil { // the umask may have taken some
		return err
	}
	return needs(capChown, unix.Fchown(fd, id.UID, id.GID))
}

func (id Identity) giveEmpty(dir int, st stat) (bool, error) {
	fd, _, err := openAnyDir(dir, ".")
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	buf := make([]byte, 4096)
	n, err := readNames(fd, buf)
	if err != nil {
		return false, err
	}
	for name, rest := []byte(nil), buf[:n]; len(rest) > 0; {
		name, rest = nextName(rest)
		switch string(name) {
		case ".\x00", "..\x00", "lost+found\x00": // every fresh ext4 volume has one
		default:
			return false, nil
		}
	}
	return ownDir(fd, st.Stat, id.UID, id.GID)
}

// errForeignLink is a link on the way that others than root could have made.
var errForeignLink = errors.New("a link on the way is not root's")

// descend walks name from "/" or the working directory, one component at a time, until it ends, a component is missing,
// or stop (if not nil, and asked about each directory, the last included) says so. It returns that directory as an O_PATH descriptor and the
// components that are left. Root follows a link only if it is root's and only root may write to all directories that led
// to it; else the error is errForeignLink. A sticky directory of root's (/tmp) in which the next component is a directory that
// is root's alone is passed as if only root might write to it, and stop is not asked: nobody else can move or replace that one.
func descend(name string, stop func(stat) bool) (fd int, rest []string, err error) {
	if fd, err = openPath(unix.AT_FDCWD, startOf(name)); err != nil {
		return -1, nil, err
	}
	rest = components(name)
	trusted := true
	for links := 0; ; {
		st, err := look(fd)
		if err != nil {
			unix.Close(fd)
			return -1, nil, err
		}
		if next, ok := throughSticky(fd, st, rest); ok {
			unix.Close(fd)
			fd, rest = next, rest[1:]
			continue
		}
		trusted = trusted && rootsAlone(st) || unix.Geteuid() != 0
		if stop != nil && stop(st) || len(rest) == 0 {
			return fd, rest, nil
		}
		next, target, err := step(fd, rest[0], trusted)
		if err == unix.ENOENT {
			return fd, rest, nil
		}
		switch {
		case err != nil:
		case target == "":
			rest = rest[1:]
		case links == 40: // as the kernel's own limit
			err = unix.ELOOP
		default:
			links++
			rest = append(components(target), rest[1:]...)
			next = fd
			if path.IsAbs(target) {
				next, err = openPath(unix.AT_FDCWD, "/")
			}
		}
		if next != fd {
			unix.Close(fd)
		}
		if err != nil {
			return -1, nil, fmt.Errorf("%q: %w", name, err)
		}
		fd = next
	}
}

// throughSticky opens the next component of a way through a sticky directory if it may be passed. Only the owner of an entry
// or of the directory may rename or remove it there, and a directory that others may not write to can come from nowhere
// else: to move one to another parent takes a write to the directory itself.
func throughSticky(dir int, st stat, rest []string) (fd int, ok bool) {
	if len(rest) == 0 || st.UID != 0 || st.Perm()&0o1000 == 0 {
		return -1, false
	}
	fd, err := openPath(dir, rest[0])
	if err != nil {
		return -1, false
	}
	if next, err := look(fd); err != nil || !next.IsDir() || !rootsAlone(next) {
		unix.Close(fd)
		return -1, false
	}
	return fd, true
}

// rootsAlone tells whether only root may write to a directory.
func rootsAlone(st stat) bool { return st.UID == 0 && st.Perm()&0o022 == 0 }

// step opens one component: a directory, or a link's target.
func step(dir int, name string, trusted bool) (fd int, target string, err error) {
	fd, err = openPath(dir, name)
	if err != nil {
		return -1, "", err
	}
	st, err := look(fd)
	switch {
	case err != nil:
	case st.IsDir():
		return fd, "", nil
	case !st.IsSymlink():
		err = fail.Errorf(fail.Usage, "%q is a %s, not a directory", name, st.Kind()).WithHint("remove it, or name another path")
	case !trusted || st.UID != 0 && unix.Geteuid() == 0:
		err = errForeignLink
	default:
		target, err = readLink(fd)
	}
	unix.Close(fd)
	return -1, target, err
}

// readLink reads the target of a link that is open.
func readLink(fd int) (string, error) {
	buf := make([]byte, 4096) // PATH_MAX: no target is longer
	n, err := unix.Readlinkat(fd, "", buf)
	if err == nil && n == 0 {
		err = unix.ENOENT
	}
	return string(buf[:max(n, 0)]), err
}

func startOf(name string) string {
	if path.IsAbs(name) {
		return "/"
	}
	return "."
}

func components(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(s string) bool { return s == "" || s == "." })
}
