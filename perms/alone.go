package perms

import "golang.org/x/sys/unix"

// RootsAlone tells whether only root can change where name, a directory or a missing one, leads to: root owns every
// directory on the way and nobody else may write to one, but to a sticky one (/tmp) that leads to one which root has alone:
// only root can move or replace that. A link that somebody else made, or any error, means no.
func RootsAlone(name string) bool {
	alone := true
	fd, _, err := descend(name, func(st stat) bool {
		alone = alone && rootsAlone(st)
		return !alone
	})
	if err != nil {
		return false
	}
	unix.Close(fd)
	return alone
}
