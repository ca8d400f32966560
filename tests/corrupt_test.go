//go:build linux

package tests

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"run-task/tests/gitserver"
)

// replaying gives a request that was made before the very answer that it had then: it costs nothing, and it is what it was.
func replaying(h http.Handler) http.Handler {
	var mu sync.Mutex
	answers := map[string]*httptest.ResponseRecorder{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		key := r.Method + " " + r.URL.String() + "\n" + string(body)
		mu.Lock()
		rec := answers[key]
		if rec == nil {
			rec = httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			answers[key] = rec
		}
		mu.Unlock()
		maps.Copy(w.Header(), rec.Header())
		w.WriteHeader(rec.Code)
		w.Write(rec.Body.Bytes())
	})
}

// answer is what the real git http-backend answered to a fetch.
type answer struct {
	all        []byte
	head, pack []byte // all is head, the pack in one or more packets of the side-band, and a flush packet
	inPack     []bool // of the bytes of all
}

func newAnswer(t *testing.T, all []byte) *answer {
	t.Helper()
	const begin = "000dpackfile\n"
	at := bytes.Index(all, []byte(begin)) + len(begin)
	a := &answer{all: all, head: all[:at], inPack: make([]bool, len(all))}
	for !bytes.HasPrefix(all[at:], []byte("0000")) {
		n, err := strconv.ParseUint(string(all[at:at+4]), 16, 16)
		if err != nil || n < 5 {
			t.Fatalf("the answer is %q", all)
		}
		end := at + int(n)
		if at += 5; all[at-1] == 1 {
			a.pack = append(a.pack, all[at:end]...)
			for i := range a.inPack[at:end] {
				a.inPack[at+i] = true
			}
		}
		at = end
	}
	if len(a.pack) < 100 {
		t.Fatalf("the answer is %q", all)
	}
	return a
}

// altered is an answer that was damaged.
type altered struct {
	name  string
	body  []byte
	twice bool // it is given again; what fails as a network does is given once, or there were long pauses
}

// alterations are one bit of each byte of the answer changed, the pack ended at every second length, from first on, and the connection at every sixth.
func (a *answer) alterations(first int) (all []altered) {
	for i := range a.all {
		body := slices.Clone(a.all)
		body[i] ^= 1 << (i * 5 % 8)
		all = append(all, altered{fmt.Sprintf("bit %d of byte %d of %d (in the pack: %t)", i*5%8, i, len(a.all), a.inPack[i]), body, a.inPack[i]})
	}
	for n := first; n < len(a.pack); n += 2 {
		body := fmt.Appendf(slices.Clone(a.head), "%04x\x01%s0000", n+5, a.pack[:n])
		all = append(all, altered{fmt.Sprintf("only %d bytes of the pack's %d", n, len(a.pack)), body, true})
	}
	for n := first; n < len(a.all)-4; n += 6 { // without the flush packet it may be taken
		all = append(all, altered{fmt.Sprintf("only %d bytes of the answer's %d", n, len(a.all)), a.all[:n], false})
	}
	return all
}

// damaging is a server whose answers below /NAME/ are altered if now has NAME.
type damaging struct {
	mu    sync.Mutex
	now   map[string]*altered
	asked map[string]int // for the advertisement, since then
	last  []byte         // the last unaltered answer with a pack
}

func (d *damaging) set(name string, a *altered) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now[name], d.asked[name] = a, 0
}

func (d *damaging) wrap(h http.Handler) http.Handler {
	h = replaying(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, path, _ := strings.Cut(r.URL.Path[1:], "/")
		r.URL.Path = "/" + path
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		fetch := bytes.Contains(body, []byte("command=fetch"))
		d.mu.Lock()
		defer d.mu.Unlock()
		a := d.now[name]
		switch {
		case a != nil && fetch:
			w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
			w.Write(a.body)
			return
		case a != nil && r.Method == http.MethodGet:
			d.asked[name]++
			if d.asked[name] > 2 || d.asked[name] > 1 && !a.twice {
				w.WriteHeader(http.StatusForbidden)
				return
			}
		case a != nil: // another request than for the commit
			w.WriteHeader(http.StatusForbidden)
			return
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if fetch {
			d.last = rec.Body.Bytes()
		}
		maps.Copy(w.Header(), rec.Header())
		w.WriteHeader(rec.Code)
		w.Write(rec.Body.Bytes())
	})
}

// damaged is a repository of two commits and its server.
type damaged struct {
	*testing.T
	damaging
	url         string
	before, tip string
	want        listing // of tip
}

