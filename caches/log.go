package caches

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

const (
	logName = ".cachelog"
	maxLog  = 1 << 20  // bytes; a longer log is cut to its end
	tailLog = 16 << 10 // bytes of the log that are kept or looked at
)

// record appends a line to the audit log. Only a log that is not a file of the cache's own is an error (fail.PurgeCache);
// one that cannot be written is a warning, for a cache may be mounted read-only.
func (a *admission) record(msg string) error {
	f, err := a.openLog()
	if err == nil {
		_, err = f.WriteString(a.line(msg))
	}
	if f != nil {
		err = errors.Join(err, f.Close())
	}
	if fail.Of(err) == fail.PurgeCache {
		return fmt.Errorf("cache %q: %w", a.name, err)
	}
	if err != nil {
		a.log.Warnf("cache %q: its log cannot be written: %v", a.name, err)
	}
	return nil
}

func (a *admission) line(msg string) string {
	task := logs.OneLine(a.TaskID) // a line end in it would forge entries
	if task == "" {
		task = "UNKNOWN"
	}
	return fmt.Sprintf("[%s %s] %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"), task[:min(len(task), 200)], msg)
}

// openLog opens the log for a line at its end. A new one is given to the task's user, so that a later task that is
// started as that user, not as root, can append too.
func (a *admission) openLog() (*os.File, error) {
	f, st, err := a.openOurs(logName, unix.O_RDWR|unix.O_APPEND)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = a.dir.OpenFile(logName, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_EXCL, 0o644)
		if err == nil {
			err = f.Chmod(0o644) // the umask may have taken some
		}
		if err == nil && a.Root {
			err = f.Chown(a.UID, a.GID)
		}
		return f, err
	}
	if err == nil && st.Size > maxLog {
		tail, e := readTail(f, st.Size)
		err = errors.Join(e, f.Truncate(0))
		if err == nil {
			_, err = f.WriteString(tail)
		}
	}
	return f, err
}

// readTail is the whole lines at the end of a log.
func readTail(f *os.File, size int64) (string, error) {
	b := make([]byte, min(size, tailLog))
	n, err := f.ReadAt(b, size-int64(len(b)))
	if n < len(b) {
		return "", err
	}
	s := string(b)
	if size > tailLog {
		_, s, _ = strings.Cut(s, "\n")
	}
	return s, nil
}

// history shows the end of the log, quoted.
func (a *admission) history() []string {
	f, st, err := a.openOurs(logName, unix.O_RDONLY)
	if err != nil {
		return []string{"audit log: " + err.Error()}
	}
	defer f.Close()
	tail, err := readTail(f, st.Size)
	if err != nil {
		return []string{"audit log: " + err.Error()}
	}
	lines := strings.Split(strings.TrimSuffix(tail, "\n"), "\n")
	shown := []string{"the last lines of its audit log:"}
	for _, l := range lines[max(0, len(lines)-20):] {
		shown = append(shown, fmt.Sprintf("  %q", l[:min(len(l), 500)]))
	}
	return shown
}
