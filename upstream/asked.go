package upstream

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Asked records the requests that dray sends for one question, including redirects and retries, for
// a later report. Its methods may be called concurrently. They may also be called on a nil Asked,
// which records nothing.
type Asked struct {
	mu   sync.Mutex // guards the fields below
	sent []Sent
	more int

	begun atomic.Bool
}

// maxSent bounds the requests that an Asked records. The Asked only counts further requests
// (Asked.more).
const maxSent = 8

// maxSentText bounds each text of a Sent, in bytes.
const maxSentText = 256

// Sent is a request that was sent.
type Sent struct {
	At time.Time
	// Method, Host and Path are the method, host and path of the request. The query is left out,
	// because it may have a signature.
	Method, Host, Path string
	// Status is the status of the answer; 0 if there is no answer.
	Status int
	// Bytes is the number of bytes read from the body of the answer; 0 until the answer has ended.
	// Took is the time from the request to the end of the answer. While the answer still arrives, Took
	// is the time to its header.
	Bytes int64
	Took  time.Duration
	// Error says why there is no answer; empty if there is an answer.
	Error string
}

// Begin records that dray works on this question itself, even if the work then needs no request.
// Nobody calls Begin for a question that only waits for the answer to an equal question.
func (a *Asked) Begin() {
	if a != nil {
		a.begun.Store(true)
	}
}

// Begun reports whether Begin was called.
func (a *Asked) Begun() bool { return a != nil && a.begun.Load() }

// Requests returns the recorded requests, and the number of requests that were only counted.
func (a *Asked) Requests() (sent []Sent, more int) {
	if a == nil {
		return nil, 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return append(sent, a.sent...), a.more
}

// add records a request and its answer. The answer is nil if err is not nil. If onEnd is not nil,
// the caller calls it at the end of the answer, with the number of bytes read.
func (a *Asked) add(req *http.Request, resp *http.Response, began time.Time, err error) (onEnd func(bytes int64)) {
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

// shortened returns a copy of the first maxSentText bytes of s. The copy leaves out invalid UTF-8,
// and does not keep the memory of s in use.
func shortened(s string) string {
	return strings.Clone(strings.ToValidUTF8(s[:min(len(s), maxSentText)], ""))
}
