package identity

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"dray/mirror/proxied"
	"dray/upstream/oci"
)

// A listener takes pushes where its role says so, and only from those that it can tell: without
// client authentication from this machine alone, and never from a browser.
func TestPolicyWithoutAccess(t *testing.T) {
	const here, there = "127.0.0.1:1", "192.0.2.1:1"
	mirror, registry, open := Policy{Role: RoleMirror}, Policy{Role: RoleRegistry}, Policy{Role: RoleRegistry, AllowAnonymousPush: true}
	for name, test := range map[string]struct {
		policy Policy
		action Action
		from   string
		header string // of a proxy or a browser
		denied bool
	}{
		"a pull":                        {mirror, Pull, there, "", false},
		"a pull by a browser":           {registry, Pull, there, "Origin", false},
		"a push to a mirror":            {mirror, Push, here, "", true},
		"a push from here":              {registry, Push, here, "", false},
		"a push through a proxy here":   {registry, Push, here, "X-Forwarded-For", true},
		"a push from elsewhere":         {registry, Push, there, "", true},
		"an anonymous push":             {open, Push, there, "", false},
		"an anonymous push, by browser": {open, Push, here, "Sec-Fetch-Mode", true},
		"a deletion from here":          {registry, Delete, here, "", false},
		"an anonymous deletion":         {open, Delete, there, "", true},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "PUT", "/v2/team/app/manifests/v1", http.NoBody)
		r.RemoteAddr = test.from
		if test.header != "" {
			r.Header.Set(test.header, "x")
		}
		// A right to read one repository does not open another for writing.
		_, err := test.policy.Authorise(r, Need{Pull, "team/base"}, Need{test.action, "team/app"})
		if errors.Is(err, oci.ErrDenied) != test.denied || (err != nil) != test.denied {
			t.Errorf("%s: %v, want denied %t", name, err, test.denied)
		}
	}
}

// A request from a trusted proxy never counts as one from this machine, although the proxy or the
// client that it names has a loopback address.
func TestPolicyBehindProxy(t *testing.T) {
	registry := Policy{Role: RoleRegistry}
	trust := proxied.New(proxied.Options{Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}})
	for name, test := range map[string]struct {
		from, client string
		browser      bool
		pulls        bool
	}{
		"a proxy here, for a client":                 {"127.0.0.1:1", "192.0.2.1", false, true},
		"a proxy here, without a word":               {"127.0.0.1:1", "", false, true},
		"a proxy here, for a loopback address":       {"127.0.0.1:1", "127.0.0.1", false, true},
		"a proxy there, for a loopback address":      {"10.0.0.1:1", "127.0.0.1", false, true},
		"a proxy there, for this machine over IPv6":  {"10.0.0.1:1", "::1", false, true},
		"a page that claims to be a proxy":           {"127.0.0.1:1", "192.0.2.1", true, false},
		"a page on another machine":                  {"10.0.0.1:1", "192.0.2.1", true, true},
		"a page of whose client the proxy is unsure": {"10.0.0.1:1", "127.0.0.1", true, false},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "PUT", "/v2/team/app/manifests/v1", http.NoBody)
		r.RemoteAddr, r.Host = test.from, "evil.example:5000"
		if test.client != "" {
			r.Header.Set("X-Forwarded-For", test.client)
		}
		if test.browser {
			r.Header.Set("User-Agent", "Mozilla/5.0")
		}
		trust.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			r.Header.Del("X-Forwarded-For") // the PROXY protocol writes none
			for _, action := range []Action{Push, Delete} {
				if _, err := registry.Authorise(r, Need{action, "team/app"}); !errors.Is(err, oci.ErrDenied) {
					t.Errorf("%s: %s: %v", name, action, err)
				}
			}
			if _, err := registry.Authorise(r, Need{Pull, "team/app"}); (err == nil) != test.pulls {
				t.Errorf("%s: pull: %v", name, err)
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
	}
}

