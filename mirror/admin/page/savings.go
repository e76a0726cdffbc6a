package page

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/a-h/templ"

	"dray/mirror/admin/api"
)

func (h *Handler) savings(_ context.Context, f frame, _ *http.Request) (templ.Component, error) {
	if h.s.Savings == nil {
		return nil, errNotHere
	}
	s, err := h.s.Savings()
	if err != nil {
		return nil, err
	}
	return savingsPage(f, s), nil
}

// dollars formats an amount in US dollars.
func dollars(usd float64) string {
	if usd < 0 {
		return fmt.Sprintf("−$%.2f", -usd)
	}
	return fmt.Sprintf("$%.2f", usd)
}

// price formats the price of a unit with as many digits as it needs.
func price(usd float64) string { return "$" + strconv.FormatFloat(usd, 'f', -1, 64) }

// timeSaved returns, as text, how much time clients saved, or why the time is not known.
func timeSaved(up api.UpstreamSavings) string {
	if up.SavedSeconds == nil {
		return fmt.Sprintf("unknown, %d of 20 samples", up.Samples)
	}
	return api.About(time.Duration(*up.SavedSeconds * float64(time.Second)))
}

// The columns of the tables of savings. A # marks columns of numbers.
var (
	savedColumns = []string{"Upstream", "#Sent", "#Fetched", "#Avoided", "Path", "#Price of a GiB", "#Saved", "#Time saved"}
	costColumns  = []string{"Cost", "#Quantity", "#Price", "#Sum"}
)

func savedRow(u api.UpstreamSavings) []string {
	perGiB := "unknown"
	if u.PriceUSD != nil {
		perGiB = price(*u.PriceUSD)
	}
	return []string{u.Upstream, size(u.SentBytes), size(u.FetchedBytes), size(u.AvoidedBytes), cmp.Or(u.Path, "unknown"), perGiB, dollars(u.AvoidedUSD), timeSaved(u)}
}
