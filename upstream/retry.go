package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/upstream/oci"
)

// RetryOptions configure a Retry.
type RetryOptions struct {
	// Name is the upstream in metrics and logs.
	Name string
	// Budget is the time after the first attempt in which a further one may begin. 0 means 20 s: clients give up when
	// they see no headers for 30 s, and most do not wait on 429 themselves.
	Budget time.Duration
	// Logger is told of failures that a repetition absorbed. Nil discards.
	Logger *slog.Logger
}

// Retry repeats reads while the registry throttles, fails or does not answer, until the first byte. It passes what the
// registry says about the content, refused credentials, and the refusal of a Breaker beneath it, at once. Callers who
// hold an older answer use the Source without it.
type Retry struct {
	next    Source
	budget  time.Duration
	name    string
	log     *slog.Logger
	repeats prometheus.Counter
}

var _ Source = (*Retry)(nil)

// NewRetry wraps next.
func NewRetry(next Source, o RetryOptions) *Retry {
	return &Retry{
		next: next, budget: cmp.Or(o.Budget, 20*time.Second), name: o.Name,
		log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)),
		repeats: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dray_upstream_retries_total", ConstLabels: prometheus.Labels{"upstream": o.Name},
			Help: "Reads sent again because the upstream throttled, failed or did not answer.",
		}),
	}
}

// Collectors are the wrapper's metrics.
func (r *Retry) Collectors() []prometheus.Collector { return []prometheus.Collector{r.repeats} }

// Manifest implements Source.
func (r *Retry) Manifest(ctx context.Context, repo string, ref oci.Reference, accept []string) (*oci.Manifest, error) {
	return retried(ctx, r, func(ctx context.Context) (*oci.Manifest, error) { return r.next.Manifest(ctx, repo, ref, accept) })
}

// StatManifest implements Source.
func (r *Retry) StatManifest(ctx context.Context, repo string, ref oci.Reference, accept []string) (oci.Descriptor, error) {
	return retried(ctx, r, func(ctx context.Context) (oci.Descriptor, error) { return r.next.StatManifest(ctx, repo, ref, accept) })
}

// Blob implements Source.
func (r *Retry) Blob(ctx context.Context, q BlobRequest) (BlobStream, error) {
	return retried(ctx, r, func(ctx context.Context) (BlobStream, error) { return r.next.Blob(ctx, q) })
}

// StatBlob implements Source.
func (r *Retry) StatBlob(ctx context.Context, repo string, d digest.Digest) (int64, error) {
	return retried(ctx, r, func(ctx context.Context) (int64, error) { return r.next.StatBlob(ctx, repo, d) })
}

func retried[T any](ctx context.Context, r *Retry, f func(context.Context) (T, error)) (T, error) {
	end := time.Now().Add(r.budget)
	var last error // what the registry itself said
	for n := 0; ; n++ {
		try := ctx
		if n > 0 {
			try = waiting(ctx, time.Until(end))
		}
		v, err := f(try)
		if last != nil && errors.Is(err, ErrBusy) {
			return v, last
		}
		if !retriable(err) {
			return v, err
		}
		last = err
		Tell(ctx, err)
		d := pause(n, err)
		if time.Now().Add(d).After(end) || rest(ctx, d) != nil {
			return v, err
		}
		r.repeats.Inc()
		r.log.DebugContext(ctx, "read repeated", "upstream", r.name, "attempt", n+1, "error", err)
	}
}

func retriable(err error) bool {
	if !repeatable(err) {
		return false
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false
	}
	e, ok := errors.AsType[*oci.Error](err)
	return !ok || e.Status != http.StatusNotImplemented && e.Status != http.StatusHTTPVersionNotSupported
}
