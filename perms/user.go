// Package perms decides who the task runs as, gives that user what is its own, and makes the process that user for good.
// It is the only package that changes identity or ownership.
package perms

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"run-task/internal/fail"
)

// Worker is the account that root becomes when nobody asked for another. Caches are shared between images by number, so
// where an image has it, it must be uid 1000, and a group of that name gid 1000.
const (
	Worker   = "worker"
	workerID = 1000
)

// Spec is what the user asked for. The zero value asks for nothing.
type Spec struct {
	User        string // NAME|UID[:GROUP|GID]
	Group       string // NAME|GID
	RequireUser bool   // fail where the user cannot be had, instead of running as who we are
	NoNewPrivs  bool
	PassFDs     bool
	Passwd      string // default /etc/passwd; a missing file is an empty one
	Groups      string // default /etc/group
}

// Identity is who the task runs as. Resolve makes it; then it is only read.
type Identity struct {
	UID, GID    int
	Groups      []int  // supplementary groups, sorted, GID among them when the identity changes
	User        string // the account's name, "" if the uid has none
	Home, Shell string // the account's, "" if the uid has none
	Root        bool   // we are root now: euid 0
	Drop        bool   // the identity changes
	Keep        bool   // root was asked for by name: capabilities stay
	NoNewPrivs  bool
	PassFDs     bool
	Notes       []string // lines to print

	root account // whose HOME and the like a changed user must not inherit
}

// self is who this process is.
type self struct {
	ruid, euid, rgid, egid int
	groups                 []int
	elevated               bool // the program file has capabilities of its own
}

// Resolve decides who the task runs as. It reads the account files and changes nothing. It fails with fail.Usage when
// the request or the account files are wrong, or when run-task was started setuid or setgid; with fail.OS when a required
// user cannot be had or an account file cannot be read.
//
// Root becomes the user asked for, else the account worker, and root only when asked for by "root" or "0". Anybody else
// stays who they are: Notes says so when another user was asked for.
func Resolve(s Spec) (Identity, error) {
	groups, err := os.Getgroups()
	if err != nil {
		return Identity{}, fail.Errorf(fail.OS, "%w", os.NewSyscallError("getgroups", err))
	}
	return resolve(s, self{os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid(), groups, elevated()})
}

func resolve(s Spec, me self) (Identity, error) {
	if me.ruid != me.euid || me.rgid != me.egid || me.elevated {
		return Identity{}, fail.Errorf(fail.Usage, "run-task must not be started setuid, setgid or with file capabilities").
			WithHint("remove them from the program: chmod u-s,g-s and setcap -r")
	}
	want, err := parseSpec(s)
	if err != nil {
		return Identity{}, err
	}
	id := Identity{
		UID: me.euid, GID: me.egid, Groups: unique(me.groups), Root: me.euid == 0,
		NoNewPrivs: s.NoNewPrivs, PassFDs: s.PassFDs, root: account{home: "/root"},
	}
	db, err := openAccounts(s)
	if err != nil {
		if id.Root {
			return Identity{}, err
		}
		id.Notes = append(id.Notes, fmt.Sprintf("no account names: %v", err))
	}
	if a, err := accountOf(db.passwd, 0); err == nil && a != nil {
		id.root = *a
	}
	switch {
	case !id.Root:
		return stay(id, s, want, db)
	case want.isRoot():
		return keepRoot(id, want, db)
	}
	return change(id, me, want, db)
}

// stay is what anybody but root can do.
func stay(id Identity, s Spec, want request, db accounts) (Identity, error) {
	if a, err := accountOf(db.passwd, id.UID); err == nil && a != nil {
		id.setAccount(a)
	}
	if s.RequireUser && want.user == "" {
		want.user = Worker // as root would
	}
	if want.user != "" {
		a, gid, err := db.find(want)
		if uid, numeric := parseID(want.user); numeric && uid == id.UID { // no account and no group are needed to be who one is
			a, gid, err = &account{uid: uid}, id.GID, nil
		}
		if err != nil || a.uid != id.UID {
			if s.RequireUser {
				return Identity{}, fail.Errorf(fail.OS, "user %q is required, but this is uid %d and not root", want.user, id.UID).
					WithHint("start the container as root, or leave out --require-user")
			}
			id.Notes = append(id.Notes, fmt.Sprintf("--user %s asked, running as uid %d: not root", want.user, id.UID))
			return id, nil
		}
		if want.group == "" || gid == id.GID {
			return id, nil
		}
	}
	if want.group != "" {
		if gid, err := db.gid(want.group); err != nil || gid != id.GID {
			if s.RequireUser {
				return Identity{}, fail.Errorf(fail.OS, "group %q is required, but this is gid %d and not root", want.group, id.GID).
					WithHint("start the container as root, or leave out --require-user")
			}
			id.Notes = append(id.Notes, fmt.Sprintf("--group %s asked, running with gid %d: not root", want.group, id.GID))
		}
	}
	return id, nil
}

