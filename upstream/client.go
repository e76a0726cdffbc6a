package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"dray/upstream/oci"
)

// Options configure a Client.
type Options struct {
	// Name names the upstream in messages and metrics. Empty means the host.
	Name string
	// Base is the address of the registry: the scheme (http or https), the host, and the path in front
	// of /v2/, if any. Required.
	Base *url.URL
	// Host is the registry's own name, if it differs from the host of Base. It is sent in the Host
	// header, from which ECR reads the account.
	Host string
	// Transport sends all requests, including requests to redirect targets. It adds credentials only
	// to requests to Base (auth.Transport). If the registry refuses the credentials, Transport returns
	// an error that matches ErrCredentials. Required.
	Transport http.RoundTripper
	Quirks    Quirks
	// Limiter paces the requests; nil sends them at once.
	Limiter *Limiter
	// UserAgent is sent with every request. Empty means "dray".
	UserAgent string
	// WriteAttempts bounds the attempts at one write: an upload, a manifest or a deletion. An attempt
	// does not count if the answer to it makes the Limiter pause. No attempt starts later than
	// WriteBudget after the start of the write. 0 means 5 attempts, and 5 minutes.
	WriteAttempts int
	WriteBudget   time.Duration
	// Logger receives each request, and the errors of writes that are tried again, at level debug. Nil
	// discards.
	Logger *slog.Logger
}

// Client talks to one registry. It is a Source, a Sink, a Lister and a Deleter, and safe for
// concurrent use.
type Client struct {
	o     Options
	heads heads
	// noReferrers is the time, in nanoseconds since 1970, until which the client does not ask for
	// referrers, because the registry has no such call.
	noReferrers atomic.Int64

	requests, received *prometheus.CounterVec
	latency            *prometheus.HistogramVec
}

var (
	_ Source = (*Client)(nil)
	_ Sink   = (*Client)(nil)
	_ Lister = (*Client)(nil)

	_ Deleter = (*Client)(nil)
)

// New returns a Client. It sends nothing.
func New(o Options) (*Client, error) {
	if o.Base == nil || o.Base.Host == "" || o.Base.Scheme != "http" && o.Base.Scheme != "https" {
		return nil, fmt.Errorf("upstream %s: base URL must be http or https with a host", o.Name)
	}
	if o.Transport == nil {
		return nil, fmt.Errorf("upstream %s: no transport", o.Name)
	}
	o.Name, o.Host = cmp.Or(o.Name, o.Host, o.Base.Host), cmp.Or(o.Host, o.Base.Host)
	o.UserAgent = cmp.Or(o.UserAgent, "dray")
	o.WriteAttempts, o.WriteBudget = cmp.Or(o.WriteAttempts, 5), cmp.Or(o.WriteBudget, 5*time.Minute)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	c := &Client{o: o}
	labels := prometheus.Labels{"upstream": c.o.Name}
	c.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dray_upstream_requests_total", ConstLabels: labels,
		Help: "Requests that dray sent to the upstream, including redirects, by kind, method and status (0 means no answer).",
	}, []string{"kind", "method", "status"})
	c.received = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dray_upstream_received_bytes_total", ConstLabels: labels,
		Help: "Bytes of the bodies of the upstream's answers, counted as they arrive, by kind of request. Answers of hosts to which the upstream redirects, such as its storage, are included. Answers with tokens are not included.",
	}, []string{"kind"})
	for _, kind := range []oci.Kind{oci.KindManifest, oci.KindBlob} {
		c.received.WithLabelValues(string(kind)) // starts the series at 0, before any bytes arrive
	}
	c.latency = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "dray_upstream_response_seconds", ConstLabels: labels,
		Help:    "Time from a request to the headers of its answer, including the time to send a body.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"kind", "method"})
	return c, nil
}

// Collectors returns the client's metrics.
func (c *Client) Collectors() []prometheus.Collector {
	return []prometheus.Collector{c.requests, c.received, c.latency}
}

// url returns the address of a request at this registry.
func (c *Client) url(q oci.Request) *url.URL {
	q.Prefix = strings.Trim(c.o.Base.Path, "/")
	u, err := c.o.Base.Parse(q.URL())
	if err != nil { // never, because the parts of q are checked; a request to the empty URL fails
		return &url.URL{}
	}
	return u
}

// request builds a request to the registry itself, and does not send it.
func (c *Client) request(ctx context.Context, q oci.Request, query url.Values) (*http.Request, error) {
	u := c.url(q)
	if query != nil {
		u.RawQuery = query.Encode()
	}
	return c.requestTo(ctx, q.Method, u)
}

func (c *Client) requestTo(ctx context.Context, method string, u *url.URL) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, c.corrupt("url: %w", err)
	}
	if c.own(u) {
		req.Host = c.o.Host
	}
	req.Header.Set("User-Agent", c.o.UserAgent)
	// Without this header any coding is allowed (RFC 9110 section 12.5.3), but a digest is computed
	// from the bytes without a coding.
	req.Header.Set("Accept-Encoding", "identity")
	return req, nil
}

