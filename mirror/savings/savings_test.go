package savings

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/admin/api"
)

var begin = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// month is a twelfth of a year.
const month = time.Duration(daysOfMonth * 24 * float64(time.Hour))

// gb is traffic in GiB.
func gb(sent, fetched float64) Traffic { return Traffic{Sent: sent * gib, Fetched: fetched * gib} }

// TestBills: bills that were computed by hand.
func TestBills(t *testing.T) {
	for _, tc := range []struct {
		name string
		usage
		terms            Terms
		avoided          []float64 // by upstream
		costs            []string
		saved, cost, net float64
		unknown          []string
	}{
		{
			// 9,728 GiB of ECR and 1,000 GiB of Docker Hub did not pass the NAT gateway, at 0.045. Half of
			// the 11,264 GiB that clients got went to another zone, at 0.02.
			name:  "behind a NAT gateway",
			usage: usage{length: month, traffic: map[string]Traffic{"ecr": gb(10240, 512), "hub": gb(1024, 24)}},
			terms: Terms{Region: "us-east-1", OwnCost: 150, OtherZones: 0.5, Upstreams: []Upstream{
				{Name: "ecr", Path: NAT, Region: "us-east-1"}, {Name: "hub", Path: NAT},
			}},
			avoided: []float64{437.76, 45},
			costs:   []string{"this dray 1.000 months 150.00", "bytes to clients in other zones 5632.000 GiB 112.64"},
			saved:   482.76, cost: 262.64, net: 220.12,
		},
		{
			// 750 GiB would have left AWS at 0.09, and 200 GiB the region of Sydney at 0.098. Nobody pays
			// AWS for what comes in from Docker Hub. Half a month of 60.
			name: "an office, another region, a fleet and a bucket",
			usage: usage{length: month / 2, traffic: map[string]Traffic{"ecr": gb(800, 50), "sydney": gb(300, 100), "hub": gb(500, 10)},
				zone: 40 * gib, reads: 2.5e6, writes: 0.5e6},
			terms: Terms{Region: "eu-central-1", OwnCost: 60, Upstreams: []Upstream{
				{Name: "ecr", Path: Internet, Region: "eu-central-1"}, {Name: "sydney", Path: Region, Region: "ap-southeast-2"}, {Name: "hub", Path: Internet},
			}},
			avoided: []float64{67.50, 19.60, 0},
			costs: []string{
				"this dray 0.500 months 30.00", "bytes from members in other zones 40.000 GiB 0.80",
				"reads of the bucket 2.500 million requests 1.075", "writes to the bucket 0.500 million requests 2.70",
			},
			saved: 87.10, cost: 34.575, net: 52.525,
		},
		{
			// The gateway endpoint of S3 costs nothing, so nothing is saved there. Of Docker Hub 20 GiB were
			// fetched that nobody got, at 0.052.
			name:  "nothing to save",
			usage: usage{length: month, traffic: map[string]Traffic{"ecr": gb(5000, 300), "hub": gb(10, 30)}},
			terms: Terms{Region: "eu-central-1", OwnCost: 90, Upstreams: []Upstream{
				{Name: "ecr", Path: Endpoint, Region: "eu-central-1"}, {Name: "hub", Path: NAT},
			}},
			avoided: []float64{0, -1.04},
			costs:   []string{"this dray 1.000 months 90.00"},
			saved:   -1.04, cost: 90, net: -91.04,
		},
		{
			name:  "prices of a contract",
			usage: usage{length: month, traffic: map[string]Traffic{"ecr": gb(110, 10), "own": gb(60, 10), "far": gb(20, 10)}, reads: 1e6},
			terms: Terms{Region: "mx-central-1", OwnCost: 1, Prices: Prices{NAT: 0.03, BucketReads: 0.5}, Upstreams: []Upstream{
				{Name: "ecr", Path: NAT}, {Name: "own", Path: Internet, Price: 0.1}, {Name: "far", Path: Region, Price: 0.2},
			}},
			avoided: []float64{3, 5, 2},
			costs:   []string{"this dray 1.000 months 1.00", "reads of the bucket 1.000 million requests 0.50"},
			saved:   10, cost: 1.5, net: 8.5,
		},
		{
			name:  "much is unknown",
			usage: usage{length: month, traffic: map[string]Traffic{"a": gb(100, 1), "b": gb(100, 1), "c": gb(100, 1)}, writes: 10},
			terms: Terms{Region: "mx-central-1", Upstreams: []Upstream{
				{Name: "a", Key: "upstreams[0]"}, {Name: "b", Key: "upstreams[1]", Path: NAT}, {Name: "c", Key: "upstreams[2]", Path: Region}, {Name: "idle", Key: "upstreams[3]"},
			}},
			avoided: []float64{0, 0, 0, 0},
			costs:   []string{"this dray 1.000 months 0.00", "writes to the bucket 0.000 million requests 0.00"},
			unknown: []string{
				"upstreams[0].savings.path: it is not set", "upstreams[1].savings.price: there is no price of the path nat in mx-central-1",
				"upstreams[2].savings.price: there is no price of the path region in an unknown region", "savings.own_cost", "savings.prices.bucket_writes",
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := Of(tc.usage.value(), nil, tc.terms)
			for i, want := range tc.avoided {
				near(t, "saved at "+s.Upstreams[i].Upstream, s.Upstreams[i].AvoidedUSD, want)
			}
			near(t, "saved", s.AvoidedUSD, tc.saved)
			near(t, "costs", s.CostUSD, tc.cost)
			near(t, "net", s.NetUSD, tc.net)
			var costs []string
			for _, c := range s.Costs {
				costs = append(costs, fmt.Sprintf("%s %.3f %s %.3f", c.Name, c.Quantity, c.Unit, c.USD))
			}
			for i, want := range tc.costs {
				if i >= len(costs) || strings.TrimRight(costs[i], "0") != strings.TrimRight(want, "0") {
					t.Errorf("costs %q, want %q", costs, tc.costs)
					break
				}
			}
			if len(costs) != len(tc.costs) {
				t.Errorf("costs %q, want %q", costs, tc.costs)
			}
			if len(s.Unknown) != len(tc.unknown) {
				t.Fatalf("unknown: %q, want %q", s.Unknown, tc.unknown)
			}
			for i, want := range tc.unknown {
				if !strings.HasPrefix(s.Unknown[i], want) {
					t.Errorf("unknown: %q, want %q", s.Unknown[i], want)
				}
			}
		})
	}
}

