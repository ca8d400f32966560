package index

import (
	"bytes"
	"encoding/binary"
	"sort"
	"strconv"
	"strings"
)

// parser goes through an index file, which it has twice: names are parts of text.
type parser struct {
	data    []byte
	text    string
	at      int
	version uint32
}

func (p *parser) entry(e *Entry) bool {
	b := p.data[p.at:]
	if len(b) < fixedSize+2 {
		return false
	}
	for i := range e.Stat {
		e.Stat[i] = binary.BigEndian.Uint32(b[4*i:])
	}
	e.Mode, e.Stat[6] = e.Stat[6], 0
	copy(e.ID[:], b[40:60])
	flags, start := binary.BigEndian.Uint16(b[60:]), fixedSize
	if flags&extended != 0 {
		if p.version != 3 || binary.BigEndian.Uint16(b[62:]) != skipFlag {
			return false
		}
		e.Skip, start = true, fixedSize+2
	}
	n := bytes.IndexByte(b[start:], 0)
	if n <= 0 || flags&^extended != uint16(min(n, 0xfff)) {
		return false
	}
	e.Path = p.text[p.at+start : p.at+start+n]
	p.at += start + n + 8 - (start+n)%8
	return p.at <= len(p.text)
}

// trees reads the TREE extension, which must be the last thing.
func (p *parser) trees() *Tree {
	b := p.data[p.at:]
	if len(b) < 8 || string(b[:4]) != "TREE" || int64(binary.BigEndian.Uint32(b[4:])) != int64(len(b)-8) {
		return nil
	}
	p.at += 8
	top := p.tree()
	if p.at != len(p.text) {
		return nil
	}
	return top
}

func (p *parser) tree() *Tree {
	name, rest, ok := strings.Cut(p.text[p.at:], "\x00")
	counts, rest, ok2 := strings.Cut(rest, "\n")
	files, subs, ok3 := strings.Cut(counts, " ")
	t := &Tree{Name: name}
	if !ok || !ok2 || !ok3 || len(rest) < len(t.ID) {
		return nil
	}
	n, err := strconv.Atoi(subs)
	var err2 error
	if t.Files, err2 = strconv.Atoi(files); err != nil || err2 != nil || n < 0 || t.Files < 0 || n > len(rest) {
		return nil
	}
	copy(t.ID[:], rest)
	p.at = len(p.text) - len(rest) + len(t.ID)
	for range n {
		sub := p.tree()
		if sub == nil {
			return nil
		}
		t.Subs = append(t.Subs, sub)
	}
	return t
}

// covers tells whether t and those below it are the directories of the entries, all of them and no others, and counts them.
func (t *Tree) covers(prefix string, first int, entries []Entry) bool {
	t.First = first
	subs := t.Subs
	for i := 0; i < len(entries); {
		name, _, dir := strings.Cut(entries[i].Path[len(prefix):], "/")
		if !dir {
			i++
			continue
		}
		below := prefix + name + "/"
		n := sort.Search(len(entries)-i, func(k int) bool { return !strings.HasPrefix(entries[i+k].Path, below) })
		if len(subs) == 0 || subs[0].Name != name || subs[0].Files != n || !subs[0].covers(below, first+i, entries[i:i+n]) {
			return false
		}
		subs, i = subs[1:], i+n
	}
	return len(subs) == 0
}

// Sub is the directory of that name in t, nil if there is none.
func (t *Tree) Sub(name string) *Tree {
	if t == nil {
		return nil
	}
	i := sort.Search(len(t.Subs), func(i int) bool { return t.Subs[i].Name+"/" >= name+"/" })
	if i == len(t.Subs) || t.Subs[i].Name != name {
		return nil
	}
	return t.Subs[i]
}
