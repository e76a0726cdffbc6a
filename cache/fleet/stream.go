package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

var (
	errFull    = errors.New("the member has too many followers")
	errBanned  = errors.New("the member sent wrong bytes a short time ago")
	errDead    = errors.New("the member does not answer")
	errAddress = errors.New("the lease has no address of another member")
	errLate    = errors.New("the member has not begun to answer")
	errFar     = errors.New("the member is not nearer to the registry")
	errBehind  = errors.New("the member has more bytes than it sends")
)

// [congested] bounds the bytes that a member has ready while its stream sends nothing. If the
// member has more, the stream ends with errBehind.
const congested = 4 << 20

// fullError is an errFull with the addresses of followers of the member, which can send the blob
// instead.
type fullError struct{ followers []string }

func (e *fullError) Error() string { return errFull.Error() }
func (e *fullError) Unwrap() error { return errFull }

// request asks a member for a blob.
type request struct {
	lease      Lease
	address    string
	digest     digest.Digest
	want       Want     // want.On is not used
	at         position // the position of the member that asks
	held       bool     // requests the blob only if the member can send all wanted bytes without waiting
	unfinished bool     // requests the blob only if the member does not have all of it
	tried      []string // addresses of members that did not send the blob
}

// url returns the URL of the blob at the member.
func (q request) url(from int64) string {
	query := url.Values{"from": {strconv.FormatInt(from, 10)}}
	if q.want.To > 0 {
		query.Set("to", strconv.FormatInt(q.want.To, 10))
	}
	if q.held {
		query.Set("held", "1")
	}
	if q.unfinished && !q.held {
		query.Set("unfinished", "1")
	}
	u := url.URL{Scheme: "https", Host: q.address, Path: blobPath + string(q.digest), RawQuery: query.Encode()}
	return u.String()
}

// send sends the request q, with headers that describe q and the member that sends it.
func (p *peers) send(ctx context.Context, method string, q request, from int64) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, q.url(from), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set(headerGeneration, strconv.FormatInt(q.lease.Generation, 10))
	if len(q.tried) > 0 {
		r.Header.Set(headerTried, strings.Join(q.tried, ","))
	}
	return p.do(r)
}

// open sends a request and waits until the answer begins. The member may have to wait long for its
// registry, so silence does not mean that it is dead. Each time that another Patience.Stall has
// passed without an answer, open asks the member whether it is alive. open returns errLate if the
// answer has not begun after Patience.Begin.
func (p *peers) open(ctx context.Context, q request) (*stream, error) {
	s := &stream{p: p, q: q}
	s.ctx, s.stop = context.WithCancelCause(ctx)
	s.off.Store(q.want.From)
	late := time.AfterFunc(p.patience.Begin, func() { s.stop(errLate) })
	s.watch()
	resp, err := p.send(s.ctx, http.MethodGet, q, q.want.From)
	s.unwatch()
	if err == nil {
		err = s.begin(resp)
	}
	if !late.Stop() && err == nil {
		err = errLate
	}
	if err != nil {
		if cause := context.Cause(s.ctx); cause != nil && ctx.Err() == nil {
			err = cause
		}
		s.end(err)
		return nil, err
	}
	p.reading.add(s)
	return s, nil
}

// ender is called at the first byte of a stream, and at its end; see [Share].
type ender interface {
	gave(member string)
	streamEnded(q request, gave int64, err error)
}

// stream is the body of an answer of another member. While no bytes arrive, the stream asks how
// many bytes the member has. The stream ends with an error if the member is dead or does not send
// the bytes that it has.
type stream struct {
	p      *peers
	q      request
	body   io.ReadCloser // nil before the answer
	size   int64
	at     position // the position of the member that answers
	member string
	zone   string
	others []string // addresses of other members that read the blob from the same member

	share ender // the Share of the fetch; set before the first Read

	ctx      context.Context
	stop     context.CancelCauseFunc
	off      atomic.Int64
	mu       sync.Mutex // guards the fields below
	timer    *time.Timer
	waiting  bool           // true between watch and unwatch; otherwise [stream.ask] does nothing
	asking   sync.WaitGroup // waits for a call of [stream.ask] that is under way
	reported bool
}

