package upstream

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"testing"

	"dray/upstream/oci"
)

func TestReach(t *testing.T) {
	public, private, loopback, link := []string{"203.0.113.7", "2001:db8::7"}, []string{"10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "198.18.0.1", "fd12::1", "::ffff:10.1.2.3", "64:ff9b::a01:203", "64:ff9b:1::a01:203", "64:ff9b:1:ffff::1", "240.0.0.1", "fec0::1"},
		[]string{"127.0.0.1", "127.8.9.10", "::1", "0.0.0.0", "::", "0.1.2.3", "::ffff:127.0.0.1", "64:ff9b::7f00:1"},
		[]string{"169.254.169.254", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "168.63.129.16", "192.0.0.192", "224.0.0.1", "ff02::1", "::ffff:169.254.169.254"}
	for name, c := range map[string]struct {
		reach                   *Reach
		private, loopback, link bool
	}{
		"a name":                      {&Reach{Registry: "registry.example:443"}, false, false, false},
		"a name with a private one":   {&Reach{Registry: "registry.example:443", Private: true}, true, false, false},
		"a private address":           {&Reach{Registry: "10.0.0.1:5000"}, true, false, false},
		"behind a private address":    {&Reach{Registry: "registry.example:443", Address: "10.0.0.1:443"}, true, false, false},
		"this machine":                {&Reach{Registry: "127.0.0.1:5000"}, true, true, false},
		"this machine by its name":    {&Reach{Registry: "localhost:5000"}, true, true, false},
		"this machine in IPv6":        {&Reach{Registry: "[::1]:5000"}, true, true, false},
		"a literal one behind a name": {&Reach{Registry: "10.0.0.1:443", Address: "registry.example:443"}, false, false, false},
		"this machine behind a name":  {&Reach{Registry: "localhost:443", Address: "registry.example:443"}, false, false, false},
		"behind this machine":         {&Reach{Registry: "registry.example:443", Address: "127.0.0.1:443"}, true, true, false},
		"the link":                    {&Reach{Registry: "169.254.1.1:5000"}, false, false, true},
		"a name that only looks so":   {&Reach{Registry: "localhost.example:443"}, false, false, false},
		"an address that is public":   {&Reach{Registry: "203.0.113.7:443"}, false, false, false},
		"public, private configured":  {&Reach{Registry: "203.0.113.7:443", Private: true}, true, false, false},
	} {
		for _, group := range []struct {
			ips []string
			may bool
		}{{public, true}, {private, c.private}, {loopback, c.loopback}, {link, c.link}} {
			for _, ip := range group.ips {
				if err := c.reach.check(netip.MustParseAddr(ip)); (err == nil) != group.may {
					t.Errorf("%s: %s: %v", name, ip, err)
				}
			}
		}
	}
}

// TestReachAtDialling: names are judged by what they resolve to, and the client is told. The
// registry is reached in any case, and nothing is taken for an outage.
func TestReachAtDialling(t *testing.T) {
	asked := 0
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer inside.Close()
	_, port, err := net.SplitHostPort(inside.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "localhost", "127.1.2.3"} {
		registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+net.JoinHostPort(host, port)+"/latest", http.StatusFound)
		}))
		defer registry.Close()
		via := NewTransport(TransportOptions{Reach: &Reach{Registry: "registry.example:80"}})
		defer via.CloseIdleConnections()
		c, err := New(Options{Name: "x", Base: &url.URL{Scheme: "http", Host: "registry.example"}, Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "registry.example" {
				to := r.Clone(r.Context())
				to.URL.Host = registry.Listener.Addr().String()
				return http.DefaultTransport.RoundTrip(to)
			}
			return via.RoundTrip(r)
		})})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Manifest(t.Context(), Repo{Name: "a"}, oci.Reference{Tag: "v1"}, nil)
		if !errors.Is(err, errReach) || !errors.Is(err, ErrCorrupt) || failing(err) || repeatable(err) || asked != 0 {
			t.Errorf("%s: %v, asked %d times", host, err, asked)
		}
	}
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestReachWithAProxy: a proxy is dialled wherever it is, and literal addresses are judged before
// it is asked.
func TestReachWithAProxy(t *testing.T) {
	r := &Reach{Registry: "registry.example:80"}
	choose := r.proxied(func(*http.Request) (*url.URL, error) { return url.Parse("http://127.0.0.1:3128") })
	for target, may := range map[string]bool{"http://registry.example/v2/": true, "http://storage.example/": true, "http://169.254.169.254/latest": false, "http://[::1]:80/": false} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := choose(req); (err == nil) != may {
			t.Errorf("%s: %v", target, err)
		}
	}
	if _, ok := r.proxies.Load("127.0.0.1:3128"); !ok {
		t.Error("the proxy is not known")
	}
	r.Address = "127.0.0.1:8080"
	for target, proxied := range map[string]bool{"http://registry.example/v2/": false, "http://registry.example:80/v2/": false, "https://registry.example/": true, "http://storage.example/": true} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
		if err != nil {
			t.Fatal(err)
		}
		if u, err := choose(req); err != nil || (u != nil) != proxied {
			t.Errorf("with an address, %s goes by %v, %v", target, u, err)
		}
	}
}
