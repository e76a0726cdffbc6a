package page

import (
	"cmp"
	"context"
	"net/http"

	"github.com/a-h/templ"

	"dray/mirror/admin/api"
)

// stream is what one member reads from another.
type stream struct {
	Reader, From string
	api.FleetStream
}

func (h *Handler) fleet(ctx context.Context, f frame, _ *http.Request) (templ.Component, error) {
	if h.s.Fleet == nil {
		return nil, errNotHere
	}
	all, err := h.s.Fleet(ctx)
	if err != nil {
		return nil, err
	}
	return fleetPage(f, all, streamsOf(all)), nil
}

// streamsOf says who feeds whom.
func streamsOf(f api.Fleet) (all []stream) {
	address := map[string]string{}
	for _, m := range f.Members {
		address[m.ID] = m.Address
	}
	for _, m := range f.Members {
		if m.State == nil {
			continue
		}
		for _, s := range m.State.Reading {
			all = append(all, stream{m.Address, cmp.Or(address[s.From], s.From), s})
		}
	}
	return all
}

// received are the bytes that a member has received, by source.
func received(b api.FleetBytes) []share {
	return shares(map[string]int64{"origin": b.Upstreams, "bucket": b.Bucket, "member": b.SameZone + b.OtherZones})
}

// streamColumns are those of the table of streams. Those that begin with # are numbers.
var streamColumns = []string{"Reader", "From", "Layer", "#Came", "#Hop"}
