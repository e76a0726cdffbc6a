package page

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/a-h/templ"

	"dray/mirror/admin/api"
)

// errNotHere is the error of a page whose source is nil.
var errNotHere = api.Errorf(api.CodeNotFound, "This dray has no such part.")

type overviewView struct {
	Ready     *api.Readiness
	Figures   []figure
	Live      *liveView
	Upstreams []Upstream
	Disk      *diskView
	Traffic   *chart
}

// figure is a number at the top of the overview. Path is the path of a page with details, if any.
type figure struct{ Name, Value, More, Path string }

func (h *Handler) overview(ctx context.Context, f frame, r *http.Request) (templ.Component, error) {
	var v overviewView
	if h.s.Images != nil {
		h.images.refresh(listingKept) // so that the list is ready when an operator opens it
	}
	if h.s.Ready != nil {
		v.Ready = new(h.s.Ready(ctx))
	}
	if h.s.Live != nil {
		v.Live = new(busiest(h.s.Live(), most))
	}
	if h.s.Upstreams != nil {
		v.Upstreams = h.s.Upstreams()
	}
	if h.s.Disk != nil {
		if d, err := h.s.Disk(ctx); err != nil {
			v.Figures = append(v.Figures, figure{"Cache on disk", "not known", err.Error(), ""})
		} else {
			v.Disk = diskOf(d, h.past(f.At, 7*24*time.Hour, 56))
		}
	}
	if h.s.History != nil {
		s := spanOf(r)
		v.Traffic = chartOf(h.past(f.At, s.length, s.points), s)
	}
	v.Figures = append(h.figures(f, v), v.Figures...)
	return overviewPage(f, v), nil
}

// past returns the history of the given length that ends at the parameter now.
func (h *Handler) past(now time.Time, length time.Duration, points int) api.History {
	if h.s.History == nil {
		return api.History{}
	}
	return h.s.History(now.Add(-length), now, points)
}

// figures returns the numbers at the top of the overview. If a number is not known, its figure
// shows the error, so that operators still get the rest of the page. For Disk, overview adds the
// figure with the error.
func (h *Handler) figures(f frame, v overviewView) (all []figure) {
	if h.s.Stats != nil {
		all = append(all, h.counted(f)...)
	}
	if v.Disk != nil {
		all = append(all, figure{"Cache on disk", v.Disk.Short, v.Disk.Of + count(v.Disk.Blobs, "blob", "blobs"), ""})
	}
	if h.s.Queue != nil {
		q := h.s.Queue()
		failed := 0
		for _, p := range q.Pushes {
			if p.State == "failed" {
				failed++
			}
		}
		more := "acknowledged, and not forwarded yet"
		if failed > 0 {
			more = count(failed, "push", "pushes") + " refused by a registry"
		}
		all = append(all, figure{"Queued pushes", thousands(int64(len(q.Pushes))), more, pushesPath})
	}
	if h.s.Savings != nil {
		if s, err := h.s.Savings(); err != nil {
			all = append(all, figure{"Net savings", "not known", err.Error(), savingsPath})
		} else {
			all = append(all, figure{"Net savings", dollars(s.NetUSD), fmt.Sprintf("in %.0f days", s.Days), savingsPath})
		}
	}
	return all
}

// counted returns the figures for what dray has counted since it started.
func (h *Handler) counted(f frame) []figure {
	s, err := h.s.Stats()
	if err != nil {
		return []figure{{"Sent to clients", "not known", err.Error(), ""}}
	}
	since := "since the start"
	if !s.Started.IsZero() {
		since = "in " + api.About(f.At.Sub(s.Started))
	}
	return []figure{
		{"Layers held", percent(s.HitRatio), "of those that clients asked for " + since, ""},
		{"Sent to clients", size(s.SentBytes), count(int(s.Requests), "request", "requests") + " " + since, ""},
		{"Fetched from upstreams", size(s.FetchedBytes), fmt.Sprintf("%s saved, %s", size(s.SavedBytes), percent(s.SavedRatio)), ""},
	}
}

func problems(r api.Readiness) (all []api.Result) {
	for _, c := range r.Checks {
		if c.Failed() {
			all = append(all, c)
		}
	}
	return all
}

// readyKind returns the kind of sign (good, warn or bad) for the result of the readiness checks.
func readyKind(s api.Status) string {
	switch s {
	case api.Ready:
		return "good"
	case api.Degraded:
		return "warn"
	}
	return "bad"
}

// upstreamState returns the kind of sign for the state of an upstream, and the state in words.
func upstreamState(s *api.ExplainedUpstream) (kind, text string) {
	switch {
	case s == nil:
		return "good", "stored here"
	case s.Down != "":
		return "bad", "down"
	case s.Failures > 0:
		return "warn", count(s.Failures, "failure", "failures") + " in a row"
	}
	for _, o := range s.Operations {
		if !o.Paused.IsZero() {
			return "warn", "paused"
		}
	}
	if s.Quota != nil && s.Quota.Reserved {
		return "warn", "quota low"
	}
	return "good", "up"
}

// limited reports whether an operation has a limit, has waiting requests, or is paused now.
func limited(o api.ExplainedOperation) bool {
	return o.PerSecond > 0 || o.Waiting > 0 || !o.Paused.IsZero()
}

func waiting(s *api.ExplainedUpstream) (n int) {
	for _, o := range s.Operations {
		n += o.Waiting
	}
	return n
}
