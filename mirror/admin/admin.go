package admin

import (
	"cmp"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"dray/mirror/admin/api"
	"dray/mirror/identity"
)

// Options configure [NewHandler].
type Options struct {
	// Gatherer provides the metrics of /metrics.
	Gatherer prometheus.Gatherer
	// Checks are the checks of /readyz. Their names must differ.
	Checks []Check
	// CheckTimeout bounds each check; 0 means 2 seconds.
	CheckTimeout time.Duration
	// Hosts are the host names, without a port, under which the listener may be reached. It always
	// accepts localhost and IP addresses.
	Hosts []string
	// Token returns the token that all requests need, except those for health and metrics. If Token is
	// nil, no request needs a token.
	Token func() string
	// API has the endpoints below [api.Prefix].
	API []Endpoint
	// Logger gets errors of gathering metrics, panics, and a line for each change by the API; nil
	// discards.
	Logger *slog.Logger
}

const index = `dray

/metrics       metrics for Prometheus
/healthz       liveness of the process
/readyz        readiness, and the state of its parts
/api/v1/       API for operators; docs/operating.md describes it
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
	return recovering(log, guard(o.Hosts, authorised(o.Token, mux)))
}

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write([]byte(s))
	}
}

// gatherLog is a logger for promhttp.
type gatherLog struct{ log *slog.Logger }

func (l gatherLog) Println(v ...any) {
	l.log.Warn("cannot gather some metrics", "error", v[len(v)-1])
}

// open reports whether a request needs neither the token nor a known host name. Load balancers and
// Prometheus send such requests, often to the name of a service. The answers have no secrets.
func open(r *http.Request) bool {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	return read && (r.URL.Path == "/healthz" || r.URL.Path == "/readyz" || r.URL.Path == "/metrics")
}

// authorised refuses requests without the token, if there is one.
func authorised(token func() string, next http.Handler) http.Handler {
	if token == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !open(r) && (!ok || subtle.ConstantTimeCompare([]byte(sent), []byte(token())) == 0) {
			header(w)
			w.Header().Set("WWW-Authenticate", "Bearer")
			refusal := api.Errorf(api.CodeUnauthorized, "the token is missing or wrong; send the one in admin.token_file as Authorization: Bearer")
			_ = sendJSON(w, refusal.Code.Status(), api.Failure{Error: refusal}) // fails only if the client has disconnected
			return
		}
		next.ServeHTTP(w, r)
	})
}

// guard refuses requests that only a misled browser would send. The web page of an attacker can
// make its own host name resolve to a loopback address and then read the answers (DNS rebinding).
// So guard accepts only the configured names, localhost and IP addresses, because an attacker owns
// none of these. Requests for which [open] is true may be sent to any host name. The page of an
// attacker can also make a browser send requests whose answers the page cannot read. guard refuses
// these, too, because a profile is expensive to make.
func guard(hosts []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !open(r) && !identity.KnownHost(hosts, r.Host) {
			http.Error(w, "the Host header is not a name of the admin listener; add the name to admin.hosts", http.StatusMisdirectedRequest)
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
