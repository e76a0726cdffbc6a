package config

import (
	"strings"
	"testing"
)

// TestSavings: a price must be an amount, and an upstream with a price needs a path.
func TestSavings(t *testing.T) {
	for text, want := range map[string]string{
		"savings: {own_cost: -1}":                                   "savings.own_cost: -1 is not an amount of US dollars",
		"savings: {own_cost: .inf}":                                 "savings.own_cost: +Inf is not an amount",
		"savings: {own_cost: much}":                                 "savings.own_cost: must be a number",
		"savings: {prices: {bucket_reads: .nan}}":                   "savings.prices.bucket_reads: NaN is not an amount",
		"savings: {other_zone_percent: 101}":                        "savings.other_zone_percent: 101 is not between 0 and 100",
		"upstreams: [{url: quay.io, savings: {path: tunnel}}]":      `upstreams[0].savings.path: "tunnel" is not one of nat, endpoint, internet, region`,
		"upstreams: [{url: quay.io, savings: {price: 0.1}}]":        "upstreams[0].savings.path: is missing",
		"upstreams: [{name: x, kind: local, savings: {path: nat}}]": "upstreams[0].savings: an upstream of kind local",
	} {
		if _, err := Load(write(t, "dray.yaml", text), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
