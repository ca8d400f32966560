package pins

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// Layout. Everything else in the store is named below its repository.
const (
	versionFile = "version"
	format      = 1

	packDir     = "objects/pack"
	pinDir      = "pins"
	incomingDir = "incoming"
	lockDir     = "locks"
	damagedDir  = "damaged"
)

var repoID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Store is a directory with a version file and repositories.
type Store struct {
	dir  *fsx.Dir
	path string // absolute
}

// Open opens the store in dir, and makes one in a missing or empty directory. A directory with something else in it, or of a newer format, is fail.Usage.
func Open(dir string) (*Store, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, denied(err, nil)
	}
	d, err := fsx.OpenOwn(path)
	if err != nil {
		return nil, denied(err, nil)
	}
	s := &Store{d, path}
	if err := s.ready(); err != nil {
		d.Close()
		return nil, err
	}
	return s, nil
}

// Is tells whether there is a store in dir, of whatever format.
func Is(dir string) bool {
	d, err := fsx.Open(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	st, err := d.Lstat(versionFile)
	return err == nil && st.IsRegular()
}

// Close closes the store.
func (s *Store) Close() error { return s.dir.Close() }

// ready checks the format, or makes the directory a store.
func (s *Store) ready() error {
	err := s.checkVersion()
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	names, err := s.dir.Names()
	if err != nil {
		return denied(err, s.dir)
	}
	names = slices.DeleteFunc(names, func(n string) bool {
		st, err := s.dir.Lstat(n)
		return strings.HasPrefix(n, versionFile+".tmp") || n == "lost+found" && err == nil && st.UID == 0
	})
	if len(names) > 0 {
		if err := s.checkVersion(); !errors.Is(err, fs.ErrNotExist) { // somebody was as quick
			return err
		}
		return fail.Errorf(fail.Usage, "the directory is not empty and no git store: it holds %q", names[:min(len(names), 5)]).
			WithHint("choose a missing or empty directory, such as a new one in it")
	}
	return denied(s.dir.WriteFile(versionFile, []byte(fmt.Sprintln(format)), 0o644), s.dir)
}

// checkVersion gives fs.ErrNotExist if there is no version file.
func (s *Store) checkVersion() error {
	raw, err := s.dir.ReadFile(versionFile, 100)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EFBIG) {
		return fail.Errorf(fail.PurgeCache, "its version file is none: %w", err).WithHint("purge the store")
	}
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	switch {
	case err != nil || n < 1:
		return fail.Errorf(fail.PurgeCache, "its version file says %q", raw).WithHint("purge the store")
	case n > format:
		return fail.Errorf(fail.Usage, "it has format %d, made by a newer run-task; this one knows %d", n, format).WithHint("update run-task on this host, or give it a store of its own")
	}
	return nil
}

// Repo is what the store has of one repository under one trust label.
func (s *Store) Repo(url, trust string) *Repo {
	return &Repo{store: s, id: digest(url + "\x00" + trust), url: url, trust: trust}
}

// Path is the directory that a repository has in the store in dir, or would have.
func Path(dir, url, trust string) string { return filepath.Join(dir, digest(url+"\x00"+trust)) }

// repos are all repositories; what they are is in their pins.
func (s *Store) repos() ([]*Repo, error) {
	names, err := s.dir.Names()
	var all []*Repo
	for _, n := range slices.Sorted(slices.Values(names)) {
		if st, err := s.dir.Lstat(n); err == nil && st.IsDir() && repoID.MatchString(n) {
			all = append(all, &Repo{store: s, id: n})
		}
	}
	return all, err
}

// Held is a pin in its place.
type Held struct {
	Pin
	Repo  *Repo `json:"-"`
	Bytes int64 `json:"bytes"` // of its packs; other pins may need them, too
}

// Pins lists all pins of the store, also those that have expired, ordered by URL, trust, SHA, shape and holder.
func (s *Store) Pins() ([]Held, error) {
	repos, err := s.repos()
	if err != nil {
		return nil, denied(err, s.dir)
	}
	var all []Held
	for _, r := range repos {
		places, err := r.places()
		if err != nil {
			return nil, denied(err, s.dir)
		}
		for _, at := range places {
			if at.pin == nil {
				continue
			}
			held := Held{Pin: *at.pin, Repo: &Repo{store: s, id: r.id, url: at.pin.URL, trust: at.pin.Trust}}
			for _, pack := range at.pin.Packs {
				held.Bytes += r.size(pack)
			}
			all = append(all, held)
		}
	}
	slices.SortFunc(all, func(a, b Held) int {
		return cmp.Or(cmp.Compare(a.URL, b.URL), cmp.Compare(a.Trust, b.Trust), cmp.Compare(a.SHA, b.SHA), cmp.Compare(a.suffix(), b.suffix()), cmp.Compare(a.Holder, b.Holder))
	})
	return all, nil
}

// denied explains why the store cannot be written: it is read-only, or somebody else's.
func denied(err error, dir *fsx.Dir) error {
	switch {
	case errors.Is(err, unix.EROFS):
		return fail.Errorf(fail.IO, "the store is read-only: %w", err).WithHint("mount it writable: a read-only store only serves what is pinned in it")
	case errors.Is(err, fs.ErrPermission) && dir != nil:
		if st, serr := dir.Stat(); serr == nil && int(st.UID) != os.Geteuid() {
			return fail.Errorf(fail.PurgeCache, "the store belongs to uid %d, we are uid %d: %w", st.UID, os.Geteuid(), err).
				WithHint("give it to the user with --chown, let its group write, or use another store")
		}
	case errors.Is(err, fs.ErrPermission):
		return fail.Errorf(fail.IO, "%w (uid %d)", err, os.Geteuid()).WithHint("choose a directory that the user can write, or give it to the user with --chown")
	}
	return err
}
