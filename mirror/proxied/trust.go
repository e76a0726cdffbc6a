package proxied

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The headers in which proxies name the client.
const (
	ForwardedFor = "X-Forwarded-For"
	Forwarded    = "Forwarded" // RFC 7239
)

// Options configure a Trust.
type Options struct {
	// Listener is the name of the listener, for the log and metrics.
	Listener string
	// Proxies are the networks of trusted proxies. If there are none, no proxy is trusted.
	Proxies []netip.Prefix
	// Protocol says that all connections from Proxies begin with a header of the PROXY protocol.
	Protocol bool
	// Header is [ForwardedFor] or [Forwarded]; "" means ForwardedFor. dray ignores the other header: a
	// proxy that does not set it passes on the value that the client has sent.
	Header string
	// HeaderTimeout bounds the time until a proxy has sent the header of the PROXY protocol; 0 means
	// 10 seconds.
	HeaderTimeout time.Duration
	// Logger gets at most one warning a minute about missing PROXY headers; nil discards it.
	Logger *slog.Logger
}

// Trust says which proxies may tell a listener the client's address. It is immutable; [Trust.With]
// returns a new Trust.
type Trust struct {
	o Options
	*refusals
}

// refusals is the part that all Trusts of a listener share.
type refusals struct {
	failed prometheus.Counter

	mu     sync.Mutex
	warned time.Time // when the last warning was logged; guarded by mu
}

// New returns a Trust.
func New(o Options) *Trust {
	return (&Trust{refusals: &refusals{failed: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "dray_proxy_protocol_failures_total", ConstLabels: prometheus.Labels{"listener": o.Listener},
		Help: "Connections from trusted proxies that dray closed because they did not begin with a valid header of the PROXY protocol.",
	})}}).With(o)
}

// With returns a Trust with other options and the same metrics.
func (t *Trust) With(o Options) *Trust {
	o.Header = cmp.Or(o.Header, ForwardedFor)
	o.HeaderTimeout = cmp.Or(o.HeaderTimeout, 10*time.Second)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return &Trust{o: o, refusals: t.refusals}
}

// Collectors returns the metrics.
func (t *Trust) Collectors() []prometheus.Collector { return []prometheus.Collector{t.failed} }

// trusts reports whether an address belongs to a trusted proxy.
func (t *Trust) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(t.o.Proxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// peerKey is the key of a request's [Peer] in its context.
type peerKey struct{}

// Peer returns the address of the trusted proxy that a request came from, with its port. It returns
// "" if the request came from no trusted proxy.
func Peer(r *http.Request) string {
	peer, _ := r.Context().Value(peerKey{}).(string)
	return peer
}

// WithPeer returns a context for requests that came from a trusted proxy at the address peer,
// perhaps by way of another member of a fleet. If peer is "", it returns ctx.
func WithPeer(ctx context.Context, peer string) context.Context {
	if peer == "" {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, peer)
}

// AddrOf returns the IP address in a text such as the RemoteAddr of a request. The port is
// optional. AddrOf turns IPv4 addresses in the form of IPv6 into IPv4, and drops zones. If the
// text has no address, AddrOf returns the zero Addr.
func AddrOf(text string) netip.Addr {
	p, err := netip.ParseAddrPort(text)
	a := p.Addr()
	if err != nil {
		a, _ = netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")) // the zero Addr after an error
	}
	return a.Unmap().WithZone("")
}

// Handler returns a handler that calls inner with the client's address as the RemoteAddr of the
// request. The address has no port if it is from a header.
func (t *Trust) Handler(inner http.Handler) http.Handler {
	if len(t.o.Proxies) == 0 {
		return inner
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from := AddrOf(r.RemoteAddr)
		named := t.trusts(from)
		if !named && Peer(r) == "" {
			inner.ServeHTTP(w, r)
			return
		}
		ctx := r.Context()
		if Peer(r) == "" {
			ctx = WithPeer(ctx, r.RemoteAddr)
		}
		r = r.WithContext(ctx)
		if named {
			if client := t.client(r.Header, from); client != from {
				r.RemoteAddr = client.String()
			}
		}
		inner.ServeHTTP(w, r)
	})
}

// client returns the client of a request from a trusted proxy. It reads the header backwards, up to
// the first address that is not a trusted proxy: this is the client. If it reaches an entry that is
// no address, or the start of the header, it returns the trusted proxy that it came to last.
func (t *Trust) client(h http.Header, proxy netip.Addr) netip.Addr {
	hops := hopsOf(t.o.Header, h[t.o.Header])
	for _, hop := range slices.Backward(hops) {
		a := AddrOf(hop)
		if !a.IsValid() {
			break // the proxy does not say who sent it the request
		}
		proxy = a
		if !t.trusts(a) {
			break
		}
	}
	return proxy
}

// hopsOf returns the entries in the lines of a header, from the client to the proxies that are
// nearest to dray. An entry may be no address.
func hopsOf(header string, lines []string) []string {
	var hops []string
	for _, line := range lines {
		if header == Forwarded {
			elements, ok := unquotedSplit(line, ',')
			if !ok {
				elements = []string{""} // this names nobody; otherwise a client could send an open quote, to hide the element that the proxy appends
			}
			for _, element := range elements {
				hops = append(hops, forOf(element))
			}
			continue
		}
		for hop := range strings.SplitSeq(line, ",") {
			hops = append(hops, strings.TrimSpace(hop))
		}
	}
	return hops
}

// forOf returns the value of the parameter "for" in one element of a Forwarded header (RFC 7239,
// 4), without quotes, or "". It does not decode backslashes, because a value with a backslash is no
// address.
func forOf(element string) string {
	pairs, _ := unquotedSplit(element, ';')
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if ok && strings.EqualFold(strings.TrimSpace(name), "for") {
			value = strings.TrimSpace(value)
			if bare, quoted := strings.CutPrefix(value, `"`); quoted {
				value = strings.TrimSuffix(bare, `"`)
			}
			return value
		}
	}
	return ""
}

// unquotedSplit splits a text at a separator, but not within quotes (RFC 9110, 5.6.4). It returns
// false if a quote does not end.
func unquotedSplit(text string, separator byte) (parts []string, ok bool) {
	start, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch {
		case quoted && text[i] == '\\':
			i++
		case text[i] == '"':
			quoted = !quoted
		case !quoted && text[i] == separator:
			parts = append(parts, text[start:i])
			start = i + 1
		}
	}
	return append(parts, text[start:]), !quoted
}
