//go:build unix

package supervise

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// program is the little that we read of a file to say why it does not run.
type program struct {
	head string // as much as the kernel looks at: BINPRM_BUF_SIZE
	elf  *elfFile
}

// elfFile is what the kernel needs to know first of an ELF file: elf(5).
type elfFile struct {
	machine uint16 // e_machine
	interp  string // PT_INTERP, "" in a static program
}

const (
	headSize = 256
	pathMax  = 4096
)

// open reads a program. It is nil where that is not possible: programs need not be readable.
func open(path string) *program {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not make us wait
	if err != nil {
		return nil
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil
	}
	return read(f)
}

func read(r io.ReaderAt) *program {
	head := make([]byte, headSize)
	n, _ := r.ReadAt(head, 0)
	return &program{string(head[:n]), parseELF(r)}
}

// interpreter is the other program that the kernel needs to run this one, and what to call it; "" if there is none.
func (p *program) interpreter() (path, what string) {
	switch {
	case p == nil:
		return "", ""
	case p.elf != nil:
		return p.elf.interp, "loader"
	}
	return parseShebang(p.head), "interpreter"
}

// parseShebang takes the interpreter from a "#!" line as Linux does (fs/binfmt_script.c): up to the first blank; a carriage return belongs to it.
func parseShebang(head string) string {
	line, ok := strings.CutPrefix(head, "#!")
	if !ok {
		return ""
	}
	line, _, ended := strings.Cut(line, "\n")
	line = strings.TrimLeft(line, " \t")
	end := strings.IndexAny(line, " \t\x00")
	if end < 0 {
		if !ended && len(head) == headSize {
			return "" // cut off: the kernel refuses it too
		}
		return line
	}
	return line[:end]
}

// parseELF reads the header and finds PT_INTERP; nil is no ELF file. It trusts no number in it.
func parseELF(r io.ReaderAt) *elfFile {
	var h [64]byte
	if n, _ := r.ReadAt(h[:], 0); n < 52 || string(h[:4]) != "\x7fELF" {
		return nil
	}
	var order binary.ByteOrder = binary.LittleEndian
	if h[5] == 2 {
		order = binary.BigEndian
	}
	f := &elfFile{machine: order.Uint16(h[18:])}
	wide := h[4] == 2
	table, size, count := int64(order.Uint32(h[28:])), int(order.Uint16(h[42:])), int(order.Uint16(h[44:]))
	minSize := 32
	if wide {
		table, size, count = int64(order.Uint64(h[32:])), int(order.Uint16(h[54:])), int(order.Uint16(h[56:]))
		minSize = 56
	}
	if size < minSize || size*count > 64<<10 { // the kernel's limit
		return f
	}
	segments := make([]byte, size*count)
	if _, err := r.ReadAt(segments, table); err != nil {
		return f
	}
	for ; len(segments) > 0; segments = segments[size:] {
		const ptInterp = 3
		if order.Uint32(segments) != ptInterp {
			continue
		}
		offset, length := int64(order.Uint32(segments[4:])), uint64(order.Uint32(segments[16:]))
		if wide {
			offset, length = int64(order.Uint64(segments[8:])), order.Uint64(segments[32:])
		}
		name := make([]byte, min(length, pathMax))
		if _, err := r.ReadAt(name, offset); err == nil {
			f.interp, _, _ = strings.Cut(string(name), "\x00")
		}
		return f
	}
	return f
}

// machineName is what uname -m says of it.
func machineName(m uint16) string {
	names := map[uint16]string{3: "i386", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64", 258: "loongarch64"}
	if n := names[m]; n != "" {
		return n
	}
	return fmt.Sprintf("ELF machine %d", m)
}

func hostMachine() string {
	names := map[string]string{"386": "i386", "amd64": "x86_64", "arm64": "aarch64", "ppc64le": "ppc64", "loong64": "loongarch64"}
	if n := names[runtime.GOARCH]; n != "" {
		return n
	}
	return runtime.GOARCH
}
