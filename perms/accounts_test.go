package perms

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseID(t *testing.T) {
	for s, want := range map[string]int{"0": 0, "00": 0, "1000": 1000, "4294967294": 4294967294} {
		if n, ok := parseID(s); !ok || n != want {
			t.Errorf("%q: %d, %v", s, n, ok)
		}
	}
	for _, s := range []string{"", "-1", "+0", " 0", "0 ", "0x0", "1e3", "4294967295", "4294967296", "18446744073709551616", "٣", "0\x00", "1\r", "99999999999"} {
		if n, ok := parseID(s); ok {
			t.Errorf("%q taken as %d", s, n)
		}
	}
}

const passwd = `root:x:0:0:root:/root:/bin/ash
+::::::
-other
builder:x:1001:100:Builder:/home/b:/bin/sh
`

// A line about the wanted account is either right or refused: other programs take some of these for root.
func TestHostilePasswd(t *testing.T) {
	good := "worker:x:1000:1000::/home/worker:/bin/sh"
	for name, c := range map[string]struct {
		file string
		want string // "uid:gid", "none" or "refused"
	}{
		"plain":                 {good + "\n", "1000:1000"},
		"no final newline":      {good, "1000:1000"},
		"none":                  {"", "none"},
		"empty uid":             {"worker:x::1000::/:/bin/sh", "refused"},
		"empty gid":             {"worker:x:1000:::/:/bin/sh", "refused"},
		"uid -1":                {"worker:x:-1:1000::/:/bin/sh", "refused"},
		"uid 2^32-1":            {"worker:x:4294967295:1000::/:/bin/sh", "refused"},
		"uid 2^32 is no root":   {"worker:x:4294967296:1000::/:/bin/sh", "refused"},
		"gid 2^32 is no root":   {"worker:x:1000:4294967296::/:/bin/sh", "refused"},
		"uid +0":                {"worker:x:+0:1000::/:/bin/sh", "refused"},
		"uid with space":        {"worker:x: 0:1000::/:/bin/sh", "refused"},
		"uid is a word":         {"worker:x:root:1000::/:/bin/sh", "refused"},
		"uid with NUL":          {"worker:x:1000\x00:1000::/:/bin/sh", "refused"},
		"NUL in another field":  {"worker:x:1000:1000:\x00:/:/bin/sh", "refused"},
		"CRLF":                  {good + "\r\n", "refused"},
		"name with white space": {" worker\t:x:0:0::/:/bin/sh", "refused"},
		"six fields":            {"worker:x:1000:1000::/bin/sh", "refused"},
		"eight fields":          {good + ":", "refused"},
		"name alone":            {"worker", "refused"},
		"NIS line":              {"+worker:x:0:0::/:/bin/sh\n-worker:x:0:0::/:/bin/sh", "none"},
		"name within a name":    {"worker\x00x:x:0:0::/:/bin/sh\nworkers:x:0:0::/:/bin/sh", "none"},
		"same twice":            {good + "\n" + good, "1000:1000"},
		"twice, other uid":      {good + "\nworker:x:0:1000::/:/bin/sh", "refused"},
		"twice, other gid":      {good + "\nworker:x:1000:0::/:/bin/sh", "refused"},
		"twice, one malformed":  {good + "\nworker:x::::/:/bin/sh", "refused"},
		"long line before":      {strings.Repeat("x", 1<<20) + "\n" + good, "1000:1000"},
		"very long home":        {"worker:x:1000:1000::/" + strings.Repeat("h", 1<<20) + ":/bin/sh", "1000:1000"},
		"others are malformed":  {"x:x::::\n::\n\x00\n" + good, "1000:1000"},
	} {
		a, err := accountNamed(passwd+c.file, "worker")
		got := "none"
		switch {
		case err != nil:
			got = "refused"
		case a != nil:
			got = itoa(a.uid) + ":" + itoa(a.gid)
		}
		if got != c.want {
			t.Errorf("%s: %s (%v), not %s", name, got, err, c.want)
		}
	}
}

func TestAccountOf(t *testing.T) {
	file := passwd + "toor:x:0:0::/:/bin/sh\nb2:x:1001:200::/:/bin/sh\nc:x:1002:1::/:/bin/sh\nc:x:1003:1::/:/bin/sh\nd:x: 1004:1::/:/bin/sh\ne::1005\n"
	if a, err := accountOf(file, 0); err != nil || a.name != "root" {
		t.Errorf("uid 0: %+v, %v", a, err)
	}
	if a, err := accountOf(file, 7); err != nil || a != nil {
		t.Errorf("uid 7: %+v, %v", a, err)
	}
	for _, uid := range []int{1001, 1002, 1004, 1005} {
		if a, err := accountOf(file, uid); err == nil {
			t.Errorf("uid %d: %+v", uid, a)
		}
	}
}

