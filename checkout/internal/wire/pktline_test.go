package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

const one, two = "1111111111111111111111111111111111111111", "2222222222222222222222222222222222222222"

// lines makes an answer: texts as pkt-lines, and "0000" to "0002" as they are.
func lines(texts ...string) string {
	r := &request{}
	for _, s := range texts {
		switch s {
		case "0000", "0001", "0002":
			r.WriteString(s)
		default:
			r.linef("%s", s)
		}
	}
	return r.String()
}

func reader(s string) *pktReader { return newPktReader(strings.NewReader(s)) }

func TestPktLine(t *testing.T) {
	for in, want := range map[string]string{
		"0000": "1", "0001": "2", "0002": "3", "0004": `0 ""`, "0005\n": `0 ""`, "0006a\n": `0 "a"`, "0007a\n\n": `0 "a\n"`, "000aERR no": "no",
		"0003": "length 3", "fff1": "length 65521", "": "EOF", "00": "unexpected EOF", "0006a": "unexpected EOF", "0006": "unexpected EOF", "<htm": "not git's protocol", "+005a": "not git's",
		"fff0" + strings.Repeat("x", 65516): "0 \"x",
	} {
		k, s, err := reader(in).line()
		got := fmt.Sprint(int(k))
		if k == data {
			got += fmt.Sprintf(" %q", s)
		}
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%.20q: %.100s, want %s", in, got, want)
		}
	}
}

func TestPackReader(t *testing.T) {
	var log bytes.Buffer
	for in, want := range map[string]string{
		"0008\x01PAC0006\x01K0000":                      "PACK <nil>",
		"0008\x01PAC0005\x01" + "000c\x02hello\r\n0000": "PAC <nil>",
		"0008\x01PAC0002":                               "PAC <nil>",
		"0008\x01PAC":                                   "PAC unexpected EOF",
		"0008\x01PA":                                    "PA unexpected EOF",
		"":                                              " unexpected EOF",
		"0008\x01PAC000b\x03no way0000":                 `PAC the server says "no way"`,
		"00040000":                                      " the answer is not git's protocol: a packet without a band in the pack",
		"0005\x090000":                                  " the answer is not git's protocol: band 9",
		"0001":                                          " the answer is not git's protocol: a packet without a band in the pack",
	} {
		for _, r := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in)), iotest.DataErrReader(strings.NewReader(in))} {
			p := &packReader{p: newPktReader(r), log: logs.New(&log, logs.Verbose, false)}
			b, err := io.ReadAll(p)
			if got := fmt.Sprintf("%s %v", b, err); got != want && !(strings.Contains(in, "no way") && strings.HasPrefix(got, `PAC the server says "no `)) {
				t.Errorf("%q: %s, want %s", in, got, want)
			}
			if p.broken() != err {
				t.Errorf("%q: broken is %v", in, p.broken())
			}
		}
	}
	if !strings.Contains(log.String(), "remote: hello\n") {
		t.Errorf("log %q", &log)
	}
}

func TestProgressIsLimited(t *testing.T) {
	var log, in bytes.Buffer
	for range 100 {
		in.WriteString("0010\x02\x1b[31mline\n\n")
	}
	in.WriteString("0000")
	io.ReadAll(&packReader{p: newPktReader(&in), log: logs.New(&log, logs.Verbose, false)})
	if n := strings.Count(log.String(), "\n"); n != 20 || strings.Contains(log.String(), "\x1b") {
		t.Errorf("%d lines: %s", n, &log)
	}
}

