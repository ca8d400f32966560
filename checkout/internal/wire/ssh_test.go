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
	_, keyOfOther, _ := strings.Cut(read(other.KnownHosts), " ")
	at, _, _ := strings.Cut(read(s.KnownHosts), " ")
	changed, rubbish := write("changed", at+" "+keyOfOther), write("rubbish", "-----BEGIN rubbish")
	files := func(files ...string) Options {
		m := map[string]string{}
		for i := 0; i < len(files); i += 2 {
			m[files[i]] = files[i+1]
		}
		return Options{Home: home(t, m)}
	}
	withAgent := files("known_hosts", s.KnownHosts)
	withAgent.SSHAuthSock = serveAgent(t, read(s.Key))
	for about, k := range map[string]struct {
		o      Options
		reason fail.Reason
		words  string
	}{
		"key":          {files("id_ed25519", s.Key, "known_hosts", s.KnownHosts, "id_rsa", rubbish), 0, ""},
		"agent":        {withAgent, 0, ""},
		"wrong key":    {files("id_ed25519", other.Key, "known_hosts", s.KnownHosts), fail.Denied, "accepts no key of ours"},
		"no key":       {files("known_hosts", s.KnownHosts), fail.Denied, "accepts no key of ours"},
		"locked key":   {files("id_ed25519", lockedKey(t), "known_hosts", s.KnownHosts), fail.Denied, "accepts no key of ours"},
		"unknown host": {files("id_ed25519", s.Key, "known_hosts", other.KnownHosts), fail.Denied, "is not known"},
		"no hosts":     {files("id_ed25519", s.Key), fail.Denied, "is not known"},
		"no home":      {Options{}, fail.Denied, "is not known"},
		"changed host": {files("id_ed25519", s.Key, "known_hosts", changed), fail.Denied, "is not the one in known_hosts"},
		"bad hosts":    {files("id_ed25519", s.Key, "known_hosts", rubbish), fail.Denied, "known_hosts"},
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
