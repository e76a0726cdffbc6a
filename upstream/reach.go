package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Reach limits the addresses, other than the registry's own, that a transport connects to. The
// registry names the targets of redirects and the issuer of its tokens. A hostile registry could
// name services that only this machine or its network can reach. Reach checks addresses when they
// are dialled, after names are resolved. A proxy resolves names itself, so with a proxy, Reach
// checks only literal addresses.
type Reach struct {
	// Registry is the host and port of the registry, which is always allowed.
	Registry string
	// Address, if not empty, is the host and port to dial in place of Registry.
	Address string
	// Private allows private addresses. They are also allowed if the registry itself has a private
	// address, or is configured as localhost or as an address of this machine.
	Private bool

	learnt  atomic.Bool // the registry has a private address
	proxies sync.Map    // the proxies in use, by host and port
}

// errReach says that a host has an address that dray must not connect to.
var errReach = errors.New("address out of reach")

// scope says which machines can reach an address.
type scope int

const (
	public scope = iota
	private
	linkLocal // link-local and multicast addresses, and metadata services of clouds
	loopback
)

// Networks that the standard library does not classify. privateNets are from RFC 6598, RFC 2544,
// RFC 1112, RFC 8215 and RFC 3879, hostNets from RFC 1122, and nat64 from RFC 6052. cloudNets are
// the addresses of the metadata services of EC2 (IPv6), Azure and Oracle. All addresses of RFC 8215
// count as private: each contains an IPv4 address, but dray cannot know at which bits.
var (
	privateNets = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("fec0::/10")}
	hostNets    = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/8")}
	cloudNets   = []netip.Prefix{netip.MustParsePrefix("fd00:ec2::/32"), netip.MustParsePrefix("168.63.129.16/32"), netip.MustParsePrefix("192.0.0.0/24")}
	nat64       = netip.MustParsePrefix("64:ff9b::/96")
)

func scopeOf(ip netip.Addr) scope {
	ip = ip.Unmap().WithZone("")
	if nat64.Contains(ip) {
		b := ip.As16()
		ip = netip.AddrFrom4([4]byte(b[12:]))
	}
	in := func(nets []netip.Prefix) bool {
		for _, n := range nets {
			if n.Contains(ip) {
				return true
			}
		}
		return false
	}
	switch {
	case ip.IsLoopback() || ip.IsUnspecified() || in(hostNets):
		return loopback
	case ip.IsLinkLocalUnicast() || ip.IsMulticast() || in(cloudNets):
		return linkLocal
	case ip.IsPrivate() || in(privateNets):
		return private
	}
	return public
}

// registryScope returns the scope of the registry if it is configured as an address or as
// localhost. Any other name counts as public, whatever its address is. If the address decided the
// scope, the owner of the name could make the name resolve to this machine, and Reach would allow
// addresses of this machine.
func (r *Reach) registryScope() scope {
	host, _, _ := net.SplitHostPort(cmp.Or(r.Address, r.Registry)) // the host to dial; an empty host counts as public
	if ip, err := netip.ParseAddr(host); err == nil {
		return scopeOf(ip)
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return loopback
	}
	return public
}

// check returns an error that matches errReach if an address is out of reach.
func (r *Reach) check(ip netip.Addr) error {
	own, s := r.registryScope(), scopeOf(ip)
	switch {
	case s == public, s == own:
		return nil
	case s == private && (r.Private || own == loopback || r.learnt.Load()):
		return nil
	case s == private:
		return fmt.Errorf("%w: %s is private, which private_redirects of the upstream would allow", errReach, ip)
	}
	return fmt.Errorf("%w: %s belongs to this machine or link", errReach, ip)
}

// dialer returns the function by which a transport dials.
func (r *Reach) dialer(timeout time.Duration) func(context.Context, string, string) (net.Conn, error) {
	own := &net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second}
	other := &net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", errReach, address, err)
		}
		return r.check(to.Addr())
	}}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != r.Registry {
			if _, proxy := r.proxies.Load(address); proxy {
				return own.DialContext(ctx, network, address)
			}
			return other.DialContext(ctx, network, address)
		}
		if r.Address != "" {
			address = r.Address
		}
		conn, err := own.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if to, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil && scopeOf(to.Addr()) == private {
			r.learnt.Store(true)
		}
		return conn, nil
	}
}

// proxied returns a function that chooses a proxy with proxyOf, and does three things more. It
// records each proxy. It returns an error for a request through a proxy to a literal address that
// is out of reach. If Address is set, it chooses no proxy for the registry, because a proxy would
// connect to the registry's name instead.
func (r *Reach) proxied(proxyOf func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(req *http.Request) (*url.URL, error) {
		if r.Address != "" && HostPort(req.URL) == r.Registry {
			return nil, nil
		}
		u, err := proxyOf(req)
		if u == nil || err != nil {
			return u, err
		}
		if HostPort(req.URL) != r.Registry {
			if ip, err := netip.ParseAddr(req.URL.Hostname()); err == nil {
				if err := r.check(ip); err != nil {
					return nil, err
				}
			}
		}
		r.proxies.Store(HostPort(u), true)
		return u, nil
	}
}

// HostPort returns the host and port that are dialled for a URL.
func HostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}
