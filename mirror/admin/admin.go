package admin

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"dray/mirror/admin/api"
	"dray/mirror/identity"
	"dray/upstream/oci"
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
	// Operators decides which callers may do more than read health and metrics.
	Operators identity.Operators
	// API has the endpoints below [api.Prefix].
	API []Endpoint
	// Page answers all requests below /ui/, and the requests of browsers at /. Requests to it need the
	// action View. Page may be nil.
	Page http.Handler
	// Logger gets panics, errors from the gathering of metrics, and a line for each change by the
	// API; nil discards them.
	Logger *slog.Logger
}

const index = `dray

/              in a browser: a page for operators; docs/operating.md describes it
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
	mux.Handle("GET /{$}", forBrowsers(o.Page, text(index)))
	if o.Page != nil {
		mux.Handle("GET "+pages, o.Page)
	}
	mountHealth(mux, o, log)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mount(mux, o.API, log)
	return recovering(log, guard(o.Hosts, authorised(&o.Operators, log, mux)))
}

// NewHealth returns the handler of a listener that serves only health and metrics. It accepts
// requests to any host name.
func NewHealth(o Options) http.Handler {
	log := cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	mux := http.NewServeMux()
	mountHealth(mux, o, log)
	return recovering(log, mux)
}

// mountHealth adds the paths for which [open] is true.
func mountHealth(mux *http.ServeMux, o Options, log *slog.Logger) {
	mux.HandleFunc("GET /healthz", text("ok\n"))
	mux.Handle("GET /readyz", &readiness{checks: o.Checks, timeout: o.CheckTimeout})
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{
		// A broken collector must not hide the other metrics.
		ErrorHandling:     promhttp.ContinueOnError,
		ErrorLog:          gatherLog{log},
		EnableOpenMetrics: true,
	}))
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

// open reports whether a request is allowed without credentials, and to any host name. Load
// balancers and Prometheus send such requests, often to the name of a service. The answers have no
// secrets.
func open(r *http.Request) bool {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	return read && (r.URL.Path == "/healthz" || r.URL.Path == "/readyz" || r.URL.Path == "/metrics")
}

// callerKey is the key of the operator's identity.Principal in the context of a request.
type callerKey struct{}

// actionOf returns the action that a request performs. Changes need Operate. Profiles need it, too,
// because a profile can contain fragments of the content that passes through dray, and uses
// processor time.
func actionOf(r *http.Request) identity.Action {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	if read && !strings.HasPrefix(r.URL.Path, "/debug/") {
		return identity.View
	}
	return identity.Operate
}

// authorised refuses requests that the operator may not send.
func authorised(operators *identity.Operators, log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if open(r) {
			next.ServeHTTP(w, r)
			return
		}
		who, err := operators.Authorise(r, actionOf(r))
		if err != nil {
			why := oci.AsError(err)
			if why.Status == http.StatusInternalServerError {
				log.Warn("the credentials of an operator cannot be checked", "client", r.RemoteAddr, "error", err)
			}
			refuse(w, why)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, who)))
	})
}

// refuse answers a request that [authorised] does not let through.
func refuse(w http.ResponseWriter, why *oci.Error) {
	code := api.CodeUnavailable // the credentials cannot be checked now
	switch why.Status {
	case http.StatusUnauthorized:
		code = api.CodeUnauthorized
	case http.StatusForbidden:
		code = api.CodeForbidden
	case http.StatusInternalServerError:
		code = api.CodeInternal
	}
	header(w)
	for _, c := range why.Challenge {
		w.Header().Add("WWW-Authenticate", c)
	}
	refusal := api.Errorf(code, "%s", why.Message)
	_ = sendJSON(w, refusal.Code.Status(), api.Failure{Error: refusal}) // fails only if the client has disconnected
}

// pages is the path below which all pages are, except the first one.
const pages = "/ui/"

// forBrowsers passes requests of browsers to page, and all other requests to fallback. If page is
// nil, fallback gets all requests.
func forBrowsers(page, fallback http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept")
		if page != nil && strings.Contains(r.Header.Get("Accept"), "text/html") {
			page.ServeHTTP(w, r)
			return
		}
		fallback.ServeHTTP(w, r)
	})
}

// followed reports whether a browser has followed a link to a page. Such a request is safe: the
// site with the link cannot read or frame the page, and pages change nothing.
func followed(r *http.Request) bool {
	return r.Method == http.MethodGet && (r.URL.Path == "/" || strings.HasPrefix(r.URL.Path, pages)) &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// guard refuses requests that only a misled browser would send. The web page of an attacker can
// make its own host name resolve to a loopback address and then read the answers (DNS rebinding).
// So guard accepts only the configured names, localhost and IP addresses. An attacker cannot change
// what these names resolve to, and an IP address is not resolved at all. Requests for which [open]
// is true may be sent to any host name. The page of an attacker can also make a browser send
// requests whose answers the page cannot read. guard also refuses these requests, because a request
// for a profile uses much processor time even if nobody reads the answer. From other sites, guard
// accepts only links to a page.
func guard(hosts []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !open(r) && !identity.KnownHost(hosts, r.Host) {
			http.Error(w, "the Host header is not a name of the admin listener; add the name to admin.hosts", http.StatusMisdirectedRequest)
			return
		}
		if site := r.Header.Get("Sec-Fetch-Site"); (site == "cross-site" || site == "same-site") && !followed(r) {
			http.Error(w, "requests from other sites are refused", http.StatusForbidden)
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}
