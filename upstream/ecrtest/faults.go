package ecrtest

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Fault is a misfortune that waits for requests. Kinds, Method, Path, Host and Blob select them;
// Skip and Count say which of those are met; the other fields say what happens. Faults that meet
// the same request add up.
type Fault struct {
	ID int `json:"id"` // assigned by AddFault

	Kinds  []Kind `json:"kinds,omitempty"`  // none: all
	Method string `json:"method,omitempty"` // empty: all
	Path   string `json:"path,omitempty"`   // part of the path; empty: all
	Host   string `json:"host,omitempty"`   // part of the Host header; empty: all
	// Blob selects what asks for this blob, its object behind the redirect included; empty: all.
	Blob  digest.Digest `json:"blob,omitempty"`
	Skip  int           `json:"skip,omitempty"`  // that many matching requests pass first
	Count int           `json:"count,omitempty"` // that many are met; 0 is one, negative is all until the fault is removed

	Latency    time.Duration `json:"-"`                    // before anything else
	Status     int           `json:"status,omitempty"`     // answered instead of the real thing, in the shape of the API
	Code       string        `json:"code,omitempty"`       // of that answer; empty: one that fits the status
	Message    string        `json:"message,omitempty"`    // of that answer
	RetryAfter time.Duration `json:"-"`                    // with that answer; 0: no header
	Close      bool          `json:"close,omitempty"`      // the connection is closed without an answer
	DropAnswer bool          `json:"dropAnswer,omitempty"` // the request is carried out, then the connection is closed

	// Positions count bytes of a body from 0; nil means none of that.
	CutAt        *int64 `json:"cutAt,omitempty"`        // the answer's body ends there with its connection
	Reset        bool   `json:"reset,omitempty"`        // what is cut is reset (RST) and not closed
	CorruptAt    *int64 `json:"corruptAt,omitempty"`    // bytes of the answer's body from there on are inverted
	CorruptBytes int64  `json:"corruptBytes,omitempty"` // how many; 0 is one
	StallAt      *int64 `json:"stallAt,omitempty"`      // the answer's body stops there until client or fault go away
	HoldAt       *int64 `json:"holdAt,omitempty"`       // the answer's body waits there until the fault goes away, and goes on
	Append       int64  `json:"append,omitempty"`       // so many bytes more than there are follow the answer's body
	CutRequestAt *int64 `json:"cutRequestAt,omitempty"` // the connection is closed once so much of the request was read
	Rate         int64  `json:"rate,omitempty"`         // bytes per second of either body; 0: as fast as can be

	// Header is set in the answer whatever is true; an empty value takes the line out. With
	// "Content-Length" and CutAt an answer is truncated and looks whole; with it, or without the
	// line, Append makes it too long.
	Header map[string]string `json:"header,omitempty"`
}

// At is a position for a Fault.
func At(n int64) *int64 { return &n }

// Bandwidth shapes bodies, each direction on its own; 0 is unlimited.
type Bandwidth struct {
	PerConnection int64  `json:"perConnection"` // bytes per second of one answer or request
	Total         int64  `json:"total"`         // bytes per second of all answers, and of all requests
	Kinds         []Kind `json:"kinds,omitempty"`
}

type armed struct {
	Fault
	seen, met int
	removed   chan struct{}
}

type faults struct {
	mu        sync.Mutex
	next      int
	list      []*armed
	bandwidth Bandwidth
	total     *pacer // of answers
	totalIn   *pacer // of requests
}

func newFaults(b Bandwidth) *faults {
	f := &faults{}
	f.setBandwidth(b)
	return f
}

func (f *faults) setBandwidth(b Bandwidth) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bandwidth = b
	f.total, f.totalIn = newPacer(b.Total), newPacer(b.Total)
}

// AddFault arms a fault and returns its id.
func (s *Server) AddFault(x Fault) int {
	f := s.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	x.ID = f.next
	f.list = append(f.list, &armed{Fault: x, removed: make(chan struct{})})
	return x.ID
}

// RemoveFault disarms a fault and ends the stalls and latencies it causes. It reports whether the
// fault was still armed.
func (s *Server) RemoveFault(id int) bool {
	return s.faults.drop(func(a *armed) bool { return a.ID == id })
}

// ClearFaults disarms all faults.
func (s *Server) ClearFaults() { s.faults.drop(func(*armed) bool { return true }) }

func (f *faults) drop(which func(*armed) bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := len(f.list)
	f.list = slices.DeleteFunc(f.list, func(a *armed) bool {
		if !which(a) {
			return false
		}
		close(a.removed)
		return true
	})
	return len(f.list) < before
}

// Faults returns the armed faults, those whose count is used up included.
func (s *Server) Faults() []Fault {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	out := make([]Fault, len(s.faults.list))
	for i, a := range s.faults.list {
		out[i] = a.Fault
	}
	return out
}

// SetBandwidth shapes the answers that start afterwards.
func (s *Server) SetBandwidth(b Bandwidth) { s.faults.setBandwidth(b) }

