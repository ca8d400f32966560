// Package pins is a store of git packs on a volume that hosts share, in which pins say what is complete: a pin names a commit, the packs that
// together hold all that belongs to it, and until when they are wanted. Readers trust pins only; the atomic rename of a pin's file is the moment at which a
// commit is there. This package knows files and locks, but neither git's network nor its objects.
package pins

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Pin says that a commit is complete. It is what a pin's file holds, as JSON.
type Pin struct {
	Version int       `json:"version"` // 1
	URL     string    `json:"url"`     // canonical, no credentials
	Trust   string    `json:"trust"`   // the label that keeps stores apart
	SHA     string    `json:"sha"`     // as pinned: a commit, or an annotated tag
	Commit  string    `json:"commit"`
	Tree    string    `json:"tree"`
	Shape             // what of its history and files
	Packs   []string  `json:"packs"`   // pack-<40 hex>, each complete by itself
	Shallow []string  `json:"shallow"` // the boundary: commits whose parents are not here
	Whole   bool      `json:"whole"`   // whatever an object names is here, up to the boundary
	Partial bool      `json:"partial"` // but for blobs that Sparse leaves out
	Tags    []Tag     `json:"tags"`    // with full history
	Holder  string    `json:"holder"`  // who wants it: a pipeline
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`

	seen map[string]identity // the files of Packs, as they were when it was last known that all are there
}

// Shape is what of a commit's history and files a pin's packs make complete.
type Shape struct {
	Depth  int      `json:"depth"`  // commits of history, 0 for all of it
	Sparse []string `json:"sparse"` // only the files in these directories; empty for all
}

// Tag is a tag that leads into a pin's history.
type Tag struct {
	Name string `json:"name"` // refs/tags/...
	ID   string `json:"id"`
}

var (
	hexID    = regexp.MustCompile(`^[0-9a-f]{40}$`)
	packName = regexp.MustCompile(`^pack-[0-9a-f]{40}$`)
)

// Bounds of what is read of a pin.
const (
	maxPin   = 64 << 20 // a million tags
	maxPacks = 1000
)

// Parse reads a pin as JSON, which anybody may have written who can write to the store.
func Parse(raw []byte) (*Pin, error) {
	p := &Pin{}
	if err := json.Unmarshal(raw, p); err != nil {
		return nil, err
	}
	ids := append([]string{p.SHA, p.Commit, p.Tree}, p.Shallow...)
	for _, t := range p.Tags {
		ids = append(ids, t.ID)
	}
	switch {
	case p.Version != 1:
		return nil, fmt.Errorf("a pin of version %d", p.Version)
	case !all(hexID, ids):
		return nil, fmt.Errorf("no object has one of its names")
	case len(p.Packs) == 0 || len(p.Packs) > maxPacks || !all(packName, p.Packs) || p.Depth < 0:
		return nil, fmt.Errorf("no packs have its names")
	}
	return p, nil
}

func all(form *regexp.Regexp, list []string) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return !form.MatchString(s) })
}

// file is the name of a pin's file in the directory of its SHA.
func (p *Pin) file() string { return escape(p.Holder) + p.suffix() }

// suffix is what the files of all pins of a shape end with.
func (s Shape) suffix() string {
	key := fmt.Sprint(".depth-", s.Depth)
	if len(s.Sparse) > 0 {
		key += "-" + digest(strings.Join(s.Sparse, "\n"))[:16]
	}
	return key + ".json"
}

// maxHolder is how much of a holder's name a file's name has.
const maxHolder = 120

// escape makes a part of a file's name of any text, another one for each.
func escape(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() == 0 || b.Len() > maxHolder { // no text gives a "~"
		return "~" + digest(text)
	}
	return b.String()
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// says tells whether two pins differ in nothing but their times.
func (p *Pin) says(as *Pin) bool {
	a, b := *p, *as
	a.Created, a.Expires, b.Created, b.Expires = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	x, err := json.Marshal(a)
	y, yerr := json.Marshal(b)
	return err == nil && yerr == nil && string(x) == string(y)
}
