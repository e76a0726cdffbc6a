package admin

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Check is one thing dray needs to work, or to work well.
type Check struct {
	// Name is for people and for alarms.
	Name string
	// Run returns why the thing does not work, or nil. It must return soon after
	// its context ends, and may be called concurrently. The text of the error is
	// shown.
	Run func(ctx context.Context) error
	// Critical says that without it requests had better go elsewhere. A failure of
	// anything else only degrades.
	Critical bool
}

// Status is how dray is, in one word.
type Status string

// The states.
const (
	Ready    Status = "ready"
	Degraded Status = "degraded"  // something that is not critical fails
	NotReady Status = "not ready" // something critical fails
)

// Readiness is the answer of /readyz: 200 unless Status is NotReady, then 503.
type Readiness struct {
	Status Status   `json:"status"`
	Checks []Result `json:"checks"`
}

// Result is the outcome of one check.
type Result struct {
	Name     string  `json:"name"`
	OK       bool    `json:"ok"`
	Critical bool    `json:"critical"`
	Seconds  float64 `json:"seconds"`
	Error    string  `json:"error,omitempty"`
}

// readiness serves /readyz. The checks run at once, so that the answer takes as
// long as the slowest.
type readiness struct {
	checks  []Check
	timeout time.Duration
}

func (s *readiness) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := Readiness{Status: Ready, Checks: make([]Result, len(s.checks))}
	var wg sync.WaitGroup
	for i, c := range s.checks {
		wg.Go(func() { answer.Checks[i] = c.result(r.Context(), s.timeout) })
	}
	wg.Wait()
	status := http.StatusOK
	for _, c := range answer.Checks {
		switch {
		case c.OK:
		case c.Critical:
			answer.Status, status = NotReady, http.StatusServiceUnavailable
		case answer.Status == Ready:
			answer.Status = Degraded
		}
	}
	header(w)
	_ = sendJSON(w, status, answer) // texts and numbers
}

func (c Check) result(ctx context.Context, timeout time.Duration) Result {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	start := time.Now()
	err := c.run(ctx)
	r := Result{Name: c.Name, OK: err == nil, Critical: c.Critical, Seconds: time.Since(start).Seconds()}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// run keeps the panic of a check from ending the process: it is not in a
// goroutine of the server.
func (c Check) run(ctx context.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return c.Run(ctx)
}
