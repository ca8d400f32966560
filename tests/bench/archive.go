package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// archives measures cache archives, saved into a directory and restored from it, against what a job does by hand with tar and zstd.
func archives(binary, dir string, runs int) error {
	for _, tool := range []string{"tar", "zstd"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env: %w", err)
	}
	toolchain, err := filepath.EvalSymlinks(strings.TrimSpace(string(root)))
	if err != nil {
		return err
	}
	copied := func(dir string) error { return inTurn([][]string{{"cp", "-a", toolchain, dir}}) }
	memory, disk := places(dir)[0], places(dir)[1]
	for _, t := range []struct {
		name string
		make func(dir string) error
		place
	}{
		{"the Go toolchain", copied, memory},
		{"100,000 small files", smallFiles, memory},
		{"one file of 2 GiB that cannot be compressed", func(dir string) error { return randomFile(filepath.Join(dir, "file"), 2<<30) }, memory},
		{"the Go toolchain", copied, disk},
	} {
		base, err := os.MkdirTemp(t.dir, "run-task-bench")
		if err != nil {
			return err
		}
		defer os.RemoveAll(base)
		if err := t.make(filepath.Join(base, "tree")); err != nil {
			return err
		}
		if err := archivesOf(binary, base, t.name+", "+t.place.name, runs); err != nil {
			return err
		}
		if err := os.RemoveAll(base); err != nil {
			return err
		}
	}
	return nil
}

// archivesOf measures with the tree in base.
func archivesOf(binary, base, name string, runs int) error {
	tarred := func(to string) []string {
		return []string{"sh", "-c", `tar -C "$0/tree" -c . | zstd -q -T0 -3 -f -o "$1"`, base, to}
	}
	untarred := func(from, to string) []string {
		return []string{"sh", "-c", `mkdir "$1" && zstd -q -d -c "$0" | tar -C "$1" -x`, from, to}
	}
	with := func(store, dir string) []string {
		args := []string{"--quiet", "--cwd", base, "--cache-strict", "--cache-store", "dir:" + store, "--cache-archive", "path=" + dir + ",key=k"}
		if os.Getuid() == 0 {
			args = append(args, "--user", "root")
		}
		return args
	}
	archive := func(verb, store, dir string) []string {
		return append([]string{binary, "cache", verb}, with(store, dir)...)
	}
	at := func(what string, run int) string { return filepath.Join(base, fmt.Sprintf("%s-%d", what, run)) }
	// What is written is removed before the next, outside of what is measured: else memory, or the disk, fills.
	fresh := func(what string, steps func(path string) []string) func(int) ([][]string, error) {
		return func(run int) ([][]string, error) {
			if err := os.RemoveAll(at(what, run-1)); err != nil {
				return nil, err
			}
			syscall.Sync()
			return [][]string{steps(at(what, run))}, nil
		}
	}
	store := filepath.Join(base, "store")
	if err := inTurn([][]string{tarred(filepath.Join(base, "tar.zst")), archive("save", store, "tree")}); err != nil {
		return err
	}
	err := compare("save: "+name, runs,
		&side{name: "tar | zstd -T0 -3", prepare: fresh("tar", tarred)},
		&side{name: "and sync", prepare: fresh("synced", func(path string) []string {
			return append(tarred(path)[:2], `tar -C "$0/tree" -c . | zstd -q -T0 -3 -f -o "$1" && sync "$1"`, base, path)
		})},
		&side{name: "run-task, the same again", prepare: command(archive("save", store, "tree")...)},
		&side{name: "run-task", prepare: fresh("store", func(path string) []string { return archive("save", path, "tree") })})
	if err != nil {
		return err
	}
	sizes(filepath.Join(base, "tar.zst"), filepath.Join(store, "k.tar.zst"))
	err = compare("restore: "+name, runs,
		&side{name: "zstd -d | tar -x", prepare: fresh("untarred", func(path string) []string { return untarred(filepath.Join(base, "tar.zst"), path) })},
		&side{name: "run-task", prepare: fresh("restored", func(path string) []string { return archive("restore", store, filepath.Base(path)) })})
	if err != nil {
		return err
	}
	if err := inTurn([][]string{{"diff", "-r", "--no-dereference", at("untarred", runs-1), at("restored", runs-1)}}); err != nil {
		return err
	}
	status := filepath.Join(base, "status")
	var seconds []float64
	for range runs {
		task := append(append([]string{binary}, with(store, filepath.Base(at("restored", runs-1)))...), "--cache-policy", "pull-push", "--status-file", status, "--", "true")
		if err := inTurn([][]string{task}); err != nil {
			return err
		}
		s, err := saved(status)
		if err != nil {
			return err
		}
		seconds = append(seconds, s)
	}
	fmt.Printf("  %-28s %9.2f ms in the task that restored it\n", "a save, nothing changed", median(seconds)*1000)
	return nil
}

// saved is the seconds that a task took to see that there was nothing to save.
func saved(status string) (float64, error) {
	data, err := os.ReadFile(status)
	if err != nil {
		return 0, err
	}
	var s struct {
		Archives []struct {
			Saved   string
			Seconds float64
		}
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return 0, err
	}
	if len(s.Archives) != 1 || s.Archives[0].Saved != "unchanged" {
		return 0, fmt.Errorf("%s: the archive is not unchanged", status)
	}
	return s.Archives[0].Seconds, nil
}

func sizes(files ...string) {
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			fmt.Printf("  %s: %.1f MB\n", filepath.Base(f), float64(st.Size())/1e6)
		}
	}
}

// smallFiles makes a tree like the dependencies of a JavaScript project: 100,000 files of program text, most of less than 2 KB, in 10,000 directories. It is the same each time.
func smallFiles(dir string) error {
	r := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 5000)
	for i := range words {
		b := make([]byte, 2+r.IntN(10))
		for j := range b {
			b[j] = byte('a' + r.IntN(26))
		}
		words[i] = string(b)
	}
	marks := []string{" ", " ", " ", "(", ")", ".", ".", " = ", ";\n", ", ", "\n  ", " {\n"}
	for d := range 10_000 {
		sub := filepath.Join(dir, fmt.Sprintf("package-%d", d/10), fmt.Sprintf("lib-%d", d%10))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return err
		}
		for i := range 10 {
			var text strings.Builder
			for size := 1 << (6 + r.IntN(8)); text.Len() < size; {
				n := r.IntN(len(words))
				text.WriteString(words[n*n/len(words)]) // some words are common
				text.WriteString(marks[r.IntN(len(marks))])
			}
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("%s-%d.js", words[r.IntN(len(words))], i)), []byte(text.String()), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func randomFile(path string, size int) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, io.LimitReader(rand.NewChaCha8([32]byte{}), int64(size)))
	return err
}
