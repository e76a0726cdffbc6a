package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/upstream/oci"
)

// RetryOptions configure a Retry.
type RetryOptions struct {
	// Name is the upstream in metrics and logs.
	Name string
	// Budget is the time after the first attempt in which a further one may begin. 0 means 20 s:
	// clients give up when they see no headers for 30 s, and most do not wait on 429 themselves.
	Budget time.Duration
	// Logger is told of failures that a repetition absorbed. Nil discards.
	Logger *slog.Logger
}

// Retry repeats reads while the registry throttles, fails or does not answer, until the first byte.
// It passes what the registry says about the content, refused credentials, and the refusal of a
// Breaker beneath it, at once. Callers who hold an older answer use the Source without it.
type Retry struct {
	around
	o       RetryOptions
	repeats prometheus.Counter
}

var _ Source = (*Retry)(nil)

// NewRetry wraps next.
func NewRetry(next Source, o RetryOptions) *Retry {
	o.Budget, o.Logger = cmp.Or(o.Budget, 20*time.Second), cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	r := &Retry{
		o: o,
		repeats: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dray_upstream_retries_total", ConstLabels: prometheus.Labels{"upstream": o.Name},
			Help: "Reads that dray sent again because the upstream throttled, failed or did not answer.",
		}),
	}
	r.around = around{next, r.retried}
	return r
}

// Collectors are the wrapper's metrics.
func (r *Retry) Collectors() []prometheus.Collector { return []prometheus.Collector{r.repeats} }

// retried asks until there is an answer that a repetition would not change, or the budget is spent.
func (r *Retry) retried(ctx context.Context, repo Repo, _ origin, ask func(Repo) error) error {
	end := time.Now().Add(r.o.Budget)
	var last error // what the registry itself said
	for n := 0; ; n++ {
		if n > 0 {
			repo.patience = time.Until(end)
		}
		err := ask(repo)
		if last != nil && errors.Is(err, ErrBusy) {
			return last
		}
		if !retriable(err) {
			return err
		}
		last = err
		repo.observe(err)
		d := pause(n, err)
		if time.Now().Add(d).After(end) || rest(ctx, d) != nil {
			return err
		}
		r.repeats.Inc()
		r.o.Logger.DebugContext(ctx, "read repeated", "upstream", r.o.Name, "attempt", n+1, "error", err)
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
