package caches

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"run-task/caches/internal/keys"
	"run-task/caches/internal/pack"
	"run-task/internal/fail"
	"run-task/internal/fsx"
	"run-task/internal/logs"
	"run-task/store"
)

type (
	// ArchiveSpec is one --cache-archive.
	ArchiveSpec = keys.Spec
	// Policy is whether archives are restored, saved or both.
	Policy = keys.Policy
)

// ParseArchive reads KEY=VALUE,... of an archive; fail.Usage.
func ParseArchive(text string) (ArchiveSpec, error) { return keys.Parse(text) }

// ParsePolicy reads pull, push or pull-push; fail.Usage.
func ParsePolicy(text string) (Policy, error) { return keys.ParsePolicy(text) }

// Archives says which trees are restored and saved, and how.
type Archives struct {
	Specs   []ArchiveSpec
	Dir     string        // what paths and {{files}} are relative to
	Store   store.Options // how stores are spoken to
	Default string        // the location of archives that name no store
	Policy  Policy        // of all archives, in place of their own; "" for their own
	Strict  bool          // what else were a warning is an error
	Damaged bool          // a damaged archive is an error: fail.BadData
	Budget  time.Duration // for all that is restored; default 10 minutes

	Env  func(name string) string // for {{env}}
	Self func() (string, error)   // for {{run-task}}
	Tree func(path string) (string, error)
	Keep Options // caches and volumes: what lies in one is synced before it is visible
}

// suffix is what the objects of archives end with.
const suffix = ".tar.zst"

// DefaultBudget is for all that is restored, and for all that is saved.
const DefaultBudget = 10 * time.Minute

func (a *Archives) policy(s *ArchiveSpec) Policy {
	if a.Policy != "" {
		return a.Policy
	}
	return s.Policy
}

// Saves tells whether any archive may have to be saved.
func (a *Archives) Saves() bool {
	for i := range a.Specs {
		if a.policy(&a.Specs[i]).Pushes() {
			return true
		}
	}
	return false
}

// The outcomes of a restore or a save.
const (
	Hit       = "hit"       // restored under its key
	Fallback  = "fallback"  // restored under another one
	Miss      = "miss"      // there is none
	Skipped   = "skipped"   // there was nothing to do
	Failed    = "failed"    // a warning tells why
	Saved     = "saved"     // the store has it now
	Unchanged = "unchanged" // the store has it already
)

// Archive is one archive of a task: what was found, and what became of it.
type Archive struct {
	Path     string
	Key      string // without the object's suffix; "" if it could not be told
	Store    string
	From     string // the key that it was restored from
	Restored string // Hit, Fallback, Miss, Skipped or Failed
	Saved    string // Saved, Unchanged, Skipped or Failed; "" before
	Files    int64
	Bytes    int64 // of contents
	Packed   int64 // of the archive
	Seconds  float64

	spec    *ArchiveSpec
	store   store.Store
	tag     string      // of what was restored, or found
	content [32]byte    // of that
	known   bool        // content is set
	damaged bool        // what the store has under Key: it must be replaced, whatever its content is said to be
	index   *pack.Index // of what was restored
	err     error
}

// Keep leaves the store as it is: Save passes the archive over.
func (x *Archive) Keep() { x.store = nil }

// Err is why the archive Failed, nil otherwise.
func (x *Archive) Err() error { return x.err }

// Resolve tells what each archive is called, and asks no store. What cannot be called anything has an error, as has all that is left when the context ends.
func (a *Archives) Resolve(ctx context.Context) (all []*Archive) {
	for i := range a.Specs {
		all = append(all, a.resolve(ctx, &a.Specs[i]))
	}
	return all
}

func (a *Archives) resolve(ctx context.Context, s *ArchiveSpec) *Archive {
	x := &Archive{Path: s.Path, spec: s, Restored: Skipped}
	x.Store = s.Store
	if x.Store == "" {
		x.Store = a.Default
	}
	x.Key, x.err = keys.Expand(s.Key, a.source(ctx))
	if x.err == nil && x.Store == "" {
		x.err = fail.Errorf(fail.Usage, "the archive of %q has no store", s.Path).WithHint("add store=LOCATION to it, or --cache-store LOCATION")
	}
	if x.err == nil {
		x.store, x.err = store.Open(x.Store, a.Store)
	}
	x.Store = store.Address(x.Store)
	return x
}

