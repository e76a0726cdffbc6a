package proxied

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

// seen is what a handler behind a Trust sees of a request.
func seen(t testing.TB, trust *Trust, from string, header http.Header) (client, peer string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/v2/", http.NoBody)
	r.RemoteAddr, r.Header = from, header
	trust.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		client, peer = r.RemoteAddr, Peer(r)
	})).ServeHTTP(httptest.NewRecorder(), r)
	return client, peer
}

func trusting(header string, networks ...string) *Trust {
	o := Options{Header: header}
	for _, n := range networks {
		o.Proxies = append(o.Proxies, netip.MustParsePrefix(n))
	}
	return New(o)
}

// The client is the last address that is no trusted proxy. Nobody else can name one.
func TestClient(t *testing.T) {
	const proxy, stranger = "10.0.0.1:4000", "192.0.2.9:4000"
	for name, test := range map[string]struct {
		header string // the one that is configured
		from   string
		lines  []string // name and value of each line
		client string
		peer   string
	}{
		"nobody says anything":              {"", stranger, nil, stranger, ""},
		"a stranger says something":         {"", stranger, []string{ForwardedFor, "192.0.2.1"}, stranger, ""},
		"a proxy asks for itself":           {"", proxy, nil, proxy, proxy},
		"a client":                          {"", proxy, []string{ForwardedFor, "192.0.2.1"}, "192.0.2.1", proxy},
		"a client that invents another":     {"", proxy, []string{ForwardedFor, "127.0.0.1, 192.0.2.1"}, "192.0.2.1", proxy},
		"one that invents a proxy":          {"", proxy, []string{ForwardedFor, "192.0.2.7, 10.0.0.3, 192.0.2.1"}, "192.0.2.1", proxy},
		"one in a line of its own":          {"", proxy, []string{ForwardedFor, "192.0.2.7", ForwardedFor, "192.0.2.1"}, "192.0.2.1", proxy},
		"two proxies":                       {"", proxy, []string{ForwardedFor, "192.0.2.1,10.0.0.2"}, "192.0.2.1", proxy},
		"proxies alone":                     {"", proxy, []string{ForwardedFor, "10.0.0.3, 10.0.0.2"}, "10.0.0.3", proxy},
		"a port":                            {"", proxy, []string{ForwardedFor, "192.0.2.1:1234"}, "192.0.2.1", proxy},
		"IPv6":                              {"", proxy, []string{ForwardedFor, "2001:db8::1"}, "2001:db8::1", proxy},
		"IPv4 in IPv6":                      {"", "[::ffff:10.0.0.1]:4000", []string{ForwardedFor, "::ffff:192.0.2.1"}, "192.0.2.1", "[::ffff:10.0.0.1]:4000"},
		"a loopback address":                {"", proxy, []string{ForwardedFor, "127.0.0.1"}, "127.0.0.1", proxy},
		"no address":                        {"", proxy, []string{ForwardedFor, "192.0.2.7, unknown"}, proxy, proxy},
		"no address before a proxy":         {"", proxy, []string{ForwardedFor, "192.0.2.7, unknown, 10.0.0.2"}, "10.0.0.2", proxy},
		"nothing":                           {"", proxy, []string{ForwardedFor, ""}, proxy, proxy},
		"the header that is not configured": {"", proxy, []string{Forwarded, "for=192.0.2.7"}, proxy, proxy},
		"both headers":                      {Forwarded, proxy, []string{ForwardedFor, "192.0.2.7", Forwarded, "for=192.0.2.1"}, "192.0.2.1", proxy},
		"Forwarded":                         {Forwarded, proxy, []string{Forwarded, `for=192.0.2.7;proto=https, For="[2001:db8::1]:4711";by=10.0.0.1`}, "2001:db8::1", proxy},
		"Forwarded with a trap":             {Forwarded, proxy, []string{Forwarded, `for=192.0.2.1;host="x, for=192.0.2.7"`}, "192.0.2.1", proxy},
		"Forwarded with an escaped trap":    {Forwarded, proxy, []string{Forwarded, `for=192.0.2.1;host="x\", for=192.0.2.7"`}, "192.0.2.1", proxy},
		"Forwarded with an open quote":      {Forwarded, proxy, []string{Forwarded, `for=192.0.2.7;x=", for=192.0.2.1`}, proxy, proxy},
		"Forwarded with another":            {Forwarded, proxy, []string{Forwarded, `for=192.0.2.7;x="\, for="[2001:db8::1]"`}, proxy, proxy},
		"Forwarded, hidden":                 {Forwarded, proxy, []string{Forwarded, "for=192.0.2.7, for=_hidden"}, proxy, proxy},
		"Forwarded without for":             {Forwarded, proxy, []string{Forwarded, "for=192.0.2.7, by=10.0.0.1"}, proxy, proxy},
	} {
		h := http.Header{}
		for i := 0; i < len(test.lines); i += 2 {
			h.Add(test.lines[i], test.lines[i+1])
		}
		client, peer := seen(t, trusting(test.header, "10.0.0.0/8"), test.from, h)
		if client != test.client || peer != test.peer {
			t.Errorf("%s: client %q of proxy %q, want %q of %q", name, client, peer, test.client, test.peer)
		}
	}
	if client, peer := seen(t, trusting(""), "127.0.0.1:1", http.Header{ForwardedFor: {"192.0.2.1"}}); client != "127.0.0.1:1" || peer != "" {
		t.Errorf("without trusted proxies: client %q of proxy %q", client, peer)
	}
	if client, _ := seen(t, trusting("", "fe80::/10"), "[fe80::1%eth0]:1", http.Header{ForwardedFor: {"192.0.2.1"}}); client != "192.0.2.1" {
		t.Errorf("a proxy with a zone: client %q", client)
	}
}

// Whatever a client writes before the address that the trusted proxy adds, the proxy is believed.
func FuzzClient(f *testing.F) {
	f.Add("127.0.0.1, 10.0.0.2", `for="[::1]:1";by=x`)
	f.Add(`",\`, `";,\"`)
	f.Fuzz(func(t *testing.T, written, quoted string) {
		if client, _ := seen(t, trusting("", "10.0.0.0/8"), "10.0.0.1:1", http.Header{ForwardedFor: {written + ", 192.0.2.1"}}); client != "192.0.2.1" {
			t.Errorf("X-Forwarded-For: client %q", client)
		}
		if client, _ := seen(t, trusting(Forwarded, "10.0.0.0/8"), "10.0.0.1:1", http.Header{Forwarded: {quoted, "for=192.0.2.1"}}); client != "192.0.2.1" {
			t.Errorf("Forwarded, in two lines: client %q", client)
		}
		// A quote that a client left open makes the line useless. Then the proxy counts as the client.
		for _, appended := range []string{"192.0.2.1", `"[2001:db8::1]:443"`} {
			want := AddrOf(strings.Trim(appended, `"`)).String()
			client, _ := seen(t, trusting(Forwarded, "10.0.0.0/8"), "10.0.0.1:1", http.Header{Forwarded: {quoted + ", for=" + appended}})
			if client != want && client != "10.0.0.1:1" {
				t.Errorf("Forwarded: client %q", client)
			}
		}
	})
}
