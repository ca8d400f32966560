package perms

import (
	"os"
	"testing"
)

func TestRootsAlone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can make directories of root's")
	}
	if !RootsAlone("/etc") || !RootsAlone("/etc/does/not/exist") {
		t.Error("/etc is root's alone")
	}
	dir, err := os.MkdirTemp("/etc", "run-task-test")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if !RootsAlone(dir) {
		t.Error("a directory that root made is root's alone")
	}
	if err := os.Chmod(dir, 0o775); err != nil {
		t.Fatal(err)
	}
	if RootsAlone(dir) || RootsAlone(dir+"/below") {
		t.Error("the group may write there")
	}
	if err := os.Chown(dir, 1000, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if RootsAlone(dir) || RootsAlone(dir+"/link") || RootsAlone("/tmp") {
		t.Error("somebody else may write there")
	}
}