func TestAdvertisement(t *testing.T) {
	for in, want := range map[string]string{
		lines("version 2", "agent=git/2", "fetch=shallow filter", "0000"):                                                                      "v2 true refs [] shallow",
		lines("# service=git-upload-pack", "0000", "version 2", "fetch", "0000"):                                                               "v2 true refs []",
		lines(one+" HEAD\x00side-band-64k shallow agent=x", two+" refs/tags/v1", one+" refs/tags/v1^{}", "0000"):                               "v2 false refs [{HEAD 1 0} {refs/tags/v1 2 1}] shallow",
		lines("# service=git-upload-pack", "0000", "version 1", strings.ToUpper(strings.Repeat("a", 40))+" HEAD\x00x", "shallow "+two, "0000"): "refs [{HEAD a 0}]",
		lines(strings.Repeat("0", 40)+" capabilities^{}\x00shallow", "0000"):                                                                   "refs [] shallow",
		"0000": "refs []",
		lines("version 2", "object-format=sha256", "0000"): "SHA-256",
		lines(one+" HEAD\x00object-format=sha256", "0000"): "SHA-256",
		lines(one+one[:24]+" HEAD\x00x", "0000"):           "SHA-256",
		lines("ERR access denied"):                         "access denied",
		lines("version 2", "ERR sorry"):                    "sorry",
		lines("version 2", "0001"):                         "special packet",
		lines(one + " HEAD\x00x"):                          "unexpected EOF",
		lines("# service=git-upload-pack"):                 "unexpected EOF",
		lines("# service=git-upload-pack", "0000"):         "unexpected EOF",
		"":                             "EOF",
		lines("hello"):                 "among the refs",
		lines(one):                     "among the refs",
		lines(one[1:]+" HEAD", "0000"): "among the refs",
	} {
		a, err := readAdvert(reader(in))
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprintf("v2 %v refs [", a.v2)
			for i, r := range a.refs {
				got += map[bool]string{true: " "}[i > 0] + fmt.Sprintf("{%s %.1s %.1s}", r.name, r.hash, r.peeled)
			}
			got += "]"
			if a.canDeepen() {
				got += " shallow"
			}
		}
		if !strings.Contains(got, want) {
			t.Errorf("%.80q: %s, want %s", in, got, want)
		}
	}
}

func TestFetchHeaders(t *testing.T) {
	for in, want := range map[string]string{
		lines("packfile"): "[]",
		lines("acknowledgments", "NAK", "ready", "0001", "shallow-info", "shallow "+one, "0001", "wanted-refs", two+" refs/heads/x", "0001", "packfile"): "[1]",
		lines("surprise", "what", "0001", "packfile"): "[]",
		lines("shallow-info", "unshallow "+one):       "instead of a shallow line",
		lines("shallow-info", "shallow x"):            "instead of a shallow line",
		lines("packfile-uris", one+" https://evil/"):  "elsewhere",
		lines("acknowledgments", "NAK", "0000"):       "no pack",
		lines("ERR upload-pack: not our ref " + one):  "not our ref",
		lines("shallow-info", "shallow "+one):         "unexpected EOF",
	} {
		shallow, err := readV2Header(reader(in))
		checkHeader(t, in, want, fmt.Sprintf("%.1s", shallow), err)
	}
	for in, want := range map[string]string{
		lines("shallow "+one, "shallow "+two, "0000", "NAK"): "[1 2]",
		lines("0000", "NAK"):                             "[]",
		lines("shallow "+one, "0000", "ERR not our ref"): "not our ref",
		lines("ERR not our ref"):                         "not our ref",
		lines("NAK"):                                     "instead of a shallow line",
		lines("0000", "0000"):                            "instead of NAK",
		lines("0000"):                                    "unexpected EOF",
	} {
		shallow, err := readV0Header(reader(in), true)
		checkHeader(t, in, want, fmt.Sprintf("%.1s", shallow), err)
	}
	if _, err := readV0Header(reader(lines("NAK")), false); err != nil {
		t.Error(err)
	}
}

func checkHeader(t *testing.T, in, want, got string, err error) {
	t.Helper()
	if err != nil {
		got = err.Error()
	}
	if !strings.Contains(got, want) {
		t.Errorf("%.80q: %s, want %s", in, got, want)
	}
}

