package wire

import (
	"context"
	"crypto/ed25519"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"run-task/internal/fail"
	"run-task/internal/logs"
	"run-task/tests/gitserver"
)

func TestGivenKeysAndHosts(t *testing.T) {
	root, c := fixture(t)
	s := gitserver.SSH(t, true, gitserver.Options{})
	other := gitserver.SSH(t, true, gitserver.Options{})
	pem, err := os.ReadFile(s.Key)
	if err != nil {
		t.Fatal(err)
	}
	right := home(t, map[string]string{"id_ed25519": s.Key, "known_hosts": s.KnownHosts})
	wrong := home(t, map[string]string{"id_ed25519": other.Key, "known_hosts": other.KnownHosts})
	hosts := []string{s.KnownHosts}
	for name, k := range map[string]struct {
		home   string
		c      Credentials
		reason fail.Reason
		words  string
	}{
		"file":           {"", Credentials{SSHKeys: []SSHKey{{Name: s.Key}}, KnownHosts: hosts}, 0, ""},
		"text":           {wrong, Credentials{SSHKeys: []SSHKey{{Name: "KEY", PEM: pem}}, KnownHosts: hosts}, 0, ""},
		"no line end":    {"", Credentials{SSHKeys: []SSHKey{{Name: "KEY", PEM: []byte(strings.TrimSpace(string(pem)))}}, KnownHosts: hosts}, 0, ""},
		"two":            {"", Credentials{SSHKeys: []SSHKey{{Name: other.Key}, {Name: s.Key}}, KnownHosts: []string{other.KnownHosts, s.KnownHosts}}, 0, ""},
		"key alone":      {right, Credentials{SSHKeys: []SSHKey{{Name: s.Key}}}, 0, ""},
		"hosts alone":    {right, Credentials{KnownHosts: hosts}, 0, ""},
		"others unused":  {right, Credentials{SSHKeys: []SSHKey{{Name: other.Key}}}, fail.Denied, "accepts no key of ours"},
		"hosts replaced": {right, Credentials{KnownHosts: []string{other.KnownHosts}}, fail.Denied, "is not known"},
		"well-known":     {right, Credentials{WellKnown: true}, 0, ""},
		"locked":         {"", Credentials{SSHKeys: []SSHKey{{Name: lockedKey(t)}}, KnownHosts: hosts}, fail.Usage, "has a passphrase"},
		"rubbish":        {"", Credentials{SSHKeys: []SSHKey{{Name: "KEY", PEM: []byte("s3cret")}}, KnownHosts: hosts}, fail.Usage, `the ssh key "KEY" cannot be used`},
		"empty":          {"", Credentials{SSHKeys: []SSHKey{{Name: "KEY", PEM: []byte{}}}, KnownHosts: hosts}, fail.Usage, `"KEY" cannot be used`},
		"no file":        {"", Credentials{SSHKeys: []SSHKey{{Name: "/nowhere/key"}}, KnownHosts: hosts}, fail.Usage, "/nowhere/key"},
		"no hosts file":  {right, Credentials{KnownHosts: []string{"/nowhere/hosts"}}, fail.Usage, "/nowhere/hosts"},
		"bad hosts file": {right, Credentials{KnownHosts: []string{writeFile(t, "rubbish", 0o600)}}, fail.Usage, "the known hosts"},
	} {
		t.Run(name, func(t *testing.T) {
			cl := newClient(t, s.URL+root+"/r.git", c.Tip)
			cl.o.Home, cl.o.Credentials = k.home, k.c
			_, err := cl.fetch()
			if k.reason == 0 && err != nil || k.reason != 0 && (fail.Of(err) != k.reason || !strings.Contains(err.Error(), k.words) || fail.Hint(err) == "" || strings.Contains(err.Error(), "s3cret")) {
				t.Errorf("%v (%v), want %q", err, fail.Of(err), k.words)
			}
		})
	}
}

