package identity

import (
	"slices"

	"dray/mirror/pattern"
)

// Action is what a right is about.
type Action string

// The actions, named as in the registry token specification.
const (
	Pull   Action = "pull"
	Push   Action = "push"
	Delete Action = "delete"
)

// Rule grants actions on repositories.
type Rule struct {
	// Users are exact names; "*" is every recognised user.
	Users []string
	// Anonymous extends the rule to clients without credentials.
	Anonymous bool
	// Repositories are patterns of the name of a target; "*" stands for any characters,
	// slashes included.
	Repositories []string
	Actions      []Action
}

// Access recognises callers and knows their rights.
type Access struct {
	Authenticator Authenticator
	// Rules are those by which actions are allowed. Where there are none, a caller that the
	// Authenticator recognises may do everything.
	Rules []Rule
}

// allows reports whether the caller may do what is needed.
func (a *Access) allows(p Principal, n Need) bool {
	return len(a.Rules) == 0 || slices.ContainsFunc(a.Rules, func(r Rule) bool { return r.grants(p, n) })
}

func (r Rule) grants(p Principal, n Need) bool {
	who := r.Anonymous || p.Name != "" && (slices.Contains(r.Users, p.Name) || slices.Contains(r.Users, "*"))
	return who && slices.Contains(r.Actions, n.Action) && pattern.Any(r.Repositories, n.Repository)
}

// anonymously reports whether rules allow everybody what is needed.
func (a *Access) anonymously(needs []Need) bool {
	return len(needs) > 0 && len(a.Rules) > 0 && !slices.ContainsFunc(needs, func(n Need) bool { return !a.allows(Principal{}, n) })
}

// open reports whether some repositories need no credentials, so that a client
// without any must not be stopped at the base of the API.
func (a *Access) open() bool {
	return slices.ContainsFunc(a.Rules, func(r Rule) bool { return r.Anonymous })
}
