package gate

import (
	"crypto/rand"
	"slices"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"dray/mirror/pipeline"
)

// maxReports is how many reports are kept. One has some hundred KiB at most, and usually a few.
const maxReports = 512

// lateFor is how long a verdict that came too late for its client is good for the client's next
// try.
const lateFor = 10 * time.Minute

// reports keeps the newest verdicts, in memory.
type reports struct {
	byID   *lru.Cache[string, *pipeline.Report]
	answer *lru.Cache[Key, *pipeline.Report]
}

func newReports() *reports {
	byID, _ := lru.New[string, *pipeline.Report](maxReports) // fails for sizes below 1 only
	answer, _ := lru.New[Key, *pipeline.Report](maxReports)
	return &reports{byID, answer}
}

// add gives the report an id that nobody can guess: whoever knows it may read the report.
func (r *reports) add(report *pipeline.Report) {
	report.ID = rand.Text()
	r.byID.Add(report.ID, report)
}

func (r *reports) answered(key Key, report *pipeline.Report) { r.answer.Add(key, report) }

func (r *reports) of(key Key) *pipeline.Report {
	report, _ := r.answer.Get(key)
	return report
}

// late is the verdict that a client did not wait for, once.
func (r *reports) late(key Key, within time.Duration) *pipeline.Report {
	report := r.of(key)
	if report == nil || report.Seconds < within.Seconds() || time.Since(report.At) > lateFor+within {
		return nil
	}
	r.answer.Remove(key)
	return report
}

// Reports lists the newest verdicts on pushes, newest first. They must not be changed.
func (c *Checks) Reports() []*pipeline.Report {
	out := c.reports.byID.Values()
	slices.Reverse(out)
	return out
}

// Report returns the report of an id, or nil.
func (c *Checks) Report(id string) *pipeline.Report {
	report, _ := c.reports.byID.Get(id)
	return report
}

// ReportOf returns the newest verdict on a push, or nil.
func (c *Checks) ReportOf(k Key) *pipeline.Report { return c.reports.of(k) }
