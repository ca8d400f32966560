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

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
	"run-task/internal/fsx"
)

// maxSmall bounds the small files of a repository: configuration, boundaries, alternates.
const maxSmall = 64 << 20

// repository is a git repository on this machine, which is only read. Its files may be anybody's, and change while they are read.
type repository struct {
	path    string // as the user gave it
	own     string // the directory with HEAD, which each worktree has for itself
	common  string // the directory with objects and refs, which linked worktrees share
	shallow map[plumbing.Hash]bool
	objects
}

// openRepository finds a repository as git does (gitrepository-layout): a worktree with a .git directory or a .git file,
// a bare repository, and each of them with ".git" left out of the path.
func openRepository(path string, temp *fsx.Dir) (*repository, error) {
	r := &repository{path: path, objects: objects{temp: temp}, shallow: map[plumbing.Hash]bool{}}
	for _, dir := range []string{path + "/.git", path, path + ".git/.git", path + ".git"} {
		own, common, err := gitDirs(dir)
		if err == nil {
			r.own, r.common = own, common
			return r, r.open()
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) && !errors.Is(err, errNotRepository) {
			return nil, r.error(err)
		}
	}
	return nil, fail.Errorf(fail.Usage, "%q is not a git repository", path).WithHint("give the path of a worktree or a bare repository")
}

var errNotRepository = errors.New("not a repository")

// gitDirs follows a .git file to where HEAD is, and a commondir file from there to the objects.
func gitDirs(dir string) (own, common string, err error) {
	if info, err := os.Stat(dir); err != nil {
		return "", "", err
	} else if !info.IsDir() {
		text, err := readText(dir)
		if errors.Is(err, errIrregular) {
			return "", "", errNotRepository
		}
		if err != nil {
			return "", "", err
		}
		target, ok := strings.CutPrefix(strings.TrimSpace(text), "gitdir: ")
		if !ok {
			return "", "", errNotRepository
		}
		dir = relative(filepath.Dir(dir), target)
	}
	if _, err := os.Stat(filepath.Join(dir, "HEAD")); err != nil {
		return "", "", err
	}
	own, common = dir, dir
	text, err := readText(filepath.Join(dir, "commondir"))
	if err == nil {
		common = relative(dir, strings.TrimSpace(text))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", "", err
	}
	_, err = os.Stat(filepath.Join(common, "objects"))
	return own, common, err
}

func relative(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

func (r *repository) open() error {
	config, err := readText(filepath.Join(r.common, "config"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r.error(err)
	}
	if format := objectFormat(config); format != "" && format != "sha1" {
		return errObjectFormat(format)
	}
	if err := r.addDirs(filepath.Join(r.common, "objects")); err != nil {
		return r.error(err)
	}
	text, err := readText(filepath.Join(r.common, "shallow"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r.error(err)
	}
	for line := range strings.FieldsSeq(text) {
		if h, ok := parseHash(line); ok {
			r.shallow[h] = true
		}
	}
	return nil
}

// objectFormat is extensions.objectFormat, "" where there is none.
func objectFormat(config string) (format string) {
	section := ""
	for line := range strings.Lines(strings.ToLower(config)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section, line, _ = strings.Cut(line, "]")
		}
		key, value, _ := strings.Cut(line, "=")
		if strings.TrimSpace(section[min(1, len(section)):]) == "extensions" && strings.TrimSpace(key) == "objectformat" {
			format = strings.Trim(value, " \t\"")
		}
	}
	return format
}

// readText reads a small regular file. Links to it are followed, as git does; it never waits for the other end of a FIFO.
func readText(path string) (string, error) {
	f, err := openText(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err == nil && len(b) > maxSmall {
		err = &fs.PathError{Op: "read", Path: path, Err: syscall.EFBIG}
	}
	return string(b), err
}

func openText(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: path, Err: errIrregular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

var errIrregular = errors.New("no regular file")

// object finds an object. The error is plumbing.ErrObjectNotFound or has its reason.
func (r *repository) object(h plumbing.Hash) (object, error) {
	o, err := r.get(h)
	// As git does: somebody may have packed it meanwhile.
	if errors.Is(err, plumbing.ErrObjectNotFound) && r.listPacks() {
		o, err = r.get(h)
	}
	if err != nil && !errors.Is(err, plumbing.ErrObjectNotFound) {
		err = r.objectError(h, err)
	}
	return o, err
}

// objectError gives the failure to read an object its reason.
func (r *repository) objectError(h plumbing.Hash, err error) error {
	var known *repositoryError
	var path *fs.PathError
	missing := errors.Is(err, plumbing.ErrObjectNotFound)
	switch {
	case errors.As(err, &known), errors.Is(err, errEnough):
		return err
	case missing && r.trouble == nil:
		return fail.Errorf(fail.Gone, "repository %q lacks object %s, which the commit needs", r.path, h).
			WithHint("it is a partial clone, or damaged: look with git fsck, or use another repository")
	case missing:
		err = fmt.Errorf("it may be in what could not be read: %w", r.trouble)
	}
	if errors.As(err, &path) {
		return r.error(fmt.Errorf("object %s: %w", h, err))
	}
	return &repositoryError{fail.Errorf(fail.BadData, "repository %q: object %s is damaged: %w", r.path, h, err).WithHint("look with git fsck")}
}

func (r *repository) error(err error) error {
	e := fail.Errorf(fail.IO, "repository %q: %w", r.path, err)
	if errors.Is(err, fs.ErrPermission) {
		e.WithHint("make it readable for uid %d", os.Getuid())
	}
	return &repositoryError{e}
}

// repositoryError is an error that names the repository.
type repositoryError struct{ err *fail.Error }

func (e *repositoryError) Error() string { return e.err.Error() }

func (e *repositoryError) Unwrap() error { return e.err }

// fetchLocal reads the commit from a repository on this machine and makes a pack of it, so that it is ingested and verified as any other.
func fetchLocal(ctx context.Context, u URL, temp *fsx.Dir, w Want, take Take) error {
	r, err := openRepository(u.Path, temp)
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
