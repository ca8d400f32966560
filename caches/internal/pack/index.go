package pack

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"math"
	"os"
	"path"
	"time"

	"run-task/internal/fsx"
)

// Index remembers what the files of a tree were like when their contents were known, so that those which nothing has changed since need not be read again.
type Index struct {
	r       *bufio.Reader
	next    Entry // that was read last
	stat    fsx.Stat
	ended   bool
	trusted int64 // files that were changed before this time, in nanoseconds, cannot have changed since without another time
}

// Record looks at the files of a tree that the archive was extracted to just before, and writes down in f, which it owns from now on, what they are like. A name that is
// not there any more is left out.
func (a *Archive) Record(ctx context.Context, root *fsx.Dir, f *os.File) (*Index, error) {
	w := bufio.NewWriterSize(f, 1<<16)
	x := &Index{r: bufio.NewReaderSize(f, 1<<16), trusted: tick(root)}
	dirs := []openDir{{"", hold(root).share()}}
	defer func() {
		for _, d := range dirs[1:] {
			d.release()
		}
	}()
	var b []byte
	err := a.Each(ctx, func(e *Entry) error {
		if e.Type != File && e.Type != Dir || e.Name == "" {
			return nil
		}
		for len(dirs) > 1 && dirs[len(dirs)-1].name != dirOf(e.Name) {
			dirs[len(dirs)-1].release()
			dirs = dirs[:len(dirs)-1]
		}
		in := dirs[len(dirs)-1]
		if in.name != dirOf(e.Name) {
			return nil
		}
		if e.Type == Dir {
			if d, err := in.OpenDir(path.Base(e.Name)); err == nil {
				dirs = append(dirs, openDir{e.Name, hold(d)})
			}
			return nil
		}
		st, err := in.Lstat(path.Base(e.Name))
		if err != nil || !st.IsRegular() || st.Size != e.Size || !st.SameTime(fsx.Stat{MtimeSec: e.Sec, MtimeNsec: int64(e.Nsec)}) { // somebody has changed it already
			return nil
		}
		b = b[:0]
		for _, n := range []uint64{st.Dev, st.Ino, uint64(st.Size), uint64(changed(st))} {
			b = binary.LittleEndian.AppendUint64(b, n)
		}
		record, _ := e.appendRecord(nil)
		b = append(binary.AppendUvarint(b, uint64(len(record))), record...)
		_, err = w.Write(b)
		return err
	})
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	return x, err
}

// tick waits until a file in the directory that is changed from now on has another time of change than what was changed before, a few milliseconds, and gives the first such time. Where that takes longer it
// is one that the last files to be changed have, too.
func tick(root *fsx.Dir) (now int64) {
	first := int64(math.MinInt64)
	for range 30 {
		st, err := root.Stat()
		if err == nil {
			err = root.SetTime(".", st.MtimeSec, st.MtimeNsec) // that it is changed shows the file system's time
		}
		if err == nil {
			st, err = root.Stat()
		}
		if err != nil {
			return math.MinInt64
		}
		if now = changed(st); first == math.MinInt64 {
			first = now
		}
		if now > first {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return now
}

func changed(st fsx.Stat) int64 {
	if st.CtimeSec > math.MaxInt64/1_000_000_000-1 || st.CtimeSec < 0 {
		return math.MaxInt64
	}
	return st.CtimeSec*1_000_000_000 + st.CtimeNsec
}

// find gives the entry of a file that has not changed; nil if it has, or is not known. Names must come in order.
func (x *Index) find(name string, st fsx.Stat) (*Entry, error) {
	for !x.ended && (x.next.Name == "" || order(x.next.Name, name) < 0) {
		if err := x.advance(); err != nil {
			return nil, err
		}
	}
	if x.ended || x.next.Name != name || x.stat.Dev != st.Dev || x.stat.Ino != st.Ino || x.stat.Size != st.Size ||
		changed(x.stat) != changed(st) || changed(st) >= x.trusted {
		return nil, nil
	}
	return &x.next, nil
}

func (x *Index) advance() error {
	var b [4 * 8]byte
	_, err := io.ReadFull(x.r, b[:])
	if err == io.EOF {
		x.ended = true
		return nil
	}
	if err != nil {
		return err
	}
	n := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	x.stat = fsx.Stat{Dev: n(0), Ino: n(1), Size: int64(n(2)), CtimeSec: int64(n(3)) / 1e9, CtimeNsec: int64(n(3)) % 1e9}
	size, err := binary.ReadUvarint(x.r)
	if err != nil {
		return err
	}
	record := make([]byte, size)
	if _, err = io.ReadFull(x.r, record); err != nil {
		return err
	}
	x.next, _, _, err = readRecord(record)
	return err
}
