package worktree

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"sync"

	"run-task/checkout/internal/ignore"
	"run-task/checkout/internal/index"
	"run-task/checkout/internal/treepath"
	"run-task/internal/fsx"
	"run-task/internal/logs"
)

// scan compares what is there with the plan: which files are right, what has to go, and whether we may remove it. It changes
// nothing but the permissions of our own directories that it could not look into otherwise, so that a worktree that we cannot
// make right is left as it was.
type scan struct {
	ctx      context.Context
	plan     *plan
	clean    Clean
	ignore   *ignore.Matcher // where ignored files stay
	old      *Old
	keep     []string
	readOnly bool
	uid      uint32
	progress *logs.Progress
	early    *Early
	others   *others
	found
	buf []byte
}

// found is what a scan has found.
type found struct {
	remove  []string // paths; none lies below another
	mounts  []string // strays that stay
	changed bool     // the plan's metadata are not those of the index that is there
	checked int
}

func (f *found) add(more found) {
	f.remove, f.mounts = append(f.remove, more.remove...), append(f.mounts, more.mounts...)
	f.changed = f.changed || more.changed
}

// others are goroutines that scan directories of the plan at the same time, each with a scan of its own.
type others struct {
	free chan struct{}
	mu   sync.Mutex
	found
	err error
}

// start lets another goroutine scan, if one is free.
func (s *scan) start(wait *sync.WaitGroup, descend func(*scan) error) bool {
	select {
	case s.others.free <- struct{}{}:
	default:
		return false
	}
	one := *s
	one.found, one.buf = found{}, nil
	if s.ignore != nil {
		one.ignore = s.ignore.Clone()
	}
	wait.Go(func() {
		err := descend(&one)
		<-s.others.free
		s.others.mu.Lock()
		defer s.others.mu.Unlock()
		s.others.add(one.found)
		s.others.err = cmp.Or(s.others.err, err)
	})
	return true
}

// child is what the plan has at a name: a file, link or submodule, or a directory.
type child struct {
	file *file
	dir  *index.Tree
}

// place is an open directory, and what decides whether names in it can be removed.
type place struct {
	*fsx.Dir
	prefix string // "" or ends with "/"
	depth  int
	st     fsx.Stat
}

func newScan(ctx context.Context, p *plan, o Options, progress *logs.Progress) *scan {
	return &scan{ctx: ctx, plan: p, clean: o.Clean, old: o.Old, keep: o.Keep, readOnly: o.ReadOnly, uid: uint32(os.Geteuid()), progress: progress, early: o.Early,
		others: &others{free: make(chan struct{}, runtime.GOMAXPROCS(0)-1)}}
}

// top scans the worktree. Its .git is never looked at.
func (s *scan) top(root *fsx.Dir) error {
	st, err := root.Stat()
	if err != nil {
		return err
	}
	if err := s.writable(root, ".", st); err != nil {
		return err
	}
	if s.clean == KeepIgnored {
		rules, err := s.plan.ignoreRules("")
		if err != nil {
			return err
		}
		s.ignore = ignore.New(nil, rules)
	}
	if err := cmp.Or(s.tracked(place{root, "", 0, st}, s.plan.top), s.others.err); err != nil {
		return err
	}
	s.add(s.others.found)
	slices.Sort(s.remove)
	return nil
}

// children are the names that the plan wants in a directory.
func (p *plan) children(dir *index.Tree, prefix string) map[string]child {
	all := make(map[string]child, len(dir.Subs))
	subs := dir.Subs
	for i := dir.First; i < dir.First+dir.Files; {
		if len(subs) > 0 && subs[0].First == i {
			if p.shows(subs[0]) {
				all[subs[0].Name] = child{dir: subs[0]}
			}
			i += subs[0].Files
			subs = subs[1:]
			continue
		}
		if f := &p.files[i]; !f.Skip {
			all[f.Path[len(prefix):]] = child{file: f}
		}
		i++
	}
	return all
}

// tracked scans a directory of the plan's, or a submodule's: then dir is nil.
func (s *scan) tracked(in place, dir *index.Tree) error {
	names, err := in.Names()
	if err != nil {
		return err
	}
	var known map[string]child
	if dir != nil {
		known = s.plan.children(dir, in.prefix)
	}
	var wait sync.WaitGroup // those that use in
	defer wait.Wait()
	for _, name := range names {
		if in.prefix == "" && name == ".git" {
			continue
		}
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		st, err := in.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		is := known[name]
		if is.dir != nil && st.IsDir() && st.UID == s.uid && s.start(&wait, func(one *scan) error { return one.descend(in, name, st, is.dir) }) {
			continue
		}
		if err := s.one(in, name, st, is); err != nil {
			return err
		}
	}
	return nil
}

func (s *scan) one(in place, name string, st fsx.Stat, is child) error {
	f := is.file
	submodule := f != nil && f.Mode == treepath.Gitlink
	switch {
	case (is.dir != nil || submodule) && st.IsDir() && st.UID == s.uid: // or its owner could change what we write
		if submodule {
			f.keep, f.Stat = true, index.StatOf(st) // which git does not compare, and readonly= changes
			if was := s.old.hasDir(f.Path); !was && s.plan.isCallers(f.Path) {
				return s.leave(in, name)
			} else if s.clean == None && !was {
				return in.MakeWritable(name)
			}
		}
		return s.descend(in, name, st, is.dir)
	case is.dir != nil || submodule:
		return s.inTheWay(in, name, st)
	case f != nil:
		var err error
		if f.keep, err = s.right(in, name, f, st); err != nil {
			return err
		}
		if f.keep {
			f.repair(st, s.readOnly)
			return nil
		}
		if st.UID == s.uid && (st.IsRegular() || st.IsSymlink()) {
			return s.makeRoom(in, name, f)
		}
		return s.inTheWay(in, name, st)
	case in.prefix == "" && IsLostAndFound(name, st):
		return nil
	}
	if fate := s.fate(in.prefix+name, name, st.IsDir()); fate != stays {
		_, err := s.stray(in, name, st, fate)
		return err
	}
	return nil
}

// leave makes sure that a submodule's directory can be the caller's.
func (s *scan) leave(in place, name string) error {
	if mount, err := in.IsMount(name); err != nil || mount || slices.Contains(s.keep, in.prefix+name) {
		return mountError(in.prefix+name, err)
	}
	return in.MakeWritable(name)
}

func (s *scan) descend(in place, name string, st fsx.Stat, dir *index.Tree) error {
	full := in.prefix + name
	if slices.Contains(s.keep, full) {
		return mountError(full, nil)
	}
	if mount, err := in.IsMount(name); err != nil || mount {
		return mountError(full, err)
	}
	if s.ignore != nil {
		rules, err := s.plan.ignoreRules(full + "/")
		if err != nil {
			return err
		}
		s.ignore.Enter(name, rules)
		defer s.ignore.Leave()
	}
	sub, err := s.enter(in, name, st)
	if err != nil {
		return err
	}
	defer sub.Close()
	return s.tracked(place{sub, full + "/", in.depth + 1, st}, dir)
}
