package ecrtest

import (
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"
)

// maxEntries bounds the request log; the oldest entries are dropped first.
const maxEntries = 20000

// Count has the counts for one kind of request, including requests that a [Fault] answered.
type Count struct {
	Requests int64 `json:"requests"`
	BytesIn  int64 `json:"bytesIn"`  // bodies received
	BytesOut int64 `json:"bytesOut"` // bodies sent
	Failed   int64 `json:"failed"`   // answers of 400 and above, and connections closed without an answer
}

// Entry is one request in the log.
type Entry struct {
	Seq      int64             `json:"seq"` // from 1, never reset
	Time     time.Time         `json:"time"`
	Surface  string            `json:"surface"` // registry, api, objects
	Kind     Kind              `json:"kind"`
	Method   string            `json:"method"`
	Host     string            `json:"host"`
	Path     string            `json:"path"` // with the query, without signatures
	Proto    string            `json:"proto"`
	Remote   string            `json:"remote"`
	Status   int               `json:"status"` // 0 means no answer
	BytesIn  int64             `json:"bytesIn"`
	BytesOut int64             `json:"bytesOut"`
	Request  map[string]string `json:"request"`  // chosen headers; of Authorization only the scheme
	Response map[string]string `json:"response"` // chosen headers
	Done     bool              `json:"done"`
}

// journal counts and logs requests.
type journal struct {
	mu      sync.Mutex
	seq     int64
	counts  map[Kind]*Count
	entries []*Entry
	running int
	idle    chan struct{} // closed while no request is in flight
}

func newJournal() *journal {
	j := &journal{counts: map[Kind]*Count{}, idle: make(chan struct{})}
	close(j.idle)
	return j
}

// begin adds an entry for a request. The journal counts during the request, not at its end. So the
// counts include every answer that a client has seen. For the bytes of large answers, see
// [Server.Idle].
func (j *journal) begin(e *Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seq++
	e.Seq = j.seq
	j.countLocked(e.Kind).Requests++
	j.entries = append(j.entries, e)
	if len(j.entries) > maxEntries {
		j.entries = slices.Delete(j.entries, 0, maxEntries/10)
	}
	if j.running == 0 {
		j.idle = make(chan struct{})
	}
	j.running++
}

func (j *journal) countLocked(k Kind) *Count {
	c, ok := j.counts[k]
	if !ok {
		c = &Count{}
		j.counts[k] = c
	}
	return c
}

func (j *journal) status(e *Entry, code int, h http.Header) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.Status = code
	e.Response = chosen(h, "Content-Length", "Content-Range", "Content-Type", "Docker-Content-Digest", "Location", "Range", "Retry-After", "Www-Authenticate")
	if code >= http.StatusBadRequest {
		j.countLocked(e.Kind).Failed++
	}
}

func (j *journal) addBytes(e *Entry, in, out int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.BytesIn += in
	e.BytesOut += out
	c := j.countLocked(e.Kind)
	c.BytesIn += in
	c.BytesOut += out
}

func (j *journal) end(e *Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.Done = true
	if e.Status == 0 {
		j.countLocked(e.Kind).Failed++
	}
	j.running--
	if j.running == 0 {
		close(j.idle)
	}
}

func (j *journal) reset() {
	j.mu.Lock()
	defer j.mu.Unlock()
	clear(j.counts)
	j.entries = nil
}

func chosen(h http.Header, names ...string) map[string]string {
	m := map[string]string{}
	for _, n := range names {
		if v := h.Get(n); v != "" {
			m[n] = v
		}
	}
	return m
}

// Counters returns the counts by kind. A kind without requests is absent.
func (s *Server) Counters() map[Kind]Count {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	out := make(map[Kind]Count, len(s.journal.counts))
	for k, c := range s.journal.counts {
		out[k] = *c
	}
	return out
}

// Count returns the number of requests of a kind.
func (s *Server) Count(k Kind) int64 { return s.Counters()[k].Requests }

// Log returns the logged requests, in order of arrival.
func (s *Server) Log() []Entry {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	out := make([]Entry, len(s.journal.entries))
	for i, e := range s.journal.entries {
		out[i] = *e
		out[i].Response = maps.Clone(e.Response)
	}
	return out
}

// Sequence returns "METHOD path" of each logged request of the given surfaces, or of all surfaces
// if none is given.
func (s *Server) Sequence(surfaces ...string) []string {
	var out []string
	for _, e := range s.Log() {
		if len(surfaces) == 0 || slices.Contains(surfaces, e.Surface) {
			out = append(out, e.Method+" "+e.Path)
		}
	}
	return out
}

// ResetCounters clears the counts and the log. Images, faults and tokens stay.
func (s *Server) ResetCounters() { s.journal.reset() }

// Idle returns a channel that is closed when no request is in flight. Only then do the counters
// have all bytes of a large answer.
func (s *Server) Idle() <-chan struct{} {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	return s.journal.idle
}
