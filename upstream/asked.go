package upstream

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Asked records the requests that a question takes, redirects and retries included, so that
// somebody can be told of them later. Its methods may be called concurrently, also on a nil Asked,
// which records nothing.
type Asked struct {
	mu   sync.Mutex // guards the fields below
	sent []Sent
	more int

	begun atomic.Bool
}

// maxSent bounds the requests that an Asked has. Further ones are only counted.
const maxSent = 8

// maxSentText bounds each text of a Sent, in bytes.
const maxSentText = 256

// Sent is a request that was sent.
type Sent struct {
	At time.Time
	// Method, Host and Path are those of the request. The path has no query, which may have a
	// signature.
	Method, Host, Path string
	// Status is that of the answer; 0 without one.
	Status int
	// Bytes have been read of the answer. Took is the time until its end, or until its header while it
	// goes on.
	Bytes int64
	Took  time.Duration
	// Error is why there is no answer.
	Error string
}

// Begin says that the question is asked for itself, and does not share what another one asks.
func (a *Asked) Begin() {
	if a != nil {
		a.begun.Store(true)
	}
}

// Begun reports whether Begin was called.
func (a *Asked) Begun() bool { return a != nil && a.begun.Load() }

// Requests returns the requests so far, and how many others there were.
func (a *Asked) Requests() (sent []Sent, more int) {
	if a == nil {
		return nil, 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return append(sent, a.sent...), a.more
}

// add records a request and its answer, which is nil if err is not. The result records the end of
// the answer.
func (a *Asked) add(req *http.Request, resp *http.Response, began time.Time, err error) (ended func(bytes int64)) {
	if a == nil {
		return nil
	}
	s := Sent{At: began, Method: req.Method, Host: shortened(req.URL.Host), Path: shortened(req.URL.Path), Took: time.Since(began)}
	if err != nil {
		s.Error = shortened(err.Error())
	} else {
		s.Status = resp.StatusCode
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.sent) == maxSent {
		a.more++
		return nil
	}
	i := len(a.sent)
	a.sent = append(a.sent, s)
	return func(bytes int64) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.sent[i].Bytes, a.sent[i].Took = bytes, time.Since(began)
	}
}

// shortened returns a text that has at most maxSentText bytes, and shares no memory with others.
func shortened(s string) string {
	return strings.Clone(strings.ToValidUTF8(s[:min(len(s), maxSentText)], ""))
}
