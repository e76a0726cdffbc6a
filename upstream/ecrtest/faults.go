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

// Fault is a fault for chosen requests. Kinds, Method, Path, Host and Blob select the requests.
// Skip is how many selected requests pass first without the fault, and Count bounds how many the
// fault then affects. The other fields say what happens to the requests. Several faults can apply
// to one request.
type Fault struct {
	ID int `json:"id"` // assigned by AddFault

	Kinds  []Kind `json:"kinds,omitempty"`  // none means all
	Method string `json:"method,omitempty"` // empty means all
	Path   string `json:"path,omitempty"`   // part of the path; empty means all
	Host   string `json:"host,omitempty"`   // part of the Host header; empty means all
	// Blob selects requests for this blob, and for its object in the object store, to which the server
	// redirects. Empty means all requests.
	Blob  digest.Digest `json:"blob,omitempty"`
	Skip  int           `json:"skip,omitempty"`  // matching requests to let pass first
	Count int           `json:"count,omitempty"` // requests to affect; 0 means 1, negative means all until the fault is removed

	Latency    time.Duration `json:"-"`                    // how long to wait before anything else
	Status     int           `json:"status,omitempty"`     // status of an error that is sent instead of the real answer, in the form of the requested API
	Code       string        `json:"code,omitempty"`       // the code that is sent with Status; empty means a code for the status
	Message    string        `json:"message,omitempty"`    // the text that is sent with Status
	RetryAfter time.Duration `json:"-"`                    // the Retry-After that is sent with Status; 0 means none
	Close      bool          `json:"close,omitempty"`      // the connection is closed without an answer
	DropAnswer bool          `json:"dropAnswer,omitempty"` // the request is carried out, then the connection is closed

	// Positions count bytes of a body from 0; nil means never.
	CutAt        *int64 `json:"cutAt,omitempty"`        // the connection ends at this byte of the answer's body
	Reset        bool   `json:"reset,omitempty"`        // CutAt resets the connection (RST) instead of closing it
	CorruptAt    *int64 `json:"corruptAt,omitempty"`    // first byte of the answer's body that is inverted
	CorruptBytes int64  `json:"corruptBytes,omitempty"` // how many bytes CorruptAt inverts; 0 means one
	StallAt      *int64 `json:"stallAt,omitempty"`      // the answer's body stops here until the client or the fault is gone, and then the connection is closed
	HoldAt       *int64 `json:"holdAt,omitempty"`       // the answer's body waits here until the fault is removed, and then continues
	Append       int64  `json:"append,omitempty"`       // number of extra bytes after the answer's body
	CutRequestAt *int64 `json:"cutRequestAt,omitempty"` // the connection is closed when this many bytes of the request have been read
	Rate         int64  `json:"rate,omitempty"`         // bytes per second of the request's body, and of the answer's body; 0 means no limit

	// Header overrides headers of the answer; an empty value removes the header. If Header sets
	// "Content-Length" to the value of CutAt, the truncated answer looks complete. If the answer has a
	// "Content-Length", Append needs a Header that sets or removes "Content-Length", because net/http
	// sends no more bytes than announced.
	Header map[string]string `json:"header,omitempty"`
}

// At returns a position for a Fault.
func At(n int64) *int64 { return &n }

// Bandwidth limits bodies, each direction separately; 0 means no limit.
type Bandwidth struct {
	PerConnection int64  `json:"perConnection"` // bytes per second of one answer or request
	Total         int64  `json:"total"`         // bytes per second of all answers together, and of all requests together
	Kinds         []Kind `json:"kinds,omitempty"`
}

type armed struct {
	Fault
	seen, hit int
	removed   chan struct{}
}