// begin checks the status and the headers of an answer, and stores its body.
func (s *stream) begin(resp *http.Response) error {
	s.body = resp.Body
	h := resp.Header
	switch {
	case resp.StatusCode == http.StatusUpgradeRequired, !s.p.understands(h):
		s.p.warnOfProtocol(h.Get(headerMember), s.q.address, h.Get(headerProtocol))
		return ErrProtocol
	case resp.StatusCode == http.StatusConflict && s.q.unfinished:
		return ErrFinished
	case resp.StatusCode == http.StatusServiceUnavailable:
		return &fullError{addresses(h.Get(headerFollowers))}
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("the member answered %s", resp.Status)
	}
	s.member, s.zone, s.others = h.Get(headerMember), h.Get(headerZone), addresses(h.Get(headerFollowers))
	size, err1 := strconv.ParseInt(h.Get(headerSize), 10, 64)
	generation, err2 := strconv.ParseInt(h.Get(headerGeneration), 10, 64)
	hop, err3 := strconv.Atoi(h.Get(headerHop))
	s.size, s.at = max(size, -1), position{generation, hop}
	switch {
	case errors.Join(err1, err2, err3) != nil || s.member == "" || hop < 0:
		return errors.New("the answer of the member lacks a header")
	case s.p.isBanned(s.member):
		return errBanned
	case !s.q.held && !s.at.nearer(s.q.at):
		return errFar
	case s.size < s.q.want.From && s.size >= 0, s.q.want.Most >= 0 && s.size > s.q.want.Most:
		return fmt.Errorf("the member has %d bytes of the blob, which cannot be right", s.size)
	}
	return nil
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	s.watch()
	n, err := s.body.Read(p)
	s.unwatch()
	if n > 0 {
		if s.off.Add(int64(n)) == s.q.want.From+int64(n) {
			s.share.gave(s.member)
		}
		zone := "same"
		if s.zone != s.p.zone() {
			zone = "other"
		}
		s.p.m.received.WithLabelValues(zone).Add(float64(n))
	}
	if to := cmp.Or(s.q.want.To, s.size); err == io.EOF && to >= 0 && s.off.Load() < to {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && err != io.EOF {
		if cause := context.Cause(s.ctx); cause != nil {
			err = cause
		}
		s.report(err)
	}
	return n, err
}

// report tells the Share once which error ended the stream. A reader that closes the stream early
// is no failure.
func (s *stream) report(err error) {
	s.mu.Lock()
	reported := s.reported
	s.reported = true
	s.mu.Unlock()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	if !reported {
		s.share.streamEnded(s.q, s.off.Load()-s.q.want.From, err)
	}
}

// Close ends the stream.
func (s *stream) Close() error {
	s.end(context.Canceled)
	s.report(nil)
	return nil
}

// end ends the stream, and waits for a call of [stream.ask] that is under way.
func (s *stream) end(why error) {
	s.p.reading.remove(s)
	s.unwatch()
	s.stop(why)
	if s.body != nil {
		_ = s.body.Close() // nobody needs the error of a body that was given up
	}
	s.asking.Wait()
}

// watch calls ask after each Patience.Stall, until unwatch is called.
func (s *stream) watch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = true
	if s.timer == nil {
		s.timer = time.AfterFunc(s.p.patience.Stall, s.ask)
		return
	}
	s.timer.Reset(s.p.patience.Stall)
}

func (s *stream) unwatch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = false
	if s.timer != nil {
		s.timer.Stop()
	}
}

// [stream.ask] asks the member how many bytes are ready there. It ends the stream if the member
// does not answer, has lost the blob, speaks another protocol, or has more than [congested] bytes
// ready. Otherwise, the stream goes on waiting, because the registry is slow.
func (s *stream) ask() {
	s.mu.Lock()
	if !s.waiting {
		s.mu.Unlock()
		return
	}
	s.asking.Add(1)
	defer s.asking.Done()
	s.mu.Unlock()
	off := s.off.Load()
	ready, err := s.p.progress(s.ctx, s.q, off)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.waiting || s.off.Load() != off {
		return // bytes have arrived meanwhile
	}
	switch {
	case errors.Is(err, ErrProtocol):
		s.stop(ErrProtocol)
	case err != nil:
		s.stop(errDead)
	case ready > congested:
		s.stop(errBehind)
	default:
		s.timer.Reset(s.p.patience.Stall)
	}
}

// progress asks a member how many bytes of a blob are ready there from an offset on.
func (p *peers) progress(ctx context.Context, q request, off int64) (ready int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.patience.Answer)
	defer cancel()
	resp, err := p.send(ctx, http.MethodHead, q, off)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUpgradeRequired:
		return 0, ErrProtocol
	default:
		return 0, fmt.Errorf("the member answered %s", resp.Status)
	}
	return strconv.ParseInt(resp.Header.Get(headerReady), 10, 64)
}
