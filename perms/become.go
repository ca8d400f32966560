package perms

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

// Become makes this process, all threads of it, the user that id says, for good, and proves it. Descriptors from 3 on
// become close-on-exec unless id.PassFDs. Unless root was asked for, no capability is left in any set, nor in the bounding
// set where that may be changed, and the process is not dumpable. When the identity changes, the umask becomes 022, and PID 1 gives
// its pipes and terminals on 0-2 to the user.
//
// It fails with fail.OS, naming the capability that is missing or the id that is not mapped, and with fail.Internal in a
// binary built with cgo. After an error the process is neither here nor there and must end. Without /proc other threads cannot be looked
// at, and a line says so. But on Linux it can do nothing, and fails if it would have to.
func Become(log *logs.Log, id Identity) error {
	if err := validIDs(id.UID, id.GID); err != nil {
		return err
	}
	if !onLinux {
		if id.Drop || id.NoNewPrivs {
			return fail.Errorf(fail.OS, "drop privileges: %w", errors.ErrUnsupported)
		}
		return nil
	}
	if id.Drop && os.Getpid() == 1 {
		giveStdio(id.UID)
	}
	for _, step := range []struct {
		wanted bool
		do     func() error
	}{
		{!id.PassFDs, closeOnExec},
		{!id.Keep, func() error { return dropBounding(log, id.Root) }},
		{!id.Keep, clearAmbientAndKeep},
		{id.Drop, id.setIDs},
		{!id.Keep, func() error { return wrap("capset", clearCaps()) }},
		{!id.Keep, func() error { return wrap("prctl PR_SET_DUMPABLE", clearDumpable()) }},
		{id.NoNewPrivs, func() error { return wrap("prctl PR_SET_NO_NEW_PRIVS", setNoNewPrivs()) }},
		{id.Drop, func() error { syscall.Umask(0o022); return nil }},
		// Root that stays root and as it was has nothing to prove.
		{!id.Keep || id.Drop || id.NoNewPrivs, func() error { return id.verify(log) }},
	} {
		if !step.wanted {
			continue
		}
		if err := step.do(); err != nil {
			return err
		}
	}
	return nil
}

func wrap(call string, err error) error {
	if errors.Is(err, unix.ENOTSUP) { // what AllThreadsSyscall says then
		return fail.Errorf(fail.Internal, "this run-task was built with cgo, which cannot drop privileges in all threads").
			WithHint("build it with CGO_ENABLED=0")
	}
	if err != nil {
		return fail.Errorf(fail.OS, "%w", os.NewSyscallError(call, err))
	}
	return nil
}

// giveStdio lets the user open /dev/stdout and the like again. It is for PID 1 alone: elsewhere the terminal is somebody's, who
// would find it changed afterwards. Devices such as /dev/null and files stay as they are, and so does what refuses.
func giveStdio(uid int) {
	for fd := range 3 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			continue
		}
		if kind := st.Mode & unix.S_IFMT; kind == unix.S_IFIFO || kind == unix.S_IFCHR && isTerminal(fd) {
			unix.Fchown(fd, uid, int(st.Gid))
		}
	}
}

func closeOnExec() error {
	err := closeRange()
	if err == nil || !isRefused(err) { // too old, or refused by an old seccomp profile
		return wrap("close_range", err)
	}
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fail.Errorf(fail.OS, "neither close_range nor /proc/self/fd works: %w", err).
			WithHint("mount /proc, or let the command inherit descriptors: --pass-fds")
	}
	for _, n := range names {
		fd, err := strconv.Atoi(n.Name())
		if err == nil && fd > 2 {
			unix.CloseOnExec(fd) // the listing's own is gone by now, which is as good
		}
	}
	return nil
}

// dropBounding empties the bounding set: no file capability can bring anything back.
func dropBounding(log *logs.Log, root bool) error {
	for c := 0; ; c++ {
		set, err := inBound(c)
		if err == unix.EINVAL { // above the kernel's last
			return nil
		}
		if err != nil {
			return wrap("prctl PR_CAPBSET_READ", err)
		}
		if !set {
			continue
		}
		err = dropBound(c)
		if err == unix.EPERM {
			say := log.Verbosef // the usual case of who never was root
			if root {
				say = log.Infof
			}
			say("the capability bounding set stays as it is: CAP_SETPCAP is missing")
			return nil
		}
		if err != nil {
			return wrap("prctl PR_CAPBSET_DROP", err)
		}
	}
}

