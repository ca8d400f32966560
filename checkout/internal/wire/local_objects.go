package wire

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/checkout/internal/pack"
	"run-task/internal/fsx"
)

// What the objects of a repository on this machine may cost us.
const (
	maxDirs   = 64        // object directories, alternates included
	maxOpen   = 16        // packs whose files are open
	maxBases  = 16 << 20  // bytes of deltas' bases that are kept for each of them
	maxIndex  = 1 << 30   // bytes of all indexes
	maxLists  = 100       // times that the packs are listed
	maxInline = 8 << 20   // a larger object is streamed
	maxParsed = 256 << 20 // the largest commit, tag or tree
)

// objects are the objects in some object directories. It is not for use by several goroutines at once.
type objects struct {
	dirs    []*objectDir
	packs   []*packFile // those in which something was found come first, the last one foremost
	open    []*packFile // those whose file is open, the one that was used last comes last
	indexed int64       // bytes of indexes
	lists   int
	trouble error    // why some pack cannot be read
	temp    *fsx.Dir // where large contents of deltas go
	loose   looseReader
	buf     []byte
}

// objectDir is an object directory: loose objects, and packs unless that is nil.
type objectDir struct {
	loose, packs *fsx.Dir
	listed       map[string]bool // packs
}

// packFile is a pack, which is opened when it is first looked into.
type packFile struct {
	*pack.Pack
	dir    *fsx.Dir
	name   string
	broken bool
}

// object is an object whose content has its name.
type object struct {
	typ    plumbing.ObjectType
	size   int64
	data   []byte        // valid until the next object is asked for
	stream io.ReadCloser // of an object that is too large for data. To be closed before the next object is asked for
}

// all is the content of an object that is to be parsed. It closes the stream.
func (o object) all() ([]byte, error) {
	if o.stream == nil {
		return o.data, nil
	}
	defer o.stream.Close()
	if o.size > maxParsed {
		return nil, fmt.Errorf("it is a %s of %d bytes", o.typ, o.size)
	}
	return io.ReadAll(o.stream)
}

// addDirs adds an object directory and, as git does, those that its info/alternates names, and so on. Those that are missing are fine.
func (o *objects) addDirs(dir string) error {
	seen := map[[2]uint64]bool{}
	for todo := []string{dir}; len(todo) > 0; todo = todo[1:] {
		d, err := openObjects(todo[0])
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		o.dirs = append(o.dirs, d)
		st, err := d.loose.Stat()
		if err != nil {
			return err
		}
		if file := [2]uint64{st.Dev, st.Ino}; seen[file] {
			d.close()
			o.dirs = o.dirs[:len(o.dirs)-1]
			continue
		} else if seen[file] = true; len(seen) > maxDirs {
			return fmt.Errorf("more than %d object directories", maxDirs)
		}
		text, err := readText(filepath.Join(todo[0], "info", "alternates"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for line := range strings.Lines(text) {
			if line = strings.TrimRight(line, "\n"); line != "" && line[0] != '#' {
				todo = append(todo, relative(todo[0], line))
			}
		}
	}
	o.listPacks()
	return o.trouble
}

func openObjects(dir string) (*objectDir, error) {
	d := &objectDir{listed: map[string]bool{}}
	var err error
	if d.loose, err = fsx.Open(dir); err != nil {
		return nil, err
	}
	if d.packs, err = fsx.Open(filepath.Join(dir, "pack")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *objectDir) close() {
	d.loose.Close()
	if d.packs != nil {
		d.packs.Close()
	}
}

func (o *objects) close() {
	for _, p := range o.open {
		p.Close()
	}
	for _, d := range o.dirs {
		d.close()
	}
}

// listPacks looks for packs that were not there before and reports whether there are some.
func (o *objects) listPacks() bool {
	before := len(o.packs)
	if o.lists++; o.lists > maxLists {
		return false
	}
	for _, d := range o.dirs {
		if d.packs == nil {
			continue
		}
		names, err := d.packs.Names()
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // else the directory was removed
			o.trouble = cmp.Or(o.trouble, err)
		}
		slices.Sort(names)
		for _, name := range names {
			name, ok := strings.CutSuffix(name, ".idx")
			if ok && !d.listed[name] {
				d.listed[name] = true
				o.packs = append(o.packs, &packFile{dir: d.packs, name: name})
			}
		}
	}
	return len(o.packs) > before
}

// get finds an object, also where one copy of it is damaged and another is not (but of large ones, that shows only when the stream is
// read). The error may be plumbing.ErrObjectNotFound.
func (o *objects) get(h plumbing.Hash) (object, error) {
	var damage error
	for i, p := range o.packs {
		n, ok := o.find(p, h)
		if !ok {
			continue
		}
		obj, err := o.packed(p, n)
		if err == nil {
			copy(o.packs[1:], o.packs[:i])
			o.packs[0] = p
			return obj, nil
		}
		if !errors.Is(err, fs.ErrNotExist) { // else the pack went away
			damage = cmp.Or(damage, err)
		}
	}
	for _, d := range o.dirs {
		obj, err := o.loose.read(d.loose, h, o.buf)
		if err == nil {
			o.keep(obj.data)
			return obj, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			damage = cmp.Or(damage, err)
		}
	}
	return object{}, cmp.Or(damage, plumbing.ErrObjectNotFound)
}

// keep keeps the memory of a content for the next one.
func (o *objects) keep(data []byte) {
	if cap(data) > cap(o.buf) {
		o.buf = data
	}
}

// find looks an object up in a pack. One that cannot be opened has none.
func (o *objects) find(p *packFile, h plumbing.Hash) (int, bool) {
	if p.broken {
		return 0, false
	}
	if p.Pack == nil {
		if err := o.openPack(p); err != nil {
			p.broken = true
			if !errors.Is(err, fs.ErrNotExist) { // else it went away, or there is only half of it
				o.trouble = cmp.Or(o.trouble, err)
			}
			return 0, false
		}
	}
	return p.Find(h)
}

func (o *objects) openPack(p *packFile) error {
	st, err := p.dir.Lstat(p.name + ".idx")
	if err != nil {
		return err
	}
	if o.indexed+st.Size > maxIndex {
		return fmt.Errorf("the indexes of all packs are larger than %d bytes", maxIndex)
	}
	if p.Pack, err = pack.Open(p.dir, p.name); err != nil {
		return err
	}
	o.indexed += st.Size
	p.Foreign(o.temp, maxBases)
	o.use(p)
	return nil
}

// use closes the file of the pack that was not used for longest if too many are open.
func (o *objects) use(p *packFile) {
	o.open = slices.DeleteFunc(o.open, func(q *packFile) bool { return p == q })
	if o.open = append(o.open, p); len(o.open) > maxOpen {
		o.open[0].Suspend()
		o.open = o.open[1:]
	}
}

func (o *objects) packed(p *packFile, n int) (object, error) {
	o.use(p)
	typ, data, err := p.Read(n, o.buf)
	if !errors.Is(err, pack.ErrLarge) {
		o.keep(data)
		return object{typ: typ, size: int64(len(data)), data: data}, err
	}
	typ, size, stream, err := p.Reader(n)
	return object{typ: typ, size: size, stream: stream}, err
}
