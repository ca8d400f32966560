package pack

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"strings"

	"run-task/internal/fsx"
)

// Type is what an entry is.
type Type byte

// The types of entries: there are no others in an archive.
const (
	Dir     Type = 'd'
	File    Type = 'f'
	Symlink Type = 'l'
	Link    Type = 'h' // a further name of a File that comes before it
)

// Entry is what the manifest tells of one name. As a record it is, with numbers as unsigned LEB128: the number of bytes that follow but for the time; type; permissions;
// name; by type the size, the SHA-256 and the parts of a file, or the target; extended attributes; then the time.
type Entry struct {
	Type   Type
	Mode   uint32 // permissions, setuid, setgid and sticky included
	Name   string // relative to the root, without "." and ".."; the root is ""
	Target string // where a Symlink leads; the Name of a Link's File

	Size int64             // of a File, holes included
	Sum  [sha256.Size]byte // of a File's content without its holes
	Data []Part            // of a File with holes, nil for others: where its bytes are, in order

	Xattrs []Xattr // sorted by name

	Sec  int64 // time of the last modification
	Nsec uint32
}

type (
	// Part is a run of a file's bytes.
	Part = fsx.Extent
	// Xattr is an extended attribute.
	Xattr = fsx.Xattr
)

const (
	maxName   = 32 << 10 // bytes of a name or a target
	maxXattrs = 64 << 10 // bytes of an entry's extended attributes
	maxParts  = 16 << 10 // of a file with holes
	maxRecord = 2*maxName + maxXattrs + 20*maxParts + 1<<10
)

// stored is how many bytes of a file are in the archive, its parts one after the other.
func (e *Entry) stored() (n int64) {
	if e.Data == nil {
		return e.Size
	}
	for _, p := range e.Data {
		n += p.Size
	}
	return n
}

// parts are where the bytes of a file are.
func (e *Entry) parts() []Part {
	if e.Data == nil {
		return []Part{{Offset: 0, Size: e.Size}}
	}
	return e.Data
}

// appendRecord appends the entry's record to b; content is the part of it that a tree's Content counts.
func (e *Entry) appendRecord(b []byte) (all, content []byte) {
	body := []byte{byte(e.Type)}
	body = binary.AppendUvarint(body, uint64(e.Mode))
	body = appendText(body, e.Name)
	switch e.Type {
	case Symlink, Link:
		body = appendText(body, e.Target)
	case File:
		body = binary.AppendUvarint(body, uint64(e.Size))
		body = append(body, e.Sum[:]...)
		if e.Data == nil {
			body = append(body, 0)
			break
		}
		body = binary.AppendUvarint(body, uint64(len(e.Data))+1)
		for _, p := range e.Data {
			body = binary.AppendUvarint(binary.AppendUvarint(body, uint64(p.Offset)), uint64(p.Size))
		}
	}
	body = binary.AppendUvarint(body, uint64(len(e.Xattrs)))
	for _, x := range e.Xattrs {
		body = appendText(appendText(body, x.Name), x.Value)
	}
	start := len(b)
	b = append(binary.AppendUvarint(b, uint64(len(body))), body...)
	end := len(b)
	return binary.AppendUvarint(binary.AppendVarint(b, e.Sec), uint64(e.Nsec)), b[start:end]
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader takes records apart. After the first thing that is wrong it gives zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) number(max uint64) uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || n > max {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) text(max uint64) string { return string(r.take(r.number(max))) }

const most = 1<<63 - 1

// readRecord takes a record from the front of b. content is as of appendRecord.
func readRecord(b []byte) (e Entry, content, rest []byte, err error) {
	r := reader{b: b}
	body := reader{b: r.take(r.number(maxRecord))}
	content = b[:len(b)-len(r.b)]
	var size int
	if e.Sec, size = binary.Varint(r.b); size <= 0 {
		r.bad = true
	} else {
		r.b = r.b[size:]
	}
	e.Nsec = uint32(r.number(1e9 - 1))
	body.entry(&e)
	if r.bad || body.bad || len(body.b) > 0 {
		return e, nil, nil, damaged("its manifest has a record that is none of ours")
	}
	return e, content, r.b, e.check()
}

func (r *reader) entry(e *Entry) {
	if t := r.take(1); !r.bad {
		e.Type = Type(t[0])
	}
	e.Mode = uint32(r.number(0o7777))
	e.Name = r.text(maxName)
	switch e.Type {
	case Symlink, Link:
		e.Target = r.text(maxName)
	case File:
		e.Size = int64(r.number(most))
		copy(e.Sum[:], r.take(sha256.Size))
		if n := r.number(maxParts + 1); n > 0 {
			e.Data = make([]Part, 0, min(n-1, uint64(len(r.b))))
			for range n - 1 {
				e.Data = append(e.Data, Part{Offset: int64(r.number(most)), Size: int64(r.number(most))})
				if r.bad {
					return
				}
			}
		}
	}
	for range r.number(maxXattrs) {
		e.Xattrs = append(e.Xattrs, Xattr{Name: r.text(maxXattrs), Value: r.text(maxXattrs)})
		if r.bad {
			return
		}
	}
}

// check refuses what Write does not write.
func (e *Entry) check() error {
	bad := func(why string) error { return damaged("%q %s", e.Name, why) }
	if e.Name == "" && e.Type != Dir {
		return bad("is no directory, and the root")
	}
	if e.Name != "" && !validName(e.Name) {
		return bad("is no name in a tree")
	}
	if (e.Type == Symlink || e.Type == Link) && (e.Target == "" || strings.ContainsRune(e.Target, 0)) || e.Type == Link && !validName(e.Target) {
		return bad("leads to what is no name")
	}
	if e.Type != Dir && e.Type != File && e.Type != Symlink && e.Type != Link {
		return bad("is neither a directory, a file nor a link")
	}
	end := int64(0)
	for i, p := range e.Data {
		if p.Offset < end || i > 0 && p.Offset == end || p.Size <= 0 || p.Size > e.Size-p.Offset {
			return bad("has parts that no file has")
		}
		end = p.Offset + p.Size
	}
	total := 0
	for i, x := range e.Xattrs {
		total += len(x.Name) + len(x.Value)
		if i > 0 && e.Xattrs[i-1].Name >= x.Name || !keptXattr(x.Name) || e.Type == Symlink || e.Type == Link || total > maxXattrs {
			return bad("has extended attributes that are not kept")
		}
	}
	return nil
}

// keptXattr tells whether an extended attribute is the user's own. The others are the system's, and grant rights: capabilities and labels (security), access lists (system),
// what only root sees (trusted).
func keptXattr(name string) bool {
	return strings.HasPrefix(name, "user.") && len(name) > len("user.") && len(name) < 256 && !strings.ContainsAny(name, "=\x00\n")
}

// validName tells whether a name is a path below a directory, in its only spelling.
func validName(name string) bool {
	for c := range strings.SplitSeq(name, "/") {
		if c == "" || c == "." || c == ".." || len(c) > 255 {
			return false
		}
	}
	return len(name) <= maxName && !strings.ContainsRune(name, 0)
}

// dirOf is the directory that a name is in.
func dirOf(name string) string { return name[:max(0, strings.LastIndexByte(name, '/'))] }

// order compares names as a walk meets them that lists each directory sorted by bytes, and goes into each one as it comes.
func order(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] == b[i] {
			continue
		}
		if a[i] == '/' {
			return -1
		}
		if b[i] == '/' {
			return 1
		}
		return cmp.Compare(a[i], b[i])
	}
	return cmp.Compare(len(a), len(b))
}
