package host

import (
	"fmt"
	"net"
	"regexp"
	"strings"
)

// Name is what the name of a registry says. The patterns are those that
// https://github.com/awslabs/amazon-ecr-credential-helper recognises and the "Dual-stack" page of
// the ECR user guide.
type Name struct {
	// Account is the twelve-digit registry id; empty for ECR Public.
	Account string
	// Region is the region of the registry and of its API; us-east-1 for ECR Public.
	Region string
	// FIPS and DualStack say which endpoints the name stands for.
	FIPS, DualStack bool
	// Public is ECR Public.
	Public bool
}

var privateHost = regexp.MustCompile(`^(\d{12})\.dkr[.-]ecr(-fips)?\.([a-z][a-z0-9-]*)\.(` +
	`amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|on\.aws|on\.amazonwebservices\.com\.cn|` +
	`sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)

// Parse reads the name of an ECR registry, with or without a port. Any other name is an error.
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
		return Name{}, fmt.Errorf("host %q is not a registry of Amazon ECR", name)
	}
	dual := strings.HasPrefix(m[4], "on.")
	return Name{Account: m[1], Region: m[3], FIPS: m[2] != "", DualStack: dual}, nil
}