// [Client.own] reports whether u is an address of the registry.
func (c *Client) own(u *url.URL) bool { return u.Scheme == c.o.Base.Scheme && u.Host == c.o.Base.Host }

// send makes one round trip about a repository, as soon as the Limiter allows the request. If the
// host is not the registry, send first asks the Breaker, if there is one (repo.onward), whether the
// host may be asked. A nil error means that there is an answer, of any status, which the caller
// closes.
func (c *Client) send(req *http.Request, repo Repo, kind oci.Kind) (*http.Response, error) {
	if c.own(req.URL) {
		return c.limited(req, repo, kind, "")
	}
	host := req.URL.Host
	if repo.onward != nil {
		if err := repo.onward(host); err != nil {
			return nil, err
		}
	}
	resp, err := c.limited(req, repo, kind, host)
	if err != nil {
		err = storageError{err, host, 0}
	}
	return resp, err
}

// [Client.limited] makes one round trip, as soon as the Limiter allows the request. An empty host
// means the registry.
func (c *Client) limited(req *http.Request, repo Repo, kind oci.Kind, host string) (*http.Response, error) {
	if c.o.Limiter == nil {
		return c.roundTrip(req, repo, kind)
	}
	p, err := c.o.Limiter.acquire(req.Context(), repo, host, classOf(kind, req.Method))
	if errors.Is(err, ErrBusy) {
		return nil, err
	}
	if err != nil {
		return nil, c.transportError(req.Context(), err)
	}
	resp, err := c.roundTrip(req, repo, kind)
	if err != nil {
		p.release()
		return nil, err
	}
	p.answered(resp.StatusCode, oci.RetryAfter(resp.Header))
	if host == "" {
		c.o.Limiter.quota.observe(resp.Header, time.Now())
	}
	if a, ok := resp.Body.(*answer); ok {
		a.permit = p
	}
	return resp, nil
}

func (c *Client) roundTrip(req *http.Request, repo Repo, kind oci.Kind) (*http.Response, error) {
	began := time.Now()
	span := startSpan(&c.o, req, repo, kind)
	resp, err := roundTrip(c.o.Transport, req, c.received.WithLabelValues(string(kind)))
	c.latency.WithLabelValues(string(kind), req.Method).Observe(time.Since(began).Seconds())
	status := 0
	if err == nil {
		status = resp.StatusCode
	}
	c.requests.WithLabelValues(string(kind), req.Method, strconv.Itoa(status)).Inc()
	follow(&c.o, span, req, repo, resp, began, err)
	if err != nil {
		return nil, c.transportError(req.Context(), err)
	}
	return resp, nil
}

// startSpan starts a span for a request, if the request belongs to a sampled trace. dray sends no
// headers of the trace to the registry.
func startSpan(o *Options, req *http.Request, repo Repo, kind oci.Kind) trace.Span {
	ctx := req.Context()
	if !trace.SpanFromContext(ctx).SpanContext().IsSampled() {
		return trace.SpanFromContext(context.Background())
	}
	_, span := trace.SpanFromContext(ctx).TracerProvider().Tracer("dray/upstream").Start(ctx, req.Method+" "+string(kind), trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("http.request.method", req.Method), attribute.String("server.address", req.URL.Host), attribute.String("url.path", req.URL.Path),
			attribute.Int("http.request.resend_count", repo.before), attribute.String("dray.upstream", o.Name)))
	return span
}

// follow records a request in repo.Asked. It ends the span of the request, and logs the request at
// level debug, when the body of the answer is closed, or at once if there is no answer. The span
// and the log leave out the query, which may have a signature.
func follow(o *Options, span trace.Span, req *http.Request, repo Repo, resp *http.Response, began time.Time, err error) {
	ctx := context.WithoutCancel(req.Context())
	recorded := repo.Asked.add(req, resp, began, err)
	if !o.Logger.Enabled(ctx, slog.LevelDebug) && !span.IsRecording() {
		if a, ok := bodyOf(resp); ok {
			a.ended = recorded
		}
		return
	}
	line := o.Logger.With("upstream", o.Name, "method", req.Method, "host", req.URL.Host, "path", req.URL.Path, "attempt", repo.before+1)
	if err != nil {
		line.DebugContext(ctx, "upstream request", "took", time.Since(began), "error", err)
		span.SetStatus(codes.Error, err.Error())
		span.End()
		return
	}
	first := time.Since(began)
	span.SetAttributes(attribute.Int("http.response.status_code", resp.StatusCode))
	ended := func(bytes int64) {
		if recorded != nil {
			recorded(bytes)
		}
		line.DebugContext(ctx, "upstream request", "status", resp.StatusCode, "bytes", bytes, "answered_in", first, "took", time.Since(began))
		span.SetAttributes(attribute.Int64("http.response.body.size", bytes))
		if resp.StatusCode >= 400 {
			span.SetStatus(codes.Error, resp.Status)
		}
		span.End()
	}
	if a, ok := bodyOf(resp); ok {
		a.ended = ended
	}
}