func (a *Archives) source(ctx context.Context) keys.Source {
	return keys.Source{Env: a.Env, Arch: runtime.GOARCH, OS: runtime.GOOS, Self: a.Self,
		Files: func(globs []string) ([]byte, error) {
			d, err := fsx.Open(a.dir())
			if err != nil {
				return nil, err
			}
			defer d.Close()
			sum, err := keys.Files(ctx, d, globs)
			if errors.Is(err, keys.ErrNoMatch) {
				err = fail.Errorf(fail.Usage, "%w", err).WithHint("files are looked for below %q; check them out, or correct the pattern", a.dir())
			}
			return sum, err
		},
		Tree: func(path string) (string, error) {
			if a.Tree == nil {
				return "", fail.Errorf(fail.Usage, "{{tree %q}} needs a checkout of run-task's", path).WithHint("use it in a task with --checkout")
			}
			return a.Tree(path)
		},
	}
}

func (a *Archives) dir() string {
	if a.Dir == "" {
		return "."
	}
	return a.Dir
}

// durable tells whether a path lies in a cache or volume, which outlives the machine.
func (a *Archives) durable(path string) bool {
	if !filepath.IsAbs(path) {
		path = filepath.Join(a.dir(), path)
	}
	return len(a.Keep.Dirs)+len(a.Keep.Volumes) > 0 && Passes(a.Keep, path)
}

// ValidatePath tells, as fail.Usage, why a directory cannot be an archive's: it is the working directory or above it, or a cache's root.
func ValidatePath(o Options, dir, path string) error {
	full := path
	if !filepath.IsAbs(path) {
		full = filepath.Join(dir, path)
	}
	clean := filepath.Clean(path)
	switch {
	case clean == "." || clean == ".." || strings.HasPrefix(clean, "../") || clean == "/":
		return fail.Errorf(fail.Usage, "the archive's path %q is no directory below the working directory, nor an absolute one", path).WithHint("name the directory that is to be kept, as vendor/ruby")
	case Root(o, full):
		return fail.Errorf(fail.Usage, "the archive's path %q is the root of a cache, where the requirement file is", path).WithHint("use a directory in it")
	}
	return nil
}

// candidate is a key under which an archive may be.
type candidate struct {
	key    string
	prefix bool // the newest that begins so
}

// candidates are the keys to look under, best first.
func (a *Archives) candidates(ctx context.Context, x *Archive) (all []candidate, err error) {
	all = []candidate{{key: x.Key}}
	for _, t := range x.spec.Fallbacks {
		key, prefix, err := keys.Fallback(t, a.source(ctx))
		if err != nil {
			return all, err
		}
		all = append(all, candidate{key, prefix})
	}
	return all, nil
}

// warn says what went wrong with an archive, and what follows.
func (a *Archives) warn(log *logs.Log, x *Archive, doing string, err error) {
	x.err = fmt.Errorf("%s %q: %w", doing, x.Path, err)
	log.Warnf("%v", x.err)
	if hint := fail.Hint(err); hint != "" {
		log.Infof("hint: %s", hint)
	}
}

// first is the first error of archives, if errors are not to be warnings alone.
func (a *Archives) first(all []*Archive) error {
	if !a.Strict {
		return nil
	}
	for _, x := range all {
		if x.err != nil {
			return x.err
		}
	}
	return nil
}

// lean keeps garbage from making more of the memory than what is in use, until its result is called: with tables of encoders that comes near to the 128 MB that we promise.
func lean() func() {
	before := debug.SetMemoryLimit(-1)
	debug.SetMemoryLimit(min(before, 104<<20))
	return func() { debug.SetMemoryLimit(before) }
}

// limited is a context with a budget. Its end is told as fail.Unavailable.
func limited(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, fail.Errorf(fail.Unavailable, "the time for cache archives, %s, is over", d).WithHint("check the store, or give it more: --cache-budget"))
}

// reason makes what an archive can be at fault for a reason of its own.
func reason(err error) error {
	if errors.Is(err, pack.ErrDamaged) && fail.Of(err) != fail.BadData {
		return fail.Errorf(fail.BadData, "%w", err).WithHint("it is not used; a task that restores and saves it (policy=pull-push) replaces it")
	}
	return err
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