// A page in a browser on this machine reads by names that are dray's, whatever header lines of a
// browser it leaves out. Clients of registries, other machines, and users read by any name.
func TestPolicyAgainstRebinding(t *testing.T) {
	public := &Access{Authenticator: byName{}, Rules: []Rule{{Anonymous: true, Users: []string{"ann"}, Repositories: []string{"*"}, Actions: []Action{Pull}}}}
	const here, there, evil = "127.0.0.1:1", "192.0.2.1:1", "evil.example:5000"
	site := []string{"Sec-Fetch-Site", "same-origin"}
	for name, test := range map[string]struct {
		access     *Access
		from, host string
		header     []string
		denied     bool
	}{
		"a page with TLS":                 {nil, here, evil, site, true},
		"a page over IPv6":                {nil, "[::1]:1", evil, site, true},
		"a page without TLS":              {nil, here, evil, []string{"Referer", "http://evil.example:5000/"}, true},
		"a page without a Referer":        {nil, here, evil, []string{"User-Agent", "Mozilla/5.0 (X11) Gecko/20100101"}, true},
		"a page that chooses its agent":   {nil, here, evil, []string{"User-Agent", "docker/29", "Accept-Language", "*"}, true},
		"a page of another origin":        {nil, here, evil, []string{"Origin", "null"}, true},
		"a page that claims a proxy":      {nil, here, evil, append([]string{"X-Forwarded-For", "192.0.2.1"}, site...), true},
		"a page where anybody may read":   {public, here, evil, site, true},
		"a page that shows credentials":   {nil, here, evil, append([]string{"Authorization", "Basic YW5uOng="}, site...), true},
		"a page that knows a password":    {public, here, evil, append([]string{"Authorization", "Basic YW5uOng="}, site...), false},
		"a page of a name that begins so": {nil, here, "localhost.evil.example", site, true},
		"a page by address":               {nil, here, "127.0.0.1:5000", site, false},
		"a page by localhost":             {nil, here, "LOCALHOST:5000", site, false},
		"a page by dray's name":           {nil, here, "Dray.example:5000", site, false},
		"a page on another machine":       {nil, there, evil, site, false},
		"a client by any name":            {nil, here, "registry.corp.example:5000", []string{"User-Agent", "containerd/2.2"}, false},
		"a client without a name":         {nil, here, "", nil, false},
	} {
		for _, role := range []Role{RoleMirror, RoleRegistry} {
			p := Policy{Role: role, Access: test.access, Hosts: []string{"dray.example"}}
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/v2/team/app/manifests/v1", http.NoBody)
			r.RemoteAddr, r.Host = test.from, test.host
			for i := 0; i < len(test.header); i += 2 {
				r.Header.Set(test.header[i], test.header[i+1])
			}
			if _, err := p.Authorise(r, Need{Pull, "team/app"}); errors.Is(err, oci.ErrDenied) != test.denied || (err != nil) != test.denied {
				t.Errorf("%s, %s: %v, want denied %t", name, role, err, test.denied)
			}
		}
	}
}

// byName recognises everybody by the user name alone, but for mallory.
type byName struct{}

func (byName) Authenticate(r *http.Request, _ []Need) (Principal, error) {
	name, _, ok := r.BasicAuth()
	if !ok || name == "mallory" {
		return Principal{}, oci.ErrUnauthorized
	}
	return Principal{Name: name}, nil
}

