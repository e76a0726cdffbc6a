package mirror

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"dray/mirror/identity"
	"dray/mirror/pipeline"
	"dray/upstream/oci"

	lru "github.com/hashicorp/golang-lru/v2"
)

// maxReports is how many reports are kept. One has some hundred KiB at most, and usually a few.
const maxReports = 512

// lateFor is how long a verdict that came too late for its client is good for the client's next try.
const lateFor = 10 * time.Minute

// reports keeps the newest verdicts, in memory.
type reports struct {
	byID   *lru.Cache[string, *pipeline.Report]
	answer *lru.Cache[pleaKey, *pipeline.Report]
}

func newReports() *reports {
	byID, _ := lru.New[string, *pipeline.Report](maxReports) // fails for sizes below 1 only
	answer, _ := lru.New[pleaKey, *pipeline.Report](maxReports)
	return &reports{byID, answer}
}

// keep gives the report an id that nobody can guess: whoever knows it may read the report.
func (r *reports) keep(report *pipeline.Report) {
	report.ID = rand.Text()
	r.byID.Add(report.ID, report)
}

func (r *reports) answered(key pleaKey, report *pipeline.Report) { r.answer.Add(key, report) }

func (r *reports) of(key pleaKey) *pipeline.Report {
	report, _ := r.answer.Get(key)
	return report
}

// late is the verdict that a client did not wait for, once.
func (r *reports) late(key pleaKey, within time.Duration) *pipeline.Report {
	report := r.of(key)
	if report == nil || report.Seconds < within.Seconds() || time.Since(report.At) > lateFor+within {
		return nil
	}
	r.answer.Remove(key)
	return report
}

// recent lists the reports that are kept, newest first.
func (r *reports) recent() []*pipeline.Report {
	out := r.byID.Values()
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// Reports lists the newest verdicts on pushes, newest first. They must not be changed.
func (m *Mirror) Reports() []*pipeline.Report { return m.reports.recent() }

// reportPath is where a listener shows reports. No repository can be there: it is not below /v2/.
const reportPath = "/dray/reports/"

// reportURL is the address of a report as the client of a request can reach it.
func (x *exchange) reportURL(id string) string {
	if id == "" {
		return ""
	}
	return x.base() + reportPath + id
}

// base is the address of the listener as the client of a request can reach it.
func (x *exchange) base() string {
	switch {
	case x.listener.ExternalURL != "":
		return x.listener.ExternalURL
	case x.r.TLS != nil:
		return "https://" + x.r.Host
	}
	return "http://" + x.r.Host
}

// kindReport labels requests for reports.
const kindReport oci.Kind = "report"

// sendReport shows a report to who knows its id.
func (m *Mirror) sendReport(x *exchange, id string) error {
	x.q.Kind = kindReport
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		return oci.ErrUnsupported.With("reports can only be read")
	}
	report, ok := m.reports.byID.Get(id)
	if !ok || x.listener.Policy.Role != identity.RoleRegistry {
		e := oci.ErrUnknown.With("there is no such report any more: push again to get a new one")
		e.Status = http.StatusNotFound
		return e
	}
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	h := x.w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(text)+1))
	if x.r.Method == http.MethodHead {
		return nil
	}
	_, err = x.w.Write(append(text, '\n'))
	return err
}
