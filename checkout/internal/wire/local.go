package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	formatcfg "github.com/go-git/go-git/v5/plumbing/format/config"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"

	"run-task/internal/fail"
)

// repository is a git repository on this machine, which is only read.
type repository struct {
	path    string // as the user gave it
	common  string // the directory with objects and refs, which linked worktrees share
	objects []*filesystem.ObjectStorage
	shallow map[plumbing.Hash]bool
}

// openRepository finds a repository as git does (gitrepository-layout): a worktree with a .git directory or a .git file,
// a bare repository, and each of them with ".git" left out of the path.
func openRepository(path string) (*repository, error) {
	r := &repository{path: path, shallow: map[plumbing.Hash]bool{}}
	for _, dir := range []string{path + "/.git", path, path + ".git/.git", path + ".git"} {
		common, err := commonDir(dir)
		if err == nil {
			r.common = common
			return r, r.open()
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) && !errors.Is(err, errNotRepository) {
			return nil, r.error(err)
		}
	}
	return nil, fail.Errorf(fail.Usage, "%q is not a git repository", path).WithHint("give the path of a worktree or a bare repository")
}

var errNotRepository = errors.New("not a repository")

// commonDir follows a .git file and a commondir file to where the objects are.
func commonDir(dir string) (string, error) {
	if info, err := os.Stat(dir); err != nil {
		return "", err
	} else if !info.IsDir() {
		text, err := os.ReadFile(dir)
		if err != nil {
			return "", err
		}
		target, ok := strings.CutPrefix(strings.TrimSpace(string(text)), "gitdir: ")
		if !ok {
			return "", errNotRepository
		}
		dir = relative(filepath.Dir(dir), target)
	}
	if _, err := os.Stat(filepath.Join(dir, "HEAD")); err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(dir, "commondir"))
	if err == nil {
		dir = relative(dir, strings.TrimSpace(string(text)))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	_, err = os.Stat(filepath.Join(dir, "objects"))
	return dir, err
}

func relative(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

func (r *repository) open() error {
	if format := r.objectFormat(); format != "" && format != "sha1" {
		return errObjectFormat(format)
	}
	if err := r.addObjects(filepath.Join(r.common, "objects"), map[string]bool{}); err != nil {
		return r.error(err)
	}
	text, err := os.ReadFile(filepath.Join(r.common, "shallow"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r.error(err)
	}
	for line := range strings.FieldsSeq(string(text)) {
		if h, ok := parseHash(line); ok {
			r.shallow[h] = true
		}
	}
	return nil
}

// objectFormat is extensions.objectFormat, "" where there is none. A config that cannot be parsed says nothing.
func (r *repository) objectFormat() string {
	f, err := os.Open(filepath.Join(r.common, "config"))
	if err != nil {
		return ""
	}
	defer f.Close()
	c := formatcfg.New()
	if err := formatcfg.NewDecoder(f).Decode(c); err != nil {
		return ""
	}
	return strings.ToLower(c.Section("extensions").Option("objectformat"))
}

// addObjects adds an object directory and, as git does, those that its info/alternates names.
func (r *repository) addObjects(dir string, seen map[string]bool) error {
	if seen[dir] {
		return nil
	}
	seen[dir] = true
	if filepath.Base(dir) != "objects" {
		return fmt.Errorf("alternate object directory %q: only directories called %q are supported", dir, "objects")
	}
	if _, err := os.ReadDir(filepath.Join(dir, "pack")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	git := dotgit.New(hiddenAlternates{osfs.New(filepath.Dir(dir))})
	r.objects = append(r.objects, filesystem.NewObjectStorageWithOptions(git, cache.NewObjectLRU(32*cache.MiByte),
		filesystem.Options{KeepDescriptors: true, LargeObjectThreshold: 1 << 20}))
	text, err := os.ReadFile(filepath.Join(dir, "info", "alternates"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimRight(line, "\n"); line == "" || line[0] == '#' {
			continue
		}
		if err := r.addObjects(relative(dir, line), seen); err != nil {
			return err
		}
	}
	return nil
}

// hiddenAlternates is a file system without info/alternates: go-git takes a relative path in it for one below the
// repository, and opens all alternates again for every object that it does not find.
type hiddenAlternates struct{ billy.Filesystem }

func (h hiddenAlternates) Open(name string) (billy.File, error) {
	if strings.HasSuffix(filepath.ToSlash(name), "info/alternates") {
		return nil, fs.ErrNotExist
	}
	return h.Filesystem.Open(name)
}

func (r *repository) close() {
	for _, o := range r.objects {
		o.Close()
	}
}

// object finds an object. The error is plumbing.ErrObjectNotFound or has its reason.
func (r *repository) object(h plumbing.Hash) (plumbing.EncodedObject, error) {
	for _, s := range r.objects {
		o, err := s.EncodedObject(plumbing.AnyObject, h)
		if err == nil {
			return o, nil
		}
		if !errors.Is(err, plumbing.ErrObjectNotFound) {
			return nil, r.objectError(h, err)
		}
	}
	return nil, plumbing.ErrObjectNotFound
}

// objectError gives the failure to read an object its reason.
func (r *repository) objectError(h plumbing.Hash, err error) error {
	var known *fail.Error
	var path *fs.PathError
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, plumbing.ErrObjectNotFound):
		return fail.Errorf(fail.Gone, "repository %q lacks object %s, which the commit needs", r.path, h).
			WithHint("it is a partial clone, or damaged: look with git fsck, or use another repository")
	case errors.As(err, &path):
		return r.error(err)
	}
	return fail.Errorf(fail.BadData, "repository %q: object %s is damaged: %w", r.path, h, err).WithHint("look with git fsck")
}

func (r *repository) error(err error) error {
	e := fail.Errorf(fail.IO, "repository %q: %w", r.path, err)
	if errors.Is(err, fs.ErrPermission) {
		e.WithHint("make it readable for uid %d", os.Getuid())
	}
	return e
}

// fetchLocal reads the commit from a repository on this machine and makes a pack of it, so that it is ingested and verified as any other.
func fetchLocal(ctx context.Context, u URL, w Want, take Take) error {
	r, err := openRepository(u.Path)
	if err != nil {
		return err
	}
	defer r.close()
	pack, list, err := r.collect(ctx, w)
	if err != nil {
		return err
	}
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := r.writePack(ctx, in, list)
		in.CloseWithError(err)
		done <- err
	}()
	pack.Reader = out
	ok, err := take(ctx, pack)
	out.CloseWithError(errEnough)
	if failed := <-done; failed != nil && !errors.Is(failed, errEnough) && (err != nil || !ok) {
		err = failed // what take says is only a consequence
	}
	if err == nil && !ok {
		err = fail.Errorf(fail.BadData, "repository %q: commit %s is not whole", r.path, w.SHA).WithHint("look with git fsck")
	}
	return err
}

var errEnough = errors.New("no more of the pack is wanted")
