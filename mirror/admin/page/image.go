package page

import (
	"context"
	"net/http"
	"strings"

	"github.com/a-h/templ"

	"dray/mirror/admin/api"
)

type imageView struct {
	api.Explanation
	// Told is the text that the command "dray explain" prints.
	Told string
}

func (h *Handler) image(ctx context.Context, f frame, r *http.Request) (templ.Component, error) {
	name := r.URL.Query().Get("name")
	if h.s.Explain == nil {
		return nil, errNotHere
	}
	if name == "" {
		return nil, api.Errorf(api.CodeInvalid, "The address names no image: it needs the parameter name.")
	}
	e, err := h.s.Explain(ctx, name)
	if err != nil {
		return nil, err
	}
	v := imageView{Explanation: e}
	var told strings.Builder
	if err := h.s.Tell(&told, e); err != nil {
		return nil, err
	}
	v.Told = told.String()
	f.Title = e.Name
	return imagePage(f, v), nil
}

// freshness returns the kind of the state of a tag (a key of signs), and the state in words.
func freshness(s api.Freshness) (kind, text string) {
	switch s {
	case api.TagFresh, api.TagHosted:
		return "good", string(s)
	case api.TagUpdating, api.TagQueued:
		return "busy", string(s)
	case api.TagAbsent, api.TagLost:
		return "bad", string(s)
	case api.TagStale, api.TagExpired:
		return "warn", string(s)
	}
	return "off", string(s)
}

// serving returns the kind of the result of a pull (a key of signs), and the result in words.
func serving(s api.Serving) (kind, text string) {
	switch s {
	case api.ServeCache:
		return "good", "from the cache"
	case api.ServeUpdating:
		return "good", "from the cache, while the upstream is asked"
	case api.ServeOrigin:
		return "busy", "from the upstream"
	case api.ServeConfirm:
		return "busy", "from the cache, once the upstream has confirmed it"
	case api.ServeStale:
		return "warn", "old, because the upstream fails"
	case api.ServeAbsent:
		return "bad", "not found"
	case api.ServeRefused:
		return "bad", "an error: refused"
	case api.ServeDown:
		return "bad", "an error: the upstream fails"
	}
	return "off", string(s)
}

// partState returns remarks about the state of a part.
func partState(p api.ExplainedPart) []string {
	var s []string
	add := func(is bool, text string) {
		if is {
			s = append(s, text)
		}
	}
	if b := p.Blob; b != nil {
		add(b.Unverified, "to be verified")
		add(b.Pinned, "pinned")
		add(b.Open, "open")
	}
	add(p.Shared, "not confirmed for this repository")
	add(p.Absent != "", "not found at the upstream")
	add(p.Unavailable, "unavailable")
	add(p.Unknown && p.Absent == "", "its parts are unknown")
	return s
}

// heldParts counts the parts that at least one place has, and adds up their bytes. A part of
// unknown size adds no bytes.
func heldParts(all []api.ExplainedPart) (n int, bytes int64) {
	for _, p := range all {
		if len(p.Where) > 0 {
			n++
			bytes += max(p.Size, 0)
		}
	}
	return n, bytes
}
