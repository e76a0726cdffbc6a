package identity

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"dray/mirror/proxied"
	"dray/upstream/oci"
)

// Role is the purpose of a listener.
type Role string

// The roles.
const (
	// RoleMirror allows pulls only. If the Policy has no Access, everybody who reaches the listener
	// may pull.
	RoleMirror Role = "mirror"
	// RoleRegistry allows the pulls, pushes and deletions that the Access of the Policy grants.
	// Without an Access, everybody may pull, but only this machine may push and delete.
	// AllowAnonymousPush lets other machines push, too.
	RoleRegistry Role = "registry"
)

// Policy is the access policy of a listener.
type Policy struct {
	Role Role
	// Access authenticates clients. If it is nil, all clients are anonymous.
	Access *Access
	// Challenge makes a mirror ask for credentials. It is off by default, because classic Docker
	// answers the challenge of a mirror with the user's Docker Hub password.
	Challenge bool
	// AllowAnonymousPush accepts pushes from all machines if there is no Access.
	AllowAnonymousPush bool
	// Hosts are the host names of the listener, without a port. A browser on this machine that reads
	// without credentials has to use one of these names, localhost or an IP address.
	Hosts []string
}

// Login returns the caller of a request for the base of the API. Clients use that request to log
// in. So Login checks the credentials that a client sends, even if the listener requires none.
func (p *Policy) Login(r *http.Request) (Principal, error) {
	if p.Access != nil && (hasCredentials(r) || (p.Role == RoleRegistry || p.Challenge) && !p.Access.open()) {
		return p.Authorise(r)
	}
	return Principal{}, nil
}

// Authorise returns the caller of a request, or an error if the caller lacks a right that the
// request needs. The error is [oci.ErrDenied] or the error of the [Authenticator]. If the caller
// was authenticated but lacks a right, Authorise returns both the caller and [oci.ErrDenied].
func (p *Policy) Authorise(r *http.Request, needs ...Need) (Principal, error) {
	if err := p.mayWriteAll(r, needs); err != nil {
		return Principal{}, err
	}
	a := p.Access
	if a == nil {
		return Principal{}, p.refusePage(r)
	}
	if !hasCredentials(r) && a.anonymously(needs) {
		return Principal{}, p.refusePage(r)
	}
	if !hasCredentials(r) && p.Role == RoleMirror && !p.Challenge {
		return Principal{}, a.refuse(r, oci.ErrDenied.With("this mirror requires credentials and this client has sent none; Docker sends them to a mirror only if its listener has challenge: true"))
	}
	return a.authorise(r, needs)
}

// mayWriteAll calls mayWrite for each need whose action is not Pull.
func (p *Policy) mayWriteAll(r *http.Request, needs []Need) error {
	for _, n := range needs {
		if n.Action == Pull {
			continue
		}
		if err := p.mayWrite(r, n.Action); err != nil {
			return err
		}
	}
	return nil
}

// mayWrite decides about pushes and deletions before authentication. Without an Access, it accepts
// them from this machine only, and never from a browser, because any page could make the browser
// write. AllowAnonymousPush accepts pushes from other machines, but not deletions.
func (p *Policy) mayWrite(r *http.Request, action Action) error {
	if p.Role != RoleRegistry {
		return oci.ErrDenied.With("this listener is a pull mirror and accepts no pushes")
	}
	if p.Access != nil {
		return nil
	}
	if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Mode") != "" {
		return oci.ErrDenied.With("pushes from a browser are refused")
	}
	if p.AllowAnonymousPush && action == Push || local(r) {
		return nil
	}
	if action == Delete {
		return oci.ErrDenied.With("deletions from other machines are refused until auth is configured")
	}
	return oci.ErrDenied.With("pushes from other machines are refused until auth or allow_anonymous_push is configured")
}

// refusePage returns [oci.ErrDenied] if a browser on this machine sent the request to a host name
// that is not a name of the listener. A page can make the host name that it came from resolve to a
// loopback address. It could then read dray's answers with the rights that everybody on this
// machine has (DNS rebinding). A page can also write the headers that proxies add. So refusePage
// treats a request as sent from this machine if its connection comes from this machine, whichever
// client the headers name.
func (p *Policy) refusePage(r *http.Request) error {
	if !fromBrowser(r) || KnownHost(p.Hosts, r.Host) {
		return nil
	}
	if here := ClientAddr(r).IsLoopback() || proxied.AddrOf(proxied.Peer(r)).IsLoopback(); !here {
		return nil
	}
	return oci.ErrDenied.With("a browser may not read by the host name %q; if it is a name of this listener, set its external_url", r.Host)
}

// fromBrowser reports whether a request has header lines that browsers send and clients of
// registries do not. No single line is always present: a browser sends no Sec-Fetch lines without
// TLS, a page chooses the Referer, and Firefox lets a page choose the User-Agent. But a page cannot
// make the browser leave out all of these lines at once.
func fromBrowser(r *http.Request) bool {
	for _, h := range []string{"Accept-Language", "Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest"} {
		if len(r.Header[h]) > 0 {
			return true
		}
	}
	return strings.HasPrefix(r.UserAgent(), "Mozilla/")
}

// KnownHost reports whether a Host header is an address, localhost or a name below it, or a name in
// the list hosts. DNS rebinding needs a host name, so an address is safe. An empty Host is also
// safe: only HTTP/1.0 allows it, and browsers do not use HTTP/1.0.
func KnownHost(hosts []string, host string) bool {
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

// local reports whether the request was made on this machine. A request that a reverse proxy
// forwards counts as remote, wherever the proxy runs and whichever client the proxy names. dray
// recognises proxies that are trusted, add headers, or use HTTP/1.0.
func local(r *http.Request) bool {
	if proxied.Peer(r) != "" {
		return false
	}
	for _, h := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip"} {
		if r.Header.Get(h) != "" {
			return false
		}
	}
	return r.ProtoAtLeast(1, 1) && // nginx before 1.29.7 speaks HTTP/1.0 to its upstreams by default
		ClientAddr(r).IsLoopback()
}

// ClientAddr returns the IP address of the client, or the zero Addr if it is not known. It is the
// address of the connection's remote end, unless a trusted proxy names another address
// ([proxied.Trust]).
func ClientAddr(r *http.Request) netip.Addr { return proxied.AddrOf(r.RemoteAddr) }
