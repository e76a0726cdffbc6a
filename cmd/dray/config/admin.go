package config

import (
	"slices"
	"strings"
)

// LocalOnly reports whether only this machine can connect to the admin listener.
func (a Admin) LocalOnly() bool { return isLoopback(a.Address) }

// anonymous reports whether the admin listener has no way to recognise operators.
func (a Admin) anonymous() bool { return a.TokenFile == "" && (a.Auth == "" || a.Auth == noAuth) }

// validateAdmin adds the problems of the admin listener.
func (c Config) validateAdmin(k *Report) {
	a := c.Admin
	if a.Address != AdminOff {
		c.validateOwnAddress(k, "admin.address", a.Address)
		for i, h := range a.Hosts {
			if h == "" || strings.ContainsAny(h, ":/@* ") {
				k.Add(At("admin.hosts", i), "%q is not a host name; write one without a scheme and port, such as dray.example.com", h)
			}
		}
	}
	if a.HealthAddress != "" {
		c.validateOwnAddress(k, "admin.health_address", a.HealthAddress)
		if sameAddress(a.HealthAddress, a.Address) {
			k.Add("admin.health_address", "%s is already used by admin.address, where health and metrics are, too", a.HealthAddress)
		}
	}
	if a.AllowAnonymous && !a.anonymous() {
		k.Add("admin.allow_anonymous", "contradicts admin.auth and admin.token_file; remove it or them")
	}
	if a.Auth == "" || a.Auth == noAuth {
		return
	}
	i := slices.IndexFunc(c.Auth, func(e Auth) bool { return e.Name == a.Auth })
	switch {
	case i < 0:
		k.Add("admin.auth", "there is no auth entry named %q", a.Auth)
	case !slices.ContainsFunc(c.Auth[i].Rules, Rule.concernsOperators):
		k.Add("admin.auth", "no rule of auth entry %s grants view or operate, so nobody could use the admin listener; add one, such as {users: [me], actions: [operate]}", a.Auth)
	}
}

// validateOwnAddress adds the problems of an address that is not for clients, but for operators or
// for other members of a fleet.
func (c Config) validateOwnAddress(k *Report, path, address string) {
	checkAddress(k, path, address)
	for _, l := range c.Listeners {
		if sameAddress(l.Address, address) {
			k.Add(path, "%s is already used by listener %s", address, l.Name)
		}
	}
}

// concernsOperators reports whether the rule grants an action on the admin listener.
func (r Rule) concernsOperators() bool {
	return slices.ContainsFunc(r.Actions, ofOperators)
}

// adminNotices adds the notices about the admin listener.
func (c Config) adminNotices(add func(format string, args ...any)) {
	a := c.Admin
	if a.Address == AdminOff || a.LocalOnly() {
		return
	}
	if a.anonymous() && a.AllowAnonymous {
		add("admin: every client that can connect to %s can operate dray and take profiles.", a.Address)
		return
	}
	if a.anonymous() {
		add("admin: dray refuses everything but health and metrics to other machines that connect to %s. Set admin.auth or admin.token_file to operate dray from there.", a.Address)
		return
	}
	add("admin: operators send passwords and tokens to %s over plain HTTP.", a.Address)
}
