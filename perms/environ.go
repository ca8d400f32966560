package perms

import (
	"slices"
	"strings"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Environ is env with what the task's user needs: HOME, USER, LOGNAME and SHELL from the account where they are unset, or
// still root's after a change of user; where a user without an account would keep root's name it has none. PATH gets a
// default and HOME "/" where unset. An empty variable counts as unset. env itself is not changed.
func (id Identity) Environ(env []string) []string {
	env = slices.Clone(env)
	set := func(key, value string, roots ...string) {
		old := lookup(env, key)
		stale := id.Drop && id.UID != 0 && slices.Contains(roots, old)
		if old != "" && !stale || old == "" && value == "" {
			return
		}
		env = slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, key+"=") })
		if value != "" {
			env = append(env, key+"="+value)
		}
	}
	home := id.Home
	if home == "" {
		home = "/"
	}
	set("HOME", home, "/root", id.root.home)
	set("USER", id.User, "root", id.root.name)
	set("LOGNAME", id.User, "root", id.root.name)
	set("SHELL", id.Shell, id.root.shell)
	set("PATH", defaultPath)
	return env
}

// lookup finds the first, as getenv(3) does.
func lookup(env []string, key string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			return v
		}
	}
	return ""
}
