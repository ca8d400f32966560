package perms

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// verifyThreads compares what the kernel says of every thread with what it should say, and with each other. fs.ErrNotExist means no /proc.
func (id Identity) verifyThreads() error {
	const dir = "/proc/self/task"
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var first map[string]string
	for _, t := range tasks {
		b, err := os.ReadFile(filepath.Join(dir, t.Name(), "status"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return err
		}
		now := credentials(string(b))
		if first == nil {
			first = now
		}
		if err := id.check(now, first); err != nil {
			return fmt.Errorf("thread %s: %w", t.Name(), err)
		}
	}
	if first == nil {
		return fs.ErrNotExist
	}
	return nil
}

// credentials are the lines of proc(5)'s status that this package is about. A kernel that is not Linux itself may leave some out.
func credentials(status string) map[string]string {
	m := map[string]string{}
	for line := range strings.SplitSeq(status, "\n") {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs":
			m[key] = strings.Join(strings.Fields(value), " ")
		}
	}
	return m
}

func (id Identity) check(now, first map[string]string) error {
	four := func(n int) string { return strings.TrimSpace(strings.Repeat(strconv.Itoa(n)+" ", 4)) }
	want := map[string]string{"Uid": four(id.UID), "Gid": four(id.GID)}
	if !id.Keep {
		for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
			want[set] = strings.Repeat("0", 16)
		}
	}
	if id.NoNewPrivs {
		want["NoNewPrivs"] = "1"
	}
	for key, value := range now {
		if value != first[key] {
			return fmt.Errorf("%s is %q, and %q in another", key, value, first[key])
		}
		if w, ok := want[key]; ok && w != value {
			return fmt.Errorf("%s is %q, not %q", key, value, w)
		}
	}
	for g := range strings.FieldsSeq(now["Groups"]) {
		if n, err := strconv.Atoi(g); err != nil || !slices.Contains(id.Groups, n) {
			return fmt.Errorf("group %q is left", g)
		}
	}
	return nil
}
