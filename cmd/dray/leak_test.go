package main

import (
	"net/http"
	"testing"

	"go.uber.org/goleak"
)

// quiet closes what the tests' own client keeps open, before anybody looks for goroutines.
type quiet struct{ *testing.M }

func (q quiet) Run() int {
	code := q.M.Run()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	return code
}

// TestMain fails when a goroutine of a whole dray outlives it.
func TestMain(m *testing.M) { goleak.VerifyTestMain(quiet{m}) }
