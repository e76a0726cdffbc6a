package host

import (
	"fmt"
	"net"
	"regexp"
	"strings"
)

// Name is the parsed host name of a registry. The patterns of such names come from
// https://github.com/awslabs/amazon-ecr-credential-helper and from the page "Dual-stack" of the ECR
// user guide.
type Name struct {
	// Account is the twelve-digit registry id; empty for ECR Public.
	Account string
	// Region is the region of the registry and of its API; us-east-1 for ECR Public.
	Region string
	// FIPS and DualStack say which endpoint of private ECR the name belongs to; false for ECR Public.
	FIPS, DualStack bool
	// Public is set for ECR Public.
	Public bool
}

var privateHost = regexp.MustCompile(`^(\d{12})\.dkr[.-]ecr(-fips)?\.([a-z][a-z0-9-]*)\.(` +
	`amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|on\.aws|on\.amazonwebservices\.com\.cn|` +
	`sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)

// Regions returns the regions of AWS that were known in 2026-11 (partitions.json in
// github.com/aws/aws-sdk-go-v2).
func Regions() []string {
	return []string{
		"af-south-1", "ap-east-1", "ap-east-2", "ap-northeast-1", "ap-northeast-2",
		"ap-northeast-3", "ap-south-1", "ap-south-2", "ap-southeast-1", "ap-southeast-2",
		"ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-6", "ap-southeast-7",
		"ca-central-1", "ca-west-1", "cn-north-1", "cn-northwest-1", "eu-central-1",
		"eu-central-2", "eu-isoe-west-1", "eu-north-1", "eu-south-1", "eu-south-2", "eu-west-1",
		"eu-west-2", "eu-west-3", "eusc-de-east-1", "il-central-1", "me-central-1", "me-south-1",
		"mx-central-1", "sa-east-1", "us-east-1", "us-east-2", "us-gov-east-1", "us-gov-west-1",
		"us-iso-east-1", "us-iso-west-1", "us-isob-east-1", "us-isob-west-1", "us-isof-east-1",
		"us-isof-south-1", "us-west-1", "us-west-2",
	}
}

// Parse parses the name of an ECR registry, with or without a port. It fails for any other
// name.
func Parse(name string) (Name, error) {
	host := name
	if h, _, err := net.SplitHostPort(name); err == nil {
		host = h
	}
	host = strings.ToLower(host)
	switch host {
	case "public.ecr.aws", "ecr-public.aws.com":
		return Name{Region: "us-east-1", Public: true}, nil
	}
	m := privateHost.FindStringSubmatch(host)
	if m == nil {
		return Name{}, fmt.Errorf("host %q is not an Amazon ECR registry", name)
	}
	dual := strings.HasPrefix(m[4], "on.")
	return Name{Account: m[1], Region: m[3], FIPS: m[2] != "", DualStack: dual}, nil
}
