// Package ceilings divides the ceilings of registries among the members of a fleet. A ceiling is
// the number of requests per second that a registry allows. Members also tell each other for how
// long a registry wants them to pause, and how many pulls its quota still allows.
//
// Each member has a floor, a rate at which it may always send without asking: 5 % of the ceiling,
// divided by the number of members. A member that needs more asks a store once a second for a share
// of the other 95 %. So all members together stay below the ceiling, apart from bursts: each
// limiter may send at once as many requests as its rate allows in half a second, and at least one.
package ceilings

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/cache/fleet"
	"dray/upstream"
)

const (
	// reserved is the part of a ceiling that members use without asking: the sum of their floors.
	reserved = 0.05
	// every is how often a member asks for shares while it needs them.
	every = time.Second
	// gather is the time for which a member waits for the rest of a burst of requests before it asks
	// for shares.
	gather = 20 * time.Millisecond
	// shareTTL is the least time for which the store keeps a share; see ttl. If the store does not
	// answer, a member notices this before its share expires.
	shareTTL = 3 * time.Second
	// patience is the time for which the store must fail before a member raises its rate to an equal
	// part of the ceiling. Until then, other members may still use the shares that they got.
	patience = 2*every + 500*time.Millisecond
)

// Fleet has the methods of a [fleet.Fleet] that this package calls.
type Fleet interface {
	Live() []fleet.Member
	Send(ctx context.Context, to fleet.Member, r *http.Request) (*http.Response, error)
}

// Options configure Ceilings.
type Options struct {
	// Self is the ID of this member.
	Self   string
	Fleet  Fleet
	Shares fleet.Shares
	// Patience bounds one question to the store of shares; 0 means 300 ms. A message that tells one
	// member of pauses may take as long as Patience, or one second if Patience is shorter.
	Patience time.Duration
	Logger   *slog.Logger
}

// Upstream is one registry with ceilings.
type Upstream struct {
	// Name is the upstream's name in the configuration. Identity is the identity of the registry,
	// which is the same at all members.
	Name, Identity string
	Limiter        *upstream.Limiter
}

// Ceilings sets the rates at which this member sends requests to registries. All methods may be
// called concurrently.
type Ceilings struct {
	o     Options
	m     *metrics
	short chan struct{} // has an entry if a request waits

	mu        sync.Mutex // guards the fields below; never held while waiting
	upstreams []Upstream
	pauses    map[paused]time.Time // pauses that the others are still to be told of, with their ends
	told      map[paused]time.Time // pauses that need no further message, with their ends
	tell      chan struct{}        // has an entry if pauses is not empty

	// The fields below belong to Run.
	heard   *fleet.Member // points into the list that learnQuotas last read, to recognise a new list
	parts   map[operation]*part
	asked   time.Time // when shares were last asked for
	failing time.Time // since when the store fails; zero while it answers
}

// operation names an operation of an upstream of this member.
type operation struct{ upstream, name string }

// part is this member's part of a ceiling, in requests per second.
type part struct {
	Upstream
	name   string
	demand upstream.Demand
	floor  float64 // the rate without a share
	equal  float64 // the rate while the store fails
	share  float64 // the share from the store, beyond the floor
	set    float64 // the rate that the limiter has
}

// New returns Ceilings without upstreams.
func New(o Options) *Ceilings {
	if o.Patience == 0 {
		o.Patience = 300 * time.Millisecond
	}
	return &Ceilings{
		o: o, m: newMetrics(), short: make(chan struct{}, 1), tell: make(chan struct{}, 1),
		pauses: map[paused]time.Time{}, told: map[paused]time.Time{}, parts: map[operation]*part{},
	}
}

// Use replaces the upstreams whose ceilings are shared. New limiters get the floor at once.
func (c *Ceilings) Use(all []Upstream) {
	c.mu.Lock()
	known := c.upstreams
	c.upstreams = all
	c.mu.Unlock()
	for _, u := range all {
		if !slices.ContainsFunc(known, func(k Upstream) bool { return k.Limiter == u.Limiter }) {
			for _, d := range u.Limiter.Demands() {
				u.Limiter.SetPart(d.Operation, c.floor(d.Ceiling, u.Identity))
			}
		}
		u.Limiter.Share(upstream.Sharing{
			Short:     func() { signal(c.short) },
			Throttled: func(name string, pause time.Duration) { c.throttled(paused{u.Identity, name}, pause) },
		})
	}
}

