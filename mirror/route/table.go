package route

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"dray/mirror/pattern"
	"dray/upstream/oci"
)

// Route lists the names by which clients reach one upstream.
type Route struct {
	// Upstream is the upstream's name.
	Upstream string
	// Hosts are the registry names (host or host:port, lower case) that select the upstream, in ?ns=
	// or in the Host header. If a registry name has a dot, it also selects the upstream before or
	// after /v2/, like a prefix.
	Hosts []string
	// Prefixes are the paths, without outer slashes, that select the upstream, before or after /v2/.
	Prefixes []string
	// DefaultNamespace is added to names without a slash: "library" at Docker Hub.
	DefaultNamespace string
	// NoDots says that at this registry, as at Docker Hub, the first part of a name with a slash has
	// no dot. So a name that begins with the host of another registry cannot exist at this registry.
	NoDots bool
	// Allow has patterns of the repositories that clients may name at the upstream; empty means all of
	// them. Deny has patterns of exceptions.
	Allow, Deny []string
}

// Table selects the upstream of a request. Matching does no I/O, and depends only on the table and
// the request.
type Table struct {
	// Own are the host names under which clients reach dray itself. ?ns= with such a name has no
	// effect.
	Own []string
	// Order has the routes. The first one gets the requests in which nothing selects a route.
	Order []Route
	// Others has the upstreams that no name selects here. Clients can reach them as fallbacks.
	Others []Route
}

// Target is the result of matching a request.
type Target struct {
	Upstream string
	// Repo is the repository's name at the upstream; empty for the base of the API.
	Repo string
	// Name is the only name that rights refer to, whatever form the client used. For the listener's
	// first route, Name is Repo. For each other route, it is the route's label, a slash and Repo.
	// There is one exception: if Repo at the first route begins with the label of any route and a
	// slash, Name has the same form as for the other routes. Without this, Name would look like the
	// name of a repository at the route with that label.
	Name string
}

// Match returns the target of a request. It tries, in this order: the path before /v2/; a prefix
// after /v2/; a registry name after /v2/, unless ?ns= names another registry; ?ns=; the Host
// header; the first route. If the path before /v2/ or the registry name in ?ns= belongs to no
// route, the client means another registry. So Match returns ErrNameUnknown instead of a target at
// the first route. It also returns ErrNameUnknown if there are no routes, or if the name cannot be
// at the route. It returns ErrDenied for a repository that clients may not name at the route.
func (r *Table) Match(host string, q oci.Request) (Target, error) {
	route, repo, err := r.find(host, q)
	if err != nil {
		return Target{}, err
	}
	t := r.target(route, repo)
	if err := r.refuse(route, t); err != nil {
		return Target{}, err
	}
	return t, nil
}

// refuse returns the error for a target that clients may not name, or that cannot be at the route.
func (r *Table) refuse(route *Route, t Target) error {
	if err := route.check(t.Repo); err != nil {
		return err
	}
	if hint := r.Hint(t); hint != "" && route.NoDots {
		return oci.ErrNameUnknown.With("the upstream %s has no repository %s; %s", route.Upstream, t.Repo, hint)
	}
	return nil
}

// Hint returns advice about a repository that is missing at its upstream, or "" if what is
// before the first slash of the repository's name does not look like the host of a registry.
func (r *Table) Hint(t Target) string {
	host, rest, deep := strings.Cut(t.Repo, "/")
	switch {
	case !deep || !strings.Contains(host, "."):
		return ""
	case r.byHost(host) != nil:
		return fmt.Sprintf("for %s of %s, leave out what is before %s in the name of the image", rest, host, host)
	}
	return fmt.Sprintf("for %s of the registry %s, add %s to upstreams in the configuration of dray, and to those of the listener if it lists them", rest, host, host)
}

// find returns the route of a request, and the repository's name in the request, without a prefix
// or host. It does not add the default namespace.
func (r *Table) find(host string, q oci.Request) (*Route, string, error) {
	if len(r.Order) == 0 {
		return nil, "", oci.ErrNameUnknown.With("this listener has no upstream")
	}
	if q.Prefix != "" {
		if route := r.byPrefix(q.Prefix); route != nil {
			return route, q.Repo, nil
		}
		return nil, "", oci.ErrNameUnknown.With("no upstream of this listener has the path prefix %q; add it to prefixes of an upstream in the configuration of dray", q.Prefix)
	}
	if route, repo := r.afterPrefix(q.Repo); route != nil {
		return route, repo, nil
	}
	named := q.Namespace != "" && !has(r.Own, q.Namespace)
	if route, repo := r.afterHost(q.Repo); route != nil && (!named || route == r.byHost(q.Namespace)) {
		return route, repo, nil
	}
	if named {
		if route := r.byHost(q.Namespace); route != nil {
			return route, q.Repo, nil
		}
		return nil, "", oci.ErrNameUnknown.With("no upstream of this listener serves the registry %q; add it to upstreams in the configuration of dray, and to those of the listener if it lists them", q.Namespace)
	}
	if route := r.byHost(host); route != nil {
		return route, q.Repo, nil
	}
	return &r.Order[0], q.Repo, nil
}