func TestRefs(t *testing.T) {
	refs, err := readRefs(reader(lines("unborn HEAD symref-target:refs/heads/main", one+" refs/tags/v1 peeled:"+two, two+" refs/heads/a", "0000")))
	if err != nil || len(refs) != 2 || refs[0].peeled.String() != two || refs[1].name != "refs/heads/a" {
		t.Errorf("%v, %v", refs, err)
	}
	for _, in := range []string{"", lines(one), lines("x y"), lines("0001"), lines(one + " refs/heads/a")} {
		if _, err := readRefs(reader(in)); err == nil {
			t.Errorf("%q was taken", in)
		}
	}
}

func TestGreetingErrors(t *testing.T) {
	for said, want := range map[string]fail.Reason{
		"ERROR: Repository not found.": fail.Denied, "access denied or repository not exported: /x": fail.Denied, "fatal: '/x' does not appear to be a git repository": fail.Denied,
		"the project you were looking for could not be found": fail.Denied, "overloaded, try later": fail.Unavailable, "": fail.Unavailable,
	} {
		if err := greetingError(io.EOF, said); fail.Of(err) != want {
			t.Errorf("%q: %v", said, err)
		}
		if err := greetingError(&serverError{said}, ""); said != "" && fail.Of(err) != want {
			t.Errorf("ERR %q: %v", said, err)
		}
	}
}

func FuzzPktLine(f *testing.F) {
	for _, s := range []string{"0000", "0001", "0005\n", "0003", "ffff", "000aERR no", "0006\x01a0000", "0009\x02hey\n0000", lines("a", "0001", "b", "0000")} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := newPktReader(bytes.NewReader(b))
		read := 0
		for {
			_, payload, err := p.next()
			if err != nil {
				break
			}
			read += 4 + len(payload)
		}
		if read > len(b) {
			t.Errorf("%d bytes of %d", read, len(b))
		}
		pack, err := io.ReadAll(&packReader{p: newPktReader(bytes.NewReader(b)), log: logs.New(io.Discard, logs.Verbose, false)})
		if len(pack) > len(b) || errors.Is(err, io.EOF) && err != io.ErrUnexpectedEOF {
			t.Errorf("%d bytes of %d, %v", len(pack), len(b), err)
		}
	})
}

func FuzzV2Response(f *testing.F) {
	f.Add([]byte(lines("packfile")))
	f.Add([]byte(lines("acknowledgments", "NAK", "ready", "0001", "shallow-info", "shallow "+one, "0001", "packfile")))
	f.Add([]byte(lines("shallow "+one, "0000", "NAK")))
	f.Add([]byte(lines(one+" refs/tags/v1 peeled:"+two, "0000")))
	f.Fuzz(func(t *testing.T, b []byte) {
		shallow, err := readV2Header(newPktReader(bytes.NewReader(b)))
		if err != nil && shallow != nil || err == io.EOF {
			t.Errorf("%v, %v", shallow, err)
		}
		if _, err := readV0Header(newPktReader(bytes.NewReader(b)), true); err == io.EOF {
			t.Error("an early end must not look like a true one")
		}
		if _, err := readRefs(newPktReader(bytes.NewReader(b))); err == io.EOF {
			t.Error("an early end must not look like a true one")
		}
	})
}

func FuzzAdvertisement(f *testing.F) {
	f.Add([]byte(lines("version 2", "agent=git/2", "fetch=shallow", "0000")))
	f.Add([]byte(lines("# service=git-upload-pack", "0000", one+" HEAD\x00shallow symref=HEAD:refs/heads/main", two+" refs/tags/v^{}", "shallow "+two, "0000")))
	f.Add([]byte(lines(strings.Repeat("0", 40)+" capabilities^{}\x00agent=x", "0000")))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := readAdvert(newPktReader(bytes.NewReader(b)))
		if (a == nil) == (err == nil) {
			t.Errorf("%v, %v", a, err)
		}
		if err == nil && a.v2 && len(a.refs) > 0 {
			t.Error("refs in version 2")
		}
	})
}
