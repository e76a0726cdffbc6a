package page

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/a-h/templ"

	"dray/mirror/admin/api"
)

// signs are the characters that pages show before a state, by the kind of the state.
var signs = map[string]string{"good": "✓", "warn": "!", "bad": "✕", "busy": "▸", "off": "–"}

// liveView has the pulls and pushes that a page shows.
type liveView struct {
	api.Live
	// AllPulls and AllPushes count all pulls and pushes, shown or not.
	AllPulls, AllPushes int
	Down, Up            int64 // bytes per second
	// From is the address of a page with the same pulls and pushes. The script of the page gets their
	// newest state from there.
	From string
}

// busiest returns the busiest pulls and pushes, at most limit of each kind. If limit is 0, it
// returns all.
func busiest(l api.Live, limit int) liveView {
	v := liveView{Live: l, AllPulls: len(l.Pulls), AllPushes: len(l.Pushes), From: livePath}
	for _, p := range l.Pulls {
		v.Down += p.Rate
	}
	for _, p := range l.Pushes {
		v.Up += p.Rate
	}
	v.Pulls, v.Pushes = slices.Clone(l.Pulls), slices.Clone(l.Pushes)
	slices.SortFunc(v.Pulls, func(a, b api.LivePull) int { return busier(a.LiveEntry, b.LiveEntry) })
	slices.SortFunc(v.Pushes, func(a, b api.LivePush) int { return busier(a.LiveEntry, b.LiveEntry) })
	if limit > 0 {
		v.Pulls, v.Pushes = v.Pulls[:min(len(v.Pulls), limit)], v.Pushes[:min(len(v.Pushes), limit)]
		v.From = address(livePath, "most", strconv.Itoa(limit))
	}
	return v
}

// busier orders entries: active ones first, then by rate, then by the last request. Otherwise, the
// ID decides, so that no two entries are equal.
func busier(a, b api.LiveEntry) int {
	active := func(e api.LiveEntry) int {
		if e.State == api.LiveActive {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(active(a), active(b)), cmp.Compare(b.Rate, a.Rate), b.Last.Compare(a.Last), cmp.Compare(a.ID, b.ID))
}

// [most] bounds the pulls, and also the pushes, that the overview shows.
const most = 8

// live serves all pulls and pushes under way. In the query, "most" bounds the number of each.
func (h *Handler) live(_ context.Context, f frame, r *http.Request) (templ.Component, error) {
	if h.s.Live == nil {
		return nil, errNotHere
	}
	n, _ := strconv.Atoi(r.URL.Query().Get("most"))
	return livePage(f, busiest(h.s.Live(), n)), nil
}

// layers returns, as text, how many of an image's layers a client has asked for.
func layers(l api.LiveLayers) string {
	if l.Of == 0 {
		return strconv.Itoa(l.Asked) + " of ?"
	}
	return strconv.Itoa(l.Asked) + " of " + strconv.Itoa(l.Of)
}

func rate(n int64) string {
	if n == 0 {
		return "–"
	}
	return size(n) + "/s"
}

// checkKind returns the kind of sign for the state of a push's checks.
func checkKind(c api.LiveChecks) string {
	switch c {
	case api.LiveChecksPass:
		return "good"
	case api.LiveChecksReject:
		return "bad"
	case api.LiveChecksUnknown:
		return "warn"
	}
	return "busy"
}