// The fingerprints are those that the hosts publish.
func TestWellKnownKeys(t *testing.T) {
	want := map[string]string{
		"github.com ssh-ed25519":            "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU",
		"github.com ecdsa-sha2-nistp256":    "SHA256:p2QAMXNIC1TJYWeIOttrVc98/R1BUFWu3/LiyKgUfQM",
		"github.com ssh-rsa":                "SHA256:uNiVztksCsDhcc0u9e8BujQXVUpKZIDTMczCvj3tD2s",
		"gitlab.com ssh-ed25519":            "SHA256:eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8",
		"gitlab.com ecdsa-sha2-nistp256":    "SHA256:HbW3g8zUjNSksFbqTiUWPWg2Bq1x8xdGUrliXFzSnUw",
		"gitlab.com ssh-rsa":                "SHA256:ROQFvPThGrW4RuWLoL9tq9I9zJ42fK4XywyRtbOz/EQ",
		"bitbucket.org ssh-ed25519":         "SHA256:ybgmFkzwOSotHTHLJgHO0QN8L0xErw6vd0VhFA9m3SM",
		"bitbucket.org ecdsa-sha2-nistp256": "SHA256:FC73VB6C4OQLSCrjEayhMp9UMxS97caD/Yyi2bhW/J0",
		"bitbucket.org ssh-rsa":             "SHA256:46OSHA1Rmj8E8ERTC6xkNcmGOw9oFxYr0WF6zWW8l1E",
	}
	n := 0
	for host := range wellKnown {
		for _, key := range wellKnownKeys(host + ":22") {
			if n++; want[host+" "+key.Type()] != ssh.FingerprintSHA256(key) {
				t.Errorf("%s %s: %s", host, key.Type(), ssh.FingerprintSHA256(key))
			}
		}
		if len(wellKnownKeys(host+":2222")) != 0 {
			t.Error("another port may be another server")
		}
	}
	if n != len(want) || len(wellKnownKeys("example.org:22")) != 0 {
		t.Errorf("%d keys", n)
	}
}

func TestWellKnownHostKeys(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	published := wellKnownKeys("github.com:22")[0]
	at := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 22}
	u, log := URL{Scheme: "ssh", User: "git", Host: "github.com", Path: "r"}, logs.New(io.Discard, logs.Normal, false)
	revoked := writeFile(t, "@revoked github.com "+string(ssh.MarshalAuthorizedKey(published)), 0o600)
	empty := writeFile(t, "", 0o600)
	for name, k := range map[string]struct {
		c     Credentials
		key   ssh.PublicKey
		words string
	}{
		"published": {Credentials{WellKnown: true, KnownHosts: []string{empty}}, published, ""},
		"not asked": {Credentials{KnownHosts: []string{empty}}, published, "is not known"},
		"another":   {Credentials{WellKnown: true, KnownHosts: []string{empty}}, signer.PublicKey(), "none of those that it publishes"},
		"own":       {Credentials{WellKnown: true, KnownHosts: []string{writeFile(t, "github.com "+string(ssh.MarshalAuthorizedKey(signer.PublicKey())), 0o600)}}, signer.PublicKey(), ""},
		"revoked":   {Credentials{WellKnown: true, KnownHosts: []string{revoked}}, published, "the host key of github.com"},
	} {
		config, end, err := sshConfig(t.Context(), log, u, Options{Credentials: k.c})
		if err != nil {
			t.Fatal(err)
		}
		end()
		err = config.HostKeyCallback(u.address(), at, k.key)
		if k.words == "" && err != nil || k.words != "" && (fail.Of(err) != fail.Denied || !strings.Contains(err.Error(), k.words)) {
			t.Errorf("%s: %v", name, err)
		}
		if k.c.WellKnown && !slices.Contains(config.HostKeyAlgorithms, ssh.KeyAlgoRSASHA512) {
			t.Errorf("%s: algorithms %v", name, config.HostKeyAlgorithms)
		}
	}
}

