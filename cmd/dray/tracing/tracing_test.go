package tracing

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"dray/cmd/dray/config"
)

// refusing is a transport that reaches nobody, and counts who tries.
type refusing struct{ tried int }

func (r *refusing) RoundTrip(*http.Request) (*http.Response, error) {
	r.tried++
	return nil, errors.New("nobody may be asked")
}

// TestNothingWithoutEndpoint: without a collector in the configuration nothing is sent, whatever
// the environment of the process says.
func TestNothingWithoutEndpoint(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	nobody := &refusing{}
	tracer, run, err := New(Options{Config: config.Traces{Percent: 100}, Transport: nobody, Logger: slog.New(slog.DiscardHandler)})
	if tracer != nil || run != nil || err != nil || nobody.tried > 0 {
		t.Errorf("got %v, %t, %v; asked %d times", tracer, run != nil, err, nobody.tried)
	}
}

// TestCollectorFails: a collector that fails is logged once, and dray stops in spite of it.
func TestCollectorFails(t *testing.T) {
	var log strings.Builder
	nobody := &refusing{}
	tracer, run, err := New(Options{Config: config.Traces{Endpoint: "http://collector.example", Percent: 100}, Transport: nobody, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	_, span := tracer.Start(t.Context(), "request")
	span.End()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := run(ctx); err != nil {
		t.Fatal(err)
	}
	if nobody.tried != 1 || strings.Count(log.String(), "does not accept traces") != 1 {
		t.Errorf("asked %d times; the log is %q", nobody.tried, log.String())
	}
}