// bodyOf returns the body of resp, if its type is *answer. roundTrip makes such bodies.
func bodyOf(resp *http.Response) (*answer, bool) {
	if resp == nil {
		return nil, false
	}
	a, ok := resp.Body.(*answer)
	return a, ok
}

// maxHops bounds the redirects of one read.
const maxHops = 5

// read sends a GET or HEAD and follows redirects. A nil error means a 2xx answer, which the caller
// closes.
func (c *Client) read(req *http.Request, repo Repo, kind oci.Kind) (*http.Response, error) {
	for hop := 0; ; hop++ {
		resp, err := c.send(req, repo, kind)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode/100 == 2 {
			return resp, nil
		}
		if !redirect(resp) {
			err := c.readError(req, resp, kind)
			_ = resp.Body.Close()
			return nil, err
		}
		drain(resp)
		if hop == maxHops {
			return nil, c.corrupt("more than %d redirects", maxHops)
		}
		if req, err = c.follow(req, resp.Header.Get("Location")); err != nil {
			return nil, err
		}
	}
}

func (c *Client) readError(req *http.Request, resp *http.Response, kind oci.Kind) error {
	if c.own(req.URL) {
		return c.answerError(resp)
	}
	if q, err := oci.Parse(req); err == nil && q.Kind == kind { // the path is one of the registry API, so the host is another registry that answers for this one
		return storageError{c.answerError(resp), req.URL.Host, resp.StatusCode}
	}
	e := oci.ErrUnavailable.With("the storage of the upstream registry %s answered with status %d", c.o.Name, resp.StatusCode)
	e.RetryAfter = oci.RetryAfter(resp.Header)
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		e = oci.ErrRangeInvalid.With("the range is outside of the blob")
	}
	e = e.Because(fmt.Errorf("%w: %s: status %d", ErrStorage, req.URL.Host, resp.StatusCode))
	return storageError{e, req.URL.Host, resp.StatusCode}
}

func redirect(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return resp.Header.Get("Location") != ""
	}
	return false
}

// follow returns the request to the target of a redirect, with the Accept and Range
// headers of req. The transport adds credentials only for the registry, because S3 refuses a signed
// URL that comes with an Authorization header.
func (c *Client) follow(req *http.Request, location string) (*http.Request, error) {
	u, err := c.resolve(req.URL, location)
	if err != nil {
		return nil, err
	}
	next, err := c.requestTo(req.Context(), req.Method, u)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"Accept", "Range"} {
		if v := req.Header.Values(name); v != nil {
			next.Header[name] = v
		}
	}
	return next, nil
}

// resolve parses a Location. If its host is the registry's own name (Options.Host), resolve takes
// the scheme and host from Base. A registry may also send a Location with http, because a proxy in
// front of the registry terminates TLS (distribution#123). If Base has https, resolve changes such
// a Location to https, and refuses a Location with http for any other host. If a registry leaves
// out the path of Base in front of /v2/, resolve adds the path.
func (c *Client) resolve(from *url.URL, location string) (*url.URL, error) {
	u, err := from.Parse(location)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, c.corrupt("location is not a URL")
	}
	base := c.o.Base
	if u.Host != base.Host && sameHost(u, c.o.Host) {
		u.Scheme, u.Host = base.Scheme, base.Host
	}
	if u.Scheme == "http" && base.Scheme == "https" {
		if !sameHost(u, base.Host) && !sameHost(u, base.Hostname()) {
			e := oci.ErrUnknown.With("the upstream registry %s redirects from https to http, which this mirror does not follow", c.o.Name)
			return nil, unusable(e, fmt.Errorf("location http://%s leaves TLS", u.Host))
		}
		u.Scheme, u.Host = base.Scheme, base.Host
	}
	if prefix := strings.TrimRight(base.Path, "/"); c.own(u) && prefix != "" && strings.HasPrefix(u.Path, "/v2/") {
		u.Path = prefix + u.Path
		if u.RawPath != "" {
			u.RawPath = prefix + u.RawPath
		}
	}
	u.User, u.Fragment = nil, ""
	return u, nil
}

// sameHost reports whether the host of a URL has the given name. A name without a port also matches
// a URL with the port 80 or 443.
func sameHost(u *url.URL, name string) bool {
	if strings.EqualFold(u.Host, name) {
		return true
	}
	usual := u.Port() == "" || u.Port() == "443" || u.Port() == "80"
	return usual && strings.EqualFold(u.Hostname(), name)
}

// bodyError converts an error of reading a body to an error of this package.
func (c *Client) bodyError(ctx context.Context, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return c.transportError(ctx, err)
}