// keepRoot is for those who asked for root by name. Only a group that was asked for as well changes anything.
func keepRoot(id Identity, want request, db accounts) (Identity, error) {
	a, err := accountNamed(db.passwd, "root")
	if err != nil {
		return Identity{}, db.malformed(db.passwdFile, err)
	}
	if a != nil && a.uid != 0 {
		return Identity{}, fail.Errorf(fail.Usage, "account root in %q is uid %d", db.passwdFile, a.uid).WithHint("ask for the number: --user 0")
	}
	if a == nil {
		a = &account{name: "root", home: id.root.home}
	}
	id.setAccount(a)
	id.Keep = true
	id.Notes = append(id.Notes, "running as root, as asked: capabilities stay")
	if want.group == "" {
		return id, nil
	}
	gid, err := db.gid(want.group)
	if err != nil {
		return Identity{}, err
	}
	id.Drop = gid != id.GID
	id.GID, id.Groups = gid, unique(append(id.Groups, gid))
	return id, nil
}

// change is root becoming somebody else.
func change(id Identity, me self, want request, db accounts) (Identity, error) {
	if want.user == "" {
		want.user = Worker
		if a, err := accountNamed(db.passwd, Worker); a == nil && err == nil {
			return Identity{}, fail.Errorf(fail.Usage, "nobody to run as: this is root and the image has no account %q", Worker).
				WithHint("--user NAME, or --user root")
		}
	}
	a, gid, err := db.find(want)
	if err != nil {
		return Identity{}, err
	}
	if a.uid == 0 {
		return Identity{}, fail.Errorf(fail.Usage, "account %q is root: uid 0", a.name).WithHint("name another user, or say it: --user root")
	}
	id.setAccount(a)
	id.UID, id.GID, id.Groups = a.uid, gid, []int{gid}
	if a.name != "" {
		more, err := groupsOf(db.groups, a.name)
		if err != nil {
			return Identity{}, db.malformed(db.groupsFile, err)
		}
		id.Groups = unique(append(more, gid))
	}
	id.Drop = me.euid != id.UID || me.egid != id.GID || !slices.Equal(unique(me.groups), id.Groups)
	return id, nil
}

func (id *Identity) setAccount(a *account) {
	id.User, id.Home, id.Shell = a.name, a.home, a.shell
}

// request is Spec's user and group, their syntax checked.
type request struct{ user, group string }

func (r request) isRoot() bool {
	uid, ok := parseID(r.user)
	return r.user == "root" || ok && uid == 0
}

func parseSpec(s Spec) (request, error) {
	r, err := parseUser(s.User)
	if err != nil {
		return request{}, err
	}
	if s.Group != "" {
		if !validIDOrName(s.Group) {
			return request{}, fail.Errorf(fail.Usage, "--group %q is neither a name nor a number", s.Group).WithHint("--group NAME|GID")
		}
		if r.group != "" && r.group != s.Group {
			return request{}, fail.Errorf(fail.Usage, "--user %q and --group %q name different groups", s.User, s.Group).WithHint("name the group once")
		}
		r.group = s.Group
	}
	return r, nil
}

// parseUser splits NAME|UID[:GROUP|GID].
func parseUser(s string) (request, error) {
	if s == "" {
		return request{}, nil
	}
	user, group, hasGroup := strings.Cut(s, ":")
	if !validIDOrName(user) || hasGroup && !validIDOrName(group) {
		return request{}, fail.Errorf(fail.Usage, "--user %q is not NAME|UID[:GROUP|GID]", s).WithHint("for example --user worker, or --user 1000:1000")
	}
	return request{user, group}, nil
}

// validIDOrName: digits are always a number, also where an account of that name exists.
func validIDOrName(s string) bool {
	if digits(s) {
		_, ok := parseID(s)
		return ok
	}
	return validName(s)
}

// validIDs is the last gate before the kernel, which takes 2^32-1 as "leave it as it is".
func validIDs(uid, gid int) error {
	if uid < 0 || gid < 0 || int64(uid) >= math.MaxUint32 || int64(gid) >= math.MaxUint32 {
		return fail.Errorf(fail.Internal, "uid %d, gid %d cannot be set", uid, gid)
	}
	return nil
}

// unique is a sorted copy without duplicates, never nil.
func unique(ids []int) []int {
	c := append([]int{}, ids...)
	slices.Sort(c)
	return slices.Compact(c)
}