func TestHostileGroups(t *testing.T) {
	const groups = "root:x:0:\nworker:x:1000:\naudio:x:29:other\n+:::\n"
	for name, c := range map[string]struct {
		line string
		want []int // nil: refused
	}{
		"none":               {"", []int{}},
		"member":             {"video:x:44:a,worker,b", []int{44}},
		"not the same name":  {"video:x:44:worker2,aworker", []int{}},
		"group of that name": {"worker:x:1000:", []int{}},
		"twice":              {"video:x:44:worker\nvideo:x:44:worker", []int{44}},
		"empty gid":          {"video:x::worker", nil},
		"gid -1":             {"video:x:-1:worker", nil},
		"gid 2^32":           {"video:x:4294967296:worker", nil},
		"gid +0":             {"video:x:+0:worker", nil},
		"CRLF":               {"video:x:44:worker\r\n", nil},
		"white space":        {"video:x:44:a, worker", []int{44}},
		"NUL":                {"video:x:44:worker\x00", nil},
		"five fields":        {"video:x:44:worker:", nil},
		"four and a list":    {"video:x:44::worker", nil},
		"NIS":                {"+video:x:44:worker", nil},
	} {
		got, err := groupsOf(groups+c.line, "worker")
		if (err != nil) != (c.want == nil) || err == nil && !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for _, c := range []string{"x:x::", "x:x:1", "x:x:1:\nx:x:2:", "x:x:-1:", "x:x:4294967295:", "x:x:1:\r"} {
		if gid, ok, err := groupNamed(groups+c, "x"); err == nil {
			t.Errorf("%q: %d, %v", c, gid, ok)
		}
	}
}

func TestReadAccounts(t *testing.T) {
	dir := t.TempDir()
	if s, err := readAccounts(filepath.Join(dir, "none")); s != "" || err != nil {
		t.Errorf("missing: %q, %v", s, err)
	}
	if _, err := readAccounts(dir); err == nil {
		t.Error("a directory was read")
	}
	big := filepath.Join(dir, "big")
	f, err := os.OpenFile(big, os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		err = f.Truncate(maxAccounts + 1)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readAccounts(big); err == nil {
		t.Error("a file beyond all reason was read")
	}
}

// Whatever the file says, what is found was written there in digits, once.
func FuzzPasswd(f *testing.F) {
	for _, s := range []string{passwd, "worker:x:1000:1000::/:/bin/sh", "worker:x::::/:", "worker:x:-1:0::/:\n", "worker:x:4294967296:0::/:", "+worker:::::", "worker\x00:x:0:0:::\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, file string) {
		a, err := accountNamed(file, "worker")
		if err != nil || a == nil {
			return
		}
		found := false
		for line := range strings.SplitSeq(file, "\n") {
			fields := strings.Split(line, ":")
			if fields[0] != "worker" {
				continue
			}
			uid, ok1 := parseID(fields[2])
			gid, ok2 := parseID(fields[3])
			if !ok1 || !ok2 || uid != a.uid || gid != a.gid {
				t.Fatalf("%+v from %q", a, line)
			}
			found = true
		}
		if !found || a.uid < 0 || a.uid >= 1<<32-1 || a.gid < 0 || a.gid >= 1<<32-1 {
			t.Fatalf("%+v", a)
		}
	})
}

func FuzzGroup(f *testing.F) {
	for _, s := range []string{"video:x:44:worker", "worker:x:1000:", "v:x::worker", "v:x:-1:a,worker", "+:::", "v:x:44:worker\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, file string) {
		ids, err := groupsOf(file, "worker")
		if err != nil {
			return
		}
		for _, id := range ids {
			if id < 0 || id >= 1<<32-1 || !strings.Contains(file, ":") || !strings.Contains(file, "worker") {
				t.Fatalf("%v from %q", ids, file)
			}
		}
		if gid, ok, err := groupNamed(file, "worker"); ok && err == nil && (gid < 0 || gid >= 1<<32-1) {
			t.Fatalf("gid %d from %q", gid, file)
		}
	})
}

func FuzzUserSpec(f *testing.F) {
	for _, s := range []string{"", "worker", "1000", "1000:1000", "worker:video", ":", "a:", ":b", "-1", "+0", " 0", "4294967295", "4294967296:0", "a:b:c", "root\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseUser(s)
		if err != nil {
			return
		}
		back := r.user
		if r.group != "" {
			back += ":" + r.group
		}
		if back != s {
			t.Fatalf("%q became %+v", s, r)
		}
		for _, part := range []string{r.user, r.group} {
			if _, ok := parseID(part); part != "" && !ok && (digits(part) || !validName(part)) {
				t.Fatalf("%q taken from %q", part, s)
			}
		}
	})
}