// Rules decide for callers that are recognised, and for anonymous ones; the others are challenged,
// but for those of a mirror, unless it is told to.
func TestPolicyWithAccess(t *testing.T) {
	access := &Access{Authenticator: byName{}, Rules: []Rule{
		{Anonymous: true, Repositories: []string{"public/*"}, Actions: []Action{Pull}},
		{Users: []string{"ann"}, Repositories: []string{"team/*"}, Actions: []Action{Pull, Push}},
	}}
	registry, mirror, challenging := Policy{Role: RoleRegistry, Access: access}, Policy{Role: RoleMirror, Access: access}, Policy{Role: RoleMirror, Access: access, Challenge: true}
	for name, test := range map[string]struct {
		policy Policy
		user   string
		need   Need
		want   error
	}{
		"ann pushes":                     {registry, "ann", Need{Push, "team/app"}, nil},
		"ann deletes":                    {registry, "ann", Need{Delete, "team/app"}, oci.ErrDenied},
		"ann pushes to another team":     {registry, "ann", Need{Push, "other/app"}, oci.ErrDenied},
		"bob pulls":                      {registry, "bob", Need{Pull, "team/app"}, oci.ErrDenied},
		"mallory pulls what anybody may": {registry, "mallory", Need{Pull, "public/app"}, oci.ErrUnauthorized},
		"anybody pulls":                  {registry, "", Need{Pull, "public/app"}, nil},
		"anybody pulls something else":   {registry, "", Need{Pull, "team/app"}, oci.ErrUnauthorized},
		"anybody pulls from a mirror":    {mirror, "", Need{Pull, "team/app"}, oci.ErrDenied},
		"a mirror that asks":             {challenging, "", Need{Pull, "team/app"}, oci.ErrUnauthorized},
		"ann pushes to a mirror":         {mirror, "ann", Need{Push, "team/app"}, oci.ErrDenied},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "PUT", "/v2/x/manifests/v1", http.NoBody)
		if test.user != "" {
			r.SetBasicAuth(test.user, "password")
		}
		who, err := test.policy.Authorise(r, test.need)
		if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) || err == nil && who.Name != test.user {
			t.Errorf("%s: %q, %v, want %v", name, who.Name, err, test.want)
		}
	}
	for name, test := range map[string]struct {
		policy Policy
		user   string
		want   error
	}{
		"right": {registry, "ann", nil}, "wrong": {mirror, "mallory", oci.ErrUnauthorized}, "asked for": {challenging, "", nil}, "not asked for": {mirror, "", nil},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/v2/", http.NoBody)
		if test.user != "" {
			r.SetBasicAuth(test.user, "password")
		}
		if who, err := test.policy.Login(r); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) || who.Name != test.user && err == nil {
			t.Errorf("login, %s: %q, %v", name, who.Name, err)
		}
	}
}

// named is an Authenticator that takes every password.
type named struct{}

func (named) Authenticate(r *http.Request, _ []Need) (Principal, error) {
	user, _, ok := r.BasicAuth()
	if !ok {
		return Principal{}, oci.ErrUnauthorized
	}
	return Principal{Name: user}, nil
}

// Explain says about a caller what Authorise decides about the caller's request.
func TestPolicyExplains(t *testing.T) {
	rules := []Rule{
		{Users: []string{"alice"}, Repositories: []string{"team/*"}, Actions: []Action{Pull, Push}},
		{Anonymous: true, Repositories: []string{"public/*"}, Actions: []Action{Pull}},
		{Users: []string{"*"}, Repositories: []string{"*"}, Actions: []Action{Delete}},
	}
	for name, access := range map[string]*Access{"no access": nil, "no rules": {Authenticator: named{}}, "rules": {Authenticator: named{}, Rules: rules}} {
		for _, p := range []Policy{{Role: RoleMirror}, {Role: RoleRegistry}, {Role: RoleRegistry, AllowAnonymousPush: true}, {Role: RoleMirror, Challenge: true}} {
			p.Access = access
			for _, user := range []string{"", "alice", "bob"} {
				for _, need := range []Need{{Pull, "team/app"}, {Push, "team/app"}, {Delete, "team/app"}, {Pull, "public/app"}, {Push, "public/app"}} {
					for from, here := range map[string]bool{"127.0.0.1:1": true, "192.0.2.1:1": false} {
						r := httptest.NewRequestWithContext(t.Context(), "GET", "/v2/", http.NoBody)
						r.RemoteAddr = from
						if user != "" {
							r.SetBasicAuth(user, "any")
						}
						_, err := p.Authorise(r, need)
						g := p.Explain(Principal{Name: user}, need)
						if allowed := g.Allowed && (here || !g.OnlyHere); allowed != (err == nil) || g.Why == "" {
							t.Errorf("%s, %+v, user %q, %v from %s: %v, but explained as %+v", name, p, user, need, from, err, g)
						}
						if g.Rule >= 0 && !rules[g.Rule].grants(Principal{Name: user}, need) {
							t.Errorf("user %q, %v: rule %d does not grant that", user, need, g.Rule)
						}
					}
				}
			}
		}
	}
}
