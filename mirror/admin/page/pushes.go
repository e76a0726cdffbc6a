package page

import (
	"context"
	"net/http"

	"github.com/a-h/templ"

	"dray/mirror/admin/api"
)

// pushesView is what is under way to registries.
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

// queueKind is the kind of the state of a queued push.
func queueKind(state string) string {
	switch state {
	case "failed":
		return "bad"
	case "forwarding":
		return "busy"
	}
	return "off"
}

// queuedBytes is the size of all queued pushes.
func queuedBytes(q api.Queued) (n int64) {
	for _, p := range q.Pushes {
		n += p.Bytes
	}
	return n
}
