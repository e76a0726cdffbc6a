// Package clients builds the parts that recognise clients, operators, and the proxies between them
// and dray, as the configuration says.
package clients

import (
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"dray/cmd/dray/config"
	"dray/cmd/dray/watched"
	"dray/mirror/identity"
	"dray/mirror/proxied"
)

// Entries are the entries of auth in the configuration. They are immutable: [Entries.With] makes
// new ones.
type Entries struct {
	entries  map[string]entry
	failures *identity.Failures
}

type entry struct {
	config.Auth
	access *identity.Access
}

// New makes the entries. An error names the entry.
func New(auth []config.Auth, log *slog.Logger) (Entries, error) {
	return Entries{failures: identity.NewFailures()}.With(auth, log)
}

// With makes new entries that share the metrics and, where possible, the authenticators of e. A
// shared authenticator keeps the passwords that it has verified.
func (e Entries) With(auth []config.Auth, log *slog.Logger) (Entries, error) {
	next := Entries{entries: map[string]entry{}, failures: e.failures}
	for _, a := range auth {
		authenticator, err := e.authenticator(a, log)
		if err != nil {
			return Entries{}, fmt.Errorf("auth %s: %w", a.Name, err)
		}
		next.entries[a.Name] = entry{a, &identity.Access{Authenticator: authenticator, Rules: rulesOf(a.Rules), Failed: e.failures.Of(a.Name)}}
	}
	return next, nil
}

// authenticator returns the authenticator for an entry. If e has an entry with the same name and
// the same settings htpasswd and token, it returns the authenticator of that entry.
func (e Entries) authenticator(a config.Auth, log *slog.Logger) (identity.Authenticator, error) {
	if former, ok := e.entries[a.Name]; ok && former.HTPasswd == a.HTPasswd && former.Token == a.Token {
		return former.access.Authenticator, nil
	}
	if a.HTPasswd.File != "" {
		return identity.NewHTPasswd(a.HTPasswd.File, a.HTPasswd.Realm, log)
	}
	return identity.NewToken(identity.TokenOptions{
		Realm: a.Token.Realm, Service: a.Token.Service, Issuer: a.Token.Issuer, RootCertBundle: a.Token.RootCertBundle, JWKS: a.Token.JWKS,
	}, log)
}

// Collectors returns the metrics of the entries.
func (e Entries) Collectors() []prometheus.Collector { return e.failures.Collectors() }

// Of returns the access of the entry with the given name, or nil if there is no such entry.
func (e Entries) Of(name string) *identity.Access { return e.entries[name].access }

func rulesOf(configured []config.Rule) []identity.Rule {
	rules := make([]identity.Rule, len(configured))
	for i, r := range configured {
		rules[i] = identity.Rule{Users: r.Users, Anonymous: r.Anonymous, Repositories: r.Repositories}
		for _, action := range r.Actions {
			rules[i].Actions = append(rules[i].Actions, identity.Action(action))
		}
	}
	return rules
}

// Operators returns the rules by which the admin listener recognises operators.
func Operators(a config.Admin, entries Entries, log *slog.Logger) (identity.Operators, error) {
	o := identity.Operators{Access: entries.Of(a.Auth), LocalOnly: !a.LocalOnly() && !a.AllowAnonymous}
	if a.TokenFile != "" {
		token, err := watched.Watching(log).Secret(a.TokenFile, "")
		if err != nil {
			return o, fmt.Errorf("admin.token_file: %w", err)
		}
		o.Token = func() string { return token().Reveal() }
	}
	return o, nil
}

// Trust returns the settings that say from which proxies a listener accepts addresses of clients.
func Trust(l config.Listener, limits config.Limits, log *slog.Logger) proxied.Options {
	o := proxied.Options{
		Listener: l.Name, Protocol: l.ProxyProtocol, Header: string(l.ForwardedHeader),
		HeaderTimeout: limits.ReadHeaderTimeout.Std(), Logger: log,
	}
	for _, n := range l.TrustedProxies {
		o.Proxies = append(o.Proxies, n.Prefix)
	}
	return o
}