// check returns ErrDenied for a repository that clients may not name. It allows the base of the
// API.
func (route *Route) check(repo string) error {
	switch {
	case repo == "":
		return nil
	case pattern.Any(route.Deny, repo):
		return oci.ErrDenied.With("dray does not serve %s of the upstream %s, because it matches repositories.deny of the upstream", repo, route.Upstream)
	case len(route.Allow) > 0 && !pattern.Any(route.Allow, repo):
		return oci.ErrDenied.With("dray does not serve %s of the upstream %s, because nothing in repositories.allow of the upstream matches it", repo, route.Upstream)
	}
	return nil
}

func (r *Table) target(route *Route, repo string) Target {
	t := Target{Upstream: route.Upstream}
	if repo == "" {
		return t
	}
	if route.DefaultNamespace != "" && !strings.Contains(repo, "/") {
		repo = route.DefaultNamespace + "/" + repo
	}
	t.Repo, t.Name = repo, repo
	if route != &r.Order[0] || r.ambiguous(repo) {
		t.Name = route.label() + "/" + repo
	}
	return t
}

// label returns the beginning of Target.Name at a route: the route's first prefix, or the
// upstream's name.
func (route *Route) label() string {
	if len(route.Prefixes) > 0 {
		return route.Prefixes[0]
	}
	return route.Upstream
}

func (r *Table) ambiguous(repo string) bool {
	return slices.ContainsFunc(r.Order, func(route Route) bool { return strings.HasPrefix(repo, route.label()+"/") })
}

// At returns the target of an upstream's repository. It reports false if no request to the listener
// can name the repository.
func (r *Table) At(upstream, repo string) (Target, bool) {
	for i := range r.Order {
		if r.Order[i].Upstream == upstream {
			t := r.target(&r.Order[i], repo)
			return t, t.Repo == repo && r.Order[i].check(repo) == nil
		}
	}
	return Target{}, false
}

// Serves reports whether clients may read a repository of an upstream, by any name or through a
// fallback.
func (r *Table) Serves(upstream, repo string) bool {
	for _, all := range [][]Route{r.Order, r.Others} {
		for i := range all {
			if all[i].Upstream == upstream {
				return all[i].check(repo) == nil
			}
		}
	}
	return false
}

// Check returns an error if the labels of two routes are equal, or if one is a leading path of the
// other. The repositories of two such routes could not be told apart by name.
func (r *Table) Check() error {
	for i := range r.Order {
		for j := range r.Order[:i] {
			a, b := r.Order[i].label()+"/", r.Order[j].label()+"/"
			if strings.HasPrefix(a, b) || strings.HasPrefix(b, a) {
				return fmt.Errorf("upstreams %q and %q: neither of their first prefixes (or names) %q and %q may begin with the other",
					r.Order[j].Upstream, r.Order[i].Upstream, r.Order[j].label(), r.Order[i].label())
			}
		}
	}
	return nil
}

// byPrefix returns the route that has p as a prefix, or else the route that has p as a host name.
func (r *Table) byPrefix(p string) *Route {
	for i := range r.Order {
		if slices.Contains(r.Order[i].Prefixes, p) {
			return &r.Order[i]
		}
	}
	if route, rest := r.afterHost(p + "/"); rest == "" {
		return route
	}
	return nil
}

// afterHost returns the route whose host name is the first part of the repository name, and the
// rest of that name. The host name must have a dot, because a name without one is more likely an
// ordinary first part.
func (r *Table) afterHost(repo string) (route *Route, rest string) {
	host, rest, deep := strings.Cut(repo, "/")
	if !deep || !strings.Contains(host, ".") {
		return nil, ""
	}
	for i := range r.Order {
		if has(r.Order[i].Hosts, host) {
			return &r.Order[i], rest
		}
	}
	return nil, ""
}

// afterPrefix returns the route with the longest prefix that the repository name begins with, and
// the rest of the name. A name that is equal to a prefix is an ordinary name, and selects no route
// by that prefix.
func (r *Table) afterPrefix(repo string) (route *Route, rest string) {
	longest := 0
	for i := range r.Order {
		for _, p := range r.Order[i].Prefixes {
			if strings.HasPrefix(repo, p+"/") && len(p) > longest {
				route, longest = &r.Order[i], len(p)
				rest = repo[len(p)+1:]
			}
		}
	}
	return route, rest
}

// byHost finds a route by registry name, first with the port and then without it. If no route has
// the name, byHost returns nil.
func (r *Table) byHost(host string) *Route {
	host = strings.ToLower(host)
	bare := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		bare = h
	}
	for _, name := range []string{host, bare} {
		for i := range r.Order {
			if has(r.Order[i].Hosts, name) {
				return &r.Order[i]
			}
		}
	}
	return nil
}

func has(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}