func signal(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

func (c *Ceilings) current() []Upstream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.upstreams
}

// floor returns the rate at which a limiter may send without a share.
func (c *Ceilings) floor(ceiling float64, identity string) float64 {
	return reserved * ceiling / c.sharers(identity)
}

// sharers returns how many limiters have a part of the ceilings of a registry. It assumes that each
// other member has as many limiters for the registry as this one.
func (c *Ceilings) sharers(identity string) float64 {
	same := 0
	for _, u := range c.current() {
		if u.Identity == identity {
			same++
		}
	}
	return float64(max(1, same) * len(c.o.Fleet.Live()))
}

// Run asks for shares while this member needs them, and tells other members of pauses, until ctx
// ends. Then it gives its shares back.
func (c *Ceilings) Run(ctx context.Context) error {
	var telling sync.WaitGroup
	defer telling.Wait()
	telling.Go(func() { c.tellOthers(ctx) })
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		c.learnQuotas()
		c.step(ctx)
		select {
		case <-tick.C:
		case <-c.due():
			select {
			case <-time.After(gather):
			case <-ctx.Done():
			}
			tick.Reset(every)
		case <-ctx.Done():
			c.giveBack(context.WithoutCancel(ctx))
			return nil
		}
	}
}

// due returns the channel c.short, which tells Run that a request waits. It returns nil if this
// member has asked for shares within the last second, because the request can then wait for the
// next tick.
func (c *Ceilings) due() <-chan struct{} {
	if time.Since(c.asked) < every {
		return nil
	}
	return c.short
}

// step asks the store for shares if this member needs or has any, or if the store failed the last
// time. Then step sets the rates of the limiters.
func (c *Ceilings) step(ctx context.Context) {
	c.look()
	var wants []fleet.Need
	var asking []*part
	for _, p := range c.parts {
		wanted := 0.0
		if p.demand.Waiting > 0 || float64(p.demand.Sent) > max(1, p.floor) { // one request needs no share
			wanted = max(0, min(2*float64(p.demand.Sent+p.demand.Waiting), p.demand.Ceiling)-p.floor)
		}
		if wanted > 0 || p.share > 0 || !c.failing.IsZero() {
			wants = append(wants, fleet.Need{Rate: p.Identity + ":" + p.name, By: p.Name, Total: (1 - reserved) * p.demand.Ceiling, PerSecond: wanted})
			asking = append(asking, p)
		}
	}
	if len(wants) > 0 {
		c.asked = time.Now()
		bounded, cancel := context.WithTimeout(ctx, c.o.Patience)
		shares, err := c.o.Shares.Share(bounded, c.o.Self, c.ttl(), wants)
		cancel()
		if ctx.Err() != nil {
			return
		}
		c.answered(asking, wants, shares, err)
	}
	for _, p := range c.parts {
		c.set(p)
	}
}

// ttl returns how long the store is to keep a share.
func (c *Ceilings) ttl() time.Duration { return max(shareTTL, 2*every+c.o.Patience) }

// look brings parts up to date with the upstreams, their demand and the number of members.
func (c *Ceilings) look() {
	seen := map[operation]bool{}
	for _, u := range c.current() {
		for _, d := range u.Limiter.Demands() {
			at := operation{u.Name, d.Operation}
			p := c.parts[at]
			if p == nil || p.Limiter != u.Limiter {
				p = &part{Upstream: u, name: d.Operation}
				c.parts[at] = p
			}
			seen[at], p.demand = true, d
			p.floor, p.equal = c.floor(d.Ceiling, u.Identity), d.Ceiling/c.sharers(u.Identity)
		}
	}
	for at := range c.parts {
		if !seen[at] {
			delete(c.parts, at) // its share expires by itself
			c.m.rates.DeleteLabelValues(at.upstream, at.name)
		}
	}
}

// answered records the shares that the store has returned, or its failure.
func (c *Ceilings) answered(asking []*part, wants []fleet.Need, shares []float64, err error) {
	if err != nil {
		c.m.asked.WithLabelValues("failed").Inc()
		if c.failing.IsZero() {
			c.failing = time.Now()
			c.o.Logger.Warn("the ceilings of registries cannot be shared out, so each member of the fleet uses an equal part", "error", err)
		}
		return
	}
	c.m.asked.WithLabelValues("ok").Inc()
	if !c.failing.IsZero() {
		c.failing = time.Time{}
		c.o.Logger.Info("the ceilings of registries can be shared out again")
	}
	for i, p := range asking {
		p.share = min(shares[i], wants[i].Total)
	}
}

