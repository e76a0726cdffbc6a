// Package doctor looks for faults that can keep dray, or a client of dray, from working on this
// machine, and says what to do.
package doctor

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Status says how a check ended.
type Status string

// The states.
const (
	OK      Status = "ok"
	Warning Status = "warning" // dray works, but not as well as it could, or not for long
	Failed  Status = "failed"  // something does not work
	Unknown Status = "unknown" // the check was not possible, or was not tried; this is no failure
)

// Finding is the result of a check.
type Finding struct {
	// Category groups findings. ID names the subject of the check; it does not change between
	// versions.
	Category string `json:"category"`
	ID       string `json:"id"`
	Status   Status `json:"status"`
	// Text says what the check found, and Hint says what to do about it. Hint is empty if Status is
	// OK.
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
	// Doc is the page and the heading that explain the category. It is empty if Status is OK.
	Doc string `json:"doc,omitempty"`
}

// Check is one check.
type Check struct {
	Category, ID string
	// Run makes the check and returns its finding, without Category and ID. It returns soon after ctx
	// ends.
	Run func(ctx context.Context) Finding
}

// Report has the findings of a run, in the order of the checks.
type Report struct {
	Findings []Finding `json:"findings"`
	Warnings int       `json:"warnings"`
	Failures int       `json:"failures"`
}

// Run makes all checks at once. It cancels a check after the time bound. If the check does not end
// within one second more, it counts as failed.
func Run(ctx context.Context, checks []Check, bound time.Duration) Report {
	r := Report{Findings: make([]Finding, len(checks))}
	var all sync.WaitGroup
	for i, c := range checks {
		all.Go(func() { r.Findings[i] = c.within(ctx, bound) })
	}
	all.Wait()
	for _, f := range r.Findings {
		switch f.Status {
		case Warning:
			r.Warnings++
		case Failed:
			r.Failures++
		}
	}
	return r
}

// within runs a check. When the time bound has passed, it cancels the check's context, and waits
// for the check at most one second more.
func (c Check) within(ctx context.Context, bound time.Duration) Finding {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	done := make(chan Finding, 1)
	go func() { done <- c.Run(ctx) }()
	var f Finding
	select {
	case f = <-done:
	case <-ctx.Done():
		select {
		case f = <-done: // the check ended because ctx has ended
		case <-time.After(time.Second):
			f = failed("try again with a longer --timeout", "no result within %s", bound)
		}
	}
	f.Category, f.ID = c.Category, c.ID
	if f.Status != OK {
		f.Doc = "docs/doctor.md#" + strings.ToLower(c.Category)
	}
	return f
}

func ok(text string, args ...any) Finding {
	return Finding{Status: OK, Text: fmt.Sprintf(text, args...)}
}

func warning(hint, text string, args ...any) Finding {
	return Finding{Status: Warning, Hint: hint, Text: fmt.Sprintf(text, args...)}
}

func failed(hint, text string, args ...any) Finding {
	return Finding{Status: Failed, Hint: hint, Text: fmt.Sprintf(text, args...)}
}

func unknown(hint, text string, args ...any) Finding {
	return Finding{Status: Unknown, Hint: hint, Text: fmt.Sprintf(text, args...)}
}
