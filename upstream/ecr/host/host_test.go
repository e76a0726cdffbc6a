package host

import (
	"slices"
	"testing"
)

func TestParse(t *testing.T) {
	const account = "123456789012"
	for name, want := range map[string]Name{
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com":                {Account: account, Region: "eu-west-1"},
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com:443":            {Account: account, Region: "eu-west-1"},
		"123456789012.DKR.ecr.us-gov-west-1.amazonaws.com":            {Account: account, Region: "us-gov-west-1"},
		"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com":           {Account: account, Region: "us-east-1", FIPS: true},
		"123456789012.dkr-ecr.eu-west-1.on.aws":                       {Account: account, Region: "eu-west-1", DualStack: true},
		"123456789012.dkr-ecr-fips.us-east-2.on.aws":                  {Account: account, Region: "us-east-2", DualStack: true, FIPS: true},
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":            {Account: account, Region: "cn-north-1"},
		"123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn": {Account: account, Region: "cn-north-1", DualStack: true},
		"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu":            {Account: account, Region: "eusc-de-east-1"},
		"123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov":           {Account: account, Region: "us-isob-east-1"},
		"123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov":               {Account: account, Region: "us-iso-east-1"},
		"123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk":          {Account: account, Region: "eu-isoe-west-1"},
		"123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov":         {Account: account, Region: "us-isof-south-1"},
		"public.ecr.aws":     {Region: "us-east-1", Public: true},
		"ecr-public.aws.com": {Region: "us-east-1", Public: true},
		"public.ecr.aws:443": {Region: "us-east-1", Public: true},
	} {
		if got, err := Parse(name); err != nil || got != want {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", name, got, err, want)
		}
	}
	for _, name := range []string{
		"", "docker.io", "12345678901.dkr.ecr.eu-west-1.amazonaws.com", "1234567890123.dkr.ecr.eu-west-1.amazonaws.com",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example", "evil.123456789012.dkr.ecr.eu-west-1.amazonaws.com",
		"123456789012.dkr.ecr..amazonaws.com", "123456789012.dkr.ecr.eu.west.amazonaws.com", "123456789012xdkr.ecr.eu-west-1.amazonaws.com",
		"x.public.ecr.aws", "123456789012.dkr.ecr.eu-west-1.amazonawsxcom", "123456789012.dkr.ecr.-west.amazonaws.com",
	} {
		if got, err := Parse(name); err == nil {
			t.Errorf("Parse(%q) = %+v, want an error", name, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("123456789012.dkr.ecr.eu-west-1.amazonaws.com:443")
	f.Add("public.ecr.aws")
	f.Fuzz(func(t *testing.T, name string) {
		h, err := Parse(name)
		if err == nil && (h.Region == "" || (h.Account == "") != h.Public) {
			t.Errorf("Parse(%q) = %+v", name, h)
		}
	})
}

// The name of a registry in each region is one that Parse takes.
func TestRegions(t *testing.T) {
	for _, region := range Regions() {
		if n, err := Parse("123456789012.dkr.ecr." + region + ".amazonaws.com"); err != nil || n.Region != region {
			t.Errorf("%s: %+v, %v", region, n, err)
		}
	}
	if !slices.Contains(Regions(), "eu-west-1") || slices.Contains(Regions(), "eu-wst-1") {
		t.Errorf("regions %q", Regions())
	}
}