// stuckSSH is a server that goes so far and then says nothing; stage is where it stops.
func stuckSSH(t *testing.T, stage string) (address, knownHosts string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan bool)
	config := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
		if stage == "authentication" {
			<-end
		}
		return nil, nil
	}}
	config.AddHostKey(signer)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan bool)
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				<-end
				conn.Close()
			}()
			go serveUntil(conn, config, stage)
		}
	}()
	t.Cleanup(func() { l.Close(); close(end); <-served })
	host, port, _ := net.SplitHostPort(l.Addr().String())
	return l.Addr().String(), writeFile(t, "["+host+"]:"+port+" "+string(ssh.MarshalAuthorizedKey(signer.PublicKey())), 0o600)
}

func serveUntil(conn net.Conn, config *ssh.ServerConfig, stage string) {
	switch stage {
	case "banner":
		return
	case "dripped banner":
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			if _, err := conn.Write([]byte("x")); err != nil {
				return
			}
			<-tick.C
		}
	case "key exchange":
		io.WriteString(conn, "SSH-2.0-x\r\n")
		return
	}
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		if stage == "channel" {
			continue
		}
		_, asked, err := c.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range asked {
				if r.Type == "exec" && stage == "exec" {
					continue
				}
				r.Reply(r.Type == "exec", nil) // and then no advertisement
			}
		}()
	}
}

func TestSSHTarpits(t *testing.T) {
	key := gitserver.SSH(t, true, gitserver.Options{}).Key
	for _, stage := range []string{"banner", "dripped banner", "key exchange", "authentication", "channel", "exec", "advertisement"} {
		t.Run(stage, func(t *testing.T) {
			address, hosts := stuckSSH(t, stage)
			cl := newClient(t, "ssh://"+address+"/r.git", one)
			cl.o.Credentials = Credentials{SSHKeys: []SSHKey{{Name: key}}, KnownHosts: []string{hosts}}
			cl.o.Limits, cl.o.Retry.Tries = Limits{TLS: 200 * time.Millisecond, Answer: 200 * time.Millisecond}, 2
			if _, err := cl.fetch(); fail.Of(err) != fail.Unavailable || !strings.Contains(err.Error(), "tried 2 times") && stage != "dripped banner" {
				t.Errorf("%v (%v)", err, fail.Of(err))
			}
			// No limit but the caller's.
			ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, fail.ErrInterrupted)
			defer cancel()
			cl.o.Limits = Limits{TLS: time.Hour, Answer: time.Hour}
			if _, err := Fetch(ctx, logs.New(io.Discard, logs.Normal, false), cl.u, cl.o, cl.want, cl.take); stage != "dripped banner" && fail.Of(err) != fail.Interrupted {
				t.Errorf("cancelled: %v", err)
			}
		})
	}
}

// The limit of the handshake is over with it: what comes then has limits of its own.
func TestHandshakeLimitEnds(t *testing.T) {
	root, _ := fixture(t)
	s := gitserver.SSH(t, true, gitserver.Options{})
	u, err := ParseURL(s.URL + root + "/r.git")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Credentials: Credentials{SSHKeys: []SSHKey{{Name: s.Key}}, KnownHosts: []string{s.KnownHosts}}}
	for o.Limits = (Limits{TLS: 200 * time.Millisecond}.withDefaults()); ; o.Limits.TLS *= 2 { // as long as this machine needs
		l, ad, err := open(t.Context(), logs.New(io.Discard, logs.Normal, false), u, o)
		if err != nil && o.Limits.TLS < time.Minute {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.close()
		<-time.After(o.Limits.TLS)
		f := &fetcher{link: l, ad: ad}
		if refs, err := f.refs(t.Context(), "refs/heads/"); err != nil || len(refs) == 0 {
			t.Errorf("%d refs, %v", len(refs), err)
		}
		return
	}
}
