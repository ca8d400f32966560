package wire

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"run-task/internal/fail"
)

type ref struct {
	name         string
	hash, peeled plumbing.Hash // peeled is zero unless the ref is an annotated tag
}

// advert is what an upload-pack says first: in version 2 its capabilities, before that its refs as well.
type advert struct {
	v2      bool
	caps    map[string]string
	refs    []ref
	shallow []plumbing.Hash // the server's own boundary, before version 2
}

const maxCapabilities = 1000 // git has about thirty

func (a *advert) has(capability string) bool { _, ok := a.caps[capability]; return ok }

// readAdvert reads gitprotocol-v2, "Capability Advertisement", or gitprotocol-pack, "Reference Discovery", each also with
// the "# service" line that HTTP puts before it. The error is io.EOF only if nothing came at all.
func readAdvert(p *pktReader) (*advert, error) {
	a := &advert{caps: map[string]string{}}
	k, s, err := p.line()
	if err == nil && k == data && strings.HasPrefix(s, "# service=") {
		if k, _, err = p.line(); err == nil && k == flush {
			k, s, err = p.line()
		}
		err = noEOF(err)
	}
	if err == nil && s == "version 1" {
		k, s, err = p.line()
		err = noEOF(err)
	}
	a.v2 = s == "version 2"
	for first := true; err == nil && k == data; first = false {
		switch {
		case a.v2 && !first:
			name, value, _ := strings.Cut(s, "=")
			if a.caps[name] = value; len(a.caps) > maxCapabilities {
				err = errors.New("the answer is not git's protocol: more capabilities than there are")
			}
		case !a.v2:
			err = a.refLine(s, first)
		}
		if err == nil {
			k, s, err = p.line()
			err = noEOF(err)
		}
	}
	if err != nil {
		return nil, err
	}
	if k != flush {
		return nil, errors.New("the answer is not git's protocol: a special packet among the refs")
	}
	if f := a.caps["object-format"]; f != "" && f != "sha1" {
		return nil, errObjectFormat(f)
	}
	return a, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func errObjectFormat(f string) error {
	return fail.Errorf(fail.Usage, "the repository's object format is %q: SHA-256 repositories are not supported", clip(f)).
		WithHint("use a repository with SHA-1 object names")
}

func (a *advert) refLine(s string, first bool) error {
	s, caps, hasCaps := strings.Cut(s, "\x00")
	if first && hasCaps {
		for c := range strings.FieldsSeq(caps) {
			name, value, _ := strings.Cut(c, "=")
			a.caps[name] = value
		}
	}
	id, name, ok := strings.Cut(s, " ")
	if id == "shallow" {
		id, name = name, id
	}
	hash, valid := parseHash(id)
	switch {
	case len(id) == 64 && !valid:
		return errObjectFormat("sha256")
	case !ok || !valid || name == "":
		return fmt.Errorf("the answer is not git's protocol: %.100q among the refs", s)
	case name == "shallow":
		a.shallow = append(a.shallow, hash)
	case name == "capabilities^{}": // an empty repository has no other line to put them on
	case strings.HasSuffix(name, "^{}"):
		if n := len(a.refs); n > 0 && a.refs[n-1].name+"^{}" == name {
			a.refs[n-1].peeled = hash
		}
	default:
		a.refs = append(a.refs, ref{name: name, hash: hash})
	}
	return nil
}

// parseHash takes exactly 40 hexadecimal digits, in either case.
func parseHash(s string) (h plumbing.Hash, ok bool) {
	if len(s) != 2*len(h) {
		return h, false
	}
	_, err := hex.Decode(h[:], []byte(s))
	return h, err == nil
}

// readRefs reads the answer to ls-refs (gitprotocol-v2, "ls-refs").
func readRefs(p *pktReader) (refs []ref, err error) {
	for {
		k, s, err := p.line()
		if err != nil {
			return nil, early(err)
		}
		if k == flush {
			return refs, nil
		}
		f := strings.Split(s, " ")
		if k != data || len(f) < 2 {
			return nil, fmt.Errorf("the answer is not git's protocol: %.100q among the refs", s)
		}
		hash, ok := parseHash(f[0])
		if !ok {
			if f[0] == "unborn" {
				continue
			}
			return nil, fmt.Errorf("the answer is not git's protocol: %.100q among the refs", s)
		}
		r := ref{name: f[1], hash: hash}
		for _, attr := range f[2:] {
			if v, ok := strings.CutPrefix(attr, "peeled:"); ok {
				r.peeled, _ = parseHash(v)
			}
		}
		refs = append(refs, r)
	}
}

// readV2Header reads the answer to fetch up to the pack (gitprotocol-v2, "fetch"): the boundary from shallow-info; other
// sections are of no use to one who has sent no haves.
func readV2Header(p *pktReader) (shallow []plumbing.Hash, err error) {
	for section := ""; ; {
		k, s, err := p.line()
		if err != nil {
			return nil, early(err)
		}
		switch {
		case k == delim:
			section = ""
		case k != data:
			return nil, errors.New("the answer has no pack")
		case section == "" && s == "packfile":
			return shallow, nil
		case section == "":
			section = s
		case section == "packfile-uris":
			return nil, errors.New("the answer wants us to get packs elsewhere, which was not asked for")
		case section == "shallow-info":
			if shallow, err = addShallow(shallow, s); err != nil {
				return nil, err
			}
		}
	}
}

// readV0Header reads the shallow lines, which come only if a depth was asked for, and the acknowledgement
// (gitprotocol-pack, "Packfile Negotiation").
func readV0Header(p *pktReader, deepened bool) (shallow []plumbing.Hash, err error) {
	for deepened {
		k, s, err := p.line()
		if err != nil {
			return nil, early(err)
		}
		if k != data {
			break
		}
		if shallow, err = addShallow(shallow, s); err != nil {
			return nil, err
		}
	}
	k, s, err := p.line()
	if err != nil {
		return nil, early(err)
	}
	if k != data || s != "NAK" && !strings.HasPrefix(s, "ACK ") {
		return nil, fmt.Errorf("the answer is not git's protocol: %.100q instead of NAK", s)
	}
	return shallow, nil
}

func addShallow(shallow []plumbing.Hash, s string) ([]plumbing.Hash, error) {
	id, ok := strings.CutPrefix(s, "shallow ")
	hash, valid := parseHash(id)
	if !ok || !valid { // "unshallow" too: we have said of no commit that it is shallow
		return nil, fmt.Errorf("the answer is not git's protocol: %.100q instead of a shallow line", s)
	}
	return append(shallow, hash), nil
}
