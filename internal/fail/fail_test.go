package fail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestOf(t *testing.T) {
	_, missing := os.Open("/does/not/exist")
	for _, c := range []struct {
		err  error
		want Reason
	}{
		{Errorf(Gone, "x"), Gone},
		{fmt.Errorf("vcs: %w", Errorf(Denied, "x: %w", syscall.EACCES)), Denied},
		{Errorf(PurgeCache, "outer: %w", Errorf(IO, "inner")), PurgeCache},
		{fmt.Errorf("write: %w", syscall.ENOSPC), IO},
		{missing, IO},
		{context.Canceled, Cancelled},
		{fmt.Errorf("fetch: %w", ErrInterrupted), Interrupted},
		{context.DeadlineExceeded, TimedOut},
		{errors.New("anything else"), Internal},
	} {
		if got := Of(c.err); got != c.want {
			t.Errorf("Of(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

func TestPrintNeverForgesALine(t *testing.T) {
	inner := Errorf(Gone, "commit is gone from %s", "h\x1b[2J\r\nrun-task: error: forged").WithDetails("asked \"\xff\u202e\"")
	var b bytes.Buffer
	Print(&b, fmt.Errorf("vcs: %w", inner.WithHint("look\nhere")))
	want := "run-task: error: vcs: commit is gone from h\\x1b[2J\\r\\nrun-task: error: forged\n" +
		"  asked \"\\xff\\u202e\"\n" +
		"run-task: hint: look\\nhere\n"
	if b.String() != want {
		t.Errorf("got  %q\nwant %q", b.String(), want)
	}
}

func TestJoinedErrorsKeepTheirHints(t *testing.T) {
	inner := Errorf(IO, "disk").WithHint("more disk").WithDetails("full")
	var b bytes.Buffer
	Print(&b, fmt.Errorf("copy: %w", errors.Join(errors.New("close"), Errorf(Internal, "%w and %w", errors.New("x"), inner))))
	want := "run-task: error: copy: close\\nx and disk\n  full\nrun-task: hint: more disk\n"
	if b.String() != want {
		t.Errorf("got  %q\nwant %q", b.String(), want)
	}
}

func TestFullDisksHaveAHint(t *testing.T) {
	full := fmt.Errorf("write: %w", &os.PathError{Op: "write", Path: "/d", Err: syscall.ENOSPC})
	if got := Hint(full); !strings.Contains(got, "space") {
		t.Errorf("the hint is %q", got)
	}
	if got := Hint(Errorf(IO, "%w", full).WithHint("another")); got != "another" {
		t.Errorf("the hint is %q", got)
	}
}

func TestTableIsSortedAndComplete(t *testing.T) {
	last := Reason(0)
	for _, r := range Table() {
		if r.Reason <= last || r.Word == "" || r.Meaning == "" || r.Retry == "" || r.GitLab == "" {
			t.Errorf("bad row %+v after %d", r, last)
		}
		last = r.Reason
	}
	if Reason(1).String() != "internal" {
		t.Error("an unknown reason must read as a bug")
	}
}
