package gitserver

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Lighttpd serves the repositories below root through lighttpd and git http-backend, as a web server that is no part of git or Go does it, and returns
// the URL of root. What is below private/ there is for a user with a password only. ok is false where there is no lighttpd.
func Lighttpd(t testing.TB, root, user, password string, o Options) (url string, ok bool) {
	t.Helper()
	program, err := exec.LookPath("lighttpd")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/lighttpd"); err != nil {
			return "", false
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	dir := t.TempDir()
	var env strings.Builder
	for _, v := range append(Env(o.Config...), "GIT_PROJECT_ROOT="+root, "GIT_HTTP_EXPORT_ALL=1") {
		name, value, _ := strings.Cut(v, "=")
		fmt.Fprintf(&env, "  %q => %q,\n", name, value)
	}
	write(t, filepath.Join(dir, "users"), user+":"+password+"\n")
	write(t, filepath.Join(dir, "conf"), fmt.Sprintf(`
server.modules = ("mod_alias", "mod_setenv", "mod_auth", "mod_authn_file", "mod_cgi")
server.document-root = %q
server.bind = "127.0.0.1"
server.port = %d
server.systemd-socket-activation = "enable"
alias.url = ("/git/" => %q)
cgi.assign = ("" => "")
setenv.set-environment = (
%s)
auth.backend = "plain"
auth.backend.plain.userfile = %q
auth.require = ("/git/private/" => ("method" => "basic", "realm" => "git", "require" => "valid-user"))
`, dir, l.Addr().(*net.TCPAddr).Port, filepath.Join(Git(t, root, "--exec-path"), "git-http-backend")+"/", &env, filepath.Join(dir, "users")))

	// It is given a socket that listens already, as systemd does it: there is no start to wait for, and no port to race for.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" -D -f "$1"`, program, filepath.Join(dir, "conf"))
	var errs bytes.Buffer
	cmd.Env, cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = []string{"PATH=" + os.Getenv("PATH")}, []*os.File{socket}, &errs, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("lighttpd: %s", &errs)
		}
	})
	return "http://" + l.Addr().String() + "/git", true
}
