package pack

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"run-task/internal/fail"
)

// The documents of https://shattered.io come with the library's tests. No object can begin as they do, so they are hashed as they are.
func TestCollisionAttackIsRefused(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/pjbgf/sha1cd").Output()
	if err != nil {
		t.Fatal(err)
	}
	h := newHasher()
	for name, refused := range map[string]bool{"shattered-1.pdf": true, "shattered-2.pdf": true, "sha-mbles-1.bin": true, "valid-file.txt": false} {
		data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "test/testdata/files", name))
		if err != nil {
			t.Fatal(err)
		}
		h.h.Reset()
		h.Write(data)
		if _, err := h.sum(); (err != nil) != refused || refused && fail.Of(err) != fail.BadData {
			t.Errorf("%s: %v", name, err)
		}
	}
	if id, err := h.whole(blob, version(1)); err != nil || id != idOf(blob, version(1)) {
		t.Errorf("%s, %v", id, err)
	}
	h.start(blob, 9)
	if _, err := h.Write(bytes.Repeat([]byte("abc"), 3)); err != nil {
		t.Fatal(err)
	}
	if id, err := h.sum(); err != nil || id != idOf(blob, []byte("abcabcabc")) {
		t.Errorf("%s, %v", id, err)
	}
}
