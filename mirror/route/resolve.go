package route

import (
	"net"
	"net/netip"
	"strings"

	"dray/upstream/oci"
)

// Resolve parses an image name as clients and people write it. The name may begin with the host
// name of dray, which selects no route. Next may come the host name of an upstream's registry, a
// prefix, or the name of an upstream. A name with none of these three belongs to the first route.
// If the name has neither a tag nor a digest, the tag is "latest". If the name has a digest, its
// tag is ignored. Resolve returns ErrNameUnknown if the name begins with an unknown registry, or if
// there is no route. It accepts repositories that clients may not name, so that operators can list
// and remove the content of such repositories in the cache.
func (r *Table) Resolve(name string) (Target, oci.Reference, error) {
	m, err := r.Explain(name)
	return m.Target, m.Reference, err
}

// Rule is a rule by which a [Table] selects the route of a name.
type Rule string

// The rules, in the order in which they are tried.
const (
	ByPrefix Rule = "prefix"   // the name begins with a prefix of the route
	ByHost   Rule = "host"     // the name begins with a host name of the route
	ByName   Rule = "upstream" // the name begins with the name of the upstream
	First    Rule = "first"    // nothing in the name selects a route
)

// Meaning is the target of a name, and the rule that selected it.
type Meaning struct {
	Target
	oci.Reference
	// Rule selected the route. Word is the text that the rule found in the name: a prefix, a host name
	// or the name of an upstream. It is empty for First.
	Rule Rule
	Word string
	// Refusal is the error that clients get if they name the repository; nil if they may name it.
	Refusal error
}

// Explain is Resolve, but also returns the rule that selected the route.
func (r *Table) Explain(name string) (Meaning, error) {
	repo, ref, err := splitName(name)
	if err != nil {
		return Meaning{Reference: ref}, err
	}
	if len(r.Order) == 0 {
		return Meaning{Reference: ref}, oci.ErrNameUnknown.With("no upstream is configured")
	}
	f := r.resolve(repo)
	if f.route == nil {
		host, _, _ := strings.Cut(repo, "/")
		return Meaning{Reference: ref}, oci.ErrNameUnknown.With("%q is not a name of dray or of one of its upstreams; write %s/NAME, or set external_url of the listener if this is dray's own name", host, r.Order[0].Upstream)
	}
	if err := oci.CheckRepo(f.rest); err != nil {
		return Meaning{Reference: ref}, err
	}
	m := Meaning{Target: r.target(f.route, f.rest), Reference: ref, Rule: f.rule, Word: f.word}
	m.Refusal = r.refuse(f.route, m.Target)
	return m, nil
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

// found is the route of a name, the rule that selected it, and the word that the rule found in the
// name. rest is the rest of the name: the repository at the route.
type found struct {
	route      *Route
	rest, word string
	rule       Rule
}

// resolve returns the route of a name. The route is nil if the name begins with an unknown host.
func (r *Table) resolve(name string) found {
	first, rest, deep := strings.Cut(name, "/")
	foreign := deep && (strings.ContainsAny(first, ".:") || first == "localhost")
	if foreign && (has(r.Own, first) || thisMachine(first)) {
		name, foreign = rest, false
		first, rest, deep = strings.Cut(name, "/")
	}
	if route, rest := r.afterPrefix(name); route != nil {
		return found{route, rest, strings.TrimSuffix(name, "/"+rest), ByPrefix}
	}
	if route, rest := r.afterHost(name); route != nil {
		return found{route, rest, first, ByHost}
	}
	if foreign {
		return found{r.byHost(first), rest, first, ByHost}
	}
	for i := range r.Order {
		if deep && r.Order[i].Upstream == first {
			return found{&r.Order[i], rest, first, ByName}
		}
	}
	return found{&r.Order[0], name, "", First}
}

// thisMachine reports whether a host, with or without a port, is localhost or a loopback address.
// resolve treats such a host as dray, even if an upstream's registry has the same name.
func thisMachine(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
