package route

import (
	"net"
	"net/netip"
	"strings"

	"dray/upstream/oci"
)

// Resolve parses an image name as clients and people write it. The name may begin with the host
// name of dray or of an upstream's registry, with a prefix, or with the name of an upstream. A name
// with none of these belongs to the first route. If the name has neither a tag nor a digest, the
// tag is "latest". If the name has a digest, its tag is ignored. Resolve returns ErrNameUnknown for
// a registry that is neither dray nor an upstream, and if there is no route. It accepts
// repositories that clients may not name, so that operators can list and remove what the cache has
// of them.
func (r *Table) Resolve(name string) (Target, oci.Reference, error) {
	repo, ref, err := splitName(name)
	if err != nil {
		return Target{}, ref, err
	}
	if len(r.Order) == 0 {
		return Target{}, ref, oci.ErrNameUnknown.With("no upstream is configured")
	}
	route, rest := r.resolve(repo)
	if route == nil {
		host, _, _ := strings.Cut(repo, "/")
		return Target{}, ref, oci.ErrNameUnknown.With("%q is not a name of dray or of one of its upstreams; write %s/NAME, or set external_url of the listener if this is dray's own name", host, r.Order[0].Upstream)
	}
	if err := oci.CheckRepo(rest); err != nil {
		return Target{}, ref, err
	}
	return r.target(route, rest), ref, nil
}

// splitName splits a name into the repository, and the tag or digest.
func splitName(name string) (repo string, ref oci.Reference, err error) {
	repo, digest, byDigest := strings.Cut(name, "@")
	tag := "latest"
	if i := strings.LastIndexByte(repo, ':'); i > strings.LastIndexByte(repo, '/') {
		repo, tag = repo[:i], repo[i+1:]
	}
	if byDigest {
		ref.Digest, err = oci.ParseDigest(digest)
		return repo, ref, err
	}
	if ref, err = oci.ParseReference(tag); err == nil && ref.ByDigest() {
		err = oci.ErrTagInvalid.With("invalid tag %q", tag)
	}
	return repo, ref, err
}

// resolve returns the route of a name, and the rest of the name, which is the repository at that
// route. The route is nil if the name begins with an unknown host.
func (r *Table) resolve(name string) (*Route, string) {
	first, rest, deep := strings.Cut(name, "/")
	foreign := deep && (strings.ContainsAny(first, ".:") || first == "localhost")
	if foreign && (has(r.Own, first) || thisMachine(first)) {
		name, foreign = rest, false
		first, rest, deep = strings.Cut(name, "/")
	}
	if route, rest := r.afterPrefix(name); route != nil {
		return route, rest
	}
	if route, rest := r.afterHost(name); route != nil {
		return route, rest
	}
	if foreign {
		return r.byHost(first), rest
	}
	for i := range r.Order {
		if deep && r.Order[i].Upstream == first {
			return &r.Order[i], rest
		}
	}
	return &r.Order[0], name
}

// thisMachine reports whether a host, with or without a port, is localhost or a loopback address.
// resolve takes such a host for dray, even if an upstream's registry has the same name.
func thisMachine(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
