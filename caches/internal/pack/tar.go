package pack

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

const block = 512

// padding is how many bytes follow n bytes to fill a block.
func padding(n int64) int64 { return -n & (block - 1) }

// appendHeader appends what stands before the contents of an entry in the tar stream: a "ustar" header (POSIX.1-1988), after a "pax" one (POSIX.1-2001) where it
// cannot say all, and for a file with holes the map of GNU's sparse format 1.0. body is how many bytes of content and padding follow.
func (e *Entry) appendHeader(b []byte) (_ []byte, body int64) {
	name, target, typeflag := e.Name, "", byte('0')
	var size int64
	var sparse []byte
	switch e.Type {
	case Dir:
		name, typeflag = path.Join(".", name)+"/", '5'
	case Symlink:
		target, typeflag = e.Target, '2'
	case Link:
		target, typeflag = e.Target, '1'
	case File:
		size = e.stored()
		body = size + padding(size)
		if e.Data != nil {
			sparse = e.sparseMap()
			size += int64(len(sparse))
		}
	}
	var pax []byte
	record := func(key, value string) { pax = appendPax(pax, key, value) }
	if e.Data != nil {
		record("GNU.sparse.major", "1")
		record("GNU.sparse.minor", "0")
		record("GNU.sparse.name", name)
		record("GNU.sparse.realsize", strconv.FormatInt(e.Size, 10))
		name = "GNUSparseFile.0/" + path.Base(name)
	}
	prefix, short, fits := split(name)
	if !fits {
		record("path", name)
	}
	if len(target) > 100 {
		record("linkpath", target)
		target = target[:100]
	}
	if size >= 1<<33 {
		record("size", strconv.FormatInt(size, 10))
	}
	sec := e.Sec
	if sec < 0 || sec >= 1<<33 {
		record("mtime", strconv.FormatInt(sec, 10))
		sec = 0
	}
	for _, x := range e.Xattrs {
		record("SCHILY.xattr."+x.Name, x.Value)
	}
	if pax != nil {
		_, pre, _ := split("PaxHeaders.0/" + path.Base(name))
		b = appendUstar(b, "", pre, 0o644, int64(len(pax)), 0, 'x', "")
		b = appendPadded(b, pax)
	}
	shown := size
	if shown >= 1<<33 {
		shown = 0
	}
	b = appendUstar(b, prefix, short, e.Mode, shown, sec, typeflag, target)
	return append(b, sparse...), body
}

// sparseMap is the number of parts, and offset and size of each, as lines. An empty part stands at the end for the hole there.
func (e *Entry) sparseMap() []byte {
	parts := append(e.Data[:len(e.Data):len(e.Data)], Part{Offset: e.Size})
	b := fmt.Appendf(nil, "%d\n", len(parts))
	for _, p := range parts {
		b = fmt.Appendf(b, "%d\n%d\n", p.Offset, p.Size)
	}
	return appendPadded(nil, b)
}

func appendPadded(b, data []byte) []byte {
	b = append(b, data...)
	return append(b, make([]byte, padding(int64(len(data))))...)
}

// split fits a name into the two fields that a header has for it.
func split(name string) (prefix, short string, fits bool) {
	if len(name) <= 100 {
		return "", name, true
	}
	if i := strings.IndexByte(name[len(name)-min(101, len(name)):], '/'); i >= 0 {
		if cut := len(name) - min(101, len(name)) + i; cut > 0 && cut <= 155 && cut < len(name)-1 {
			return name[:cut], name[cut+1:], true
		}
	}
	return "", name[:100], false
}

// appendPax appends a record "LENGTH KEY=VALUE\n", whose length counts its own digits.
func appendPax(b []byte, key, value string) []byte {
	rest := len(" =\n") + len(key) + len(value)
	size := rest + len(strconv.Itoa(rest))
	if len(strconv.Itoa(size)) > len(strconv.Itoa(rest)) {
		size = rest + len(strconv.Itoa(size))
	}
	return fmt.Appendf(b, "%d %s=%s\n", size, key, value)
}

func appendUstar(b []byte, prefix, name string, mode uint32, size, sec int64, typeflag byte, target string) []byte {
	var h [block]byte
	copy(h[0:100], name)
	octal(h[100:108], int64(mode))
	octal(h[108:116], 0)
	octal(h[116:124], 0)
	octal(h[124:136], size)
	octal(h[136:148], sec)
	h[156] = typeflag
	copy(h[157:257], target)
	copy(h[257:265], "ustar\x0000")
	octal(h[329:337], 0)
	octal(h[337:345], 0)
	copy(h[345:500], prefix)
	sum := int64(8 * ' ') // the checksum's own field counts as spaces
	for _, c := range h {
		sum += int64(c)
	}
	octal(h[148:155], sum)
	h[155] = ' '
	return append(b, h[:]...)
}

// octal fills a field with digits; its last byte stays zero.
func octal(field []byte, n int64) {
	for i := len(field) - 2; i >= 0; i-- {
		field[i] = '0' + byte(n&7)
		n >>= 3
	}
}
