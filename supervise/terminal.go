//go:build unix

package supervise

import (
	"os/signal"

	"golang.org/x/sys/unix"
)

// terminal is the controlling terminal. A nil one can do nothing.
type terminal struct {
	fd    int
	ours  int  // our process group
	given bool // the command's group has the foreground
}

// controlling finds our controlling terminal: at descriptors 0 to 2, or else by name. It is nil if there is none.
func controlling() *terminal {
	t := &terminal{ours: unix.Getpgrp()}
	for t.fd = 0; t.fd <= 2; t.fd++ {
		if _, err := t.group(); err == nil {
			return t
		}
	}
	if t.ours == 0 { // a group of another PID namespace: whether it is the foreground cannot be told, and only stdio tells that the terminal is meant for us
		return nil
	}
	var err error
	if t.fd, err = unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
		return nil
	}
	return t
}

// group is the terminal's foreground process group. It is an error if it is not our controlling terminal.
func (t *terminal) group() (int, error) { return unix.IoctlGetInt(t.fd, unix.TIOCGPGRP) }

// foreground tells whether our own group is the foreground.
func (t *terminal) foreground() bool {
	if t == nil {
		return false
	}
	group, err := t.group()
	return err == nil && group == t.ours
}

// shield ignores what the kernel sends to those in the background who use the terminal: we write there, and take it back. The command must have been started, or it would ignore them too.
func (t *terminal) shield() {
	if t != nil {
		signal.Ignore(unix.SIGTTOU, unix.SIGTTIN)
	}
}

func (t *terminal) give(group int) {
	t.given = unix.IoctlSetPointerInt(t.fd, unix.TIOCSPGRP, group) == nil
}

// takeBack makes us the foreground if we gave it away. A group of another PID namespace has no name to do that by.
func (t *terminal) takeBack() {
	if t == nil || !t.given || t.ours == 0 {
		return
	}
	t.given = false
	unix.IoctlSetPointerInt(t.fd, unix.TIOCSPGRP, t.ours)
}
