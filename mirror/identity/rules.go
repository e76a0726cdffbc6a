package identity

import (
	"net/http"
	"slices"

	"dray/mirror/pattern"
)

// Action is an action that rules grant.
type Action string

// The actions, named as in the registry token specification.
const (
	Pull   Action = "pull"
	Push   Action = "push"
	Delete Action = "delete"
)

// Rule grants actions on repositories.
type Rule struct {
	// Users are exact names; "*" means every authenticated user.
	Users []string
	// Anonymous makes the rule apply to all clients, with or without credentials.
	Anonymous bool
	// Repositories are patterns for Need.Repository. "*" matches any characters, including slashes.
	Repositories []string
	Actions      []Action
}

// Access authenticates callers and grants rights to them.
type Access struct {
	Authenticator Authenticator
	// Rules grant actions. Without rules, every authenticated caller may do everything.
	Rules []Rule
	// Failed is called with each request that the Authenticator or the rules refuse, and with the
	// error. It may be nil.
	Failed func(*http.Request, error)
}

// allows reports whether the caller has a right.
func (a *Access) allows(p Principal, n Need) bool {
	return len(a.Rules) == 0 || slices.ContainsFunc(a.Rules, func(r Rule) bool { return r.grants(p, n) })
}

func (r Rule) grants(p Principal, n Need) bool {
	who := r.Anonymous || p.Name != "" && (slices.Contains(r.Users, p.Name) || slices.Contains(r.Users, "*"))
	return who && slices.Contains(r.Actions, n.Action) && pattern.Any(r.Repositories, n.Repository)
}

// anonymously reports whether rules grant all needs to anonymous callers. It reports false if there
// are no needs or no rules.
func (a *Access) anonymously(needs []Need) bool {
	return len(needs) > 0 && len(a.Rules) > 0 && !slices.ContainsFunc(needs, func(n Need) bool { return !a.allows(Principal{}, n) })
}

// open reports whether some rule allows anonymous access. Then a client without credentials must
// not be refused at the base of the API.
func (a *Access) open() bool {
	return slices.ContainsFunc(a.Rules, func(r Rule) bool { return r.Anonymous })
}
