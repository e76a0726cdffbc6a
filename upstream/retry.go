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
	// Name names the upstream in metrics and logs.
	Name string
	// Budget bounds the time from the start of the first attempt to the start of the last attempt. 0
	// means 20 s, because clients give up after 30 s without headers.
	Budget time.Duration
	// Logger receives the errors of reads that are tried again. Nil discards.
	Logger *slog.Logger
}

// Retry repeats reads while the registry throttles, fails or does not answer. It does not repeat a
// read once the body of the answer has begun. It does not repeat a read if another attempt would
// not change the result: after an answer that says something about the content (such as "not found"
// or "denied"), a corrupt answer, refused credentials, a certificate that cannot be verified,
// ErrBusy, or a refusal of a Breaker that the Retry wraps. A caller that has an older answer to
// fall back on uses the Source without a Retry, because it can do without the new answer.
type Retry struct {
	wrappedSource
	o       RetryOptions
	repeats prometheus.Counter
}

var _ Source = (*Retry)(nil)

// NewRetry returns a Retry that reads from src.
func NewRetry(src Source, o RetryOptions) *Retry {
	o.Budget, o.Logger = cmp.Or(o.Budget, 20*time.Second), cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	r := &Retry{
		o: o,
		repeats: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dray_upstream_retries_total", ConstLabels: prometheus.Labels{"upstream": o.Name},
			Help: "Reads that dray sent again because the upstream throttled, failed or did not answer.",
		}),
	}
	r.wrappedSource = wrappedSource{src, r.retried}
	return r
}

// Collectors returns the metrics of the Retry.
func (r *Retry) Collectors() []prometheus.Collector { return []prometheus.Collector{r.repeats} }

// [Retry.retried] calls query until a repetition would not change the result, or until the budget
// is spent.
func (r *Retry) retried(ctx context.Context, repo Repo, query question) error {
	end := time.Now().Add(r.o.Budget)
	var last error // error of the previous attempt
	for n := 0; ; n++ {
		if n > 0 {
			repo.maxWait, repo.before = time.Until(end), n
		}
		err := query(ctx, repo)
		if last != nil && errors.Is(err, ErrBusy) {
			return last
		}
		if !retriable(err) {
			return err
		}
		last = err
		repo.observe(err)
		d := pause(n, err)
		if time.Now().Add(d).After(end) || sleep(ctx, d) != nil {
			return err
		}
		r.repeats.Inc()
		r.o.Logger.DebugContext(ctx, "retried read", "upstream", r.o.Name, "attempt", n+1, "error", err)
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
