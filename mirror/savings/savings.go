package savings

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"dray/mirror/admin/api"
)

// Usage has the counts of one period.
type Usage struct {
	// From and To bound the period.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// Upstreams has the traffic by the name of the upstream.
	Upstreams map[string]Traffic `json:"upstreams"`
	// OtherZoneBytes are the bytes that members of the fleet in other zones sent to this member.
	OtherZoneBytes float64 `json:"other_zone_bytes,omitempty"`
	// BucketReads and BucketWrites are requests to the bucket.
	BucketReads  float64 `json:"bucket_reads,omitempty"`
	BucketWrites float64 `json:"bucket_writes,omitempty"`
}

// Traffic has the counts of bytes and layers between clients and an upstream.
type Traffic struct {
	// Sent counts the bytes that clients got. Fetched counts the bytes that the upstream sent.
	Sent    float64 `json:"sent"`
	Fetched float64 `json:"fetched"`
	// Held counts layers that came from memory or disk. Origin counts layers that the upstream sent
	// while a client waited.
	Held   Answers `json:"held"`
	Origin Answers `json:"origin"`
}

// Answers counts answers to clients, with the time that the transfers took.
type Answers struct {
	Number  float64 `json:"number"`
	Bytes   float64 `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

// Add returns the sum of t and other.
func (t Traffic) Add(other Traffic) Traffic {
	t.Sent, t.Fetched = t.Sent+other.Sent, t.Fetched+other.Fetched
	t.Held, t.Origin = t.Held.add(other.Held), t.Origin.add(other.Origin)
	return t
}

func (a Answers) add(b Answers) Answers {
	return Answers{a.Number + b.Number, a.Bytes + b.Bytes, a.Seconds + b.Seconds}
}

// Terms are the operator's settings about costs.
type Terms struct {
	// Region is the region of the mirror and its clients.
	Region string
	// Prices has the operator's prices. Each price that is not 0 replaces the list price.
	Prices Prices
	// OwnCost is the cost of the mirror in a month, in US dollars; 0 means that it is unknown.
	OwnCost float64
	// OtherZones says which share of the bytes to clients, from 0 to 1, goes to another zone.
	OtherZones float64
	Upstreams  []Upstream
}

// Upstream has the operator's settings about an upstream.
type Upstream struct {
	Name string
	// Key is the path of the upstream in the configuration, such as upstreams[0].
	Key  string
	Path Path
	// Price is the price of a GiB, in US dollars; 0 means the price that belongs to Path.
	Price float64
	// Region is the region of the registry; empty if it is not in AWS.
	Region string
}

const (
	gib = 1 << 30
	// LeastSamples is the least number of layers from which the transfer rate of an upstream is
	// calculated.
	LeastSamples = 20
	daysOfMonth  = 365.25 / 12
	million      = 1e6
)

// Of returns the savings in the period of u. It calculates the transfer rates of upstreams from
// history, which usually has the traffic of a longer period.
func Of(u Usage, history map[string]Traffic, t Terms) api.Savings {
	s := api.Savings{From: u.From, To: u.To, Days: u.To.Sub(u.From).Hours() / 24, Region: t.Region, PricesOf: PricesOf, Upstreams: []api.UpstreamSavings{}, Unknown: []string{}}
	list, known := ListPrices(t.Region)
	var sent float64
	for _, up := range t.Upstreams {
		traffic := u.Upstreams[up.Name]
		line, unknown := up.savings(traffic, t)
		line.time(traffic, history[up.Name])
		sent += traffic.Sent
		s.Upstreams = append(s.Upstreams, line.UpstreamSavings)
		s.AvoidedUSD += line.AvoidedUSD
		if unknown != "" && (traffic.Sent != 0 || traffic.Fetched != 0) {
			s.Unknown = append(s.Unknown, unknown)
		}
	}
	s.Costs, s.Unknown = append(s.Costs, t.own(s.Days)), append(s.Unknown, t.unknown(u, known)...)
	prices := t.Prices.Or(list)
	for _, c := range []struct {
		name, unit string
		n, price   float64
		configured bool // the cost is shown even if n is 0
	}{
		{"bytes to clients in other zones", "GiB", sent * t.OtherZones / gib, prices.Zone, t.OtherZones > 0},
		{"bytes from members in other zones", "GiB", u.OtherZoneBytes / gib, prices.Zone, false},
		{"reads of the bucket", "million requests", u.BucketReads / million, prices.BucketReads, false},
		{"writes to the bucket", "million requests", u.BucketWrites / million, prices.BucketWrites, false},
	} {
		if c.n != 0 || c.configured {
			s.Costs = append(s.Costs, api.SavingsCost{Name: c.name, Quantity: c.n, Unit: c.unit, PriceUSD: c.price, USD: c.n * c.price})
		}
	}
	for _, c := range s.Costs {
		s.CostUSD += c.USD
	}
	s.NetUSD = s.AvoidedUSD - s.CostUSD
	return s
}

func (t Terms) own(days float64) api.SavingsCost {
	months := days / daysOfMonth
	return api.SavingsCost{Name: "this dray", Quantity: months, Unit: "months", PriceUSD: t.OwnCost, USD: months * t.OwnCost}
}

// unknown returns one text for each key that the operator has to set to make the costs complete.
// The keys are in the section `savings` of the configuration.
func (t Terms) unknown(u Usage, known bool) (all []string) {
	if t.OwnCost == 0 {
		all = append(all, "savings.own_cost: what this dray costs in a month is not set, and counts as 0")
	}
	for _, c := range []struct {
		key   string
		n     float64
		price float64
	}{{"bucket_reads", u.BucketReads, t.Prices.BucketReads}, {"bucket_writes", u.BucketWrites, t.Prices.BucketWrites}} {
		if !known && c.n > 0 && c.price == 0 {
			all = append(all, fmt.Sprintf("savings.prices.%s: there is no price of requests to a bucket in %s, and they count as 0; set it, or savings.region", c.key, regionText(t.Region)))
		}
	}
	return all
}

type line struct{ api.UpstreamSavings }

// savings returns the savings at an upstream, without the saved time. If the price of the
// upstream's bytes is not known, reason says why.
func (up Upstream) savings(traffic Traffic, t Terms) (l line, reason string) {
	l.Upstream, l.Path = up.Name, string(up.Path)
	l.SentBytes, l.FetchedBytes = int64(traffic.Sent), int64(traffic.Fetched)
	l.AvoidedBytes = l.SentBytes - l.FetchedBytes
	price, reason := up.price(t)
	if reason == "" {
		l.PriceUSD = &price
		l.AvoidedUSD = (traffic.Sent - traffic.Fetched) / gib * price
	}
	return l, reason
}

// price returns the price of a GiB that comes from the upstream itself, or the reason why the price
// is not known.
func (up Upstream) price(t Terms) (price float64, reason string) {
	if up.Path == "" {
		return 0, up.Key + ".savings.path: it is not set, so what was not fetched from " + up.Name + " counts as 0; set it to nat, endpoint, internet or region"
	}
	if up.Price > 0 {
		return up.Price, ""
	}
	region := t.Region
	if up.Path == Internet || up.Path == Region { // AWS bills the price of the region that the bytes leave
		region = up.Region
	}
	if up.Path == Internet && region == "" {
		return t.Prices.Internet, "" // the registry is not in AWS, and AWS bills nobody for bytes that come in
	}
	list, known := ListPrices(region)
	if price = t.Prices.Or(list).of(up.Path); price == 0 && !known && up.Path != Endpoint {
		return 0, fmt.Sprintf("%s.savings.price: there is no price of the path %s in %s, so what was not fetched from %s counts as 0; set it, or savings.prices.%[2]s",
			up.Key, up.Path, regionText(region), up.Name)
	}
	return price, ""
}

func regionText(region string) string { return cmp.Or(region, "an unknown region") }

// time sets SavedSeconds: how much longer the layers from memory or disk would have taken at the
// upstream's rate. The rate is that of the layers in recent.Origin. If these are fewer than
// LeastSamples, SavedSeconds stays nil.
func (l *line) time(traffic, recent Traffic) {
	l.Samples = int(recent.Origin.Number)
	if l.Samples < LeastSamples || recent.Origin.Bytes == 0 || recent.Origin.Seconds == 0 {
		return
	}
	l.BytesPerSecond = recent.Origin.Bytes / recent.Origin.Seconds
	saved := traffic.Held.Bytes/l.BytesPerSecond - traffic.Held.Seconds
	l.SavedSeconds = &saved
}

// Sum returns the sum of several periods, from the earliest From to the latest To.
func Sum(all ...Usage) Usage {
	sum := Usage{Upstreams: map[string]Traffic{}}
	for _, u := range all {
		if sum.From.IsZero() || u.From.Before(sum.From) {
			sum.From = u.From
		}
		if u.To.After(sum.To) {
			sum.To = u.To
		}
		for _, name := range slices.Sorted(maps.Keys(u.Upstreams)) {
			sum.Upstreams[name] = sum.Upstreams[name].Add(u.Upstreams[name])
		}
		sum.OtherZoneBytes += u.OtherZoneBytes
		sum.BucketReads += u.BucketReads
		sum.BucketWrites += u.BucketWrites
	}
	return sum
}
