//go:build linux

package pins

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A process of another task is this binary, told what to be.
const roleVar, storeVar = "PINS_TEST_ROLE", "PINS_TEST_STORE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		if err := play(role, os.Getenv(storeVar)); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// play is a task: it says "go" when it begins with what it may be killed in.
func play(role, dir string) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	r := s.Repo(testURL, "")
	switch role {
	case "hold":
		l, err := r.Lock(context.Background(), hex40(1), func(string) {})
		if err == nil {
			_, err = l.Quarantine()
		}
		if err == nil {
			fmt.Println("go")
			_, err = io.Copy(io.Discard, os.Stdin)
			err = errors.Join(err, l.Close())
		}
		return err
	case "count": // under the lock of one commit, many add to a file
		for range 20 {
			l, err := r.Lock(context.Background(), hex40(1), func(string) {})
			if err != nil {
				return err
			}
			raw, err := os.ReadFile(dir + "/../count")
			if err == nil {
				err = os.WriteFile(dir+"/../count", append(raw, 'x'), 0o666)
			}
			if err = errors.Join(err, l.Close()); err != nil {
				return err
			}
		}
		return nil
	}
	fmt.Println("go")
	for n := 0; ; n++ {
		switch role {
		case "publish": // pins that have expired and others, of a few packs again and again
			expires := later()
			if n%3 > 0 {
				expires = time.Now().UTC()
			}
			err = publish(r, pinOf(rand.IntN(20), fmt.Sprint(n%2), expires), "xxxx")
		case "gc":
			_, err = s.GC(context.Background(), GC{Now: time.Now()})
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
}

// task starts one, and waits until it says "go" if it does. Its input stays open until stop is called.
func task(t *testing.T, dir, role string) (cmd *exec.Cmd, out *bufio.Reader, in io.Closer) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVar+"="+role, storeVar+"="+dir)
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	out = bufio.NewReader(stdout)
	if role != "count" {
		if line, err := out.ReadString('\n'); line != "go\n" {
			t.Fatalf("%s says %q: %v", role, line, err)
		}
	}
	return cmd, out, stdin
}

func TestLockBetweenProcesses(t *testing.T) {
	s, r := newRepo(t)
	must(t, os.WriteFile(s.path+"/../count", nil, 0o666))
	var all []*exec.Cmd
	var outs []*bufio.Reader
	for range 4 {
		cmd, out, _ := task(t, s.path, "count")
		all, outs = append(all, cmd), append(outs, out)
	}
	for i, cmd := range all {
		said, _ := io.ReadAll(outs[i])
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, said)
		}
	}
	if raw, err := os.ReadFile(s.path + "/../count"); err != nil || len(raw) != 4*20 {
		t.Errorf("%d of %d: %v", len(raw), 4*20, err)
	}

	holder, _, in := task(t, s.path, "hold")
	ctx, cancel := context.WithCancel(context.Background())
	var said []string
	wait := func(ctx context.Context, then func()) error {
		l, err := r.Lock(ctx, hex40(1), func(who string) {
			said = append(said, who)
			then()
		})
		if err == nil {
			err = l.Close()
		}
		return err
	}
	if err := wait(ctx, cancel); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	other, err := r.Lock(context.Background(), hex40(2), func(who string) { t.Error("another commit waits for", who) })
	must(t, err, other.Close())
	must(t, wait(context.Background(), func() { in.Close() })) // it ends
	in.Close()                                                 // also if nobody waited
	must(t, holder.Wait())
	host, _ := os.Hostname()
	if want := fmt.Sprintf("pid %d on %s, since ", holder.Process.Pid, host); len(said) != 2 || !strings.HasPrefix(said[0], want) || said[0] != said[1] {
		t.Errorf("%q, not %q and a time, twice", said, want)
	}

	killed, _, _ := task(t, s.path, "hold")
	must(t, wait(context.Background(), func() { killed.Process.Kill() }))
	if names, _ := os.ReadDir(r.Path() + "/incoming"); len(names) != 0 {
		t.Error("a dead one's quarantine stays:", names)
	}
}

// Anybody may have written who has a lock.
func TestHolderIsPrintable(t *testing.T) {
	for text, want := range map[string]string{"": "another task", "\x1b[2J\nü\xff": "?[2J?ü?", strings.Repeat("x", 5000): strings.Repeat("x", 200)} {
		_, r := newRepo(t)
		l, err := r.Lock(context.Background(), hex40(1), func(string) {})
		must(t, err, os.WriteFile(r.Path()+"/locks/want-"+hex40(1), []byte(text), 0o666))
		ctx, cancel := context.WithCancel(context.Background())
		r.Lock(ctx, hex40(1), func(who string) {
			if who != want {
				t.Errorf("%q is told as %q", text, who)
			}
			cancel()
		})
		must(t, l.Close())
	}
}

