package stats

import (
	"context"
	"log/slog"
	"net/url"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"dray/cmd/dray/config"
	"dray/mirror/admin"
	"dray/mirror/admin/api"
	"dray/mirror/ledger"
	"dray/mirror/savings"
	"dray/upstream/ecr/host"
)

// Account calculates how much money and time dray has saved. It uses the counts of the metrics and
// the prices of the configuration. Its methods may be called concurrently.
type Account struct {
	metrics prometheus.Gatherer
	ledger  *ledger.Ledger
	terms   atomic.Pointer[savings.Terms]
}

// NewAccount returns an account that stores its counts in a directory.
func NewAccount(directory string, metrics prometheus.Gatherer, cfg config.Config, log *slog.Logger) *Account {
	a := &Account{metrics: metrics, ledger: ledger.Open(ledger.Options{Directory: directory, Gatherer: metrics, Logger: log})}
	a.Replace(cfg)
	return a
}

// Run adds the growth of the metrics to the stored counts at regular intervals, until ctx ends.
func (a *Account) Run(ctx context.Context) error { return a.ledger.Run(ctx) }

// Replace makes the account use another configuration.
func (a *Account) Replace(cfg config.Config) {
	t := savings.Terms{
		Region: regionOf(cfg), Prices: savings.Prices(cfg.Savings.Prices), OwnCost: cfg.Savings.OwnCost,
		OtherZones: float64(cfg.Savings.OtherZonePercent) / 100,
	}
	for i, u := range cfg.Upstreams {
		if u.Kind != config.KindLocal { // a local upstream saves nothing, because clients could get its content nowhere else
			t.Upstreams = append(t.Upstreams, savings.Upstream{Name: u.Name, Key: config.At("upstreams", i), Path: savings.Path(u.Savings.Path), Price: u.Savings.Price, Region: registryRegion(u)})
		}
	}
	a.terms.Store(&t)
}

// regionOf returns the region of dray and its clients: the configured region, or the region of the
// first upstream of kind ecr, or "".
func regionOf(cfg config.Config) string {
	if i := slices.IndexFunc(cfg.Upstreams, func(u config.Upstream) bool { return u.Kind == config.KindECR }); i >= 0 && cfg.Savings.Region == "" {
		return registryRegion(cfg.Upstreams[i])
	}
	return cfg.Savings.Region
}

// registryRegion returns the region of a private registry of Amazon ECR, or "" for any other
// registry.
func registryRegion(u config.Upstream) string {
	name, err := host.Parse(u.RegistryHost())
	if err != nil || name.Public {
		return ""
	}
	return name.Region
}

// RecentDays is the number of days that the metrics of the savings cover. A bill calculates the
// saved time from the rates at which upstreams have sent bytes in these days. MaxDays bounds the
// days of a bill.
const (
	RecentDays = 30
	MaxDays    = ledger.MaxDays
)

// Bill returns the savings in the given number of days, today included. If it also returns an
// error, some metrics could not be read, and their growth since the last count may be missing.
func (a *Account) Bill(days int) (api.Savings, error) {
	err := a.ledger.Count()
	return a.lastCount(days), err
}

func (a *Account) lastCount(days int) api.Savings {
	return savings.Of(a.ledger.Last(days), a.ledger.Last(RecentDays).Upstreams, *a.terms.Load())
}

// Endpoints returns the endpoints of the API for operators.
func (a *Account) Endpoints() []admin.Endpoint {
	return []admin.Endpoint{
		admin.Query("stats", func(context.Context, url.Values) (api.Stats, error) {
			return Gathered(a.metrics)
		}),
		admin.Query("savings", func(_ context.Context, params url.Values) (api.Savings, error) {
			days, err := admin.Number(params, "days", RecentDays)
			if err != nil {
				return api.Savings{}, err
			}
			return a.Bill(int(min(days, MaxDays)))
		}),
	}
}

// Collector returns the metrics of the savings, as they were at the last count.
func (a *Account) Collector() prometheus.Collector {
	return savings.Collector(func() api.Savings { return a.lastCount(RecentDays) })
}
