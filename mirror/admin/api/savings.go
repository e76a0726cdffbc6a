package api

import "time"

// Savings compares the cost of the transfers that dray avoided with the cost of dray, in US
// dollars. A GiB has 2^30 bytes.
type Savings struct {
	// From and To bound the time for which there are counts, and Days is the length of that time.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	Days float64   `json:"days"`
	// Region is the region whose prices apply. There is one exception: for an upstream whose Path is
	// "internet" or "region", the prices of the region of its registry apply.
	Region string `json:"region,omitempty"`
	// PricesOf is the month of the table of list prices.
	PricesOf  string            `json:"prices_of"`
	Upstreams []UpstreamSavings `json:"upstreams"`
	Costs     []SavingsCost     `json:"costs"`
	// AvoidedUSD is the sum over the upstreams, CostUSD the sum of the costs, and NetUSD is AvoidedUSD
	// less CostUSD. NetUSD is negative if dray costs more than it avoids.
	AvoidedUSD float64 `json:"avoided_usd"`
	CostUSD    float64 `json:"cost_usd"`
	NetUSD     float64 `json:"net_usd"`
	// Unknown has a line for each setting that is missing. The saving or cost that needs the setting
	// counts as 0.
	Unknown []string `json:"unknown"`
}

// UpstreamSavings are the savings at one upstream.
type UpstreamSavings struct {
	Upstream string `json:"upstream"`
	// Path is the network path between clients and the registry without dray; empty if it is not
	// configured.
	Path string `json:"path,omitempty"`
	// SentBytes counts the bytes that clients got, and FetchedBytes the bytes that the upstream sent.
	// AvoidedBytes is SentBytes less FetchedBytes. It is negative if dray fetched more than it sent.
	SentBytes    int64 `json:"sent_bytes"`
	FetchedBytes int64 `json:"fetched_bytes"`
	AvoidedBytes int64 `json:"avoided_bytes"`
	// PriceUSD is the price of a GiB on this network path; absent if it is unknown.
	PriceUSD   *float64 `json:"price_usd_per_gib,omitempty"`
	AvoidedUSD float64  `json:"avoided_usd"`
	// Samples counts the layers that the upstream sent in the last 30 days while a client waited.
	// BytesPerSecond is the rate of these transfers; 0 if there are fewer than 20 samples.
	Samples        int     `json:"samples"`
	BytesPerSecond float64 `json:"bytes_per_second,omitempty"`
	// SavedSeconds says how much longer the transfers of held layers would have taken at the rate
	// BytesPerSecond; absent if there is no rate.
	SavedSeconds *float64 `json:"saved_seconds,omitempty"`
}

// SavingsCost is one of the costs of running dray.
type SavingsCost struct {
	Name     string  `json:"name"`
	Quantity float64 `json:"quantity"`
	Unit     string  `json:"unit"`
	PriceUSD float64 `json:"price_usd"`
	USD      float64 `json:"usd"`
}
