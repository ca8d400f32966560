package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"run-task/internal/fail"
	"run-task/internal/logs"
)

// kind tells the packets of gitprotocol-v2, "Packet-Line Framing", apart.
type kind int

const (
	data kind = iota
	flush
	delim
	responseEnd
)

const (
	maxPkt  = 65520    // gitprotocol-common: the longest pkt-line, its four digits included
	maxText = 32 << 20 // bytes of one answer besides the pack: half a million refs with names of 20 bytes
	maxSaid = 500      // bytes of what a server says that are shown
)

// serverError is what the other side says for itself: an ERR line, or band 3 of a side-band. The text is as long as may be shown.
type serverError struct{ text string }

func serverSays(text string) error { return &serverError{clip(text)} }

func (e *serverError) Error() string { return fmt.Sprintf("the server says %q", e.text) }

// clip makes what a server says short enough for an error line. (logs and fail escape what is not printable.)
func clip(s string) string { return s[:min(len(s), maxSaid)] }

// clipped is an error whose text has a server's words in it.
type clipped struct{ error }

func (c clipped) Error() string { return clip(c.error.Error()) }
func (c clipped) Unwrap() error { return c.error }

// pktReader reads pkt-lines (gitprotocol-common, "pkt-line Format").
type pktReader struct {
	*bufio.Reader
	watch *watched // nil in tests
	text  int      // bytes that next has read since begin
	buf   []byte
}

func newPktReader(r io.Reader) *pktReader {
	w, _ := r.(*watched)
	return &pktReader{Reader: bufio.NewReaderSize(r, maxPkt), watch: w}
}

// begin says that a new answer is to come.
func (p *pktReader) begin() {
	p.text = 0
	if p.watch != nil {
		p.watch.begin(answering)
	}
}

// pack reads the rest of an answer.
func (p *pktReader) pack(log *logs.Log) *packReader {
	if p.watch != nil {
		p.watch.begin(preparing)
	}
	return &packReader{p: p, log: log}
}

// header reads a packet's length: what kind it is and how many bytes of payload follow. The error is io.EOF only if
// nothing at all came.
func (p *pktReader) header() (kind, int, error) {
	var h [4]byte
	if _, err := io.ReadFull(p, h[:]); err != nil {
		return 0, 0, err
	}
	n, err := strconv.ParseUint(string(h[:]), 16, 16)
	switch {
	case err != nil:
		return 0, 0, fmt.Errorf("the answer is not git's protocol: %q where the length of a line should be", h[:])
	case n <= 2:
		return [...]kind{flush, delim, responseEnd}[n], 0, nil
	case n < 4 || n > maxPkt:
		return 0, 0, fmt.Errorf("the answer is not git's protocol: a line of length %d", n)
	}
	return data, int(n) - 4, nil
}

// next reads a packet. The payload is valid until the next call.
func (p *pktReader) next() (kind, []byte, error) {
	k, n, err := p.header()
	if err != nil {
		return 0, nil, err
	}
	if p.text += n + 4; p.text > maxText { // empty packets count, too
		return 0, nil, fail.Errorf(fail.Unavailable, "the server sends more than %s of refs and other text", logs.Bytes(maxText)).
			WithHint("if it really has so many refs: hide those that nobody fetches (transfer.hideRefs), or let it speak protocol version 2")
	}
	if k != data {
		return k, nil, nil
	}
	if p.buf == nil {
		p.buf = make([]byte, maxPkt)
	}
	if _, err := io.ReadFull(p, p.buf[:n]); err != nil {
		return 0, nil, early(err)
	}
	return data, p.buf[:n], nil
}

// line is next for lines of text: without the line end, and with an ERR line (gitprotocol-pack, "pkt-line Format") as the error that it is.
func (p *pktReader) line() (kind, string, error) {
	k, b, err := p.next()
	if err != nil || k != data {
		return k, "", err
	}
	s := string(bytes.TrimSuffix(b, []byte("\n")))
	if text, ok := strings.CutPrefix(s, "ERR "); ok {
		return 0, "", serverSays(text)
	}
	return data, s, nil
}

// early makes an end of input that comes too soon what it is.
func early(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// request builds what we send.
type request struct{ bytes.Buffer }

func (r *request) linef(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	fmt.Fprintf(r, "%04x%s\n", len(s)+5, s)
}

func (r *request) flush() { r.WriteString("0000") }
func (r *request) delim() { r.WriteString("0001") }

var errTooLarge = errors.New("the pack is larger than it may be")

// packReader takes the pack out of the side-band (gitprotocol-pack, "Packfile Data"). Its end is the flush packet: an
// input that ends before it is io.ErrUnexpectedEOF.
type packReader struct {
	p    *pktReader
	log  *logs.Log
	left int   // bytes of the packet that is being read
	got  int64 // bytes of the pack
	most int64 // that may come; 0 for any number
	err  error // the first error, for good; io.EOF at the true end
	said int   // progress lines logged
}

func (r *packReader) Read(b []byte) (int, error) {
	for r.left == 0 && r.err == nil {
		r.err = r.packet()
	}
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.p.Read(b[:min(len(b), r.left)])
	if n > 0 && r.p.watch != nil {
		r.p.watch.payload(n)
	}
	if r.got += int64(n); r.most > 0 && r.got > r.most {
		r.err = errTooLarge
		return 0, r.err
	}
	if r.left -= n; err != nil && n == 0 {
		r.err = early(err)
		return 0, r.err
	}
	return n, nil
}

// broken is why reading failed, nil if it did not: the pack's reader may have put its own words over it.
func (r *packReader) broken() error {
	if r.err == io.EOF {
		return nil
	}
	return r.err
}

func (r *packReader) packet() error {
	if r.p.watch != nil {
		r.p.watch.alive()
	}
	k, n, err := r.p.header()
	switch {
	case err != nil:
		return early(err)
	case k == flush || k == responseEnd:
		return io.EOF
	case k != data || n == 0:
		return errors.New("the answer is not git's protocol: a packet without a band in the pack")
	}
	band, err := r.p.ReadByte()
	if err != nil {
		return early(err)
	}
	if n--; band == 1 {
		r.left = n // 0 is a keep-alive
		return nil
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r.p, text); err != nil {
		return early(err)
	}
	switch band {
	case 2:
		r.progress(text)
		return nil
	case 3:
		return serverSays(strings.TrimSpace(strings.TrimRight(string(text), "\x00")))
	}
	return fmt.Errorf("the answer is not git's protocol: band %d", band)
}

// progress logs what the server wants people to see; a log has no use for more than a few lines of it.
func (r *packReader) progress(text []byte) {
	for line := range strings.FieldsFuncSeq(string(text), func(c rune) bool { return c == '\n' || c == '\r' }) {
		if r.said++; r.said <= 20 {
			r.log.Verbosef("remote: %s", strings.TrimSpace(line[:min(len(line), 200)]))
		}
	}
}
