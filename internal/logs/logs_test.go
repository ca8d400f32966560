package logs

import (
	"bytes"
	"testing"
)

func TestMaskedAndOneLine(t *testing.T) {
	var b bytes.Buffer
	l := New(&b, Normal, false)
	l.Mask("hunter2hunter2")
	l.Mask("hunter2")
	l.Mask("abc") // would mask ordinary words
	vcs := l.For("vcs")
	vcs.Infof("token hunter2hunter2 and hunter2, abc, from https://joe:pw@host/x.git, http://tok@host/, ssh://git@host/")
	vcs.Infof("https://u:it's@p@h/x@y ssh://u:a@b@h/ git@h:x")
	vcs.Infof("%s", `"https://h/?X-Amz-Credential=AK%2Fx&X-Amz-Date=1&X-Amz-Signature=beef" https://h/k?se=1&sig=a%2Bb and https://h/?job_token=x&id=2 sig=plain`)
	vcs.Infof("forged\n[perms] line \x1b[31m\xff")
	vcs.Verbosef("not shown")
	vcs.Warnf("%d left", 3)
	want := "[vcs] token [MASKED] and [MASKED], abc, from https://[MASKED]@host/x.git, http://[MASKED]@host/, ssh://git@host/\n" +
		"[vcs] https://[MASKED]@h/x@y ssh://[MASKED]@h/ git@h:x\n" +
		`[vcs] "https://h/?X-Amz-Credential=[MASKED]&X-Amz-Date=1&X-Amz-Signature=[MASKED]" https://h/k?se=1&sig=[MASKED] and https://h/?job_token=[MASKED]&id=2 sig=plain` + "\n" +
		"[vcs] forged\\n[perms] line \\x1b[31m\\xff\n" +
		"[vcs] warning: 3 left\n"
	if b.String() != want {
		t.Errorf("got  %q\nwant %q", b.String(), want)
	}
}

func TestLevels(t *testing.T) {
	for level, want := range map[Level]string{Quiet: "", Normal: "a\n", Verbose: "a\nb\n"} {
		var b bytes.Buffer
		l := New(&b, level, false)
		l.Infof("a")
		l.Verbosef("b")
		if b.String() != want {
			t.Errorf("level %d: %q, want %q", level, b.String(), want)
		}
	}
}

func TestALineClearsTheProgressLine(t *testing.T) {
	var b bytes.Buffer
	l := New(&b, Normal, true).For("vcs")
	l.draw("50 %")
	l.Infof("done")
	l.draw("")
	if want := "\r\x1b[K[vcs] 50 %\r\x1b[K[vcs] done\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 4_200_000_000: "4.2 GB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %s, want %s", n, got, want)
		}
	}
}
