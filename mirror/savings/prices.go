package savings

// Path is the route through the network by which clients would get content without the mirror.
type Path string

// The values of Path. An empty Path means that the route is not known.
const (
	// NAT leads through a NAT gateway, which bills each byte.
	NAT Path = "nat"
	// Endpoint leads through VPC endpoints. Layers of ECR then come through the gateway endpoint of
	// S3, which bills nothing.
	Endpoint Path = "endpoint"
	// Internet leads over the internet. AWS bills the owner of the registry, and only for bytes that
	// leave AWS.
	Internet Path = "internet"
	// Region leads from the registry's region of AWS to another region.
	Region Path = "region"
)

// PricesOf is the month in which the prices of the table were compiled.
const PricesOf = "2026-11"

// Prices are prices in US dollars. NAT, Endpoint, Internet and Region are the prices of a GiB on
// the path of that name. A GB in the price lists of AWS also has 2^30 bytes.
type Prices struct {
	NAT, Endpoint, Internet, Region float64
	// Zone is the price of a GiB between two zones of a region. AWS bills half of the price in each
	// zone.
	Zone float64
	// BucketReads is the price of a million GET or HEAD requests. BucketWrites is the price of a
	// million PUT or POST requests.
	BucketReads, BucketWrites float64
}

// listPrices has the prices that differ between regions. Sources:
// https://aws.amazon.com/vpc/pricing (NAT gateway, data processed),
// https://aws.amazon.com/ec2/pricing/on-demand (data transfer out to the internet, first 10 TB of a
// month, and to other regions), https://aws.amazon.com/s3/pricing (requests of S3 Standard).
var listPrices = map[string]Prices{
	"us-east-1":      {NAT: 0.045, Internet: 0.09, Region: 0.02, BucketReads: 0.40, BucketWrites: 5.00},
	"us-east-2":      {NAT: 0.045, Internet: 0.09, Region: 0.02, BucketReads: 0.40, BucketWrites: 5.00},
	"us-west-1":      {NAT: 0.048, Internet: 0.09, Region: 0.02, BucketReads: 0.44, BucketWrites: 5.50},
	"us-west-2":      {NAT: 0.045, Internet: 0.09, Region: 0.02, BucketReads: 0.40, BucketWrites: 5.00},
	"ca-central-1":   {NAT: 0.050, Internet: 0.09, Region: 0.02, BucketReads: 0.44, BucketWrites: 5.50},
	"eu-central-1":   {NAT: 0.052, Internet: 0.09, Region: 0.02, BucketReads: 0.43, BucketWrites: 5.40},
	"eu-north-1":     {NAT: 0.046, Internet: 0.09, Region: 0.02, BucketReads: 0.40, BucketWrites: 5.00},
	"eu-west-1":      {NAT: 0.048, Internet: 0.09, Region: 0.02, BucketReads: 0.40, BucketWrites: 5.00},
	"eu-west-2":      {NAT: 0.050, Internet: 0.09, Region: 0.02, BucketReads: 0.42, BucketWrites: 5.30},
	"eu-west-3":      {NAT: 0.050, Internet: 0.09, Region: 0.02, BucketReads: 0.42, BucketWrites: 5.30},
	"ap-northeast-1": {NAT: 0.062, Internet: 0.114, Region: 0.09, BucketReads: 0.37, BucketWrites: 4.70},
	"ap-northeast-2": {NAT: 0.059, Internet: 0.126, Region: 0.08, BucketReads: 0.35, BucketWrites: 4.50},
	"ap-south-1":     {NAT: 0.056, Internet: 0.1093, Region: 0.086, BucketReads: 0.40, BucketWrites: 5.00},
	"ap-southeast-1": {NAT: 0.059, Internet: 0.12, Region: 0.09, BucketReads: 0.40, BucketWrites: 5.00},
	"ap-southeast-2": {NAT: 0.059, Internet: 0.114, Region: 0.098, BucketReads: 0.44, BucketWrites: 5.50},
	"sa-east-1":      {NAT: 0.093, Internet: 0.15, Region: 0.138, BucketReads: 0.56, BucketWrites: 7.00},
}

// zonePrice is the price of a GiB from one zone of a region to another: 0.01 out of the first zone,
// and 0.01 into the second one (https://aws.amazon.com/ec2/pricing/on-demand, "Data Transfer within
// the same AWS Region").
const zonePrice = 0.02

// ListPrices returns the list prices of a region. If the table does not have the region, ok is
// false, and p has only the prices that are the same in all regions.
func ListPrices(region string) (p Prices, ok bool) {
	p, ok = listPrices[region]
	p.Zone = zonePrice
	return p, ok
}

// Or returns p, with prices from defaults in place of the prices that are 0 in p.
func (p Prices) Or(defaults Prices) Prices {
	for _, each := range []struct{ own, other *float64 }{
		{&p.NAT, &defaults.NAT}, {&p.Endpoint, &defaults.Endpoint}, {&p.Internet, &defaults.Internet}, {&p.Region, &defaults.Region},
		{&p.Zone, &defaults.Zone}, {&p.BucketReads, &defaults.BucketReads}, {&p.BucketWrites, &defaults.BucketWrites},
	} {
		if *each.own == 0 {
			*each.own = *each.other
		}
	}
	return p
}

// of returns the price of a GiB on a path.
func (p Prices) of(path Path) float64 {
	switch path {
	case NAT:
		return p.NAT
	case Endpoint:
		return p.Endpoint
	case Internet:
		return p.Internet
	case Region:
		return p.Region
	}
	return 0
}
