package main

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dray/cache/fleet"
	"dray/mirror/pipeline/scanner"
)

// quiet closes what the tests' own client keeps open, before anybody looks for goroutines.
type quiet struct{ *testing.M }

func (q quiet) Run() int {
	code := q.M.Run()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	return code
}

// asDray makes the test program a dray with these arguments, which tests can kill.
const asDray = "DRAY_TEST_AS_DRAY"

// asPatient makes such a dray wait this long for a member of its fleet to say that it is alive, and
// longer for connections and Redis. So it does not take a slow machine for one that has failed.
const asPatient = "DRAY_TEST_PATIENCE"

// metadataEndpoint leads the AWS SDK to a stand-in for the metadata of an instance.
const metadataEndpoint = "AWS_EC2_METADATA_SERVICE_ENDPOINT"

// nowhere is a URL at which nobody listens.
const nowhere = "http://127.0.0.1:1"

// leadNowhere keeps tests from services of AWS for which they have no stand-in, and lets them wait
// longer for that of the metadata of an instance. Processes of tests have the stand-ins that tests
// give them.
func leadNowhere() {
	if os.Getenv(asDray) == "" {
		for _, v := range os.Environ() {
			if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_ENDPOINT_URL") {
				os.Unsetenv(name)
			}
		}
	}
	if os.Getenv("AWS_ENDPOINT_URL") == "" {
		os.Setenv("AWS_ENDPOINT_URL", nowhere)
	}
	layerHost, pathPatience = nowhere, time.Minute
}

// TestMain fails when a goroutine of a whole dray outlives it.
func TestMain(m *testing.M) {
	if code, was := scanner.Supervise(os.Args); was {
		os.Exit(code)
	}
	leadNowhere()
	if os.Getenv(metadataEndpoint) == "" { // no test looks for the metadata of an instance but at a stand-in
		os.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	}
	if args := os.Getenv(asDray); args != "" {
		if text := os.Getenv(asPatient); text != "" {
			long, err := time.ParseDuration(text)
			if err != nil {
				panic(err)
			}
			fleetPatience = fleet.Patience{Dial: 2 * time.Minute, Begin: 2 * time.Minute, Store: 2 * time.Minute, Answer: long, Silence: long, Far: long}
			factsPatience = long
		}
		os.Exit(untilSignal(strings.Fields(args)))
	}
	goleak.VerifyTestMain(quiet{m})
}
