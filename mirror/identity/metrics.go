package identity

import (
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"dray/upstream/oci"
)

const (
	noCredentials = "no credentials"
	refused       = "refused"
	notAllowed    = "not allowed"
	notChecked    = "not checked"
)

// Failures counts requests whose callers were refused, for each entry of `auth` in the
// configuration and for each reason.
type Failures struct{ counted *prometheus.CounterVec }

// NewFailures returns a Failures without entries.
func NewFailures() *Failures {
	return &Failures{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dray_auth_failures_total",
		Help: "Requests that an auth entry refused, by reason: no credentials (as in the first request of most clients), " +
			"refused (wrong credentials), not allowed (no rule allows the request), not checked (too many passwords wait for their check, or the password file cannot be used).",
	}, []string{"auth", "reason"})}
}

// Of returns a function that counts the failures of one auth entry.
func (f *Failures) Of(name string) func(r *http.Request, err error) {
	for _, reason := range []string{noCredentials, refused, notAllowed, notChecked} {
		f.counted.WithLabelValues(name, reason) // start at 0, so that the first failure is an increase
	}
	return func(r *http.Request, err error) { f.counted.WithLabelValues(name, reasonOf(r, err)).Inc() }
}

// Collectors returns the metrics.
func (f *Failures) Collectors() []prometheus.Collector { return []prometheus.Collector{f.counted} }

// reasonOf returns the label value for the reason why a caller was refused with err.
func reasonOf(r *http.Request, err error) string {
	switch {
	case !hasCredentials(r):
		return noCredentials
	case errors.Is(err, oci.ErrUnauthorized):
		return refused
	case errors.Is(err, oci.ErrDenied):
		return notAllowed
	}
	return notChecked
}
