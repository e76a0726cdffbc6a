package config

import "math"

// Savings has the cost of dray, and the prices that `dray stats --savings` uses. See
// [savings.md](savings.md).
type Savings struct {
	// The AWS region of dray and its clients, which selects the list prices. Default: the region of
	// the first upstream of kind `ecr`.
	Region string `yaml:"region,omitempty"`
	// The cost of this dray in a month, in US dollars: the machine, its disk, and the storage of the
	// bucket. Default: unknown, which counts as `0`.
	OwnCost float64 `yaml:"own_cost,omitempty"`
	// The share of the bytes to clients, in percent, that go to another zone than dray's. With clients
	// in three zones and dray in one of them, it is about `67`. Default: `0`.
	OtherZonePercent int `yaml:"other_zone_percent,omitempty"`
	// Prices in place of the list prices, such as those of your contract.
	Prices Prices `yaml:"prices,omitempty"`
}

// Prices replaces list prices, in US dollars. The default of each, except `endpoint`, is the list
// price in the region.
type Prices struct {
	// The price of a GiB through a NAT gateway.
	NAT float64 `yaml:"nat,omitempty"`
	// The price of a GiB through VPC endpoints. Default: `0`, as for the gateway endpoint of S3.
	Endpoint float64 `yaml:"endpoint,omitempty"`
	// The price of a GiB from the registry to the internet.
	Internet float64 `yaml:"internet,omitempty"`
	// The price of a GiB from the region of the registry to another region.
	Region float64 `yaml:"region,omitempty"`
	// The price of a GiB from one zone to another: the sum of what AWS bills in each of the two zones.
	Zone float64 `yaml:"zone,omitempty"`
	// The price of a million requests that read from the bucket.
	BucketReads float64 `yaml:"bucket_reads,omitempty"`
	// The price of a million requests that write to the bucket.
	BucketWrites float64 `yaml:"bucket_writes,omitempty"`
}

// UpstreamSavings says how clients would get content from the upstream without dray.
type UpstreamSavings struct {
	// The network route from the registry to clients: `nat` (through a NAT gateway), `endpoint`
	// (through VPC endpoints), `internet` (the registry is in AWS, and clients are not), or `region`
	// (the registry is in another region). Default: unknown, so the savings at this upstream count as
	// `0`.
	Path SavingsPath `yaml:"path,omitempty"`
	// The price of a GiB on this route, in US dollars, in place of the price in `savings.prices` and
	// the list price.
	Price float64 `yaml:"price,omitempty"`
}

func (s Savings) validate(k *Report) {
	price(k, "savings.own_cost", s.OwnCost)
	if n := s.OtherZonePercent; n < 0 || n > 100 {
		k.Add("savings.other_zone_percent", "%d is not between 0 and 100", n)
	}
	for _, p := range []struct {
		key   string
		value float64
	}{
		{"nat", s.Prices.NAT}, {"endpoint", s.Prices.Endpoint}, {"internet", s.Prices.Internet}, {"region", s.Prices.Region},
		{"zone", s.Prices.Zone}, {"bucket_reads", s.Prices.BucketReads}, {"bucket_writes", s.Prices.BucketWrites},
	} {
		price(k, "savings.prices."+p.key, p.value)
	}
}

func (s UpstreamSavings) validate(k *Report, path string, kind Kind) {
	price(k, path+".price", s.Price)
	if s != (UpstreamSavings{}) && kind == KindLocal {
		k.Add(path, "an upstream of kind local has no path that dray avoids")
	}
	if s.Price != 0 && s.Path == "" {
		k.Add(path+".path", "is missing; say which path has this price")
	}
}

// price adds a problem if a price is negative, infinite or not a number. YAML can write such
// values.
func price(k *Report, path string, p float64) {
	if !(p >= 0) || math.IsInf(p, 1) {
		k.Add(path, "%v is not an amount of US dollars", p)
	}
}
