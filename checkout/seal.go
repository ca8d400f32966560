package checkout

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	"run-task/checkout/internal/index"
	"run-task/checkout/internal/worktree"
)

// seal says how a checkout left .git. As long as all that it names is as it says, neither packs nor files need to be read again: the packs are those
// that were verified, and a file with the metadata that the index has is the one that was written.
type seal struct {
	Version  int          `json:"version"` // 1
	State    string       `json:"state"`   // SHA-256 of state.json
	Index    string       `json:"index"`   // SHA-256 of the index
	Sec      int64        `json:"sec"`     // when the index was written
	Nsec     int64        `json:"nsec"`
	Packs    []index.Stat `json:"packs"`    // of each pack and its .idx, in the order of the state
	Warnings []string     `json:"warnings"` // about the tree
}

func sum256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// packStats are the metadata of the packs' files.
func (g *gitdir) packStats(packs []string) (all []index.Stat, err error) {
	for _, name := range packs {
		for _, end := range []string{".pack", ".idx"} {
			st, err := g.dir.Lstat(packDir + "/" + name + end)
			if err != nil {
				return nil, err
			}
			all = append(all, index.StatOf(st))
		}
	}
	return all, nil
}

// sealUp writes down what is here now, which is right.
func (g *gitdir) sealUp(p *pin, warnings []string) error {
	state, err := p.state.encode()
	if err != nil {
		return err
	}
	idx, err := g.dir.ReadFile("index", maxIndex)
	if err != nil {
		return err
	}
	st, err := g.dir.Lstat("index")
	if err != nil {
		return err
	}
	packs, err := g.packStats(p.Packs)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(seal{Version: 1, State: sum256([]byte(state)), Index: sum256(idx), Sec: st.MtimeSec, Nsec: st.MtimeNsec, Packs: packs, Warnings: warnings})
	if err != nil {
		return err
	}
	return g.put(sealFile, string(raw)+"\n")
}

const maxIndex = 1 << 30

// unseal looks whether what an earlier run left is still as it left it: old is nil otherwise, and packs tells whether the packs are.
func (g *gitdir) unseal(state []byte, packs []string) (old *worktree.Old, same bool) {
	raw, err := g.dir.ReadFile(sealFile, 64<<20)
	var s seal
	if err != nil || json.Unmarshal(raw, &s) != nil || s.Version != 1 {
		return nil, false
	}
	if now, err := g.packStats(packs); err == nil && s.State == sum256(state) {
		young := func(st index.Stat) bool { return !st.Before(s.Sec, s.Nsec) } // a change at the same time would not show
		same = slices.Equal(now, s.Packs) && !slices.ContainsFunc(now, young)
	}
	idx, err := g.dir.ReadFile("index", maxIndex)
	if err != nil || sum256(idx) != s.Index {
		return nil, same
	}
	x, err := index.Parse(idx)
	if err != nil {
		return nil, same
	}
	return &worktree.Old{Index: x, Sec: s.Sec, Nsec: s.Nsec, Warnings: s.Warnings}, same
}
