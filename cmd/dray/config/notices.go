package config

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"dray/upstream/ecr/host"
	"dray/upstream/oci"
)

// LocalOnly reports whether only this machine can connect to the listener.
func (l Listener) LocalOnly() bool { return isLoopback(l.Address) }

// PushLocalOnly reports whether the listener accepts pushes, but only from this machine. This is
// the case with role registry, without auth, and without allow_anonymous_push.
func (l Listener) PushLocalOnly() bool {
	return l.Role == RoleRegistry && l.Auth == noAuth && !l.AllowAnonymousPush
}

// Notices returns warnings about a valid configuration and the files that it names. Each warning
// has one to three sentences.
func (c Config) Notices() []string {
	var notices []string
	add := func(format string, args ...any) { notices = append(notices, fmt.Sprintf(format, args...)) }
	for _, l := range c.Listeners {
		c.listenerNotices(l, add)
	}
	for _, a := range c.Auth {
		if a.Name != c.Admin.Auth && !slices.ContainsFunc(c.Listeners, func(l Listener) bool { return l.Auth == a.Name }) {
			add("auth %s: no listener uses this entry; set auth: %[1]s for a listener, or in admin.", a.Name)
		}
		a.usersNotice(add)
	}
	for _, u := range c.Upstreams {
		if u.Kind == KindECRPublic && !u.Push && !u.UsesAWS() && slices.ContainsFunc(c.Listeners, func(l Listener) bool { return l.Upstreams[0] == u.Name }) {
			add("upstream %s: dray pulls from ECR Public without credentials, one manifest per second, and accepts no pushes for it. "+
				"To push, list the upstream in the configuration file with push: true and credentials: {aws: true}. dray then needs AWS credentials that are valid in us-east-1.", u.Name)
		}
		if u.TLS.InsecureSkipVerify {
			add("upstream %s: insecure_skip_verify accepts any certificate. An attacker on the network can read credentials and change images.", u.Name)
		}
		if strings.HasPrefix(u.URL, "http://") && (u.UsesAWS() || u.Credentials.Username != "") && !isLoopback(u.dialAddress()) {
			add("upstream %s: dray sends credentials to %s over plain HTTP.", u.Name, u.URL)
		}
		if name, err := host.Parse(u.RegistryHost()); u.Kind == KindECR && err == nil {
			regionNotice("upstream "+u.Name, name.Region, add)
		}
		if u.RepositoryPrefix != "" {
			name := oci.JoinRepo(u.DefaultNamespace, "alpine")
			add("upstream %s: because of repository_prefix, dray requests alpine as %s.", u.Name, oci.JoinRepo(u.RepositoryPrefix, name))
		}
	}
	for _, f := range c.CertificateFiles() {
		if err := f.Check(time.Now()); err != nil {
			add("%v.", err)
		}
	}
	if c.Metadata.URL != "" && !c.Fleet.On(c.Metadata) && slices.ContainsFunc(c.Listeners, func(l Listener) bool { return l.Role == RoleRegistry }) {
		add("metadata: mirrors that share facts do not share uploads. Set fleet, or let a load balancer send all requests of a client to the same mirror.")
	}
	c.fleetNotices(add)
	c.adminNotices(add)
	if os.Geteuid() != 0 {
		c.execNotices(add)
	}
	if c.Bucket.Endpoint == "" {
		regionNotice("bucket", c.Bucket.Region, add)
	}
	regionNotice("cloudwatch", c.CloudWatch.Region, add)
	if c.CloudWatch.Region != "" && c.CloudWatch.Dimensions != DimensionsNone {
		add("cloudwatch: dray publishes a metric for each %s, up to %d at a time, and Amazon charges for each.", c.CloudWatch.Dimensions, c.CloudWatch.MaxSeries)
	}
	return notices
}

// regionNotice adds a notice if the parameter region names an AWS region that dray does not know.
// It adds no notice if the parameter is empty.
func regionNotice(where, region string, add func(format string, args ...any)) {
	known := map[string]bool{}
	for _, r := range host.Regions() {
		known[r] = true
	}
	if region != "" && !known[region] {
		add("%s: this version of dray does not know the AWS region %s%s", where, region, cmp.Or(suggestion(region, known), ". Look whether it exists."))
	}
}

// execNotices adds a notice for each program that the checks run. Notices calls it only if dray
// does not run as root, because each program then runs as the user of dray.
func (c Config) execNotices(add func(format string, args ...any)) {
	for _, checks := range c.Checks {
		for _, e := range checks.Exec {
			if e.Mode.On() {
				add("checks %s: dray does not run as root, so %s runs as the user of dray. It sees none of dray's variables, but it can read dray's files, such as keys and passwords, and kill dray.", checks.Name, e.Command[0])
			}
		}
	}
}

func (c Config) listenerNotices(l Listener, add func(format string, args ...any)) {
	if l.PushLocalOnly() && !l.LocalOnly() {
		add("listener %s: dray refuses pushes from other machines until you configure auth or set allow_anonymous_push: true.", l.Name)
	}
	if l.AllowAnonymousPush {
		add("listener %s: every client that can connect to %s can push.", l.Name, l.Address)
	}
	if l.Auth != noAuth && l.TLS.Certificate == "" && !l.LocalOnly() {
		add("listener %s: clients send passwords and tokens to %s over plain HTTP.", l.Name, l.Address)
	}
	if i := slices.IndexFunc(l.TrustedProxies, func(n Network) bool { return n.Bits() == 0 }); i >= 0 {
		add("listener %s: trusted_proxies has %s, so every client can choose the address that limits and logs see.", l.Name, l.TrustedProxies[i])
	}
	l.certificateNotice(add)
	if l.Challenge && l.Role == RoleMirror {
		add("listener %s: with challenge: true, Docker without the containerd image store sends the user's Docker Hub password to this mirror.", l.Name)
	}
	if l.Auth != noAuth && l.Role == RoleMirror && !l.Challenge && !c.anonymousPull(l) {
		add("listener %s: it has auth, but a mirror asks no client for its password, so Docker sends none after docker login. Set challenge: true if clients log in here, or give the mirror a listener without auth.", l.Name)
	}
	if l.LocalOnly() || !c.anonymousPull(l) {
		return
	}
	var private []string
	for _, u := range c.Upstreams {
		served := slices.ContainsFunc(c.Upstreams, func(n Upstream) bool {
			return slices.Contains(l.Upstreams, n.Name) && (n.Name == u.Name || fallsBack(n.Fallbacks, u.Name))
		})
		if served && (u.UsesAWS() || u.Credentials.Username != "") {
			private = append(private, u.Name)
		}
	}
	if len(private) > 0 {
		add("listener %s: every client that can connect to %s can pull, without a password, all images that dray's credentials can read from %s.",
			l.Name, l.Address, strings.Join(private, ", "))
	}
}

// anonymousPull reports whether a client without credentials can pull something through the
// listener.
func (c Config) anonymousPull(l Listener) bool {
	for _, a := range c.Auth {
		if a.Name == l.Auth {
			return slices.ContainsFunc(a.Rules, func(r Rule) bool { return r.Anonymous && slices.Contains(r.Actions, "pull") })
		}
	}
	return true
}

func (u Upstream) dialAddress() string {
	if u.Address != "" {
		return u.Address
	}
	return u.RegistryHost()
}
