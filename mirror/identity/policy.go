package identity

import (
	"net"
	"net/http"
	"net/netip"

	"dray/upstream/oci"
)

// Role says what a listener is for.
type Role string

// The roles.
const (
	// RoleMirror pulls only, for anybody who reaches the listener unless it has an
	// Access.
	RoleMirror Role = "mirror"
	// RoleRegistry pulls and pushes, for whom its Access allows.
	RoleRegistry Role = "registry"
)

// Policy is what a listener allows.
type Policy struct {
	Role Role
	// Access recognises clients; nil recognises nobody.
	Access *Access
	// Challenge makes a mirror ask for credentials. Classic Docker answers a mirror's
	// challenge with the user's Docker Hub password, hence the default.
	Challenge bool
	// AllowAnonymousPush takes pushes from anybody where there is no Access.
	AllowAnonymousPush bool
}

// Login returns the caller of a request for the base of the API. It needs nothing but an identity
// where there are identities: clients log in there, so that credentials that are shown are checked
// even where none are asked for.
func (p *Policy) Login(r *http.Request) (Principal, error) {
	if p.Access != nil && (hasCredentials(r) || (p.Role == RoleRegistry || p.Challenge) && !p.Access.open()) {
		return p.Authorise(r)
	}
	return Principal{}, nil
}

// Authorise returns the caller of a request, or an error where it may not do all that is needed.
// The error is [oci.ErrDenied], with the caller where it was recognised, or that of the
// [Authenticator].
func (p *Policy) Authorise(r *http.Request, needs ...Need) (Principal, error) {
	for _, n := range needs {
		if n.Action == Pull {
			continue
		}
		if err := p.mayWrite(r, n.Action); err != nil {
			return Principal{}, err
		}
	}
	a := p.Access
	if a == nil {
		return Principal{}, nil
	}
	if !hasCredentials(r) {
		if a.anonymously(needs) {
			return Principal{}, nil
		}
		if p.Role == RoleMirror && !p.Challenge {
			return Principal{}, oci.ErrDenied.With("this mirror requires credentials; log in first")
		}
	}
	who, err := a.Authenticator.Authenticate(r, needs)
	if err != nil {
		return Principal{}, err
	}
	for _, n := range needs {
		if !a.allows(who, n) {
			return who, oci.ErrDenied.With("user %q may not %s %s", who.Name, n.Action, n.Repository)
		}
	}
	return who, nil
}

// mayWrite refuses pushes where nobody said who may: without client authentication
// they are accepted from this machine only, and never from a browser, which could
// be made to write by any page it shows. Who may push because anybody may does not delete for that.
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

// local reports whether the request was made on this machine. What a reverse proxy
// forwards is not, wherever the proxy runs.
func local(r *http.Request) bool {
	for _, h := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip"} {
		if r.Header.Get(h) != "" {
			return false
		}
	}
	return r.ProtoAtLeast(1, 1) && // nginx speaks 1.0 to what it stands before, unless told otherwise
		ClientAddr(r).IsLoopback()
}

// ClientAddr is the address of the connection's other end.
func ClientAddr(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap()
}
