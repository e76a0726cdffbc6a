package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"dray/mirror/request"
	"dray/upstream/oci"
)

const (
	// failuresInRow is how many requests of one step have to fail in a row before pushes count as
	// failing. A single failure often goes away when the client tries again.
	failuresInRow = 3
	// failuresLast is how long failures count. An older failure does not show that a push would fail
	// now.
	failuresLast = time.Hour
)

// pushHealth finds out whether pushes keep failing. Failures are counted by upstream and step,
// because one step can succeed while another always fails. On a full disk, for example, mounts and
// small manifests succeed, but uploads fail.
type pushHealth struct {
	mu    sync.Mutex // guards steps
	steps map[pushStep]*failures
}

// pushStep is one step of pushes to an upstream, such as the PUT of a manifest.
type pushStep struct {
	upstream string
	kind     oci.Kind
	method   string
}

// failures counts the requests of a step that failed in a row.
type failures struct {
	n      int
	last   time.Time
	reason string
}

// observe records the result of a request if the request is part of a push, its client is still
// connected, and no other member of the fleet has worked on it. A status of 500 or above is a
// failure of dray or of the registry. A refusal has a lower status: it neither adds to the failures
// in a row nor ends the row.
func (p *pushHealth) observe(x *request.Request, err error) {
	if !x.Q.Write() || x.Q.Deletes() || x.Repo.Up == nil || x.Worker != "" || x.R.Context().Err() != nil {
		return
	}
	status := x.W.Status()
	if x.Q.Mount != "" && status == http.StatusCreated {
		return // a mount needs no disk, so it says nothing about uploads
	}
	reason := ""
	if err != nil {
		reason = oci.AsError(err).Message
	}
	p.record(pushStep{x.Repo.Up.Name, x.Q.Kind, x.Q.Method}, status, reason)
}

func (p *pushHealth) record(step pushStep, status int, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case status >= 500:
		f := p.steps[step]
		if f == nil || time.Since(f.last) > failuresLast {
			f = &failures{}
			p.steps[step] = f
		}
		f.n, f.last, f.reason = f.n+1, time.Now(), fmt.Sprintf("%d %s", status, reason)
	case status < 300:
		delete(p.steps, step)
	}
}

// check returns an error if at least failuresInRow requests of one step failed in a row, and the
// last failure is at most failuresLast ago.
func (p *pushHealth) check(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	steps := slices.SortedFunc(maps.Keys(p.steps), func(a, b pushStep) int {
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	})
	for _, s := range steps {
		if f := p.steps[s]; f.n >= failuresInRow && time.Since(f.last) <= failuresLast {
			errs = append(errs, fmt.Errorf("pushes to %s: the last %d %s requests (%s) failed, the last at %s: %s",
				s.upstream, f.n, s.method, s.kind, f.last.UTC().Format(time.TimeOnly), f.reason))
		}
	}
	return errors.Join(errs...)
}
