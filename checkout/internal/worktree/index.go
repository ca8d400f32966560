package worktree

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"path"

	"run-task/internal/fsx"
)

// writeIndex replaces gitdir's index. One that a task has made a directory is removed, because nothing can be renamed over it.
func writeIndex(gitdir *fsx.Dir, p *plan) error {
	if st, err := gitdir.Lstat("index"); err == nil && st.IsDir() {
		if err := gitdir.RemoveAll("index"); err != nil {
			return err
		}
	}
	return gitdir.WriteFile("index", encodeIndex(p), 0o644)
}

// encodeIndex is git's index, version 2, with the TREE extension (gitformat-index).
func encodeIndex(p *plan) []byte {
	b := make([]byte, 0, 128*len(p.files)+4096)
	b = append(b, "DIRC\x00\x00\x00\x02"...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(p.files)))
	for i := range p.files {
		b = appendEntry(b, &p.files[i])
	}
	tree, _ := appendTree(nil, p.top, "")
	b = append(b, "TREE"...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(tree)))
	b = append(b, tree...)
	sum := sha1.Sum(b)
	return append(b, sum[:]...)
}

func appendEntry(b []byte, f *file) []byte {
	start, st := len(b), &f.st
	for _, v := range [...]int64{st.CtimeSec, st.CtimeNsec, st.MtimeSec, st.MtimeNsec, int64(st.Dev), int64(st.Ino), int64(f.mode), int64(st.UID), int64(st.GID)} {
		b = binary.BigEndian.AppendUint32(b, uint32(v))
	}
	b = binary.BigEndian.AppendUint32(b, indexSize(st.Size))
	b = append(b, f.id[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(min(len(f.path), 0xfff)))
	b = append(b, f.path...)
	return append(b, make([]byte, 8-(len(b)-start)%8)...) // 1 to 8 NULs
}

// indexSize is the low 32 bits, but 0 only for empty files: to git, 0 means "content not known to be unchanged". Since 2.43 git
// does the same.
func indexSize(size int64) uint32 {
	if low := uint32(size); low != 0 || size == 0 {
		return low
	}
	return 1 << 31
}

// appendTree writes a directory and those below it, and counts the files.
func appendTree(b []byte, n *node, name string) ([]byte, int) {
	files := n.files
	var below []byte
	for _, sub := range n.subs {
		var count int
		below, count = appendTree(below, sub, path.Base(sub.path))
		files += count
	}
	b = append(b, name...)
	b = append(b, 0)
	b = fmt.Appendf(b, "%d %d\n", files, len(n.subs))
	b = append(b, n.id[:]...)
	return append(b, below...), files
}