func newDamaged(t *testing.T) *damaged {
	t.Helper()
	root := tempDir(t)
	repo := root + "/repo.git"
	gitserver.Git(t, root, "init", "-q", "--bare", repo)
	stream := ""
	for i := range 2 {
		data := fmt.Sprint("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", i)
		stream += fmt.Sprintf("commit refs/heads/main\nmark :%d\ncommitter A <a@b> %d +0000\ndata 1\nc\nM 644 inline d/a\ndata %d\n%s\n", i+1, 1700000000+i, len(data), data)
	}
	gitserver.GitInput(t, repo, strings.NewReader(stream), "fast-import", "--quiet")
	gitserver.Git(t, repo, "repack", "-q", "-a", "-d", "-f")
	d := &damaged{T: t, damaging: damaging{now: map[string]*altered{}, asked: map[string]int{}}}
	d.tip, d.before = gitserver.Git(t, repo, "rev-parse", "main"), gitserver.Git(t, repo, "rev-parse", "main^")
	d.want, _ = treeOf(t, repo, d.tip)
	d.url = gitserver.HTTP(t, root, gitserver.Options{Wrap: d.wrap})
	return d
}

func (d *damaged) args(name, sha string) []string {
	return []string{"--checkout", "src", "--repo", d.url + "/" + name + "/repo.git", "--sha", sha}
}

// untouched is what a failed run must leave as it was: the worktree with its times, and what .git has, but for what is run-task's own.
func untouched(t *testing.T, src string) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(snapshot(t, src)) {
		name, rest, _ := strings.Cut(strings.TrimPrefix(line, src), " ")
		switch {
		case strings.HasPrefix(name, "/.git/run-task/incoming") || name == "/.git/run-task/lock":
		case strings.HasPrefix(name, "/.git"):
			mode, _, _ := strings.Cut(rest, " size ")
			b.WriteString(name + " " + mode + rest[strings.LastIndexByte(rest, ' '):])
		default:
			b.WriteString(line)
		}
	}
	return b.String()
}

// However an answer is damaged on its way, nothing of it is ever checked out: into a fresh directory nothing is, and a checkout that is there stays.
// What is outside of the pack may not matter; then the commit is there, whole.
func TestDamagedAnswers(t *testing.T) {
	t.Parallel()
	d := newDamaged(t)
	dir := tempDir(t)
	mustCheckOut(t, dir, d.args("x", d.before)...)
	mustCheckOut(t, dir, d.args("x", d.tip)...)
	warm := newAnswer(t, d.last)
	mustCheckOut(t, tempDir(t), d.args("x", d.tip)...)
	cold := newAnswer(t, d.last)
	t.Logf("answers of %d and %d bytes, with packs of %d and %d", len(cold.all), len(warm.all), len(cold.pack), len(warm.pack))

	there := make(chan string, 96) // the names of directories with worktrees at the commit before
	root := tempDir(t)
	var wg sync.WaitGroup
	for i := range cap(there) {
		wg.Go(func() {
			name := fmt.Sprint(i)
			mkdirAll(t, root+"/"+name)
			mustCheckOut(t, root+"/"+name, d.args(name, d.before)...)
			there <- name
		})
	}
	wg.Wait()
	each := func(all []altered, run func(name string, a *altered)) {
		for i := range all {
			name := <-there
			wg.Go(func() {
				d.set(name, &all[i])
				run(name, &all[i])
				d.set(name, nil)
				there <- name
			})
		}
	}
	each(cold.alterations(0), d.inFresh)
	each(warm.alterations(1), func(name string, a *altered) { d.inThere(root+"/"+name, name, a) })
	wg.Wait()
	for range 3 {
		name := <-there
		mustCheckOut(t, root+"/"+name, d.args(name, d.tip)...)
		judge(t, root+"/"+name+"/src", d.tip)
	}
}

// checkOut tells whether the commit is there, as it is.
func (d *damaged) checkOut(dir, name string, a *altered) bool {
	code, stderr := checkOut(d.T, dir, d.args(name, d.tip)...)
	if code != 0 && (code < 64 || code > 77 || code == 70) || code == 0 && a.twice {
		d.Errorf("%s: exit %d\n%s", a.name, code, stderr)
	}
	if code != 0 {
		return false
	}
	head, err := os.ReadFile(dir + "/src/.git/HEAD")
	if lines := differences(onDisk(d.T, dir+"/src", d.want), d.want); len(lines) > 0 || string(head) != d.tip+"\n" {
		d.Errorf("%s: exit 0, HEAD is %q, %v\n%s", a.name, head, err, strings.Join(lines, "\n"))
	}
	return true
}

func (d *damaged) inFresh(name string, a *altered) {
	dir := tempDir(d.T)
	if d.checkOut(dir, name, a) {
		return
	}
	if left, err := os.ReadDir(dir + "/src"); err != nil || len(left) != 1 || left[0].Name() != ".git" {
		d.Errorf("%s: there are %v, %v", a.name, left, err)
	}
	if _, err := os.Stat(dir + "/src/.git/HEAD"); err == nil {
		d.Errorf("%s: it looks like a repository", a.name)
	}
}

func (d *damaged) inThere(dir, name string, a *altered) {
	was := untouched(d.T, dir+"/src")
	if d.checkOut(dir, name, a) {
		d.set(name, nil)
		os.RemoveAll(dir + "/src")
		mustCheckOut(d.T, dir, d.args(name, d.before)...)
	} else if is := untouched(d.T, dir+"/src"); is != was {
		d.Errorf("%s: it is\n%swas\n%s", a.name, is, was)
	}
}