// set sets the rate of a limiter. While the store fails, set brings the rate to an equal part of
// the ceiling. It lowers a higher rate at once. It raises a lower rate only when the store has
// failed for the time in the constant patience: by then, the other members have lowered their
// rates.
func (c *Ceilings) set(p *part) {
	rate := p.floor + p.share
	if !c.failing.IsZero() {
		if time.Since(c.failing) >= patience {
			p.share = max(0, p.equal-p.floor)
		} else {
			p.share = min(p.share, max(0, p.equal-p.floor))
		}
		rate = p.floor + p.share
	}
	if rate != p.set {
		p.set = rate
		p.Limiter.SetPart(p.name, rate)
		c.m.rates.WithLabelValues(p.Name, p.name).Set(rate)
	}
}

// giveBack gives all shares back. If the store fails, they expire by themselves.
func (c *Ceilings) giveBack(ctx context.Context) {
	var wants []fleet.Need
	for _, p := range c.parts {
		if p.share > 0 {
			wants = append(wants, fleet.Need{Rate: p.Identity + ":" + p.name, By: p.Name, Total: p.demand.Ceiling})
		}
	}
	if len(wants) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.Patience)
	defer cancel()
	if _, err := c.o.Shares.Share(ctx, c.o.Self, c.ttl(), wants); err != nil {
		c.o.Logger.Debug("ceilings: cannot give shares back", "error", err)
	}
}

// learnQuotas gives the limiters the quotas that registries have stated to other members. It does
// so once for each new list of members.
func (c *Ceilings) learnQuotas() {
	live := c.o.Fleet.Live()
	if &live[0] == c.heard {
		return
	}
	c.heard = &live[0]
	now := time.Now()
	for _, m := range live {
		if m.ID == c.o.Self {
			continue
		}
		for _, theirs := range m.Upstreams.All() {
			q := theirs.Quota
			if q == nil || q.Age < 0 {
				continue
			}
			for _, u := range c.current() {
				if u.Identity == theirs.Identity {
					u.Limiter.LearnQuota(upstream.QuotaState{
						Limit: q.Limit, Remaining: q.Remaining, Window: seconds(q.Window), Source: q.Source, ObservedAt: now.Add(-seconds(q.Age)),
					})
				}
			}
		}
	}
}

func seconds(n int64) time.Duration { return time.Duration(min(n, 1<<31)) * time.Second }

// Quota returns the quota that the registry of an upstream has stated to this member, or nil if it
// has stated none. The other members read it.
func (c *Ceilings) Quota(name string) *fleet.Quota {
	for _, u := range c.current() {
		if u.Name != name {
			continue
		}
		if q, ok := u.Limiter.OwnQuota(); ok {
			return &fleet.Quota{
				Limit: q.Limit, Remaining: q.Remaining, Window: int64(q.Window.Seconds()), Source: q.Source, Age: int64(time.Since(q.ObservedAt).Seconds()),
			}
		}
	}
	return nil
}

type metrics struct {
	rates *prometheus.GaugeVec
	asked *prometheus.CounterVec
	heard *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		rates: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "dray_fleet_share_per_second", Help: "This member's share of the requests per second that a registry allows to all members together, by upstream and operation.",
		}, []string{"upstream", "operation"}),
		asked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dray_fleet_share_questions_total", Help: "Requests to the store for parts of rate limits that the fleet shares, by outcome: ok or failed. After a failure, a member uses an equal part of each limit.",
		}, []string{"outcome"}),
		heard: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dray_fleet_pauses_total", Help: "Pauses because a registry answered 429, or 503 with Retry-After, by the member that got this answer: own (this member), member (another member).",
		}, []string{"from"}),
	}
	for _, outcome := range []string{"ok", "failed"} { // so that alerts see the first event as an increase
		m.asked.WithLabelValues(outcome)
	}
	for _, from := range []string{"own", "member"} {
		m.heard.WithLabelValues(from)
	}
	return m
}

// Collectors returns the metrics of shared ceilings.
func (c *Ceilings) Collectors() []prometheus.Collector {
	return []prometheus.Collector{c.m.rates, c.m.asked, c.m.heard}
}
