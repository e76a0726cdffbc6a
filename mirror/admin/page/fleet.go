package page

import (
	"cmp"
	"context"
	"net/http"

	"github.com/a-h/templ"

	"dray/mirror/admin/api"
)

// stream is a stream of a blob from the member From to the member Reader.
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

// streamsOf returns the streams between members, as the members that read them report.
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

// received returns the share of each source in the bytes that a member has received.
func received(b api.FleetBytes) []share {
	return shares(map[string]int64{"origin": b.Upstreams, "bucket": b.Bucket, "member": b.SameZone + b.OtherZones})
}

// streamColumns are the columns of the table of streams. A # marks columns of numbers.
var streamColumns = []string{"Reader", "From", "Layer", "#Came", "#Hop"}
