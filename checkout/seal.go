package checkout

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"run-task/checkout/internal/index"
	"run-task/checkout/internal/worktree"
	"run-task/internal/fsx"
)

// seal says how a checkout left .git. As long as all that it names is as it says, neither packs nor files need to be read again: the packs are those
// that were verified, and a file with the metadata that the index has is the one that was written.
type seal struct {
	Version  int          `json:"version"` // 1
	State    string       `json:"state"`   // SHA-256 of state.json
	Index    string       `json:"index"`   // SHA-256 of the index
	Sec      int64        `json:"sec"`     // when that was, by the file system's clock
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
	sec, nsec := st.MtimeSec, st.MtimeNsec
	if slices.ContainsFunc(packs, younger(sec, nsec)) {
		if sec, nsec, err = g.tick(packs); err != nil {
			return err
		}
	}
	if err := g.copyIndex(idx); err != nil {
		return err
	}
	raw, err := json.Marshal(seal{Version: 1, State: sum256([]byte(state)), Index: sum256(idx), Sec: sec, Nsec: nsec, Packs: packs, Warnings: warnings})
	if err != nil {
		return err
	}
	return g.put(sealFile, string(raw)+"\n")
}

// younger tells what is not older than a time: a change at that time need not show in its metadata.
func younger(sec, nsec int64) func(index.Stat) bool {
	return func(st index.Stat) bool { return !st.Before(sec, nsec) }
}

// tick waits until the file system's clock has gone on since packs were put in their place, which is a few milliseconds at most, and gives the time. If the file system
// has a strange clock the next run reads the packs again.
func (g *gitdir) tick(packs []index.Stat) (sec, nsec int64, err error) {
	for range 10 {
		st, err := fsx.FileStat(g.held)
		if err == nil {
			err = unix.Fchmod(int(g.held.Fd()), st.Perm()) // which sets its change time
		}
		if err == nil {
			st, err = fsx.FileStat(g.held)
		}
		if sec, nsec = st.CtimeSec, st.CtimeNsec; err != nil || !slices.ContainsFunc(packs, younger(sec, nsec)) {
			return sec, nsec, err
		}
		time.Sleep(time.Millisecond)
	}
	return sec, nsec, nil
}

const (
	maxIndex  = 1 << 30
	indexCopy = ownDir + "/index"
)

// copyIndex keeps the index for the next run: git replaces its own where it has looked at files (git status does).
func (g *gitdir) copyIndex(idx []byte) error {
	if err := g.dir.RemoveAll(indexCopy); err != nil {
		return err
	}
	if g.dir.Link("index", indexCopy) == nil {
		return nil
	}
	return g.dir.WriteFile(indexCopy, idx, 0o644) // a file system without links
}

// restoreIndex gives git the index that was kept, where its own is another one.
func (g *gitdir) restoreIndex() error {
	kept, err := g.dir.Lstat(indexCopy)
	if err != nil {
		return err
	}
	if st, err := g.dir.Lstat("index"); err == nil && st.Dev == kept.Dev && st.Ino == kept.Ino {
		return nil
	}
	idx, err := g.dir.ReadFile(indexCopy, maxIndex)
	if err != nil {
		return err
	}
	return g.put("index", string(idx))
}

// unseal looks whether what an earlier run left is still as it left it: old is nil otherwise, and packs tells whether the packs are.
func (g *gitdir) unseal(state []byte, packs []string) (old *worktree.Old, same bool) {
	raw, err := g.dir.ReadFile(sealFile, 64<<20)
	var s seal
	if err != nil || json.Unmarshal(raw, &s) != nil || s.Version != 1 {
		return nil, false
	}
	if now, err := g.packStats(packs); err == nil && s.State == sum256(state) {
		same = slices.Equal(now, s.Packs) && !slices.ContainsFunc(now, younger(s.Sec, s.Nsec))
	}
	idx, err := g.dir.ReadFile(indexCopy, maxIndex)
	if err != nil || sum256(idx) != s.Index {
		return nil, same
	}
	x, err := index.Parse(idx)
	if err != nil {
		return nil, same
	}
	return &worktree.Old{Index: x, Sec: s.Sec, Nsec: s.Nsec, Warnings: s.Warnings}, same
}
