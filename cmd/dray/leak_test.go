package main

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

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

// TestMain fails when a goroutine of a whole dray outlives it.
func TestMain(m *testing.M) {
	if code, was := scanner.Supervise(os.Args); was {
		os.Exit(code)
	}
	if args := os.Getenv(asDray); args != "" {
		os.Exit(untilSignal(strings.Fields(args)))
	}
	goleak.VerifyTestMain(quiet{m})
}
