package fsx

import (
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Extents tells where the first size bytes of a file are none of a hole's (lseek(2), SEEK_DATA); nil if that is everywhere, or the file system cannot tell. There are most of them at
// most: the last one then has the rest.
func Extents(f *os.File, size int64, most int) ([]Extent, error) {
	all := []Extent{}
	for at := int64(0); at < size; {
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if err == unix.ENXIO || err == nil && start >= size { // nothing but a hole
			break
		}
		if err == unix.EINVAL {
			return nil, nil
		}
		if err != nil {
			return nil, os.NewSyscallError("lseek", err)
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err == unix.ENXIO { // it shrank
			break
		}
		if err != nil {
			return nil, os.NewSyscallError("lseek", err)
		}
		if end = min(end, size); len(all) == most-1 {
			end = size
		}
		all = append(all, Extent{start, end - start})
		at = end
	}
	if len(all) == 1 && all[0].Size == size {
		return nil, nil
	}
	return all, nil
}

// UserXattrs are the extended attributes that are a user's own ("user."), sorted by name. A file system without any is fine; more than 64 KiB of them are E2BIG.
func UserXattrs(fd int) ([]Xattr, error) {
	const most = 64 << 10
	names := make([]byte, 1<<10)
	var n int
	for {
		var err error
		n, err = unix.Flistxattr(fd, names)
		if err == unix.ENOTSUP {
			return nil, nil
		}
		if err == nil {
			break
		}
		if err != unix.ERANGE || len(names) > 1<<16 {
			return nil, os.NewSyscallError("flistxattr", err)
		}
		names = make([]byte, 4*len(names))
	}
	var all []Xattr
	value := make([]byte, most)
	total := 0
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if !strings.HasPrefix(name, "user.") {
			continue
		}
		n, err := unix.Fgetxattr(fd, name, value)
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("fgetxattr", err)
		}
		if total += len(name) + n; total > most {
			return nil, os.NewSyscallError("fgetxattr", unix.E2BIG)
		}
		all = append(all, Xattr{name, string(value[:n])})
	}
	slices.SortFunc(all, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// SetXattr sets an extended attribute.
func SetXattr(fd int, x Xattr) error {
	return os.NewSyscallError("fsetxattr", unix.Fsetxattr(fd, x.Name, []byte(x.Value), 0))
}
