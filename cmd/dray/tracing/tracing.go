// Package tracing sends the traces of requests to an OpenTelemetry collector.
package tracing

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"dray/cmd/dray/config"
	"dray/cmd/dray/watched"
)

// flushWithin bounds the time to send the waiting spans when dray stops.
const flushWithin = 5 * time.Second

// Options configure [New].
type Options struct {
	Config config.Traces
	// Version is the version of the program.
	Version string
	// Transport sends to the collector; nil means [http.DefaultTransport].
	Transport http.RoundTripper
	Logger    *slog.Logger
}

// New returns a tracer, which sends spans in the background, and the function run. Call run once:
// it waits until the given context ends, sends the spans that are still unsent, and returns. If the
// configuration has no collector, tracer and run are nil.
func New(o Options) (tracer trace.Tracer, run func(context.Context) error, err error) {
	if o.Config.Endpoint == "" {
		return nil, nil, nil
	}
	headers, err := watched.Value(watched.Watching(o.Logger), o.Config.HeadersFile, watched.ParseHeaders, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("traces.headers_file: %w", err)
	}
	if o.Transport == nil {
		o.Transport = http.DefaultTransport
	}
	ctx := context.Background()
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(o.Config.Endpoint+"/v1/traces"),
		otlptracehttp.WithHTTPClient(&http.Client{
			Transport: withHeaders{o.Transport, headers}, Timeout: 10 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the headers are for this collector alone
		}))
	if err != nil {
		return nil, nil, fmt.Errorf("traces: %w", err)
	}
	about, err := resource.New(ctx, resource.WithHost(), resource.WithAttributes(attribute.String("service.name", "dray"), attribute.String("service.version", o.Version)), resource.WithFromEnv())
	if err != nil {
		return nil, nil, fmt.Errorf("traces: what OTEL_RESOURCE_ATTRIBUTES has cannot be used: %w", err)
	}
	share := sdktrace.TraceIDRatioBased(float64(o.Config.Percent) / 100)
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(&reported{SpanExporter: exporter, endpoint: o.Config.Endpoint, log: o.Logger}), sdktrace.WithResource(about),
		sdktrace.WithSampler(sdktrace.ParentBased(share, sdktrace.WithRemoteParentSampled(ofOthers{share}), sdktrace.WithRemoteParentNotSampled(sdktrace.NeverSample()))))
	return provider.Tracer("dray"), func(ctx context.Context) error {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushWithin)
		defer cancel()
		_ = provider.Shutdown(ctx) // [reported.ExportSpans] logs failed exports
		return nil
	}, nil
}

// ofOthers samples requests that belong to the trace of a client. Samplers decide by the ID of the
// trace, which the client has chosen. ofOthers replaces it by a random ID for the decision, so that
// a client cannot make dray trace more requests than the operator wants.
type ofOthers struct{ sdktrace.Sampler }

// ShouldSample implements [sdktrace.Sampler].
func (s ofOthers) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	_, _ = rand.Read(p.TraceID[:]) // never fails
	return s.Sampler.ShouldSample(p)
}

// withHeaders adds headers to each request.
type withHeaders struct {
	http.RoundTripper
	headers func() http.Header
}

// RoundTrip implements http.RoundTripper.
func (w withHeaders) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	maps.Copy(r.Header, w.headers())
	return w.RoundTripper.RoundTrip(r)
}

// reported logs when the collector begins to refuse spans, and when it accepts spans again. dray
// drops the refused spans.
type reported struct {
	sdktrace.SpanExporter
	endpoint string
	log      *slog.Logger
	failing  atomic.Bool
}

// ExportSpans implements [sdktrace.SpanExporter].
func (r *reported) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := r.SpanExporter.ExportSpans(ctx, spans)
	switch was := r.failing.Swap(err != nil); {
	case err != nil && !was:
		r.log.Warn("the collector does not accept traces, so dray drops them; check traces.endpoint", "endpoint", r.endpoint, "error", err)
	case err == nil && was:
		r.log.Info("the collector accepts traces again", "endpoint", r.endpoint)
	}
	return nil
}
