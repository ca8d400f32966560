package perms

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"run-task/internal/fail"
)

func itoa(n int) string { return strconv.Itoa(n) }

// files writes account files and returns a Spec that uses them. No content means no file.
func files(t *testing.T, passwd, groups string) Spec {
	t.Helper()
	dir := t.TempDir()
	s := Spec{Passwd: filepath.Join(dir, "passwd"), Groups: filepath.Join(dir, "group")}
	for name, content := range map[string]string{s.Passwd: passwd, s.Groups: groups} {
		if content != "" {
			if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

const (
	somePasswd = `root:x:0:0:root:/root:/bin/ash
worker:x:1000:1000::/home/worker:/bin/bash
builder:x:1001:100::/home/builder:/bin/sh
admin:x:0:0::/home/admin:/bin/sh
zero:x:1005:0::/:/bin/sh
`
	someGroups = `root:x:0:
users:x:100:
worker:x:1000:
video:x:44:worker,builder
builders:x:200:builder
builder:x:300:worker2
`
)

var asRoot = self{groups: []int{0, 1, 2}}

func TestResolveAsRoot(t *testing.T) {
	for name, c := range map[string]struct {
		user, group, passwd, groups string
		want                        string // "uid:gid groups", or part of the error
		reason                      fail.Reason
	}{
		"default":                  {passwd: somePasswd, groups: someGroups, want: "1000:1000 [44 1000]"},
		"default, none there":      {passwd: "root:x:0:0::/root:/bin/sh\n", want: "nobody to run as", reason: fail.Usage},
		"default, scratch image":   {want: "nobody to run as", reason: fail.Usage},
		"default, malformed":       {passwd: "worker:x:::\n", want: "malformed", reason: fail.Usage},
		"default and a group":      {group: "video", passwd: somePasswd, groups: someGroups, want: "1000:44 [44]"},
		"name":                     {user: "builder", passwd: somePasswd, groups: someGroups, want: "1001:100 [44 100 200]"},
		"name and group":           {user: "builder:worker", passwd: somePasswd, groups: someGroups, want: "1001:1000 [44 200 1000]"},
		"name and gid":             {user: "builder:7", passwd: somePasswd, groups: someGroups, want: "1001:7 [7 44 200]"},
		"number with an account":   {user: "1001", passwd: somePasswd, groups: someGroups, want: "1001:100 [44 100 200]"},
		"numbers alone":            {user: "4321:1234", want: "4321:1234 [1234]"},
		"number and --group":       {user: "4321", group: "1234", want: "4321:1234 [1234]"},
		"number, no group":         {user: "4321", passwd: somePasswd, want: "no account and so no group", reason: fail.Usage},
		"number, gid 0 said":       {user: "4321:0", want: "4321:0 [0]"},
		"the account's gid is 0":   {user: "zero", passwd: somePasswd, want: "1005:0 [0]"},
		"group said twice":         {user: "worker:video", group: "video", passwd: somePasswd, groups: someGroups, want: "1000:44 [44]"},
		"two groups":               {user: "worker:video", group: "users", passwd: somePasswd, groups: someGroups, want: "different groups", reason: fail.Usage},
		"unknown name":             {user: "nobody", passwd: somePasswd, want: `no account "nobody"`, reason: fail.Usage},
		"unknown group":            {user: "worker:nobody", passwd: somePasswd, groups: someGroups, want: `no group "nobody"`, reason: fail.Usage},
		"root by another name":     {user: "admin", passwd: somePasswd, want: "is root", reason: fail.Usage},
		"-1":                       {user: "-1", want: "not NAME", reason: fail.Usage},
		"2^32-1":                   {user: "4294967295:1", want: "not NAME", reason: fail.Usage},
		"2^32":                     {user: "4294967296:1", want: "not NAME", reason: fail.Usage},
		"gid 2^32":                 {user: "1000:4294967296", want: "not NAME", reason: fail.Usage},
		"--group 2^32":             {group: "4294967296", want: "neither a name", reason: fail.Usage},
		"no group after the colon": {user: "worker:", want: "not NAME", reason: fail.Usage},
		"no user":                  {user: ":5", want: "not NAME", reason: fail.Usage},
		"worker is not 1000":       {passwd: "worker:x:1001:1000::/:/bin/sh", want: "is uid 1001, not 1000", reason: fail.Usage},
		"worker by number":         {user: "1001", passwd: "worker:x:1001:1000::/:/bin/sh", want: "is uid 1001, not 1000", reason: fail.Usage},
		"group worker is not 1000": {passwd: somePasswd, groups: "worker:x:999:\n", want: "is gid 999, not 1000", reason: fail.Usage},
		"group worker asked":       {user: "builder:worker", passwd: somePasswd, groups: "worker:x:999:\n", want: "is gid 999, not 1000", reason: fail.Usage},
		"groups malformed":         {passwd: somePasswd, groups: "worker:x:1000:\nv:x::worker\n", want: "no valid number", reason: fail.Usage},
	} {
		s := files(t, c.passwd, c.groups)
		s.User, s.Group = c.user, c.group
		id, err := resolve(s, asRoot)
		if c.reason != 0 {
			if err == nil || fail.Of(err) != c.reason || !strings.Contains(err.Error(), c.want) || fail.Hint(err) == "" {
				t.Errorf("%s: %+v, %v, hint %q", name, id, err, fail.Hint(err))
			}
			continue
		}
		got := itoa(id.UID) + ":" + itoa(id.GID) + " " + fmt.Sprint(id.Groups)
		if err != nil || got != c.want || !id.Drop || !id.Root || id.Keep || len(id.Notes) > 0 {
			t.Errorf("%s: %s %+v, %v", name, got, id, err)
		}
	}
}

func TestResolveRootByName(t *testing.T) {
	for _, user := range []string{"root", "0", "00"} {
		for _, passwd := range []string{somePasswd, ""} {
			s := files(t, passwd, someGroups)
			s.User = user
			id, err := resolve(s, asRoot)
			if err != nil || !id.Keep || id.Drop || id.UID != 0 || id.GID != 0 || !slices.Equal(id.Groups, []int{0, 1, 2}) || len(id.Notes) != 1 || id.Home != "/root" {
				t.Errorf("%s: %+v, %v", user, id, err)
			}
		}
	}
	s := files(t, somePasswd, someGroups)
	s.User = "root:video"
	if id, err := resolve(s, asRoot); err != nil || !id.Keep || !id.Drop || id.UID != 0 || id.GID != 44 || !slices.Equal(id.Groups, []int{0, 1, 2, 44}) {
		t.Errorf("%+v, %v", id, err)
	}
	s = files(t, "root:x:5:5::/:/bin/sh\n", "")
	s.User = "root"
	if id, err := resolve(s, asRoot); fail.Of(err) != fail.Usage {
		t.Errorf("root that is not: %+v, %v", id, err)
	}
}

func TestResolveNotRoot(t *testing.T) {
	worker := self{1000, 1000, 1000, 1000, []int{1000, 44}, false}
	random := self{1000660000, 1000660000, 0, 0, []int{0}, false} // as OpenShift starts containers
	for name, c := range map[string]struct {
		me          self
		user, group string
		passwd      string
		note        string // part of the one line, "" for none
	}{
		"nothing asked":           {me: random, passwd: somePasswd},
		"nothing asked, no files": {me: random},
		"that user":               {me: worker, user: "worker", passwd: somePasswd},
		"that number":             {me: worker, user: "1000:1000"},
		"another user":            {me: random, user: "worker", passwd: somePasswd, note: "--user worker asked, running as uid 1000660000: not root"},
		"root":                    {me: worker, user: "root", passwd: somePasswd, note: "--user root asked, running as uid 1000: not root"},
		"unknown user":            {me: worker, user: "nobody", passwd: somePasswd, note: "--user nobody asked"},
		"another group":           {me: worker, user: "worker:video", passwd: somePasswd, note: "--group video asked, running with gid 1000: not root"},
		"group alone":             {me: worker, group: "5", passwd: somePasswd, note: "--group 5 asked"},
	} {
		s := files(t, c.passwd, someGroups)
		s.User, s.Group = c.user, c.group
		id, err := resolve(s, c.me)
		if err != nil || id.UID != c.me.euid || id.GID != c.me.egid || id.Root || id.Drop || id.Keep || !slices.Equal(id.Groups, unique(c.me.groups)) {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
		if (len(id.Notes) == 1) != (c.note != "") || c.note != "" && !strings.Contains(id.Notes[0], c.note) {
			t.Errorf("%s: notes %q", name, id.Notes)
		}
		s.RequireUser = true
		_, err = resolve(s, c.me)
		same := c.note == "" && c.me.euid == 1000
		if same != (err == nil) || err != nil && fail.Of(err) != fail.OS {
			t.Errorf("%s, required: %v", name, err)
		}
	}
	s := files(t, somePasswd, someGroups)
	s.User = "-1"
	if _, err := resolve(s, worker); fail.Of(err) != fail.Usage {
		t.Errorf("bad syntax: %v", err)
	}
	if id, _ := resolve(files(t, somePasswd, ""), worker); id.User != "worker" || id.Home != "/home/worker" || id.Shell != "/bin/bash" {
		t.Errorf("account: %+v", id)
	}
}

func TestResolveSetuid(t *testing.T) {
	for _, me := range []self{{ruid: 1000}, {euid: 1000}, {rgid: 5}, {egid: 5}, {ruid: 1, euid: 1, elevated: true}} {
		if _, err := resolve(files(t, somePasswd, someGroups), me); fail.Of(err) != fail.Usage {
			t.Errorf("%+v: %v", me, err)
		}
	}
}

func TestResolveUnreadable(t *testing.T) {
	s := files(t, "", "")
	if err := syscall.Mkfifo(s.Passwd, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := resolve(s, asRoot); fail.Of(err) != fail.OS {
		t.Errorf("as root: %v", err)
	}
	if id, err := resolve(s, self{5, 5, 5, 5, nil, false}); err != nil || len(id.Notes) != 1 {
		t.Errorf("not root: %+v, %v", id, err)
	}
}

func TestResolveFlags(t *testing.T) {
	s := files(t, somePasswd, someGroups)
	s.User, s.NoNewPrivs, s.PassFDs = "4:5", true, true
	if id, err := resolve(s, asRoot); err != nil || !id.NoNewPrivs || !id.PassFDs {
		t.Errorf("%+v, %v", id, err)
	}
}

func TestEnviron(t *testing.T) {
	root := account{name: "root", home: "/root", shell: "/bin/ash"}
	dropped := Identity{UID: 1000, Drop: true, User: "worker", Home: "/home/worker", Shell: "/bin/bash", root: root}
	numeric := Identity{UID: 4321, Drop: true, root: root}
	stays := Identity{UID: 1000, User: "worker", Home: "/home/worker", Shell: "/bin/bash", root: root}
	const defaults = "PATH=" + defaultPath
	for name, c := range map[string]struct {
		id        Identity
		env, want string
	}{
		"root's":            {dropped, "HOME=/root USER=root LOGNAME=root SHELL=/bin/ash PATH=/p A=b", "A=b HOME=/home/worker LOGNAME=worker PATH=/p SHELL=/bin/bash USER=worker"},
		"unset":             {dropped, "", "HOME=/home/worker LOGNAME=worker " + defaults + " SHELL=/bin/bash USER=worker"},
		"empty":             {dropped, "HOME= PATH= USER= ", "HOME=/home/worker LOGNAME=worker " + defaults + " SHELL=/bin/bash USER=worker"},
		"the user's own":    {dropped, "HOME=/h USER=u LOGNAME=l SHELL=/s PATH=/p", "HOME=/h LOGNAME=l PATH=/p SHELL=/s USER=u"},
		"no account":        {numeric, "HOME=/root USER=root LOGNAME=root PATH=/p", "HOME=/ PATH=/p"},
		"no account, own":   {numeric, "HOME=/h USER=u PATH=/p", "HOME=/h PATH=/p USER=u"},
		"no change":         {stays, "HOME=/root USER=root LOGNAME=root SHELL=/bin/ash PATH=/p", "HOME=/root LOGNAME=root PATH=/p SHELL=/bin/ash USER=root"},
		"no change, unset":  {stays, "PATH=/p", "HOME=/home/worker LOGNAME=worker PATH=/p SHELL=/bin/bash USER=worker"},
		"twice":             {dropped, "HOME=/root HOME=/root PATH=/p", "HOME=/home/worker LOGNAME=worker PATH=/p SHELL=/bin/bash USER=worker"},
		"longer name stays": {numeric, "HOMEX=/root PATH=/p", "HOME=/ HOMEX=/root PATH=/p"},
	} {
		env := strings.Fields(c.env)
		before := slices.Clone(env)
		got := c.id.Environ(env)
		slices.Sort(got)
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s", name, s)
		}
		if !slices.Equal(env, before) {
			t.Errorf("%s: the argument changed", name)
		}
	}
}

func TestValidIDs(t *testing.T) {
	for _, ids := range [][2]int{{-1, 0}, {0, -1}, {1<<32 - 1, 0}, {0, 1<<32 - 1}, {1 << 32, 0}} {
		if err := validIDs(ids[0], ids[1]); err == nil || errors.Unwrap(err) == nil {
			t.Errorf("%v taken", ids)
		}
	}
}
