package perms

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// maxAccounts is far above any real file and keeps a hostile one out of memory.
const maxAccounts = 16 << 20

// account is one line of a passwd file (passwd(5)).
type account struct {
	name, home, shell string
	uid, gid          int
}

// readAccounts reads a passwd or group file; a missing one is empty. Links are followed: some images keep /etc elsewhere.
func readAccounts(name string) (string, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not hang us
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", fmt.Errorf("%q is not a regular file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxAccounts+1))
	if err == nil && len(b) > maxAccounts {
		err = fmt.Errorf("%q is longer than %d bytes", name, maxAccounts)
	}
	return string(b), err
}

// parseID takes decimal digits only. 4294967295 is -1 to the kernel, "leave it as it is", and larger numbers wrap: both would keep us root.
func parseID(s string) (int, bool) {
	if s == "" || len(s) > 10 || !digits(s) {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return int(n), err == nil && n < math.MaxUint32
}

func digits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// accountNamed finds the account of that name, nil if there is none.
func accountNamed(passwd, name string) (*account, error) {
	return findAccount(passwd, func(f []string) bool { return bare(f[0]) == name })
}

// accountOf finds the account with that number, nil if there is none.
func accountOf(passwd string, uid int) (*account, error) {
	a, err := findAccount(passwd, func(f []string) bool {
		if len(f) < 3 {
			return false
		}
		id, ok := parseID(bare(f[2]))
		return ok && id == uid
	})
	if a == nil || err != nil {
		return nil, err
	}
	return accountNamed(passwd, a.name) // refuses when another line gives the name another number
}

// findAccount returns the first line that is wanted. A wanted line that is malformed, or that disagrees with an earlier
// one about ids, is an error; what else stands in the file is nobody's business.
func findAccount(passwd string, wanted func([]string) bool) (*account, error) {
	var found *account
	n := 0
	for line := range strings.SplitSeq(passwd, "\n") {
		n++
		f := strings.Split(line, ":")
		if !wanted(f) {
			continue
		}
		a, ok := parseAccount(line, f)
		if !ok {
			return nil, fmt.Errorf("line %d is malformed: %q", n, short(line))
		}
		if found == nil {
			found = a
		}
		if a.uid != found.uid || a.gid != found.gid {
			return nil, fmt.Errorf("line %d contradicts an earlier line about %q or uid %d", n, a.name, a.uid)
		}
	}
	return found, nil
}

func parseAccount(line string, f []string) (*account, bool) {
	if len(f) != 7 || !validName(f[0]) || strings.ContainsFunc(line, control) {
		return nil, false
	}
	uid, ok1 := parseID(f[2])
	gid, ok2 := parseID(f[3])
	return &account{name: f[0], uid: uid, gid: gid, home: f[5], shell: f[6]}, ok1 && ok2
}

// groupNamed finds the number of the group of that name (group(5)).
func groupNamed(groups, name string) (gid int, ok bool, err error) {
	ids, err := findGroups(groups, func(f []string) bool { return bare(f[0]) == name })
	if err != nil || len(ids) == 0 {
		return 0, false, err
	}
	if len(ids) > 1 {
		return 0, false, fmt.Errorf("group %q has several numbers: %v", name, ids)
	}
	return ids[0], true, nil
}

// groupsOf finds the groups whose member list has the user.
func groupsOf(groups, user string) ([]int, error) {
	return findGroups(groups, func(f []string) bool {
		for _, field := range f[min(3, len(f)):] {
			for m := range strings.SplitSeq(field, ",") {
				if bare(m) == user {
					return true
				}
			}
		}
		return false
	})
}

// findGroups returns the numbers of the lines that are wanted, each once.
func findGroups(groups string, wanted func([]string) bool) ([]int, error) {
	var ids []int
	n := 0
	for line := range strings.SplitSeq(groups, "\n") {
		n++
		f := strings.Split(line, ":")
		if !wanted(f) {
			continue
		}
		if len(f) != 4 || !validName(f[0]) || strings.ContainsFunc(line, control) {
			return nil, fmt.Errorf("line %d is malformed: %q", n, short(line))
		}
		gid, ok := parseID(f[2])
		if !ok {
			return nil, fmt.Errorf("line %d has no valid number: %q", n, short(line))
		}
		if !slices.Contains(ids, gid) {
			ids = append(ids, gid)
		}
	}
	return ids, nil
}

// bare makes a field with stray white space or control characters (CRLF files) equal to the name it is about, so that its line is refused and not passed over.
func bare(s string) string {
	return strings.TrimFunc(s, func(r rune) bool { return r == ' ' || control(r) })
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

// validName leaves out what could be read as something else: NIS lines (+name, -name), lists, paths.
func validName(s string) bool {
	return s != "" && s[0] != '-' && s[0] != '+' && !strings.ContainsAny(s, ":,/ ") && !strings.ContainsFunc(s, control)
}

func short(line string) string {
	return line[:min(len(line), 80)]
}
