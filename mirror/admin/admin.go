package admin

import (
	"cmp"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options configure [NewHandler].
type Options struct {
	// Gatherer is what /metrics shows.
	Gatherer prometheus.Gatherer
	// Checks are what /readyz asks. Their names differ.
	Checks []Check
	// CheckTimeout bounds each check; 0 means 2 seconds.
	CheckTimeout time.Duration
	// Hosts are names, without a port, by which the listener may be reached
	// besides localhost and any IP address.
	Hosts []string
	// API is what can be asked and done below [api.Prefix].
	API []Endpoint
	// Logger hears of metrics that could not be gathered, and of what the API changed;
	// nil discards.
	Logger *slog.Logger
}

const index = `dray

/metrics       what is counted, for Prometheus
/healthz       whether the process is alive
/readyz        whether it can do its work, and what is degraded
/api/v1/       what it holds, and what can be done about it: docs/operating.md
/debug/pprof/  profiles
`

// NewHandler returns the handler of the admin listener.
func NewHandler(o Options) http.Handler {
	log := cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", text(index))
	mux.HandleFunc("GET /healthz", text("ok\n"))
	mux.Handle("GET /readyz", &readiness{checks: o.Checks, timeout: cmp.Or(o.CheckTimeout, 2*time.Second)})
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{
		// A broken collector must not hide the others.
		ErrorHandling:     promhttp.ContinueOnError,
		ErrorLog:          gatherLog{log},
		EnableOpenMetrics: true,
	}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mount(mux, o.API, log)
	return recovering(log, guard(o.Hosts, mux))
}

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write([]byte(s))
	}
}

// gatherLog is the logger promhttp asks for.
type gatherLog struct{ log *slog.Logger }

func (l gatherLog) Println(v ...any) {
	l.log.Warn("some metrics could not be gathered", "error", v[len(v)-1])
}

// guard refuses what only a browser led astray would send. A page can make its
// own name resolve to a loopback address and then read the answers (DNS
// rebinding), so a name must be one that is known. An address in Host cannot be
// a page's name, so that probes by address need no configuration. A page can
// also make a browser send requests without reading the answers; profiles cost
// enough to refuse these, too.
func guard(hosts []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !known(hosts, r.Host) {
			http.Error(w, "the Host header is not a name of the admin listener", http.StatusMisdirectedRequest)
			return
		}
		if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
			http.Error(w, "requests from other sites are refused", http.StatusForbidden)
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// known reports whether a Host header names this listener. HTTP/1.0 clients,
// which browsers are not, may send none.
func known(hosts []string, host string) bool {
	if host == "" {
		return true
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if bare, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(bare, "]") {
		host = strings.TrimSuffix(bare, "]")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") ||
		slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, host) })
}