// usage is a Usage that begins at begin.
type usage struct {
	length              time.Duration
	traffic             map[string]Traffic
	zone, reads, writes float64
}

func (u usage) value() Usage {
	return Usage{From: begin, To: begin.Add(u.length), Upstreams: u.traffic, OtherZoneBytes: u.zone, BucketReads: u.reads, BucketWrites: u.writes}
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-6 {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestTimeSaved: the rate is that of the longer period, and too few samples show none.
func TestTimeSaved(t *testing.T) {
	u := Usage{From: begin, To: begin.Add(time.Hour), Upstreams: map[string]Traffic{"hub": {Held: Answers{10, 6000e6, 20}, Origin: Answers{1, 1, 1}}}}
	for samples, want := range map[float64]string{
		19: "19 samples", 20: "20 samples, 50000000 bytes a second, 100 s saved",
	} {
		recent := map[string]Traffic{"hub": {Origin: Answers{samples, 2000e6, 40}}}
		up := Of(u, recent, Terms{Upstreams: []Upstream{{Name: "hub"}}}).Upstreams[0]
		got := fmt.Sprintf("%d samples", up.Samples)
		if up.SavedSeconds != nil {
			got += fmt.Sprintf(", %.0f bytes a second, %.0f s saved", up.BytesPerSecond, *up.SavedSeconds)
		}
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	// A disk that is slower than the upstream saves no time.
	slow := map[string]Traffic{"hub": {Held: Answers{30, 100e6, 50}, Origin: Answers{30, 100e6, 10}}}
	if up := Of(Usage{Upstreams: slow}, slow, Terms{Upstreams: []Upstream{{Name: "hub"}}}).Upstreams[0]; up.SavedSeconds == nil || math.Abs(*up.SavedSeconds+40) > 1e-6 {
		t.Errorf("%+v", up)
	}
}

// TestSum: a sum has all that its parts have.
func TestSum(t *testing.T) {
	a := Usage{From: begin, To: begin.Add(time.Hour), Upstreams: map[string]Traffic{"a": gb(1, 2)}, BucketReads: 1}
	b := Usage{From: begin.Add(-time.Hour), To: begin, Upstreams: map[string]Traffic{"a": gb(3, 4), "b": gb(5, 6)}, BucketReads: 2, BucketWrites: 3, OtherZoneBytes: 4}
	s := Sum(a, b)
	if s.To.Sub(s.From) != 2*time.Hour || s.Upstreams["a"] != gb(4, 6) || s.Upstreams["b"] != gb(5, 6) || s.BucketReads != 3 || s.BucketWrites != 3 || s.OtherZoneBytes != 4 {
		t.Errorf("%+v", s)
	}
	if a.Upstreams["a"] != gb(1, 2) {
		t.Errorf("a part has become %+v", a)
	}
}

// TestCollector: the metrics say what the bill says, and have no time that is not known.
func TestCollector(t *testing.T) {
	seconds := 12.5
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(Collector(func() api.Savings {
		return api.Savings{NetUSD: -3, Upstreams: []api.UpstreamSavings{{Upstream: "a", AvoidedUSD: 1, SavedSeconds: &seconds}, {Upstream: "b"}}, Costs: []api.SavingsCost{{Name: "this dray", USD: 4}}}
	}))
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue()
		}
	}
	want := map[string]float64{
		"dray_savings_avoided_dollars a": 1, "dray_savings_avoided_dollars b": 0, "dray_savings_cost_dollars this dray": 4,
		"dray_savings_net_dollars": -3, "dray_savings_transfer_seconds a": 12.5,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestPrices: each region of the table has each price, and what an operator sets goes before it.
func TestPrices(t *testing.T) {
	for region := range listPrices {
		p, ok := ListPrices(region)
		if !ok || p.NAT <= 0.04 || p.NAT >= 0.1 || p.Internet < 0.09 || p.Region < 0.02 || p.Region >= p.Internet || p.BucketReads >= p.BucketWrites || p.BucketReads == 0 || p.Zone != 0.02 {
			t.Errorf("%s: %+v", region, p)
		}
	}
	list, _ := ListPrices("us-east-1")
	if got := (Prices{Zone: 0.01}).Or(list); got.Zone != 0.01 || got.NAT != 0.045 {
		t.Errorf("%+v", got)
	}
}