type faults struct {
	mu        sync.Mutex
	next      int
	list      []*armed
	bandwidth Bandwidth
	total     *pacer // paces all answers together
	totalIn   *pacer // paces all requests together
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

// RemoveFault removes a fault and ends its latencies, stalls and holds. It reports whether the
// fault was present.
func (s *Server) RemoveFault(id int) bool {
	return s.faults.drop(func(a *armed) bool { return a.ID == id })
}

// ClearFaults removes all faults.
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

// Faults returns all faults, including faults whose Count is used up.
func (s *Server) Faults() []Fault {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	out := make([]Fault, len(s.faults.list))
	for i, a := range s.faults.list {
		out[i] = a.Fault
	}
	return out
}

// SetBandwidth sets the bandwidth for later requests.
func (s *Server) SetBandwidth(b Bandwidth) { s.faults.setBandwidth(b) }

// Advance moves the server's clock forward by d, so that tokens and signed URLs age, and applies
// the rules of lifecycle policies.
func (s *Server) Advance(d time.Duration) {
	s.mu.Lock()
	s.skew += d
	s.mu.Unlock()
	s.applyLifecycle()
}

func (a *armed) matches(k Kind, r *http.Request, blobOf func() digest.Digest) bool {
	if a.Blob != "" && a.Blob != blobOf() {
		return false
	}
	return (len(a.Kinds) == 0 || slices.Contains(a.Kinds, k)) && (a.Method == "" || a.Method == r.Method) &&
		strings.Contains(r.URL.Path, a.Path) && strings.Contains(r.Host, a.Host)
}

// take returns the plan for a request, from the bandwidth and the faults that match the request.
// Each of these faults counts the request for its Skip and Count. blobOf returns the blob that the
// request is about.
func (f *faults) take(k Kind, r *http.Request, blobOf func() digest.Digest) *plan {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &plan{cutAt: -1, stallAt: -1, holdAt: -1, corruptAt: -1, cutRequest: -1}
	if len(f.bandwidth.Kinds) == 0 || slices.Contains(f.bandwidth.Kinds, k) {
		p.pacers = p.pacers.with(newPacer(f.bandwidth.PerConnection)).with(f.total)
		p.incoming = p.incoming.with(newPacer(f.bandwidth.PerConnection)).with(f.totalIn)
	}
	for _, a := range f.list {
		if !a.matches(k, r, blobOf) {
			continue
		}
		a.seen++
		if a.seen <= a.Skip || a.Count >= 0 && a.hit >= max(a.Count, 1) {
			continue
		}
		a.hit++
		p.add(a)
	}
	return p
}

// plan describes what happens to one request.
type plan struct {
	delays                    []delay
	answer                    *wireError
	dropAnswer, reset         bool
	cutAt, stallAt, corruptAt int64 // negative means never
	holdAt                    int64
	corruptLen, cutRequest    int64
	extra                     int64  // bytes after the answer's body
	pacers, incoming          pacers // pacers of the answer and of the request
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

// delay is the latency of one fault; it ends early if the fault is removed.
type delay struct {
	d       time.Duration
	removed <-chan struct{}
}

// waitLatency waits for all latencies, one after the other.
func (p *plan) waitLatency(ctx context.Context) {
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

// shapes reports whether the plan changes or paces the body that the handler writes.
func (p *plan) shapes() bool {
	return p.paced() || p.cutAt >= 0 || p.stallAt >= 0 || p.holdAt >= 0 || p.corruptAt >= 0
}

// maxPiece returns how many of n bytes may be sent in one piece. offset is the position of the
// first byte.
func (p *plan) maxPiece(offset int64, n int) int {
	piece := int64(n)
	for _, stop := range []int64{p.cutAt, p.stallAt, p.holdAt} {
		if stop > offset {
			piece = min(piece, stop-offset)
		}
	}
	return p.pacers.maxPiece(int(piece))
}

// corrupted returns b, or a copy with some bytes inverted.
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

func waitUntil(ctx context.Context, over <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-over:
	}
}

func (p *plan) overrideHeader(h http.Header) {
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
