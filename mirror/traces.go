package mirror

import (
	"context"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"dray/mirror/notify"
	"dray/mirror/request"
)

// begin starts the span of a request, as a part of the client's trace if the request names one
// (https://www.w3.org/TR/trace-context/). Without a tracer, the span records nothing.
func (m *Mirror) begin(r *http.Request) (*http.Request, trace.Span) {
	if m.tracer == nil {
		return r, trace.SpanFromContext(context.Background())
	}
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := m.tracer.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer))
	return r.WithContext(ctx), span
}

// describe names the span of a finished request, and records in the span the main values of the
// request's log line. It leaves out the query and all headers except User-Agent, because these can
// have credentials. Attribute names that do not begin with "dray." come from OpenTelemetry
// (https://opentelemetry.io/docs/specs/semconv/http/http-spans/).
func describe(span trace.Span, listener string, x *request.Request, err error) {
	if !span.IsRecording() {
		return
	}
	span.SetName(x.R.Method + " " + string(x.Q.Kind))
	// The path of a report stays out of the span: a client that knows the path can read the report.
	if !strings.HasPrefix(x.R.URL.Path, notify.ReportPath) {
		span.SetAttributes(attribute.String("url.path", x.R.URL.Path))
	}
	span.SetAttributes(
		attribute.String("http.request.method", methodLabel(x.R.Method)),
		attribute.Int("http.response.status_code", x.W.Status()), attribute.Int64("http.response.body.size", x.W.Sent()),
		attribute.String("client.address", x.R.RemoteAddr), attribute.String("user_agent.original", x.R.UserAgent()),
		attribute.String("dray.listener", listener), attribute.String("dray.request_id", x.ID),
	)
	optional := func(key, value string) {
		if value != "" {
			span.SetAttributes(attribute.String(key, value))
		}
	}
	optional("enduser.id", x.Caller.Name)
	optional("dray.upstream", x.Target.Upstream)
	optional("dray.repository", x.Target.Repo)
	optional("dray.reference", x.Q.Ref.String())
	optional("dray.source", x.Source)
	if n := x.W.Received(); n > 0 {
		span.SetAttributes(attribute.Int64("http.request.body.size", n))
	}
	if err != nil {
		optional("dray.error", err.Error())
	}
	if x.W.Status() >= 500 || x.W.Broken() {
		span.SetStatus(codes.Error, "")
	}
}
