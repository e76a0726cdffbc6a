// Package routes makes the tables by which dray finds the repository for a name.
package routes

import (
	"net"
	"net/url"
	"slices"
	"strings"

	"dray/cmd/dray/config"
	"dray/mirror/admin/api"
	"dray/mirror/inventory"
	"dray/mirror/route"
	"dray/upstream/oci"
)

// Of returns the routes of a listener, in the order of its upstreams.
func Of(c config.Config, l config.Listener) *route.Table {
	r := &route.Table{}
	if u, err := url.Parse(l.ExternalURL); err == nil && u.Host != "" {
		r.Own = []string{u.Host}
	}
	for _, name := range l.Upstreams {
		if u := named(c, name); u != nil {
			r.Order = append(r.Order, route.Route{
				Upstream: u.Name, Hosts: u.Hosts, Prefixes: u.Prefixes, DefaultNamespace: u.DefaultNamespace, NoDots: u.DockerHub(),
				Allow: u.Repositories.Allow, Deny: u.Repositories.Deny,
			})
		}
	}
	for _, u := range c.Upstreams {
		if !slices.Contains(l.Upstreams, u.Name) {
			r.Others = append(r.Others, route.Route{Upstream: u.Name, Allow: u.Repositories.Allow, Deny: u.Repositories.Deny})
		}
	}
	return r
}

// Hosts returns the host names, without ports, that clients use for a listener: dray's own, and
// those of the registries of its upstreams.
func Hosts(r *route.Table) (hosts []string) {
	all := slices.Clone(r.Own)
	for _, o := range r.Order {
		all = append(all, o.Hosts...)
	}
	for _, h := range all {
		hosts = append(hosts, (&url.URL{Host: h}).Hostname())
	}
	return hosts
}

// Names parses the image names that operators write.
type Names struct{ *route.Table }

// NamesOf returns a parser of names for the upstreams of all listeners. A name without an upstream
// belongs to the first upstream of the first listener. A name may begin with any host name or
// address of dray.
func NamesOf(c config.Config) Names {
	r := &route.Table{}
	var order []string
	for _, l := range c.Listeners {
		lr := Of(c, l)
		r.Own, r.Others = append(r.Own, Own(l, lr)...), append(r.Others, lr.Others...)
		for _, route := range lr.Order {
			if !slices.Contains(order, route.Upstream) {
				order = append(order, route.Upstream)
				r.Order = append(r.Order, route)
			}
		}
	}
	return Names{r}
}

// Own returns dray's own names at a listener: the names in its routes r, and the listener's address
// if that has a host.
func Own(l config.Listener, r *route.Table) []string {
	own := slices.Clone(r.Own)
	if host, _, err := net.SplitHostPort(l.Address); err == nil && host != "" {
		own = append(own, l.Address)
	}
	return own
}

// Parse returns the image that a text names. If the text is a digest alone, Parse returns the
// digest, which stands for content in any repository. Its errors have codes of the API for
// operators.
func (n Names) Parse(text string) (inventory.Name, error) {
	if strings.HasPrefix(text, "sha256:") || strings.HasPrefix(text, "sha512:") {
		d, err := oci.ParseDigest(text)
		if err != nil {
			return inventory.Name{}, api.Errorf(api.CodeInvalid, "%s", oci.AsError(err).Message)
		}
		return inventory.Name{Reference: oci.Reference{Digest: d}}, nil
	}
	target, ref, err := n.Resolve(text)
	if err != nil {
		return inventory.Name{}, api.Errorf(api.CodeInvalid, "%s", oci.AsError(err).Message)
	}
	return inventory.Name{Upstream: target.Upstream, Repo: target.Repo, Reference: ref}, nil
}
