package main

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"dray/upstream/ecrtest"
)

// collected is an OpenTelemetry collector that keeps all spans.
type collected struct {
	url   string
	mu    sync.Mutex
	spans []*traces.Span
	auth  []string
}

func startCollector(t *testing.T) *collected {
	t.Helper()
	c := &collected{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			unpacked, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Error(err)
				return
			}
			body = unpacked
		}
		raw, err := io.ReadAll(body)
		var export collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(raw, &export)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.auth = append(c.auth, r.Header.Get("Authorization"))
		for _, resource := range export.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				c.spans = append(c.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

// named returns the spans of a name.
func (c *collected) named(name string) (all []*traces.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.Name == name {
			all = append(all, s)
		}
	}
	return all
}

// attribute returns the text of an attribute of a span.
func attributeOf(s *traces.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

// TestTraces: two clients pull a layer at a time. The requests to the registry are in the trace of
// the client that started the fetch, and the other has a link to it. The registry hears of no
// trace. The trace of a client goes on.
func TestTraces(t *testing.T) {
	c := startCollector(t)
	headers := write(t, "headers", "Authorization: Bearer collector\n")
	s := startStack(t, t.TempDir(), "cache: {", "traces: {endpoint: '"+c.url+"', headers_file: "+headers+"}\ncache: {")
	img := seed(t, s.hub, "library/alpine", "3", 100_000)
	id, parent := strings.Repeat("5a", 16), strings.Repeat("c3", 8)
	s.want(200, "GET", "/v2/hub/alpine/manifests/3", nil, "Traceparent", "00-"+id+"-"+parent+"-01")

	hold := s.hub.AddFault(ecrtest.Fault{Blob: img.layer, Count: -1, HoldAt: ecrtest.At(1000)})
	var group sync.WaitGroup
	pull := func(source string) {
		group.Go(func() {
			if r := s.do("GET", "/v2/hub/alpine/blobs/"+img.layer.String(), nil); r.StatusCode != 200 || r.Header.Get("X-Cache") != source {
				t.Errorf("%s from %s, want %s", r.Status, r.Header.Get("X-Cache"), source)
			}
		})
	}
	opened := s.metric("dray_cache_opens_total")
	for i, source := range []string{"origin", "flight"} {
		pull(source)
		until(t, "the "+source+" is open", func() bool { return s.metric("dray_cache_opens_total") > opened+float64(i) })
	}
	s.hub.RemoveFault(hold)
	group.Wait()
	for _, e := range s.hub.Log() {
		for name := range e.Request {
			if strings.EqualFold(name, "Traceparent") {
				t.Errorf("the registry heard of a trace: %v", e.Request)
			}
		}
	}
	s.stop()

	manifest := c.named("GET manifest")
	if i := slices.IndexFunc(manifest, func(s *traces.Span) bool { return s.Kind == traces.Span_SPAN_KIND_SERVER }); i < 0 || hex.EncodeToString(manifest[i].TraceId) != id || hex.EncodeToString(manifest[i].ParentSpanId) != parent {
		t.Errorf("the trace of the client does not go on: %v", manifest)
	}
	var first, second, fetch *traces.Span
	for _, span := range c.named("GET blob") {
		switch {
		case span.Kind == traces.Span_SPAN_KIND_CLIENT:
			fetch = span
		case attributeOf(span, "dray.source") == "origin":
			first = span
		case attributeOf(span, "dray.source") == "flight":
			second = span
		}
	}
	if first == nil || second == nil || fetch == nil {
		t.Fatalf("the spans of the layer are %v", c.named("GET blob"))
	}
	if !bytes.Equal(fetch.ParentSpanId, first.SpanId) || !bytes.Equal(fetch.TraceId, first.TraceId) {
		t.Errorf("the request to the registry belongs to %x, want %x", fetch.ParentSpanId, first.SpanId)
	}
	if len(second.Links) != 1 || !bytes.Equal(second.Links[0].SpanId, first.SpanId) {
		t.Errorf("the second client has the links %v, want one to %x", second.Links, first.SpanId)
	}
	for _, a := range c.auth {
		if a != "Bearer collector" {
			t.Errorf("the collector got the credentials %q", a)
		}
	}
}