func TestLockWaitsForGC(t *testing.T) {
	s, r := newRepo(t)
	put(t, r, pinOf(1, "a", later()))
	g := &collection{GC: GC{Now: time.Now()}, store: s}
	must(t, g.enter(s.Repo(testURL, "")))
	l, err := r.Lock(context.Background(), hex40(1), func(who string) {
		if who != "a garbage collection" {
			t.Errorf("it waits for %q", who)
		}
		g.release()
	})
	must(t, err, l.Close())
}

func TestQuarantineAfterPurge(t *testing.T) {
	_, r := newRepo(t)
	l, err := r.Lock(context.Background(), hex40(1), func(string) {})
	must(t, err, os.RemoveAll(r.Path()+"/incoming"))
	q, err := l.Quarantine()
	must(t, err, q.WriteFile("x", nil, 0o666), l.Close())
	if names, _ := os.ReadDir(r.Path() + "/incoming"); len(names) != 0 {
		t.Error(names)
	}
}

// Tasks die at any moment while they publish and collect beside each other.
func TestKilled(t *testing.T) {
	s, r := newRepo(t)
	kept := put(t, r, pinOf(99, "kept", later()))
	for range 12 {
		p, _, _ := task(t, s.path, "publish")
		g, _, _ := task(t, s.path, "gc")
		for range rand.IntN(30) { // some work of ours is as good as a time
			if _, err := s.Pins(); err != nil {
				t.Fatal(err)
			}
		}
		must(t, p.Process.Kill(), g.Process.Kill())
		p.Wait()
		g.Wait()
		l, err := r.Lock(context.Background(), hex40(1), func(who string) { t.Error("a dead one has a lock:", who) })
		must(t, err)
		if names, _ := os.ReadDir(r.Path() + "/incoming"); len(names) > 0 {
			t.Fatal("incoming holds", names)
		}
		must(t, l.Close())
		collect(t, s, GC{Grace: time.Hour})
		complete(t, s, r)
		if !found(t, r, kept) {
			t.Fatal("a live pin is lost")
		}
	}
}

// complete fails if a pin is found whose packs are not as they were published.
func complete(t *testing.T, s *Store, r *Repo) {
	t.Helper()
	all, err := s.Pins()
	must(t, err)
	for _, held := range all {
		p, err := r.Find(held.SHA, held.Shape, time.Now(), true)
		must(t, err)
		if p == nil {
			t.Fatalf("%.8s is pinned and not complete after a collection", held.SHA)
		}
		for _, end := range []string{".pack", ".idx"} {
			if raw, err := os.ReadFile(filepath.Join(r.Path(), packDir, p.Packs[0]+end)); err != nil || string(raw) != "xxxx" {
				t.Fatalf("%q, %v", raw, err)
			}
		}
	}
}

// Who got no error from Write has the packs as long as the pin holds, while others collect without any grace, and finders see no pin without packs that stay.
func TestGCBesideOthers(t *testing.T) {
	s, r := newRepo(t)
	stop := make(chan struct{})
	var others sync.WaitGroup
	beside := func(what string, do func(*Store) error) {
		o := open(t, s.path)
		others.Add(1)
		go func() {
			defer others.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := do(o); err != nil {
					t.Error(what, err)
					return
				}
			}
		}()
	}
	beside("gc", func(o *Store) error {
		_, err := o.GC(context.Background(), GC{Now: time.Now()})
		return err
	})
	beside("find", func(o *Store) error {
		_, err := o.Repo(testURL, "").Newest(0, time.Now())
		return err
	})
	won, lost := 0, 0
	for n := 0; n < 20 || n < 200 && won < 10; n++ {
		p := pinOf(n, "a", time.Now().UTC())
		if err := publish(r, p, "xxxx"); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		holder := []string{"a", "b"}[n%2] // the same holder's expired pin is replaced while it is removed
		q := pinOf(n, holder, later())
		if err := r.Write(q); errors.Is(err, fs.ErrNotExist) {
			lost++
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		won++
		for range 2 {
			if _, err := s.GC(context.Background(), GC{Now: time.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		l, err := r.Lock(context.Background(), q.SHA, func(string) {}) // a GC that is under way may give an index back
		must(t, err)
		if there, err := r.see(q); !there || r.at(q.SHA, q.file()).pin == nil {
			t.Errorf("round %d, of holder %s: a pin or its packs went: %v", n, holder, err)
		}
		must(t, l.Close())
		_, err = r.Remove(q.SHA, "")
		must(t, err)
	}
	close(stop)
	others.Wait()
	t.Logf("%d pins were written, for %d it was too late", won, lost)
}
