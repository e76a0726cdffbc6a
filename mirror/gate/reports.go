package gate

import (
	"crypto/rand"
	"slices"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"dray/mirror/pipeline"
)

// maxReports bounds the reports in each map of reports. A report usually has a few KiB, and a few
// hundred KiB at most.
const maxReports = 512

// lateFor is the time for which the next push of the same manifest can use a late verdict. It
// begins when the client of the earlier push has stopped waiting.
const lateFor = 10 * time.Minute

type reports struct {
	byID  *lru.Cache[string, *pipeline.Report]
	byKey *lru.Cache[Key, *pipeline.Report]
}

func newReports() *reports {
	byID, _ := lru.New[string, *pipeline.Report](maxReports) // fails for sizes below 1 only
	byKey, _ := lru.New[Key, *pipeline.Report](maxReports)
	return &reports{byID, byKey}
}

// add stores a report under a new id that cannot be guessed, because clients that know the id may
// read the report.
func (r *reports) add(report *pipeline.Report) {
	report.ID = rand.Text()
	r.byID.Add(report.ID, report)
}

func (r *reports) set(key Key, report *pipeline.Report) { r.byKey.Add(key, report) }

func (r *reports) get(key Key) *pipeline.Report {
	report, _ := r.byKey.Get(key)
	return report
}

// late returns the report of a late verdict, but each report only once. The parameter within is how
// long the client waits. A verdict that took at least that long is late. The result is nil if there
// is no such report, or if the report is too old.
func (r *reports) late(key Key, within time.Duration) *pipeline.Report {
	report := r.get(key)
	if report == nil || report.Seconds < within.Seconds() || time.Since(report.At) > lateFor+within {
		return nil
	}
	r.byKey.Remove(key)
	return report
}

// Reports returns the newest reports, newest first. Callers must not change them.
func (c *Checks) Reports() []*pipeline.Report {
	out := c.reports.byID.Values()
	slices.Reverse(out)
	return out
}

// Report returns the report with the given id, or nil.
func (c *Checks) Report(id string) *pipeline.Report {
	report, _ := c.reports.byID.Peek(id) // Get would make the report count as one of the newest
	return report
}

// ReportOf returns the newest report on a push, or nil.
func (c *Checks) ReportOf(k Key) *pipeline.Report { return c.reports.get(k) }