// Advance moves the server's clock on by d, so that tokens and signed URLs grow older.
func (s *Server) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skew += d
}

func (a *armed) matches(k Kind, r *http.Request, blob func() digest.Digest) bool {
	if a.Blob != "" && a.Blob != blob() {
		return false
	}
	return (len(a.Kinds) == 0 || slices.Contains(a.Kinds, k)) && (a.Method == "" || a.Method == r.Method) &&
		strings.Contains(r.URL.Path, a.Path) && strings.Contains(r.Host, a.Host)
}

// take gathers what waits for the request. blob tells which one it asks for.
func (f *faults) take(k Kind, r *http.Request, blob func() digest.Digest) *plan {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &plan{cutAt: -1, stallAt: -1, holdAt: -1, corruptAt: -1, cutRequest: -1}
	if len(f.bandwidth.Kinds) == 0 || slices.Contains(f.bandwidth.Kinds, k) {
		p.pacers = p.pacers.with(newPacer(f.bandwidth.PerConnection)).with(f.total)
		p.incoming = p.incoming.with(newPacer(f.bandwidth.PerConnection)).with(f.totalIn)
	}
	for _, a := range f.list {
		if !a.matches(k, r, blob) {
			continue
		}
		a.seen++
		if a.seen <= a.Skip || a.Count >= 0 && a.met >= max(a.Count, 1) {
			continue
		}
		a.met++
		p.add(a)
	}
	return p
}

// plan is what happens to one request.
type plan struct {
	delays                    []delay
	answer                    *wireError
	dropAnswer, reset         bool
	cutAt, stallAt, corruptAt int64 // negative: never
	holdAt                    int64
	corruptLen, cutRequest    int64
	extra                     int64  // bytes after the answer's body
	pacers, incoming          pacers // of the answer and of the request
	stalled, held             <-chan struct{}
	header                    map[string]string
}

func (p *plan) add(a *armed) {
	p.delays = append(p.delays, delay{a.Latency, a.removed})
	p.dropAnswer = p.dropAnswer || a.DropAnswer
	if a.Close {
		p.answer = hangup()
	} else if a.Status != 0 && p.answer == nil {
		p.answer = &wireError{Status: a.Status, Code: a.Code, Message: a.Message, Header: retryAfter(a.RetryAfter)}
	}
	if a.CutAt != nil {
		p.cutAt, p.reset = *a.CutAt, a.Reset
	}
	if a.HoldAt != nil {
		p.holdAt, p.held = *a.HoldAt, a.removed
	}
	if a.Header != nil {
		p.header = a.Header
	}
	p.extra += a.Append
	if a.CorruptAt != nil {
		p.corruptAt, p.corruptLen = *a.CorruptAt, max(a.CorruptBytes, 1)
	}
	if a.StallAt != nil {
		p.stallAt, p.stalled = *a.StallAt, a.removed
	}
	if a.CutRequestAt != nil {
		p.cutRequest = *a.CutRequestAt
	}
	p.pacers = p.pacers.with(newPacer(a.Rate))
	p.incoming = p.incoming.with(newPacer(a.Rate))
}

func retryAfter(d time.Duration) http.Header {
	if d <= 0 {
		return nil
	}
	return http.Header{"Retry-After": {strconv.Itoa(int((d + time.Second - 1) / time.Second))}}
}

// delay is the latency of one fault; it ends with the fault.
type delay struct {
	d       time.Duration
	removed <-chan struct{}
}

// before waits out the latencies, one after the other.
func (p *plan) before(ctx context.Context) {
	for _, l := range p.delays {
		t := time.NewTimer(l.d)
		select {
		case <-t.C:
		case <-l.removed:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

func (p *plan) paced() bool { return len(p.pacers) > 0 }

// shapes reports whether the body of the answer is touched.
func (p *plan) shapes() bool {
	return p.paced() || p.cutAt >= 0 || p.stallAt >= 0 || p.holdAt >= 0 || p.corruptAt >= 0
}

// room is how many of n bytes may be sent from position at before something happens.
func (p *plan) room(at int64, n int) int {
	room := int64(n)
	for _, stop := range []int64{p.cutAt, p.stallAt, p.holdAt} {
		if stop > at {
			room = min(room, stop-at)
		}
	}
	return p.pacers.room(int(room))
}

// corrupted returns p, or a copy in which the bytes that are due are inverted.
func (p *plan) corrupted(b []byte, at int64) []byte {
	if p.corruptAt < 0 || at+int64(len(b)) <= p.corruptAt || at >= p.corruptAt+p.corruptLen {
		return b
	}
	b = slices.Clone(b)
	for i := range b {
		if pos := at + int64(i); pos >= p.corruptAt && pos < p.corruptAt+p.corruptLen {
			b[i] ^= 0xff
		}
	}
	return b
}

// linger waits until the client or the fault goes away.
func linger(ctx context.Context, over <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-over:
	}
}

// lie changes the lines of an answer.
func (p *plan) lie(h http.Header) {
	for name, v := range p.header {
		if v == "" {
			h.Del(name)
			continue
		}
		h.Set(name, v)
	}
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
