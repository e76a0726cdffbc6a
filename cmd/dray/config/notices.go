package config

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"dray/upstream/oci"
)

// LocalOnly reports whether only this machine can connect to the listener.
func (l Listener) LocalOnly() bool { return isLoopback(l.Address) }

// PushLocalOnly reports whether the listener accepts pushes from this machine only: it has no auth,
// and anonymous pushes are not allowed explicitly.
func (l Listener) PushLocalOnly() bool {
	return l.Role == RoleRegistry && l.Auth == noAuth && !l.AllowAnonymousPush
}

// Notices returns warnings about a valid configuration and the files that it names, in the order of
// the configuration. Each is a sentence or two.
func (c Config) Notices() []string {
	var notices []string
	add := func(format string, args ...any) { notices = append(notices, fmt.Sprintf(format, args...)) }
	for _, l := range c.Listeners {
		c.listenerNotices(l, add)
	}
	for _, a := range c.Auth {
		if !slices.ContainsFunc(c.Listeners, func(l Listener) bool { return l.Auth == a.Name }) {
			add("auth %s: no listener uses it; name it as auth of a listener.", a.Name)
		}
		a.usersNotice(add)
	}
	for _, u := range c.Upstreams {
		if u.TLS.InsecureSkipVerify {
			add("upstream %s: insecure_skip_verify accepts any certificate, so whoever is in between can read credentials and change what tags point to.", u.Name)
		}
		if strings.HasPrefix(u.URL, "http://") && (u.Kind == KindECR || u.Credentials.Username != "") && !isLoopback(u.dialAddress()) {
			add("upstream %s: credentials travel to %s over plain HTTP.", u.Name, u.URL)
		}
		if u.RepositoryPrefix != "" {
			name := oci.JoinRepo(u.DefaultNamespace, "alpine")
			add("upstream %s: alpine is asked for as %s there, because of repository_prefix.", u.Name, oci.JoinRepo(u.RepositoryPrefix, name))
		}
	}
	if c.Admin.Address != AdminOff && !isLoopback(c.Admin.Address) {
		add("admin: %s can be reached from other machines; whoever does sees what is pulled and pushed, can take profiles, and can empty the cache.", c.Admin.Address)
	}
	if c.CloudWatch.Region != "" && c.CloudWatch.Dimensions != DimensionsNone {
		add("cloudwatch: every %s becomes a metric that Amazon bills, up to %d at a time.", c.CloudWatch.Dimensions, c.CloudWatch.MaxSeries)
	}
	return notices
}

func (c Config) listenerNotices(l Listener, add func(format string, args ...any)) {
	if l.PushLocalOnly() && !l.LocalOnly() {
		add("listener %s: pushes from other machines are refused until auth is configured, or allow_anonymous_push is set to true.", l.Name)
	}
	if l.AllowAnonymousPush {
		add("listener %s: whoever can connect to %s may push.", l.Name, l.Address)
	}
	if l.Auth != noAuth && l.TLS.Certificate == "" && !l.LocalOnly() {
		add("listener %s: passwords and tokens of clients travel to %s over plain HTTP.", l.Name, l.Address)
	}
	l.certificateNotice(add)
	if l.Challenge && l.Role == RoleMirror {
		add("listener %s: classic Docker answers the challenge of a mirror with the user's Docker Hub password.", l.Name)
	}
	if l.LocalOnly() || !c.anonymousPull(l) {
		return
	}
	var private []string
	for _, u := range c.Upstreams {
		if slices.Contains(l.Upstreams, u.Name) && (u.Kind == KindECR || u.Credentials.Username != "") {
			private = append(private, u.Name)
		}
	}
	if len(private) > 0 {
		add("listener %s: whoever can connect to %s may pull, without a password, everything that dray's own credentials can read from %s.",
			l.Name, l.Address, strings.Join(private, ", "))
	}
}

// anonymousPull reports whether a client without credentials can pull something at l.
func (c Config) anonymousPull(l Listener) bool {
	for _, a := range c.Auth {
		if a.Name == l.Auth {
			return slices.ContainsFunc(a.Rules, func(r Rule) bool { return r.Anonymous && slices.Contains(r.Actions, "pull") })
		}
	}
	return true
}

// dialAddress returns the address that dray dials for the upstream.
func (u Upstream) dialAddress() string {
	if u.Address != "" {
		return u.Address
	}
	return u.Host()
}

// isLoopback reports whether an address, with or without a port, can be reached from this machine
// only. It takes every name but localhost for another machine's.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
