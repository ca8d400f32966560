package perms

import (
	"cmp"

	"run-task/internal/fail"
)

// accounts is the content of the account files.
type accounts struct{ passwd, groups, passwdFile, groupsFile string }

func openAccounts(s Spec) (db accounts, err error) {
	db.passwdFile, db.groupsFile = cmp.Or(s.Passwd, "/etc/passwd"), cmp.Or(s.Groups, "/etc/group")
	if db.passwd, err = readAccounts(db.passwdFile); err != nil {
		return db, fail.Errorf(fail.OS, "accounts: %w", err)
	}
	if db.groups, err = readAccounts(db.groupsFile); err != nil {
		return db, fail.Errorf(fail.OS, "groups: %w", err)
	}
	return db, nil
}

const hintRenumber = "give it 1000 in the image, or another name: caches are shared between images by number"

func (db accounts) malformed(file string, err error) error {
	return fail.Errorf(fail.Usage, "%q: %w", file, err).WithHint("correct the file in the image")
}

// find is the account that was asked for and its primary group: the one asked for, else the account's. A number without
// an account has neither name nor home, and no group but the one asked for.
func (db accounts) find(want request) (a *account, gid int, err error) {
	uid, numeric := parseID(want.user)
	if numeric {
		a, err = accountOf(db.passwd, uid)
	} else {
		a, err = accountNamed(db.passwd, want.user)
	}
	switch {
	case err != nil:
		return nil, 0, db.malformed(db.passwdFile, err)
	case a == nil && !numeric:
		return nil, 0, fail.Errorf(fail.Usage, "no account %q in %q", want.user, db.passwdFile).
			WithHint("name an account that the image has, or numbers: --user UID --group GID")
	case a == nil && want.group == "":
		return nil, 0, fail.Errorf(fail.Usage, "uid %d has no account and so no group", uid).WithHint("--group GID")
	case a == nil:
		a = &account{uid: uid}
	case a.name == Worker && a.uid != workerID:
		return nil, 0, fail.Errorf(fail.Usage, "account %q is uid %d, not %d", Worker, a.uid, workerID).WithHint(hintRenumber)
	}
	if want.group != "" {
		gid, err = db.gid(want.group)
		return a, gid, err
	}
	if a.name == Worker {
		err = db.checkWorkerGroup()
	}
	return a, a.gid, err
}

// gid is the number of a group that was asked for by name or number.
func (db accounts) gid(name string) (int, error) {
	if gid, ok := parseID(name); ok {
		return gid, nil
	}
	if name == Worker {
		if err := db.checkWorkerGroup(); err != nil {
			return 0, err
		}
	}
	gid, ok, err := groupNamed(db.groups, name)
	if err != nil {
		return 0, db.malformed(db.groupsFile, err)
	}
	if !ok {
		return 0, fail.Errorf(fail.Usage, "no group %q in %q", name, db.groupsFile).WithHint("name a group that the image has, or its number")
	}
	return gid, nil
}

func (db accounts) checkWorkerGroup() error {
	gid, ok, err := groupNamed(db.groups, Worker)
	if err != nil {
		return db.malformed(db.groupsFile, err)
	}
	if ok && gid != workerID {
		return fail.Errorf(fail.Usage, "group %q is gid %d, not %d", Worker, gid, workerID).WithHint(hintRenumber)
	}
	return nil
}
