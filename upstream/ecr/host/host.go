package host

import (
	"fmt"
	"net"
	"regexp"
	"strings"
)

// Name is the parsed host name of a registry. The patterns of such names are those of
// https://github.com/awslabs/amazon-ecr-credential-helper and of the page "Dual-stack" of the ECR
// user guide.
type Name struct {
	// Account is the twelve-digit registry id; empty for ECR Public.
	Account string
	// Region is the region of the registry and of its API; us-east-1 for ECR Public.
	Region string
	// FIPS and DualStack say which endpoint the name belongs to.
	FIPS, DualStack bool
	// Public is set for ECR Public.
	Public bool
}

var privateHost = regexp.MustCompile(`^(\d{12})\.dkr[.-]ecr(-fips)?\.([a-z][a-z0-9-]*)\.(` +
	`amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|on\.aws|on\.amazonwebservices\.com\.cn|` +
	`sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)

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
