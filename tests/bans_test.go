//go:build linux

package tests

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// ban is what production code must not use, and why.
type ban struct {
	use    string   // an import path, or one and a name in it
	except []string // files and folders that may
	why    string
}

var bans = []ban{
	{"os.Create", nil, "it follows links and truncates what it finds: fsx.Dir.WriteFile"},
	{"os.WriteFile", nil, "it follows links and can be seen half written: fsx.Dir.WriteFile"},
	{"os.IsNotExist", nil, "it does not see wrapped errors: errors.Is(err, fs.ErrNotExist)"},
	{"os.IsExist", nil, "it does not see wrapped errors: errors.Is(err, fs.ErrExist)"},
	{"os.IsPermission", nil, "it does not see wrapped errors: errors.Is(err, fs.ErrPermission)"},
	{"golang.org/x/sys/unix.Setgroups", nil, "it changes one thread and leaves root's groups to the others: syscall.Setgroups"},
	{"golang.org/x/sys/unix.Setuid", nil, "one thread only: syscall.Setresuid"},
	{"golang.org/x/sys/unix.Setgid", nil, "one thread only: syscall.Setresgid"},
	{"golang.org/x/sys/unix.Setresuid", nil, "one thread only: syscall.Setresuid"},
	{"golang.org/x/sys/unix.Setresgid", nil, "one thread only: syscall.Setresgid"},
	{"golang.org/x/sys/unix.Capset", nil, "it clears one thread's capabilities: syscall.AllThreadsSyscall"},
	{"golang.org/x/sys/unix.Prctl", nil, "one thread only: syscall.AllThreadsSyscall6"},
	{"os/exec", nil, "images have no git and no shell, and its Wait fights with a reaper"},
	{"os.StartProcess", nil, "only supervise starts programs, and owns wait4"},
	{"os.Exit", []string{"main.go"}, "deferred cleaning up is skipped, and codes come from fail alone: return an error"},
	{"log", nil, "one writer prints: internal/logs"},
	{"panic", nil, "a user gets an error, not a stack trace: return it"},
	{"os.Getenv", []string{"main.go", "internal/task"}, "the environment is read once, into the Task"},
	{"os.LookupEnv", []string{"main.go", "internal/task"}, "the environment is read once, into the Task"},
	{"os.Environ", []string{"main.go", "internal/task"}, "the environment is read once, into the Task"},
	{"os.ExpandEnv", nil, "the environment is read once, into the Task"},
	{"syscall.Getenv", nil, "the environment is read once, into the Task"},
	{"os.Setenv", nil, "the command's environment is made from the Task"},
	{"os/user", nil, "it asks NSS or takes malformed lines: perms has its own strict parser"},
	{"path/filepath.HasPrefix", nil, "names are no containment: internal/fsx walks by directory fds"},
}

func TestBans(t *testing.T) {
	used := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, "../")
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == "tests" || name == "scripts" || strings.HasPrefix(d.Name(), ".") && name != ".." || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for use, pos := range uses(file) {
			used++
			for _, b := range bans {
				if b.use == use && !slices.ContainsFunc(b.except, func(e string) bool { return name == e || strings.HasPrefix(name, e+"/") }) {
					t.Errorf("%s: %s is banned: %s", set.Position(pos), use, b.why)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if used < 100 {
		t.Errorf("only %d uses of packages seen: this test looks at the wrong files", used)
	}
}

// uses are a file's imports, the names that it uses of them ("import/path.Name"), and panic.
func uses(file *ast.File) map[string]token.Pos {
	found := map[string]token.Pos{}
	imports := map[string]string{}
	for _, spec := range file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		name := filepath.Base(path)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		imports[name] = path
		found[path] = spec.Pos()
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && imports[x.Name] != "" {
				found[imports[x.Name]+"."+n.Sel.Name] = n.Pos()
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "panic" {
				found["panic"] = n.Pos()
			}
		}
		return true
	})
	return found
}