func clearAmbientAndKeep() error {
	if err := clearAmbient(); err != nil {
		return wrap("prctl PR_CAP_AMBIENT", err)
	}
	if err := clearKeepCaps(); err != unix.EPERM { // locked by securebits: capset clears what setresuid then keeps
		return wrap("prctl PR_SET_KEEPCAPS", err)
	}
	return nil
}

// setIDs goes from the least to the most: after setresuid nothing else would be allowed.
func (id Identity) setIDs() error {
	if err := setGroups(id.Groups); err != nil && !(err == unix.EPERM && id.groupsFixed()) {
		return id.refused("setgroups", err, capSetgid, fmt.Sprintf("one of the gids %v", id.Groups))
	}
	if err := setGID(id.GID); err != nil {
		return id.refused("setresgid", err, capSetgid, fmt.Sprintf("gid %d", id.GID))
	}
	if err := setUID(id.UID); err != nil {
		return id.refused("setresuid", err, capSetuid, fmt.Sprintf("uid %d", id.UID))
	}
	return nil
}

// groupsFixed tells whether this user namespace forbids setgroups (user_namespaces(7)), and no group is among ours that the user should not have.
func (id Identity) groupsFixed() bool {
	b, err := os.ReadFile("/proc/self/setgroups")
	if err != nil || strings.TrimSpace(string(b)) != "deny" {
		return false
	}
	now, err := os.Getgroups()
	return err == nil && !slices.ContainsFunc(now, func(g int) bool { return !slices.Contains(id.Groups, g) })
}

func (id Identity) refused(call string, err error, c capability, unmapped string) error {
	switch {
	case err == unix.EPERM && hasCap(int(c)):
		return fail.Errorf(fail.OS, "%w: this user namespace denies it", os.NewSyscallError(call, err)).
			WithHint("start the container with uid and gid ranges mapped, or as the user itself")
	case err == unix.EPERM:
		return fail.Errorf(fail.OS, "%w: %v is missing", os.NewSyscallError(call, err), c).
			WithHint("start the container with --cap-add SETUID --cap-add SETGID, or as the user itself: --user %d:%d", id.UID, id.GID)
	case err == unix.EINVAL:
		return fail.Errorf(fail.OS, "%w: %s is not mapped in this user namespace", os.NewSyscallError(call, err), unmapped).
			WithHint("map it, or run as a user that is mapped")
	}
	return wrap(call, err)
}

// verify reads everything back, tries to regain root, and looks at every thread.
func (id Identity) verify(log *logs.Log) error {
	broken := func(what string, args ...any) error {
		return fail.Errorf(fail.OS, "the change of identity did not hold: "+what, args...)
	}
	uids, gids := getIDs()
	if uids != [3]int{id.UID, id.UID, id.UID} || gids != [3]int{id.GID, id.GID, id.GID} {
		return broken("uids %v, gids %v, not %d and %d", uids, gids, id.UID, id.GID)
	}
	groups, err := os.Getgroups()
	if err != nil || !subset(groups, id.Groups) || len(unique(groups)) != len(id.Groups) && !id.groupsFixed() {
		return broken("groups %v, not %v (%v)", groups, id.Groups, err)
	}
	if p, e, i := caps(); !id.Keep && p|e|i != 0 {
		return broken("capabilities %x %x %x", p, e, i)
	}
	if id.NoNewPrivs && !isNoNewPrivs() {
		return broken("no_new_privs is not set")
	}
	if id.UID != 0 {
		if setUID(0) == nil || id.GID != 0 && setGID(0) == nil || setGroups(id.Groups) == nil {
			return broken("root can be regained")
		}
	}
	err = id.verifyThreads()
	if errors.Is(err, fs.ErrNotExist) {
		log.Infof("no /proc: the identity was read back, but not of every thread")
		return nil
	}
	if err != nil {
		return broken("%w", err)
	}
	return nil
}

func subset(a, b []int) bool {
	return !slices.ContainsFunc(a, func(x int) bool { return !slices.Contains(b, x) })
}
