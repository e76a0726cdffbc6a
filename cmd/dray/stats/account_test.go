package stats

import (
	"testing"

	"dray/cmd/dray/config"
)

// TestRegion: the region is that of the first registry of ECR, unless the configuration has one.
func TestRegion(t *testing.T) {
	hub := config.Upstream{URL: "https://registry-1.docker.io", Kind: config.KindOCI}
	north := config.Upstream{URL: "https://123456789012.dkr.ecr.eu-north-1.amazonaws.com", Kind: config.KindECR}
	south := config.Upstream{URL: "https://123456789012.dkr.ecr.ap-south-1.amazonaws.com", Kind: config.KindECR}
	public := config.Upstream{URL: "https://public.ecr.aws", Kind: config.KindECRPublic}
	for _, tc := range []struct {
		set  string
		all  []config.Upstream
		want string
	}{
		{"", []config.Upstream{hub, north, south}, "eu-north-1"},
		{"us-east-1", []config.Upstream{north}, "us-east-1"},
		{"", []config.Upstream{hub, public}, ""},
	} {
		if got := regionOf(config.Config{Savings: config.Savings{Region: tc.set}, Upstreams: tc.all}); got != tc.want {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
	if got := registryRegion(public) + registryRegion(hub) + registryRegion(south); got != "ap-south-1" {
		t.Errorf("regions of registries: %q", got)
	}
}
