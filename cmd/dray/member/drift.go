package member

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/cache/fleet"
)

// drift records the upstreams whose registry or rights differ between this member and other
// members.
type drift struct {
	log   *slog.Logger
	where atomic.Pointer[map[string][]string] // the members whose upstream differs, by the name of the upstream
	gauge *prometheus.GaugeVec
}

func newDrift(log *slog.Logger) *drift {
	d := &drift{log: log, gauge: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "dray_fleet_drift", Help: "Other members in which the upstream of this name is another registry, or has other settings that decide what pushes do. While it is above 0, this member refuses pushes to the upstream.",
	}, []string{"upstream"})}
	d.where.Store(&map[string][]string{})
	return d
}

// compare compares the upstreams of this member, whose ID is selfID, with the upstreams of all
// other members. It logs each change of the result.
func (d *drift) compare(selfID string, live []fleet.Member) {
	before, now := *d.where.Load(), map[string][]string{}
	for _, differs := range fleet.DriftOf(selfID, live) {
		for _, m := range differs.Members {
			now[differs.Upstream] = append(now[differs.Upstream], fmt.Sprintf("%s (%s)", m.Address, m.ID))
		}
	}
	d.where.Store(&now)
	d.gauge.Reset()
	for _, m := range live {
		if m.ID != selfID {
			continue
		}
		for _, u := range m.Upstreams.All() {
			d.gauge.WithLabelValues(u.Name).Set(float64(len(now[u.Name])))
			switch members := now[u.Name]; {
			case slices.Equal(members, before[u.Name]):
			case len(members) == 0:
				d.log.Info("all members of the fleet have the same upstream of this name again, so pushes to it are accepted", "upstream", u.Name)
			default:
				d.log.Warn("members of the fleet have another upstream of the same name: the kind, the url, the repository_prefix or the user differ. They share nothing about it, and refuse pushes to it; give all members the same configuration",
					"upstream", u.Name, "members", strings.Join(members, ", "))
			}
		}
	}
}

// Differs returns, as text for people, the members whose upstream of this name has another registry
// or other rights than the upstream of m. m may be nil.
func (m *Member) Differs(upstream string) []string {
	if m == nil {
		return nil
	}
	return (*m.drift.where.Load())[upstream]
}

// compareEvery is the interval at which a member looks for drift. A shorter interval would hardly
// find drift sooner, because members publish and read upstreams only every fleet.RenewEvery.
const compareEvery = time.Second

// watch looks for drift until ctx ends.
func (m *Member) watch(ctx context.Context) {
	tick := time.NewTicker(compareEvery)
	defer tick.Stop()
	for {
		m.drift.compare(m.id, m.Live())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
