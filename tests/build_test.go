package tests

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Anyone can check a released binary by building it again, wherever the sources are and whatever GOFLAGS say.
func TestBuildIsReproducible(t *testing.T) {
	var binaries [2][]byte
	for i, goflags := range []string{"", "-buildvcs=false -tags=x -ldflags=-w"} {
		dir := filepath.Join(t.TempDir(), strings.Repeat("deeper/", i), "src")
		copySources(t, dir)
		build := exec.Command(filepath.Join(dir, "scripts/build"), filepath.Join(dir, "out"), "amd64")
		build.Env = append(os.Environ(), "GOFLAGS="+goflags, "GOAMD64=v1")
		out, err := build.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if binaries[i], err = os.ReadFile(filepath.Join(dir, "out/run-task-linux-amd64")); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(binaries[i], []byte(dir)) {
			t.Errorf("the binary holds the path that it was built in, %s", dir)
		}
	}
	if !bytes.Equal(binaries[0], binaries[1]) {
		t.Errorf("two builds of the same sources differ: %d and %d bytes", len(binaries[0]), len(binaries[1]))
	}
}

// copySources copies what a build reads of this repository; without .git, which would stamp both alike.
func copySources(t *testing.T, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.Name() == "dist" {
			continue
		}
		if out, err := exec.Command("cp", "-R", filepath.Join("..", e.Name()), to).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
	}
}
