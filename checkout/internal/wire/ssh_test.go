package wire

import (
	"crypto/ed25519"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"run-task/internal/fail"
	"run-task/tests/gitserver"
)

func TestSSHKeysAndHosts(t *testing.T) {
	root := t.TempDir()
	const name = "it's a !repo $HOME.git" // the shell at the other end must see one word
	c := gitserver.Repo(t, root, name)
	s := gitserver.SSH(t, true, gitserver.Options{})
	other := gitserver.SSH(t, true, gitserver.Options{})
	dir := t.TempDir()
	write := func(file, content string) string {
		t.Helper()
		file = filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	read := func(file string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	hosts := []string{s.KnownHosts}
	_, keyOfOther, _ := strings.Cut(read(other.KnownHosts), " ")
	at, _, _ := strings.Cut(read(s.KnownHosts), " ")
	changed := write("changed", at+" "+keyOfOther)
	write("home/.ssh/id_ed25519", read(s.Key))
	write("home/.ssh/known_hosts", read(s.KnownHosts))
	write("home/.ssh/id_rsa", "-----BEGIN rubbish")

	for about, k := range map[string]struct {
		o      Options
		reason fail.Reason
		words  string
	}{
		"key":           {Options{SSHKey: s.Key, KnownHosts: hosts}, 0, ""},
		"default files": {Options{Home: filepath.Join(dir, "home")}, 0, ""},
		"agent":         {Options{SSHAuthSock: serveAgent(t, read(s.Key)), KnownHosts: hosts}, 0, ""},
		"wrong key":     {Options{SSHKey: other.Key, KnownHosts: hosts}, fail.Denied, "accepts no key of ours"},
		"no key":        {Options{KnownHosts: hosts}, fail.Denied, "accepts no key of ours"},
		"no such key":   {Options{SSHKey: "/none", KnownHosts: hosts}, fail.Denied, "no such file"},
		"locked key":    {Options{SSHKey: lockedKey(t), KnownHosts: hosts}, fail.Denied, "passphrase"},
		"unknown host":  {Options{SSHKey: s.Key, KnownHosts: []string{other.KnownHosts}}, fail.Denied, "is not known"},
		"no hosts":      {Options{SSHKey: s.Key, Home: dir}, fail.Denied, "is not known"},
		"changed host":  {Options{SSHKey: s.Key, KnownHosts: []string{changed}}, fail.Denied, "is not the one in known_hosts"},
		"no such hosts": {Options{SSHKey: s.Key, KnownHosts: []string{"/none"}}, fail.Denied, "known_hosts"},
	} {
		t.Run(about, func(t *testing.T) {
			cl := newClient(t, s.URL+root+"/it's%20a%20!repo%20$HOME.git", c.Forced)
			k.o.Retry = cl.o.Retry
			cl.o = k.o
			got, err := cl.fetch()
			if k.reason == 0 {
				if err != nil || got != RemoteV2 {
					t.Errorf("%s, %v\n%s", got, err, &cl.log)
				}
				return
			}
			if fail.Of(err) != k.reason || !strings.Contains(err.Error(), k.words) || fail.Hint(err) == "" {
				t.Errorf("%v, hint %q", err, fail.Hint(err))
			}
		})
	}
}

func serveAgent(t *testing.T, key string) string {
	t.Helper()
	private, err := ssh.ParseRawPrivateKey([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(ring, conn)
		}
	}()
	return sock
}

func lockedKey(t *testing.T) string {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"/a/b.git": `'/a/b.git'`, "~al/it's": `'~al/it'\''s'`, "a!b": `'a'\!'b'`, "$(x) `y` \"": "'$(x) `y` \"'"} {
		if got := quote(in); got != want {
			t.Errorf("quote(%s) = %s, want %s", in, got, want)
		}
	}
}
