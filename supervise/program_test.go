//go:build linux

package supervise

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestParseShebang(t *testing.T) {
	for head, want := range map[string]string{
		"#!/bin/sh\n":                     "/bin/sh",
		"#! \t/bin/sh -e x\n":             "/bin/sh",
		"#!/bin/sh":                       "/bin/sh",
		"#!/bin/sh\r\n":                   "/bin/sh\r",
		"#!\n/bin/sh":                     "",
		"#":                               "",
		"":                                "",
		" #!/bin/sh":                      "",
		"#!" + strings.Repeat("x", 254):   "",
		"#!x " + strings.Repeat("x", 252): "x",
		"#!rel/\x00ative\n":               "rel/",
	} {
		if got := parseShebang(head); got != want {
			t.Errorf("parseShebang(%q) = %q, want %q", head, got, want)
		}
	}
}

func TestParseRealELF(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if e := parseELF(f); e == nil || machineName(e.machine) != hostMachine() {
		t.Errorf("%s: %+v, want an ELF file for %s", self, e, hostMachine())
	}
}

func FuzzProgram(f *testing.F) {
	f.Add([]byte("#!/bin/sh\r\n"))
	f.Add([]byte("\x7fELF"))
	f.Add(elf(62, "/lib64/ld-linux-x86-64.so.2"))
	f.Add(append([]byte("\x7fELF\x01\x02"), make([]byte, 100)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		path, _ := read(bytes.NewReader(data)).interpreter()
		if len(path) > pathMax || strings.Contains(path, "\x00") {
			t.Errorf("interpreter of %d bytes", len(path))
		}
	})
}
