package page

import (
	"context"
	"net/http"

	"github.com/a-h/templ"

	"dray/mirror/admin/api"
)

// pushesView has the queued pushes and the open uploads. A nil field is not shown.
type pushesView struct {
	Queue   *api.Queued
	Uploads *[]Upload
}

func (h *Handler) pushes(_ context.Context, f frame, _ *http.Request) (templ.Component, error) {
	var v pushesView
	if h.s.Queue != nil {
		v.Queue = new(h.s.Queue())
	}
	if h.s.Uploads != nil {
		v.Uploads = new(h.s.Uploads())
	}
	return pushesPage(f, v), nil
}

// queueKind returns the kind of the sign that the page shows for the state of a queued push.
func queueKind(state string) string {
	switch state {
	case "failed":
		return "bad"
	case "forwarding":
		return "busy"
	}
	return "off"
}

func queuedBytes(q api.Queued) (n int64) {
	for _, p := range q.Pushes {
		n += p.Bytes
	}
	return n
}
