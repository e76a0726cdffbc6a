package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"dray/mirror/admin/api"
)

// Check is a check of one thing without which dray does not work, or does not work well.
type Check struct {
	// Name identifies the check for operators and alarms.
	Name string
	// Run returns an error if the thing does not work, and ErrUnknown if nothing has shown yet whether
	// it works. It must return soon after its context ends, and may be called concurrently. /readyz
	// shows the text of the error.
	Run func(ctx context.Context) error
	// Critical says that dray should get no requests while the check fails. If a check that is not
	// critical fails, dray is only degraded.
	Critical bool
}

// ErrUnknown is the result of a check about something that was not used yet.
var ErrUnknown = errors.New("not used yet")

// Ready runs checks, and sums up their results. It runs them concurrently, so it takes as long as
// the slowest check. timeout bounds each check; 0 means 2 seconds.
func Ready(ctx context.Context, checks []Check, timeout time.Duration) api.Readiness {
	answer := api.Readiness{Status: api.Ready, Checks: make([]api.Result, len(checks))}
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() { answer.Checks[i] = c.result(ctx, cmp.Or(timeout, 2*time.Second)) })
	}
	wg.Wait()
	for _, c := range answer.Checks {
		switch {
		case !c.Failed():
		case c.Critical:
			answer.Status = api.NotReady
		case answer.Status == api.Ready:
			answer.Status = api.Degraded
		}
	}
	return answer
}

// readiness serves /readyz.
type readiness struct {
	checks  []Check
	timeout time.Duration
}

func (s *readiness) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := Ready(r.Context(), s.checks, s.timeout)
	status := http.StatusOK
	if answer.Status == api.NotReady {
		status = http.StatusServiceUnavailable
	}
	header(w)
	_ = sendJSON(w, status, answer) // cannot fail for texts and numbers
}

func (c Check) result(ctx context.Context, timeout time.Duration) api.Result {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	start := time.Now()
	err := c.run(ctx)
	r := api.Result{Name: c.Name, Critical: c.Critical, Seconds: time.Since(start).Seconds()}
	if errors.Is(err, ErrUnknown) {
		return r
	}
	if r.OK = new(err == nil); err != nil {
		r.Error = err.Error()
	}
	return r
}

// run recovers a panic of the check. The panic would end the process, because the check does not
// run in a goroutine of the server.
func (c Check) run(ctx context.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return c.Run(ctx)
}
